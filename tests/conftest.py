"""Settings for hypothesis, and the rule that unit and property tests open no socket."""

import os
import signal
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

IN_CI = bool(os.environ.get("CI"))
settings.register_profile(
    "ci", max_examples=50, deadline=None, derandomize=IN_CI, print_blob=True
)
# By hand: HYPOTHESIS_PROFILE=long pytest --timeout=0 tests/property
settings.register_profile("long", max_examples=1_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# A background job of a shell ignores it; so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
WITHOUT_SOCKETS = (TESTS / "unit", TESTS / "property")


def _refuse(*args: object, **kwargs: object) -> Any:
    raise AssertionError("a unit or property test opened a socket")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if not any(folder in item.path.parents for folder in WITHOUT_SOCKETS):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("bind", "connect", "connect_ex"):
            patch.setattr(socket.socket, name, _refuse)
        return (yield)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's project and package, made once."""
    from sleap_rtc_plugin.session.demo_project import make_demo_package

    folder = tmp_path_factory.mktemp("demo")
    make_demo_package(folder)
    return folder

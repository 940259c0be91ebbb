"""SLEAP's real windows without a display and without the user's own settings.

SLEAP reads its preferences when it is imported and chooses how to draw by whether an
application runs by then. So both are in place while these tests are collected, and
the settings are the user's own again as soon as another test's turn comes.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

# Read when Qt and SLEAP are imported; harmless to all other tests.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["SLEAP_SKIP_QT_FIX"] = "1"

HERE: Final = Path(__file__).parent
SHARED_DATA: Final = Path(__file__).parents[3] / "shared" / "data"
# What SLEAP and its libraries warn of themselves; ours are errors like everywhere.
SLEAP_WARNINGS: Final = (
    # SLEAP calls jsonpickle in a way that its next version will change.
    "ignore:keys will default to True:DeprecationWarning",
)
_KEPT: Final[list[object]] = []


@contextmanager
def _own_home(home: Path) -> Iterator[None]:
    """Point everything that asks for the user's folders or keyring elsewhere."""
    places = {
        "HOME": home,
        "USERPROFILE": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_DATA_HOME": home / ".local" / "share",
        "XDG_STATE_HOME": home / ".local" / "state",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, place in places.items():
            patch.setenv(name, str(place))
        patch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
        yield


def _home(config: pytest.Config) -> Path:
    home: Path | None = getattr(config, "gui_home", None)
    if home is None:
        home = config._tmp_path_factory.mktemp("home")  # type: ignore[attr-defined]
        config.gui_home = home  # type: ignore[attr-defined]
    return home


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, Any, Any]:
    if collector.path != HERE and HERE not in collector.path.parents:
        return (yield)
    from qtpy.QtWidgets import QApplication

    with _own_home(_home(collector.config)):
        if QApplication.instance() is None:
            _KEPT.append(QApplication(["sleap-remote-tests"]))
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if HERE not in item.path.parents:
        return (yield)
    with _own_home(_home(item.config)):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            for warning in SLEAP_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings, projects and packages."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"there are no real projects in {SHARED_DATA}")
    return SHARED_DATA

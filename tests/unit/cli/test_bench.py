"""`sleap-remote bench`: what it refuses, without running anything."""

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec

import pytest
from click.testing import CliRunner, Result

from sleap_rtc_plugin.cli import bench as command
from sleap_rtc_plugin.cli.main import group

USAGE = 2


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["bench", *arguments])


@pytest.fixture
def lacks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a module seem not to be installed."""
    found = importlib.util.find_spec

    def lack(module: str) -> None:
        def find(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name == module else found(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find)

    return lack


@pytest.mark.parametrize("missing", ["sleap", "qasync", "sleap_nn", "starlette"])
def test_gui_says_what_to_install(lacks: Callable[[str], None], missing: str) -> None:
    lacks(missing)
    result = run("gui")
    assert result.exit_code == USAGE
    assert "sleap-rtc-plugin[gui,worker,signaling]" in result.stderr
    assert result.stdout == ""


def test_transfer_needs_no_sleap(lacks: Callable[[str], None]) -> None:
    lacks("starlette")
    result = run("transfer")
    assert result.exit_code == USAGE
    assert "sleap-rtc-plugin[worker,signaling]" in result.stderr


def test_gui_refuses_a_sleap_that_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("sleap")
    pytest.importorskip("qtpy")
    monkeypatch.setattr(command, "version", lambda name: "1.4.1")
    result = run("gui")
    assert result.exit_code == USAGE
    assert "SLEAP 1.4.1" in result.stderr


def test_gui_wants_a_package_that_takes_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("sleap")
    pytest.importorskip("qtpy")
    bench_gui = pytest.importorskip("sleap_rtc_plugin.bench.gui")

    async def sent_at_once(size_bytes: int, *rest: object) -> None:
        raise bench_gui.SentTooSoon(size_bytes)

    monkeypatch.setattr(bench_gui, "bench_gui", sent_at_once)
    result = run("gui", "--size-mib", "3")
    assert result.exit_code == USAGE
    assert "A package of 3 MiB" in result.stderr
    assert "--size-mib" in result.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ("gui", "--rounds", "0"),
        ("gui", "--seconds", "0"),
        ("dedupe", "--frames", "0"),
        ("dedupe", "--added", "0"),
        ("dedupe", "--side-px", "8"),
        ("dedupe", "--runs", "0"),
    ],
    ids=" ".join,
)
def test_sizes_have_limits(wrong: tuple[str, ...]) -> None:
    assert run(*wrong).exit_code == USAGE

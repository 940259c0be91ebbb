"""`sleap-remote bench`: what it refuses, without running anything."""

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sleap_rtc_plugin.bench.figures import BenchResult
from sleap_rtc_plugin.cli import bench as command
from sleap_rtc_plugin.cli.bench_tables import print_result
from sleap_rtc_plugin.cli.main import group

USAGE = 2
Row = dict[str, Any]


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


# -- paths -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--paths", "loopback,80"), "write loopback"),
        (("--paths", "20ms@900"), "to 500 Mbit/s"),
        (("--paths", "20ms", "--seconds", "0"), "0.5<=x<=300"),
        (("--paths", "20ms", "--plot", "speeds.jpg"), ".png or .svg"),
        (("--paths", "20ms", "--plot", "no/such/folder.png"), "there is no folder"),
        (("--plot", "speeds.png"), "add --paths"),
    ],
    ids=" ".join,
)
def test_paths_that_are_refused(arguments: tuple[str, ...], hint: str) -> None:
    result = run("transfer", *arguments)
    assert result.exit_code == USAGE
    assert hint in " ".join(result.stderr.split())


def test_paths_need_no_worker(
    lacks: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = pytest.importorskip("sleap_rtc_plugin.bench.paths")
    plans = []

    async def bench_paths(plan: object, say: object) -> BenchResult:
        plans.append(plan)
        return RESULT

    monkeypatch.setattr(paths, "bench_paths", bench_paths)
    lacks("sleap_nn")
    result = run("transfer", "--paths", "20ms, loopback,20ms", "--runs", "2")
    assert result.exit_code == 0
    [plan] = plans
    assert [spec.name for spec in plan.specs] == ["20ms", "loopback"]
    assert (plan.runs, plan.seconds, plan.with_fairness) == (2, 10.0, False)
    lacks("psutil")
    assert run("transfer", "--fairness").exit_code == USAGE


def row(case: str, engine: str, ran: str = "fast", **figures: float | None) -> Row:
    both = {"mb_per_s": 13.44, "path_lost_percent": None, **figures}
    return {
        **{"case": case, "engine": engine, "ran": ran, "runs": 3, "failed_runs": 0},
        **both,
    }


RESULT = BenchResult(
    bench="transfer",
    machine={"cores": 2},
    rows=[
        row("loopback", "stock", ran="aiortc"),
        row("loopback", "fast+rate", mb_per_s=1234.5),
        row("80ms-0.5%", "fast", ran="aiortc", path_lost_percent=0.512),
        row("80ms-0.5%", "TCP+TLS", ran="TCP+TLS", mb_per_s=None),
    ],
    ratios={"loopback, speed, fast / stock": 9.8765},
)


def test_every_path_has_a_table_of_engines(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(RESULT, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["loopback,", "3", "runs"],
        ["MB/s"],
        ["stock", "13.4"],
        ["fast+rate", "1234"],
        [],
        ["80ms-0.5%,", "3", "runs"],
        ["lost"],
        ["MB/s", "%"],
        ["fast,", "aiortc", "ran", "13.4", "0.512"],
        ["TCP+TLS", "-", "-"],
        [],
        ["loopback,", "speed,", "fast", "/", "stock:", "9.877"],
        ["cores:", "2"],
    ]

"""`sleap-remote bench`: measure this machine with real programs.

Figures go to a table, or to one JSON line; what is going on goes to stderr.
"""

import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sleap_rtc_plugin.cli.options import run_async, set_up_logging, verbose_option
from sleap_rtc_plugin.protocol.errors import EXIT_USAGE

if TYPE_CHECKING:
    from rich.table import Table

    from sleap_rtc_plugin.bench.figures import BenchResult

__all__ = ["bench"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_NEEDED = ("psutil", "starlette", "zmq", "sleap_nn")
_MISSING = (
    "A benchmark runs a worker here, which is not installed; install it with "
    "`pip install 'sleap-rtc-plugin[worker,signaling]'`."
)
_MISSING_GUI = (
    "This benchmark runs SLEAP's GUI and a worker here, which are not both installed; "
    "install them with `pip install 'sleap-rtc-plugin[gui,worker,signaling]'`."
)


def _size_option(default_mib: int) -> Decorator:
    """Add `--size-mib`, how much is sent."""
    return click.option(
        "--size-mib",
        type=click.IntRange(1, 100_000),
        default=default_mib,
        show_default=True,
        help="Size of the package, in MiB.",
    )


def _often_option(name: str, default: int, description: str) -> Decorator:
    """Add an option that says how often to measure."""
    return click.option(
        name,
        type=click.IntRange(1, 100),
        default=default,
        show_default=True,
        help=f"{description}; figures are medians.",
    )


_json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON line."
)


@click.group()
def bench() -> None:
    """Measure this machine."""


@bench.command()
@_size_option(256)
@_often_option("--runs", 5, "How often each case has its turn")
@click.option(
    "--case",
    "cases",
    type=click.Choice(["large", "small", "package"]),
    multiple=True,
    help="Only this case: a large file, many small ones, or a package through the "
    "real programs. May be repeated.",
)
@_json_option
@verbose_option
def transfer(
    size_mib: int, runs: int, cases: tuple[str, ...], as_json: bool, verbose: bool
) -> None:
    """Send files, beside the plain loop: speed, CPU, memory, latency of a stop."""
    set_up_logging(verbose)
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        _refuse(_MISSING)
    from sleap_rtc_plugin.bench.transfer import CASES, bench_transfer
    from sleap_rtc_plugin.protocol.limits import MIB

    chosen = [case for case in CASES if not cases or case in cases]
    measuring = bench_transfer(size_mib * MIB, runs, _say, chosen)
    _print(run_async(measuring, verbose=verbose), as_json=as_json)


@bench.command()
@_size_option(500)
@_often_option("--rounds", 5, "How often each case has its turn")
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 300),
    default=10.0,
    show_default=True,
    help="How long to measure at most, while the package is being sent.",
)
@_json_option
@verbose_option
def gui(
    size_mib: int, rounds: int, seconds: float, as_json: bool, verbose: bool
) -> None:
    """Send a package beside SLEAP's training monitor: how late its timers are."""
    set_up_logging(verbose)
    needed = ("sleap", "qasync", "qtpy", *_NEEDED)
    if any(importlib.util.find_spec(name) is None for name in needed):
        _refuse(_MISSING_GUI)
    from sleap_rtc_plugin.gui.event_loop import refuse_bad_pair
    from sleap_rtc_plugin.gui.sleap_compat import unsupported_reason

    reason = refuse_bad_pair() or unsupported_reason(version("sleap"))
    if reason is not None:
        _refuse(reason)
    from sleap_rtc_plugin.bench.gui import SentTooSoon, bench_gui
    from sleap_rtc_plugin.protocol.limits import MIB

    measuring = bench_gui(size_mib * MIB, rounds, seconds, _say)
    try:
        result = run_async(measuring, verbose=verbose)
    except SentTooSoon as error:
        _refuse(str(error))
    _print(result, as_json=as_json)


@bench.command()
@click.option(
    "--frames",
    type=click.IntRange(1, 10_000),
    default=300,
    show_default=True,
    help="Labeled frames of the first package.",
)
@click.option(
    "--added",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Frames that are labeled later, here and there between the others.",
)
@click.option(
    "--side-px",
    type=click.IntRange(16, 8192),
    default=1024,
    show_default=True,
    help="Side of the square frames, in pixels.",
)
@_often_option("--runs", 5, "How often planning is measured")
@_json_option
@verbose_option
def dedupe(
    frames: int, added: int, side_px: int, runs: int, as_json: bool, verbose: bool
) -> None:
    """Compare packages: how much of the next one a worker lacks that has the first."""
    set_up_logging(verbose)
    from sleap_rtc_plugin.bench.dedupe import PackagePlan, bench_dedupe

    plan = PackagePlan(frame_count=frames, added_count=added, side_px=side_px)
    _print(bench_dedupe(plan, runs, _say), as_json=as_json)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _refuse(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(EXIT_USAGE)


def _print(result: "BenchResult", *, as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(result).decode())
        return
    from rich.console import Console

    console = Console()
    # Rows of the same figures stand together.
    for names, rows in itertools.groupby(result.rows, key=tuple):
        figures = [name for name in names if name not in ("case", "engine")]
        console.print(_table(figures, list(rows)))
    ratios = {name: f"{ratio:.4g}" for name, ratio in result.ratios.items()}
    for named in (ratios, result.machine):
        if named:
            console.print(", ".join(f"{k}: {v}" for k, v in named.items()))


def _table(figures: Sequence[str], rows: Sequence[dict[str, Any]]) -> "Table":
    """Return a table with the fewer of both, rows or figures, side by side."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    names = [f"{row['case']}, {row['engine']}" for row in rows]
    cells = [
        ["-" if row[figure] is None else str(row[figure]) for figure in figures]
        for row in rows
    ]
    if len(rows) > len(figures):
        first, columns, lines = "Case", figures, zip(names, cells, strict=True)
    else:
        turned = map(list, zip(*cells, strict=True))
        first, columns, lines = "Figure", names, zip(figures, turned, strict=True)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in lines:
        table.add_row(name, *values)
    return table

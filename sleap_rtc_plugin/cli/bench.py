"""`sleap-remote bench`: measure this machine with real programs.

Figures go to a table, or to one JSON line; what is going on goes to stderr.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from sleap_rtc_plugin.cli.bench_tables import print_result
from sleap_rtc_plugin.cli.options import run_async, set_up_logging, verbose_option
from sleap_rtc_plugin.protocol.errors import EXIT_USAGE

if TYPE_CHECKING:
    from sleap_rtc_plugin.bench.path_spec import PathSpec

__all__ = ["bench"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_NEEDED: Final = ("psutil", "starlette", "zmq", "sleap_nn")
_NEEDED_FOR_SIGNALING: Final = ("psutil", "starlette")
_NEEDED_ON_PATHS: Final = ("psutil",)
_SIZE_MIB: Final = 256
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


def _read_paths(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> "tuple[PathSpec, ...]":
    """Read the names of paths, each once."""
    from sleap_rtc_plugin.bench.path_spec import parse_path

    try:
        specs = [parse_path(name) for name in text.split(",")] if text else []
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return tuple(dict.fromkeys(specs))


def _read_plot(
    context: click.Context, parameter: click.Parameter, file: Path | None
) -> Path | None:
    from sleap_rtc_plugin.bench.path_plot import SUFFIXES

    if file is None:
        return None
    if file.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"{file.name} has to end in .png or .svg.")
    if not file.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {file.absolute().parent}.")
    return file


@bench.command()
@click.option(
    "--size-mib",
    type=click.IntRange(1, 100_000),
    help="Size of the large file and the package, in MiB.  [default: 256]  On paths, "
    "what a turn sends at most.  [default: as much as fits in its time]",
)
@_often_option("--runs", 5, "How often each case has its turn")
@click.option(
    "--case",
    "cases",
    type=click.Choice(["large", "small", "package"]),
    multiple=True,
    help="Only this case: a large file, many small ones, or a package through the "
    "real programs. May be repeated.",
)
@click.option(
    "--paths",
    "specs",
    metavar="PATH,...",
    callback=_read_paths,
    help="Messages from memory on these paths, in place of the cases: loopback, or "
    "emulated ones, RTTms[-LOSS%][@MBIT], such as 20ms, 80ms-0.5% or 20ms-2%@100 "
    "(400 Mbit/s otherwise).",
)
@click.option(
    "--fairness",
    is_flag=True,
    help="Share emulated bottlenecks with TCP, in place of the cases.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 300),
    default=10.0,
    show_default=True,
    help="How long a turn on a path takes.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_read_plot,
    metavar="FILE",
    help="Draw the speeds on all paths, as PNG or SVG.",
)
@_json_option
@verbose_option
def transfer(
    size_mib: int | None,
    runs: int,
    cases: tuple[str, ...],
    specs: "tuple[PathSpec, ...]",
    fairness: bool,
    seconds: float,
    plot: Path | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Send files, beside the plain loop: speed, CPU, memory, latency of a stop.

    With --paths, compare data channels of aiortc with ours and with TCP and TLS, on
    this machine's loopback and on emulated wide-area paths. Give --case too to
    measure both.
    """
    set_up_logging(verbose)
    with_paths = bool(specs) or fairness
    with_cases = bool(cases) or not with_paths
    needed = _NEEDED if with_cases else _NEEDED_ON_PATHS
    if any(importlib.util.find_spec(name) is None for name in needed):
        _refuse(_MISSING)
    if plot is not None:
        if not specs:
            _refuse("There is nothing to draw without paths; add --paths.")
        if importlib.util.find_spec("matplotlib") is None:
            _refuse("Drawing needs matplotlib; install it, or leave --plot out.")
    from sleap_rtc_plugin.bench.figures import joined
    from sleap_rtc_plugin.protocol.limits import MIB

    results = []
    if with_cases:
        from sleap_rtc_plugin.bench.transfer import CASES, bench_transfer

        chosen = [case for case in CASES if not cases or case in cases]
        size_bytes = (size_mib or _SIZE_MIB) * MIB
        measuring = bench_transfer(size_bytes, runs, _say, chosen)
        results.append(run_async(measuring, verbose=verbose))
    if with_paths:
        from sleap_rtc_plugin.bench.paths import PathsPlan, bench_paths

        most_bytes = size_mib * MIB if size_mib else sys.maxsize
        plan = PathsPlan(specs, fairness, runs, seconds, most_bytes)
        results.append(run_async(bench_paths(plan, _say), verbose=verbose))
    result = joined(results)
    print_result(result, as_json=as_json)
    if plot is not None:
        from sleap_rtc_plugin.bench.path_plot import draw_paths

        try:
            if draw_paths(result.rows, plot):
                _say(f"The picture is in {plot}.")
        except OSError as error:
            _refuse(f"{plot} cannot be written: {error.strerror}; choose another file.")


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
    print_result(result, as_json=as_json)


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
    print_result(bench_dedupe(plan, runs, _say), as_json=as_json)


@bench.command()
@click.option(
    "--case",
    "cases",
    type=click.Choice(["idle", "relay", "latency"]),
    multiple=True,
    help="Only this case. May be repeated.",
)
@click.option(
    "--sockets",
    type=click.IntRange(1, 50_000),
    default=5_000,
    show_default=True,
    help="How many connections stay open.",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 1_000),
    default=16,
    show_default=True,
    help="How many pairs of peers talk.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 128),
    default=8,
    show_default=True,
    help="How many messages of one peer are on their way.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 300),
    default=5.0,
    show_default=True,
    help="How long a turn takes.",
)
@_often_option("--runs", 3, "How often each case has its turn")
@_json_option
@verbose_option
def signaling(
    cases: tuple[str, ...],
    sockets: int,
    pairs: int,
    window: int,
    seconds: float,
    runs: int,
    as_json: bool,
    verbose: bool,
) -> None:
    """Load a signaling server, beside a bare relay: memory, messages, latency."""
    set_up_logging(verbose)
    if any(importlib.util.find_spec(name) is None for name in _NEEDED_FOR_SIGNALING):
        _refuse(_MISSING)
    from sleap_rtc_plugin.bench.signaling import CASES, SignalingPlan, bench_signaling

    plan = SignalingPlan(
        cases=[case for case in CASES if not cases or case in cases],
        sockets=sockets,
        pairs=pairs,
        window=window,
        seconds=seconds,
        runs=runs,
    )
    result = run_async(bench_signaling(plan, _say), verbose=verbose)
    print_result(result, as_json=as_json)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _refuse(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(EXIT_USAGE)

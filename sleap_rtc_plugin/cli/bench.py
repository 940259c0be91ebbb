"""`sleap-remote bench`: measure this machine with real programs.

Figures go to a table, or to one JSON line; what is going on goes to stderr.
"""

import importlib.util
import sys
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.cli.options import run_async, set_up_logging, verbose_option
from sleap_rtc_plugin.protocol.errors import EXIT_USAGE

if TYPE_CHECKING:
    from sleap_rtc_plugin.bench.figures import BenchResult

__all__ = ["bench"]

_MISSING = (
    "A benchmark runs a worker here, which is not installed; install it with "
    "`pip install 'sleap-rtc-plugin[worker,signaling]'`."
)


@click.group()
def bench() -> None:
    """Measure this machine."""


@bench.command()
@click.option(
    "--size-mib",
    type=click.IntRange(1, 100_000),
    default=1024,
    show_default=True,
    help="Size of the package, in MiB.",
)
@click.option(
    "--runs",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="How often; figures are medians.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line.")
@verbose_option
def transfer(size_mib: int, runs: int, as_json: bool, verbose: bool) -> None:
    """Send a package to a worker: speed, CPU seconds, memory at both ends."""
    set_up_logging(verbose)
    needed = ("psutil", "starlette", "zmq", "sleap_nn")
    if any(importlib.util.find_spec(name) is None for name in needed):
        click.echo(_MISSING, err=True)
        sys.exit(EXIT_USAGE)
    from sleap_rtc_plugin.bench.transfer import bench_transfer
    from sleap_rtc_plugin.protocol.limits import MIB

    result = run_async(
        bench_transfer(size_mib * MIB, runs, lambda text: click.echo(text, err=True)),
        verbose=verbose,
    )
    _print(result, as_json=as_json)


def _print(result: "BenchResult", *, as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(result).decode())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("Figure")
    for row in result.rows:
        table.add_column(f"{row['case']}, {row['engine']}", justify="right")
    for figure in [name for name in result.rows[0] if name not in ("case", "engine")]:
        table.add_row(figure, *(str(row[figure]) for row in result.rows))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{k}: {v}" for k, v in result.machine.items()))

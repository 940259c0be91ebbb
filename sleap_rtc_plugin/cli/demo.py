"""`sleap-remote demo`: everything on this machine, with a made-up project.

Makes a small project, starts a signaling server and a worker, submits the project's
training package as `train` does, and shows what came back. Contacts no other machine.
"""

import asyncio
import importlib.util
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.cli.options import run_async, set_up_logging, verbose_option
from sleap_rtc_plugin.protocol.errors import EXIT_USAGE

if TYPE_CHECKING:
    from sleap_rtc_plugin.session.report import Report

__all__ = ["demo"]

_NEEDED = ("sleap_nn", "starlette", "zmq", "matplotlib")
_MISSING = (
    "The demo runs a worker here, which is not installed; install it with "
    "`pip install 'sleap-rtc-plugin[worker,signaling]'`."
)
_PLOT = "losses.png"


@click.command()
@click.option(
    "--headless", is_flag=True, help="Do not open the loss plot in a window at the end."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for the project and its results; each run gets a folder below it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines on stdout.")
@verbose_option
def demo(headless: bool, output: Path, as_json: bool, verbose: bool) -> None:
    """Try everything on this machine, with a made-up project of two fish."""
    set_up_logging(verbose)
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        click.echo(_MISSING, err=True)
        sys.exit(EXIT_USAGE)
    folder = output / time.strftime("%Y%m%d-%H%M%S")
    report, code = run_async(_run(folder, as_json, verbose), verbose=verbose)
    if report.error is None and not headless:
        click.launch(str(folder / _PLOT))
    sys.exit(code)


async def _run(folder: Path, as_json: bool, verbose: bool) -> "tuple[Report, int]":
    import msgspec

    from sleap_rtc_plugin.cli.submission_options import run_submission
    from sleap_rtc_plugin.local_lab import local_lab
    from sleap_rtc_plugin.session.demo_project import make_demo_package
    from sleap_rtc_plugin.session.submission import SubmissionPlan

    click.echo(f"Making a project of two fish in {folder}.", err=True)
    package = await asyncio.to_thread(make_demo_package, folder)
    async with local_lab(folder, worker_name="demo-worker") as lab:
        click.echo(f"Signaling server on {lab.url}.", err=True)
        plan = SubmissionPlan(session=lab.session, package=package, output=folder)
        report, code = await run_submission(plan, as_json=False, verbose=verbose)
    if report.error is None:
        await asyncio.to_thread(_show, report, folder)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    return report, code


def _show(report: "Report", folder: Path) -> None:
    """Print the losses and the files that came back; draw the loss plot."""
    import sleap_io
    from rich.console import Console
    from rich.table import Table

    from sleap_rtc_plugin.session.loss_plot import plot_losses, read_losses

    console = Console(highlight=False)
    logs = {Path(m).name: Path(m) / "training_log.csv" for m in report.models}
    table = Table(title="Losses", box=None, title_justify="left")
    for column in ("Model", "Epochs", "First val loss", "Best val loss"):
        table.add_column(column, justify="left" if column == "Model" else "right")
    for name, log in logs.items():
        losses = read_losses(log)
        if losses.validation and losses.best:
            first, best = losses.validation[0][1], losses.best[1]
            epochs = str(len(losses.validation))
            table.add_row(name, epochs, f"{first:.2e}", f"{best:.2e}")
    console.print(table)
    console.print("\nWhat came home:")
    for place in (*report.models, *report.predictions):
        path = Path(place)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        console.print(f"  {path.relative_to(folder.resolve())}", soft_wrap=True)
        for file in files if path.is_dir() else ():
            console.print(f"    {file.name} ({file.stat().st_size:,} bytes)")
    for place in report.predictions:
        labels = sleap_io.load_slp(place, open_videos=False)
        count = sum(len(frame.instances) for frame in labels)
        console.print(f"  with {count} predicted fish on {len(labels)} frames")
    plot = folder / _PLOT
    plot_losses(logs, plot)
    console.print(f"\nLoss plot: {plot}", soft_wrap=True)

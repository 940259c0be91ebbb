"""`sleap-remote workers`: who is in the room, with which GPU."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.cli.options import (
    run_async,
    set_up_logging,
    verbose_option,
)
from sleap_rtc_plugin.cli.session_choice import SessionChoice, session_option

if TYPE_CHECKING:
    from sleap_rtc_plugin.session.worker_info import WorkerInfo

__all__ = ["workers"]


@click.command()
@session_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@verbose_option
def workers(session: SessionChoice, as_json: bool, verbose: bool) -> None:
    """List the workers of a session."""
    set_up_logging(verbose)
    found = run_async(_list(session), verbose=verbose)
    if as_json:
        for worker in found:
            click.echo(json.dumps(asdict(worker)))
        return
    _print_table(found)


async def _list(choice: SessionChoice) -> "list[WorkerInfo]":
    session = await choice.find()
    from sleap_rtc_plugin.session.remote_session import RemoteSession

    async with RemoteSession(session) as remote:
        return await remote.workers()


def _print_table(found: "list[WorkerInfo]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not found:
        click.echo("No worker is online in this session.", err=True)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("Worker", "GPU", "Memory", "Status", "Queue", "sleap-nn"):
        justify = "right" if title in ("Memory", "Queue") else "left"
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for worker in found:
        memory = worker.gpu_memory_mb
        table.add_row(
            # A Text is never read as markup, whatever the peer called itself.
            Text(worker.name),
            Text(worker.gpu_model or f"none ({worker.device})"),
            f"{memory / 1024:.1f} GiB" if memory else "",
            Text(worker.status),
            str(worker.queue_length + worker.running_jobs),
            Text(worker.sleap_nn_version or "missing"),
        )
    Console().print(table)

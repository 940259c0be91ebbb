"""`sleap-remote files`: what lies on the mounts of a worker."""

import json
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.cli.options import (
    run_async,
    set_up_logging,
    verbose_option,
)
from sleap_rtc_plugin.cli.session_choice import SessionChoice, session_option
from sleap_rtc_plugin.protocol.mount_messages import MountPlace
from sleap_rtc_plugin.protocol.mounts import is_mount_name, place_fault

if TYPE_CHECKING:
    from sleap_rtc_plugin.protocol.mount_messages import MountEntry

__all__ = ["files"]


def _parse_place(
    context: click.Context, option: click.Parameter, text: str | None
) -> MountPlace | None:
    """Read `MOUNT[/FOLDER]`."""
    if not text:
        return None
    mount, _, path = text.partition("/")
    path = path.rstrip("/")
    if not is_mount_name(mount) or place_fault(path) is not None:
        raise click.BadParameter(f"{text} is not MOUNT or MOUNT/FOLDER")
    return MountPlace(mount=mount, path=path)


@click.command()
@click.argument(
    "place", metavar="[MOUNT[/FOLDER]]", required=False, callback=_parse_place
)
@session_option
@click.option("--worker", metavar="NAME", help="Look into this worker.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@verbose_option
def files(
    place: MountPlace | None,
    session: SessionChoice,
    worker: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """List the folders that a worker has mounted for its users, or what is in one.

    Files that lie there are not sent: a worker finds those of a package by itself.
    """
    set_up_logging(verbose)
    name, entries, is_complete = run_async(
        _list(session, worker, place), verbose=verbose
    )
    for entry in entries:
        if as_json:
            line = {"name": entry.name, "kind": entry.kind, "bytes": entry.size_bytes}
            click.echo(json.dumps(line))
        else:
            click.echo(_line(entry))
    if not entries:
        what = "has no mounts" if place is None else "has nothing there"
        click.echo(f"The worker {name} {what}.", err=True)
    if not is_complete:
        click.echo("There is more than a worker lists; name a folder in it.", err=True)


async def _list(
    choice: SessionChoice, wanted: str | None, place: MountPlace | None
) -> "tuple[str, list[MountEntry], bool]":
    session = await choice.find()
    from sleap_rtc_plugin.session.remote_session import RemoteSession
    from sleap_rtc_plugin.session.worker_files import list_place

    async with RemoteSession(session) as remote:
        worker = await remote.choose(wanted)
        entries, is_complete = await list_place(await remote.connect(worker), place)
        return worker.name, entries, is_complete


def _line(entry: "MountEntry") -> str:
    from rich.filesize import decimal

    if entry.kind == "file":
        return f"{decimal(entry.size_bytes):>10}  {entry.name}"
    return f"{'':>10}  {entry.name}/"

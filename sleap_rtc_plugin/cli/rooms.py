"""`sleap-remote rooms`: open rooms, and say who may enter them.

A room is named by its name or id. What is to be handed on (a session string, an
invitation code) is the only line on stdout; all else is on stderr.
"""

import dataclasses
import json
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sleap_rtc_plugin.cli.account_options import only_server, parse_server
from sleap_rtc_plugin.cli.durations import parse_duration
from sleap_rtc_plugin.cli.options import run_async, set_up_logging
from sleap_rtc_plugin.cli.room_tables import (
    moment,
    print_credentials,
    print_invitations,
    print_members,
    print_rooms,
)
from sleap_rtc_plugin.protocol.errors import NotSignedIn
from sleap_rtc_plugin.protocol.limits import MAX_NAME_CHARS

if TYPE_CHECKING:
    from sleap_rtc_plugin.session.known_rooms import KnownRoom
    from sleap_rtc_plugin.session.room_office import RoomOffice

__all__ = ["rooms"]

T = TypeVar("T")
_NOT_KEPT = (
    "Its end-to-end secret is not on this computer yet: ask somebody in the room for a "
    "session string and give it once, with `sleap-remote rooms remember STRING`."
)


def _run(main: Coroutine[Any, Any, T], verbose: bool) -> T:
    set_up_logging(verbose)
    return run_async(main, verbose=verbose)


def _office() -> "RoomOffice":
    from sleap_rtc_plugin.session.room_office import RoomOffice

    return RoomOffice()


def _parse_name(
    context: click.Context, option: click.Parameter, name: str | None
) -> str | None:
    if name is not None and len(name) > MAX_NAME_CHARS:
        raise click.BadParameter(f"a name has at most {MAX_NAME_CHARS} characters")
    return name


def _lifetime(
    context: click.Context, option: click.Parameter, text: str | None
) -> float | None:
    if text is None:
        return None
    seconds = parse_duration(text)
    if not seconds:
        raise click.BadParameter("it would be over at once; write more than 0")
    return seconds


_verbose = click.option("--verbose", "-v", is_flag=True, help="Log more.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
_room = click.argument("room", metavar="ROOM")
_access = click.Choice(["open", "members"])
_role = click.Choice(["owner", "member", "guest"])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def rooms() -> None:
    """Open rooms, and say who may enter them.

    A room is for everybody who has its session string, or for its members alone. An
    owner may do everything; a member enters, with a worker too; a guest enters as long
    as the membership lasts. Sign in with `sleap-remote login` first.
    """


@rooms.command(name="list")
@_json
@_verbose
def list_rooms(as_json: bool, verbose: bool) -> None:
    """List the rooms of your accounts, and those that are remembered here."""
    _run(_list(as_json), verbose)


async def _list(as_json: bool) -> None:
    from sleap_rtc_plugin.session.known_rooms import known_rooms

    office = _office()
    found, faults = await known_rooms(office.accounts, office.credentials)
    if as_json:
        for room in found:
            click.echo(json.dumps(dataclasses.asdict(room)))
    elif found:
        print_rooms(found)
    elif not faults:
        click.echo(
            "There are no rooms; `sleap-remote rooms create` opens one.", err=True
        )
    for fault in faults[1:]:
        click.echo(str(fault), err=True)
    if faults:
        raise faults[0]


@rooms.command()
@click.option("--name", default="", callback=_parse_name, help="What to call it.")
@click.option(
    "--access",
    type=_access,
    default="open",
    show_default=True,
    help="Who may enter: everybody with the session string, or members alone.",
)
@click.option("--server", metavar="URL", callback=parse_server, help="Where.")
@_json
@_verbose
def create(
    name: str, access: Any, server: str | None, as_json: bool, verbose: bool
) -> None:
    """Open a room with a new secret, and print its session string.

    The string is remembered here; hand it to the workers and people of the room.
    """
    _run(_create(name, access, server, as_json), verbose)


async def _create(name: str, access: Any, given: str | None, as_json: bool) -> None:
    office = _office()
    server = await only_server(given, office.accounts)
    session = await office.create(server, name, access)
    if as_json:
        line = {
            "room_id": session.room_id,
            "server": server,
            "session": session.encode(),
        }
        click.echo(json.dumps(line))
        return
    click.echo(session.encode())
    title = f"{name} ({session.room_id})" if name else session.room_id
    click.echo(f"Opened the room {title} at {server}; it is remembered here.", err=True)


@rooms.command()
@_room
@_json
@_verbose
def show(room: str, as_json: bool, verbose: bool) -> None:
    """Show a room's members, invitations and credentials."""
    _run(_show(room, as_json), verbose)


async def _show(wanted: str, as_json: bool) -> None:
    import msgspec

    office = _office()
    room = await office.find(wanted)
    details = await office.details(room)
    if as_json:
        click.echo(msgspec.json.encode(details).decode())
        return
    print_rooms([room])
    print_members(details.members)
    print_invitations(details.invitations)
    print_credentials(details.credentials)


@rooms.command()
@_room
@click.option("--name", callback=_parse_name, help="Call it so.")
@click.option(
    "--access", type=_access, help="Open it for everybody, or for members alone."
)
@_verbose
def change(room: str, name: str | None, access: Any, verbose: bool) -> None:
    """Give a room another name, or let others in."""
    if name is None and access is None:
        raise click.UsageError("Nothing is to be changed; give --name or --access.")
    _run(_change(room, name, access), verbose)


async def _change(wanted: str, name: str | None, access: Any) -> None:
    office = _office()
    room = await office.find(wanted)
    await office.change(room, name, access)
    click.echo(f"Changed the room {name or room.title}.", err=True)


@rooms.command()
@_room
@click.option(
    "--role", type=_role, default="member", show_default=True, help="As what."
)
@click.option(
    "--for", "note", default="", callback=_parse_name, help="For whom, for your list."
)
@click.option(
    "--expires",
    metavar="TIME",
    callback=_lifetime,
    help="How long the invitation may be used: 12h, 3d.  [default: 7d]",
)
@click.option(
    "--member-for",
    metavar="TIME",
    callback=_lifetime,
    help="How long the membership lasts: 30d.  [default: until it is taken back]",
)
@_verbose
def invite(
    room: str,
    role: Any,
    note: str,
    expires: float | None,
    member_for: float | None,
    verbose: bool,
) -> None:
    """Print an invitation code, which is good for one person, once.

    It makes a member; it holds no secret of the room.
    """
    _run(_invite(room, role, note, expires, member_for), verbose)


async def _invite(
    wanted: str, role: Any, note: str, expires: float | None, member_for: float | None
) -> None:
    from sleap_rtc_plugin.protocol.account_messages import InviteMember

    office = _office()
    room = await office.find(wanted)
    made = await office.invite(
        room,
        InviteMember(
            role=role, expires_in_s=expires, member_for_s=member_for, note=note
        ),
    )
    click.echo(made.code)
    click.echo(
        f"The invitation {made.invitation_id} may be used once, until "
        f"{moment(made.expires_at)}: `sleap-remote rooms accept CODE`, or paste it in "
        "SLEAP. The invited one also needs a session string of the room, once: "
        "`sleap-remote rooms credential ROOM --kind session` makes one.",
        err=True,
    )


@rooms.command()
@click.argument("code", metavar="CODE")
@_verbose
def accept(code: str, verbose: bool) -> None:
    """Become a member of the room that an invitation is for."""
    _run(_accept(code), verbose)


async def _accept(code: str) -> None:
    from sleap_rtc_plugin.session.room_office import accept_invitation

    office = _office()
    room = await accept_invitation(code, office.accounts, office.credentials)
    article = "an" if room.role == "owner" else "a"
    click.echo(f"You are now {article} {room.role} of the room {room.title}.", err=True)
    if not room.is_kept:
        click.echo(_NOT_KEPT, err=True)


@rooms.command()
@click.argument("session", metavar="STRING", envvar="SLEAP_SESSION")
@_verbose
def remember(session: str, verbose: bool) -> None:
    """Keep a session string, so that --room can name its room."""
    _run(_remember(session), verbose)


async def _remember(text: str) -> None:
    from sleap_rtc_plugin.protocol.session_string import Session
    from sleap_rtc_plugin.session.known_rooms import keep_session

    office = _office()
    session = Session.parse(text)
    await keep_session(session, office.credentials, is_asked_for=True)
    place = await office.credentials.place()
    click.echo(f"The room {session.room_id} is remembered. {place}", err=True)


@rooms.command()
@_room
@click.argument("member", metavar="MEMBER")
@click.argument("role", type=_role)
@_verbose
def role(room: str, member: str, role: Any, verbose: bool) -> None:
    """Make MEMBER, named by name or account id, owner, member or guest."""
    _run(_set_role(room, member, role), verbose)


@rooms.command()
@_room
@click.argument("member", metavar="MEMBER")
@_verbose
def remove(room: str, member: str, verbose: bool) -> None:
    """Take a membership away; whoever is connected by it is disconnected.

    A room that is open for everybody can still be entered with its session string:
    revoke that, or let members alone in.
    """
    _run(_set_role(room, member, None), verbose)


async def _set_role(wanted: str, wanted_member: str, role: Any) -> None:
    office = _office()
    room = await office.find(wanted)
    member = await office.member(room, wanted_member)
    await office.set_role(room, member, role)
    from sleap_rtc_plugin.protocol.ids import clean_text

    who = clean_text(member.name or member.account_id)
    now_is = f"is {role} of" if role else "is no longer a member of"
    click.echo(f"{who} {now_is} the room {room.title}.", err=True)


@rooms.command()
@_room
@click.option(
    "--kind",
    type=click.Choice(["session", "worker"]),
    required=True,
    help="What it admits: anybody, or a worker alone.",
)
@click.option("--label", default="", callback=_parse_name, help="For your list.")
@click.option(
    "--expires",
    metavar="TIME",
    callback=_lifetime,
    help="How long it admits: 90d.  [default: as long as the server says]",
)
@_verbose
def credential(
    room: str, kind: Any, label: str, expires: float | None, verbose: bool
) -> None:
    """Print a new session string for a room.

    It can be revoked by itself. One of the kind `worker` lets a worker into this room
    and nobody else; whoever holds it can still read what is sent to that worker.
    """
    _run(_credential(room, kind, label, expires), verbose)


async def _credential(
    wanted: str, kind: Any, label: str, expires: float | None
) -> None:
    office = _office()
    room = await office.find(wanted)
    session, expires_at = await office.credential(
        room, kind, label=label, expires_in_s=expires
    )
    click.echo(session.encode())
    what = "A worker" if kind == "worker" else "Whoever has it"
    click.echo(
        f"{what} may enter the room {room.title} with it until {moment(expires_at)}.",
        err=True,
    )


@rooms.command()
@_room
@click.argument("id", metavar="ID")
@_verbose
def revoke(room: str, id: str, verbose: bool) -> None:
    """Take back an invitation or a credential, by its ID in `rooms show`.

    Whoever is connected by a credential is disconnected at once.
    """
    _run(_revoke(room, id), verbose)


async def _revoke(wanted: str, wanted_id: str) -> None:
    office = _office()
    room = await office.find(wanted)
    what = await office.revoke(room, wanted_id)
    click.echo(f"Took back the {what} {wanted_id} of the room {room.title}.", err=True)


@rooms.command()
@_room
@click.option("--yes", is_flag=True, help="Do not ask.")
@_verbose
def delete(room: str, yes: bool, verbose: bool) -> None:
    """Delete a room: everybody in it is disconnected.

    Jobs of its workers go on there, and their results stay.
    """
    found = _run(_find_own(room), verbose)
    if not yes:
        click.confirm(
            f"Delete the room {found.title} for everybody?", abort=True, err=True
        )
    _run(_office().delete(found), verbose)
    click.echo(f"Deleted the room {found.title}.", err=True)


async def _find_own(wanted: str) -> "KnownRoom":
    office = _office()
    room = await office.find(wanted)
    if await office.accounts.find(room.server) is None:
        raise NotSignedIn(server=room.server)
    return room

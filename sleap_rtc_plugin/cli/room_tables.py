"""Tables about rooms, and who may enter them. Used by `cli.rooms`."""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from sleap_rtc_plugin.protocol.ids import clean_text

if TYPE_CHECKING:
    from sleap_rtc_plugin.protocol.account_messages import (
        CredentialInfo,
        InvitationInfo,
        MemberInfo,
    )
    from sleap_rtc_plugin.session.known_rooms import KnownRoom

__all__ = [
    "moment",
    "print_credentials",
    "print_invitations",
    "print_members",
    "print_rooms",
]


def moment(unix_s: float | None) -> str:
    """Write a time for people; nothing where there is none, or none that is one."""
    if unix_s is None:
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
    except (OverflowError, ValueError, OSError):
        return ""


def print_rooms(rooms: "Iterable[KnownRoom]") -> None:
    """List rooms."""
    _print(
        ("Room", "Id", "You are", "For", "Secret here", "Server"),
        [
            (
                room.name,
                room.room_id,
                room.role or "",
                {"open": "everybody", "members": "members"}.get(room.access or "", ""),
                "yes" if room.is_kept else "no",
                room.server,
            )
            for room in rooms
        ],
    )


def print_members(members: "Iterable[MemberInfo]") -> None:
    """List members."""
    _print(
        ("Member", "Account", "Role", "Since", "Until"),
        [
            (
                one.name,
                one.account_id,
                one.role,
                moment(one.added_at),
                moment(one.expires_at),
            )
            for one in members
        ],
    )


def print_invitations(invitations: "Iterable[InvitationInfo]") -> None:
    """List invitations that wait."""
    _print(
        ("Invitation", "As", "For", "Until"),
        [
            (one.invitation_id, one.role, one.note, moment(one.expires_at))
            for one in invitations
        ],
    )


def print_credentials(credentials: "Iterable[CredentialInfo]") -> None:
    """List room tokens that were given out."""
    _print(
        ("Credential", "Kind", "Label", "Since", "Until"),
        [
            (
                one.credential_id,
                one.kind,
                one.label,
                moment(one.created_at),
                moment(one.expires_at),
            )
            for one in credentials
        ],
    )


def _print(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        # A Text is never read as markup, whatever somebody called themselves.
        table.add_row(*(Text(clean_text(cell)) for cell in row))
    Console().print(table)
    click.echo()

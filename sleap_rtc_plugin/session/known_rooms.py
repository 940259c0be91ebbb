"""The rooms that a user can name: those remembered here, and those of the accounts.

A room is named by its id, or by what its owner calls it. What opens it end to end is
the session string that was used once on this computer. Called by the commands, in
place of a session string, and by the companion.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from sleap_rtc_plugin.protocol.account_messages import Access, MemberRole, RoomInfo
from sleap_rtc_plugin.protocol.errors import RoomNotKnown, RtcError, SessionNotKept
from sleap_rtc_plugin.protocol.ids import clean_text, is_id
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.session.credentials import CredentialStore
from sleap_rtc_plugin.session.settings import RememberedRoom, Settings

__all__ = [
    "KnownRoom",
    "find_room",
    "find_session",
    "keep_session",
    "known_rooms",
    "load_session",
    "rooms_at",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownRoom:
    """A room that can be named.

    Attributes:
        room_id: which.
        server: its signaling server.
        name: what its owner calls it; may be empty.
        role: what the signed-in account is in it; None where it is no member.
        access: who may enter; None where that is not known.
        is_kept: whether its session string is on this computer.
        last_used: when it was entered last from here, in Unix seconds; 0 for never.
        expires_at: until when it exists, in Unix seconds; None where not known.
    """

    room_id: str
    server: str
    name: str = ""
    role: MemberRole | None = None
    access: Access | None = None
    is_kept: bool = False
    last_used: float = 0.0
    expires_at: float | None = None

    @property
    def title(self) -> str:
        """What to call it before people."""
        return self.name or self.room_id


async def rooms_at(server: str, accounts: SignedInAccounts) -> list[RoomInfo]:
    """Return the rooms of the account that is signed in at a server.

    Raises:
        RtcError: nobody is, or the server cannot be asked.
    """
    rooms = await accounts.call(server, lambda client, token: client.rooms(token))
    return [room for room in rooms if is_id(room.room_id)]


async def known_rooms(
    accounts: SignedInAccounts, credentials: CredentialStore, *, server: str = ""
) -> tuple[list[KnownRoom], list[RtcError]]:
    """Return every room that can be named here, and what kept from asking for more.

    Args:
        accounts: who is signed in where.
        credentials: the session strings.
        server: look at the rooms of this one alone; empty for all.
    """
    kept = [room for room in await credentials.rooms() if server in ("", room.server)]
    servers = [
        account.server
        for account in await accounts.list()
        if server in ("", account.server)
    ]
    answers = await asyncio.gather(
        *(rooms_at(server, accounts) for server in servers), return_exceptions=True
    )
    faults: list[RtcError] = []
    rooms: list[KnownRoom] = []
    for asked, answer in zip(servers, answers, strict=True):
        if isinstance(answer, RtcError):
            faults.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            rooms += (_known(room, asked, kept) for room in answer)
    told = {(room.server, room.room_id) for room in rooms}
    rooms += (
        KnownRoom(
            room_id=room.room_id,
            server=room.server,
            is_kept=True,
            last_used=room.last_used,
        )
        for room in kept
        if (room.server, room.room_id) not in told
    )
    return rooms, faults


def _known(room: RoomInfo, server: str, kept: list[RememberedRoom]) -> KnownRoom:
    ours = next(
        (one for one in kept if (one.server, one.room_id) == (server, room.room_id)),
        None,
    )
    return KnownRoom(
        room_id=room.room_id,
        server=server,
        name=clean_text(room.name),
        role=room.role,
        access=room.access,
        is_kept=ours is not None,
        last_used=ours.last_used if ours is not None else 0.0,
        expires_at=room.expires_at,
    )


async def find_room(
    wanted: str, accounts: SignedInAccounts, credentials: CredentialStore
) -> KnownRoom:
    """Return the room of this id or name.

    Raises:
        RoomNotKnown: there is none, or more than one of that name.
    """
    rooms, faults = await known_rooms(accounts, credentials)
    found = [room for room in rooms if room.room_id == wanted]
    found = found or [room for room in rooms if room.name and room.name == wanted]
    if not found and faults:
        raise faults[0]
    if len(found) != 1:
        ids = ", ".join(room.room_id for room in found)
        reason = f"there are {ids}" if found else "there is none of that name or id"
        raise RoomNotKnown(room=clean_text(wanted), reason=reason)
    return found[0]


async def find_session(
    wanted: str,
    accounts: SignedInAccounts | None = None,
    credentials: CredentialStore | None = None,
) -> Session:
    """Return the session of a room whose session string was used here once.

    Args:
        wanted: the room's id or name.
        accounts: who is signed in where; the user's own by default.
        credentials: the session strings; the user's own by default.

    Raises:
        RoomNotKnown: there is no such room, or more than one of that name.
        SessionNotKept: its session string is not here.
        RtcError: the servers that may know it cannot be asked.
    """
    accounts = accounts or SignedInAccounts()
    credentials = credentials or CredentialStore()
    if is_id(wanted):
        # A remembered room is found although nobody can be asked.
        for room in await credentials.rooms():
            if room.room_id == wanted:
                return await load_session(wanted, wanted, room.server, credentials)
    found = await find_room(wanted, accounts, credentials)
    return await load_session(found.title, found.room_id, found.server, credentials)


async def load_session(
    title: str, room_id: str, server: str, credentials: CredentialStore
) -> Session:
    """Return the session of a room that is remembered here.

    Args:
        title: what the room is called before people.
        room_id: which.
        server: where it is.
        credentials: the session strings.

    Raises:
        SessionNotKept: its session string is not here, or is of another server.
    """
    text = await credentials.load(room_id)
    session = None if text is None else Session.parse(text)
    if session is None or session.url != server:
        raise SessionNotKept(room=title)
    return session


async def keep_session(
    session: Session,
    credentials: CredentialStore | None = None,
    *,
    is_asked_for: bool = False,
) -> bool:
    """Remember a session string that was given in full.

    Args:
        session: what was given.
        credentials: the session strings; the user's own by default.
        is_asked_for: the user said so, whatever the settings say.

    Returns:
        Whether it is kept now.
    """
    credentials = credentials or CredentialStore()
    if not is_asked_for and not (await asyncio.to_thread(Settings.load)).remember:
        return False
    text = session.encode()
    try:
        if await credentials.load(session.room_id) != text:
            room = RememberedRoom(
                room_id=session.room_id, server=session.url, last_used=time.time()
            )
            await credentials.remember(room, text)
    except RtcError as error:
        if is_asked_for:
            raise
        logger.warning("The session string is not remembered: %s", error)
        return False
    return True

"""Rooms by name and id, and the session strings that open them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.account_server import AccountServer, Clock

from sleap_rtc_plugin.protocol.account_messages import (
    CredentialInfo,
    InvitationInfo,
    MemberInfo,
    RoomDetails,
    RoomInfo,
)
from sleap_rtc_plugin.protocol.errors import (
    NotSignedIn,
    RoomNotKnown,
    SessionNotKept,
    SignalingUnreachable,
)
from sleap_rtc_plugin.protocol.invitation_code import InvitationCode
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session import accounts as accounts_module
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.session.credentials import CredentialStore
from sleap_rtc_plugin.session.known_rooms import (
    find_session,
    keep_session,
    known_rooms,
)
from sleap_rtc_plugin.session.room_office import RoomOffice, accept_invitation
from sleap_rtc_plugin.session.settings import RememberedRoom

SERVER = "https://lab.example:8080"
OTHER = "https://other.example"
ROOM_TOKEN = "a.b.c"


def session(room_id: str, server: str = SERVER, token: str = ROOM_TOKEN) -> Session:
    return Session(
        url=server, room_id=room_id, token=token, peer_id="worker-a", secret=b"s" * 32
    )


def info(room_id: str, name: str = "", role: Any = "member") -> RoomInfo:
    return RoomInfo(
        room_id=room_id, name=name, access="members", role=role, expires_at=9e9
    )


class Home:
    """One user's computer, and the server's rooms."""

    def __init__(self, folder: Path, server: AccountServer) -> None:
        self.server = server
        self.accounts = SignedInAccounts(folder, clock=server.clock)
        self.credentials = CredentialStore(folder)
        self.office = RoomOffice(self.accounts, self.credentials)

    async def sign_in(self, *rooms: RoomInfo, server: str = SERVER) -> None:
        self.server.rooms[server] = list(rooms)
        await self.accounts.keep(server, self.server.account())

    async def remember(self, one: Session) -> None:
        room = RememberedRoom(room_id=one.room_id, server=one.url, last_used=1.0)
        await self.credentials.remember(room, one.encode())

    async def find(self, wanted: str) -> Session:
        return await find_session(wanted, self.accounts, self.credentials)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    server = AccountServer(Clock())
    monkeypatch.setattr(accounts_module, "AccountClient", server.client)
    return Home(tmp_path, server)


async def test_a_remembered_room_by_its_id_asks_nobody(home: Home) -> None:
    await home.remember(session("room-1"))
    await home.sign_in()
    home.server.fault = SignalingUnreachable(server=SERVER, reason="refused")
    assert await home.find("room-1") == session("room-1")


async def test_a_room_by_its_name(home: Home) -> None:
    await home.sign_in(info("room-1", "Flies"), info("room-2", "Mice"))
    await home.remember(session("room-2"))
    assert (await home.find("Mice")).room_id == "room-2"


async def test_a_room_whose_secret_is_not_here(home: Home) -> None:
    await home.sign_in(info("room-1", "Flies"))
    for wanted in ("Flies", "room-1"):
        with pytest.raises(SessionNotKept):
            await home.find(wanted)


async def test_a_room_that_nobody_knows(home: Home) -> None:
    for rooms in ([], [info("room-1", "Flies")]):
        await home.sign_in(*rooms)
        for wanted in ("Mice", "room-9", "", "../x", "x" * 5000):
            with pytest.raises(RoomNotKnown):
                await home.find(wanted)


async def test_two_rooms_of_one_name_are_told_apart_by_their_ids(home: Home) -> None:
    await home.sign_in(info("room-1", "Flies"), info("room-2", "Flies"))
    await home.remember(session("room-2"))
    with pytest.raises(RoomNotKnown, match=r"room-1.*room-2"):
        await home.find("Flies")
    assert (await home.find("room-2")).room_id == "room-2"


async def test_a_server_cannot_borrow_the_secret_of_another(home: Home) -> None:
    """It lists a room with the id of one that is somewhere else."""
    await home.remember(session("room-1", OTHER))
    await home.sign_in(info("room-1", "Mine"))
    with pytest.raises(SessionNotKept):
        await home.find("Mine")
    assert (await home.find("room-1")).url == OTHER


async def test_the_list_joins_what_is_remembered_and_what_servers_say(
    home: Home,
) -> None:
    await home.remember(session("room-1"))
    await home.remember(session("room-9", OTHER))
    await home.sign_in(info("room-1", "Flies", "owner"), info("room-2", "Mice"))
    rooms, faults = await known_rooms(home.accounts, home.credentials)
    assert faults == []
    assert [(r.room_id, r.name, r.role, r.is_kept) for r in rooms] == [
        ("room-1", "Flies", "owner", True),
        ("room-2", "Mice", "member", False),
        ("room-9", "", None, True),
    ]


async def test_a_server_that_is_away_hides_its_rooms_only(home: Home) -> None:
    await home.remember(session("room-1"))
    await home.sign_in(info("room-2", "Mice"))
    home.server.fault = SignalingUnreachable(server=SERVER, reason="refused")
    rooms, faults = await known_rooms(home.accounts, home.credentials)
    assert [room.room_id for room in rooms] == ["room-1"]
    assert len(faults) == 1
    with pytest.raises(SignalingUnreachable):
        await home.find("Mice")


async def test_rooms_with_hostile_ids_are_left_out(home: Home) -> None:
    await home.sign_in(info("../room", "A"), info("ROOM", "B"), info("room-1", "C"))
    rooms, _ = await known_rooms(home.accounts, home.credentials)
    assert [room.name for room in rooms] == ["C"]


async def test_a_session_string_is_kept_and_replaced(home: Home) -> None:
    assert await keep_session(session("room-1"), home.credentials, is_asked_for=True)
    newer = session("room-1", token="newer")
    assert await keep_session(newer, home.credentials, is_asked_for=True)
    assert await home.find("room-1") == newer


# -- the office -----------------------------------------------------------------------


def details(**lists: Sequence[Any]) -> RoomDetails:
    return RoomDetails(
        room=info("room-1", "Flies", "owner"),
        members=list(lists.get("members", [])),
        invitations=list(lists.get("invitations", [])),
        credentials=list(lists.get("credentials", [])),
    )


def member(account_id: str, name: str) -> MemberInfo:
    return MemberInfo(account_id=account_id, name=name, role="member", added_at=1.0)


async def test_a_credential_becomes_a_session_with_the_secret_of_this_computer(
    home: Home,
) -> None:
    await home.sign_in(info("room-1", "Flies", "owner"))
    room = await home.office.find("Flies")
    with pytest.raises(SessionNotKept):
        await home.office.credential(room, "worker")
    assert home.server.made == []
    await home.remember(session("room-1"))
    made, _ = await home.office.credential(room, "worker", label="gpu-7")
    assert made == session("room-1", token="credential-1")
    assert home.server.made == [("room-1", "worker", "gpu-7")]


async def test_members_are_named_by_account_or_name(home: Home) -> None:
    await home.sign_in(info("room-1", "Flies", "owner"))
    room = await home.office.find("Flies")
    home.server.details = details(
        members=[member("a-1", "Ada"), member("a-2", "Bea"), member("a-3", "Bea")]
    )
    assert (await home.office.member(room, "Ada")).account_id == "a-1"
    assert (await home.office.member(room, "a-3")).name == "Bea"
    for wanted in ("Bea", "Cleo", ""):
        with pytest.raises(RoomNotKnown):
            await home.office.member(room, wanted)


async def test_an_id_says_what_is_taken_back(home: Home) -> None:
    await home.sign_in(info("room-1", "Flies", "owner"))
    room = await home.office.find("Flies")
    home.server.details = details(
        invitations=[
            InvitationInfo(
                invitation_id="invite-1", role="member", note="", expires_at=1.0
            )
        ],
        credentials=[
            CredentialInfo(
                credential_id="credential-1",
                kind="worker",
                label="",
                created_at=1.0,
                expires_at=2.0,
            )
        ],
    )
    assert await home.office.revoke(room, "invite-1") == "invitation"
    assert await home.office.revoke(room, "credential-1") == "worker credential"
    assert home.server.revoked == ["invite-1", "credential-1"]
    with pytest.raises(RoomNotKnown):
        await home.office.revoke(room, "credential-2")


async def test_an_invitation_goes_to_its_own_server(home: Home) -> None:
    code = InvitationCode(url=SERVER, invitation_id="invite-1", secret="s" * 22)
    with pytest.raises(NotSignedIn, match=SERVER):
        await accept_invitation(code.encode(), home.accounts, home.credentials)
    await home.sign_in()
    await home.sign_in(server=OTHER)
    home.server.invited = info("room-1", "Flies")
    room = await accept_invitation(code.encode(), home.accounts, home.credentials)
    assert (room.room_id, room.name, room.is_kept) == ("room-1", "Flies", False)
    assert home.server.accepted == [(SERVER, code.encode())]
    await home.remember(session("room-1"))
    room = await accept_invitation(code.encode(), home.accounts, home.credentials)
    assert room.is_kept

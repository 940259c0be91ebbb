"""The companion at a server that knows its people; a real provider, and a worker."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import get_args

import pytest
from support.companions import Companion, HostKind, companion
from support.oidc_provider import OidcProvider
from support.people import ALICE, BOB, User, accounts_config, running_provider
from support.programs import Programs

from sleap_rtc_plugin.companion.account_messages import (
    AcceptInvite,
    CancelSignIn,
    InvitationAccepted,
    OpenServer,
    ServerOpened,
    SignInCode,
    SignOut,
    StartSignIn,
)
from sleap_rtc_plugin.companion.messages import (
    Connect,
    ConnectRemembered,
    RoomChanged,
    SignedIn,
    SignIn,
    WorkersChanged,
)
from sleap_rtc_plugin.protocol.errors import NotSignedIn, SignInRefused, TokenRefused

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning:aioice")


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def server(programs: Programs, provider: OidcProvider, tmp_path: Path) -> str:
    return programs.signaling("--config", accounts_config(tmp_path, provider))


@pytest.fixture(params=get_args(HostKind))
async def desk(
    request: pytest.FixtureRequest,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> AsyncIterator[Companion]:
    for name, value in programs.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLEAP_REMOTE_CONFIG_DIR", str(tmp_path / "desk"))
    async with companion(request.param) as made:
        yield made


async def sign_in(desk: Companion, server: str, provider: OidcProvider) -> ServerOpened:
    """Sign in as Bob, as the window does it."""
    before = len([event for event in desk.events if isinstance(event, SignInCode)])

    def shown() -> list[SignInCode]:
        return [event for event in desk.events if isinstance(event, SignInCode)]

    waiting = asyncio.ensure_future(desk.ask(StartSignIn(server=server, method="lab")))
    await desk.until(lambda: len(shown()) > before or waiting.done())
    provider.approve(shown()[-1].code, BOB)
    answer = await waiting
    assert isinstance(answer, ServerOpened)
    return answer


async def test_from_the_door_to_a_lab_and_out_again(
    desk: Companion,
    server: str,
    provider: OidcProvider,
    programs: Programs,
    tmp_path: Path,
) -> None:
    alice = User(programs, tmp_path / "alice", provider)
    alice.sign_in(server, ALICE)
    created = alice.run("rooms", "create", "--name", "Flies", "--access", "members")
    [string] = created.out
    [for_worker] = alice.run("rooms", "credential", "Flies", "--kind", "worker").out
    programs.scripted_worker("train", "--session", for_worker).wait_ready()
    [code] = alice.run("rooms", "invite", "Flies").out

    door = await desk.ask(OpenServer(server=server))
    assert isinstance(door, ServerOpened)
    assert [(way.name, way.has_code) for way in door.ways] == [
        ("lab", True),
        ("anonymous", False),
    ]
    assert (door.account_id, door.rooms) == ("", [])
    with pytest.raises(NotSignedIn):
        await desk.ask(AcceptInvite(code=code))

    answer = await sign_in(desk, server, provider)
    assert (answer.name, answer.rooms) == ("Bob Brown", [])
    accepted = await desk.ask(AcceptInvite(code=code))
    assert isinstance(accepted, InvitationAccepted)
    assert (accepted.room.name, accepted.room.is_kept) == ("Flies", False)
    await desk.ask(Connect(session=string, remember=True))
    await desk.event(WorkersChanged, lambda event: bool(event.workers))

    door = await desk.ask(OpenServer(server=server))
    assert isinstance(door, ServerOpened)
    [room] = door.rooms
    assert (room.name, room.role, room.is_kept) == ("Flies", "member", True)
    await desk.ask(ConnectRemembered(room_id=room.room_id))

    # What was given is taken away while the lab is entered.
    alice.run("rooms", "remove", "Flies", "Bob Brown")
    await desk.event(
        RoomChanged, lambda event: event.room is None and "taken back" in event.reason
    )
    door = await desk.ask(OpenServer(server=server))
    assert isinstance(door, ServerOpened)
    assert door.rooms == []
    assert "token" not in repr(desk.events)


async def test_a_new_lab_belongs_to_who_is_signed_in(
    desk: Companion, server: str, provider: OidcProvider
) -> None:
    await sign_in(desk, server, provider)
    opened = await desk.ask(SignIn(server=server, remember=True))
    assert isinstance(opened, SignedIn)
    door = await desk.ask(OpenServer(server=server))
    assert isinstance(door, ServerOpened)
    assert [(room.room_id, room.role) for room in door.rooms] == [
        (opened.room.room_id, "owner")
    ]
    await desk.ask(SignOut(server=server))
    door = await desk.ask(OpenServer(server=server))
    assert isinstance(door, ServerOpened)
    assert door.account_id == ""


async def test_a_sign_in_is_given_up(desk: Companion, server: str) -> None:
    waiting = asyncio.ensure_future(desk.ask(StartSignIn(server=server, method="lab")))
    await desk.event(SignInCode)
    await desk.ask(CancelSignIn())
    with pytest.raises(SignInRefused):
        await waiting
    with pytest.raises((SignInRefused, TokenRefused)):
        await desk.ask(StartSignIn(server=server, method="nothing"))

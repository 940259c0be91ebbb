"""A server that knows its people, as the lab page meets it; for windows and presenters.

Each scene is played on a world with a scripted host, from the door to the labs.
"""

import time
from typing import Any

from support.scripted_host import SERVER

from sleap_rtc_plugin.companion.account_messages import (
    AccountRoom,
    OpenServer,
    ServerOpened,
    SignInCode,
    SignInWay,
    StartSignIn,
)

GITHUB = SignInWay(name="github", label="GitHub", has_code=True, is_named=True)
UNI = SignInWay(name="uni", label="R&D University", has_code=True, is_named=True)
ANONYMOUS = SignInWay(name="anonymous", label="Without a name")
WAYS = [GITHUB, UNI, ANONYMOUS]

FLIES = AccountRoom(
    room_id="room-flies", server=SERVER, name="Flies", role="owner", is_kept=True
)
MICE = AccountRoom(room_id="room-mice", server=SERVER, name="Mice", role="guest")


def door() -> ServerOpened:
    return ServerOpened(server=SERVER, ways=WAYS)


def inside_door(*rooms: AccountRoom) -> ServerOpened:
    return ServerOpened(
        server=SERVER,
        ways=WAYS,
        account_id="github-ada",
        name="Ada Łovelace",
        rooms=list(rooms or (FLIES, MICE)),
    )


def code(lasts_s: float = 600.0) -> SignInCode:
    return SignInCode(
        server=SERVER,
        code="WDJB-MJHT",
        page="https://github.example/login/device",
        page_with_code="https://github.example/login/device?user_code=WDJB-MJHT",
        expires_at=time.time() + lasts_s,
    )


def at_door(world: Any) -> None:
    world.host.answer(OpenServer, door())
    world.presenter.sign_in(SERVER)


def with_code(world: Any) -> None:
    at_door(world)
    world.host.hold(StartSignIn)
    world.presenter.accounts.start("github")
    world.host.on_event(code())


def signed_in(world: Any) -> None:
    world.host.answer(OpenServer, inside_door())
    world.presenter.sign_in(SERVER)


def choose_keyless(world: Any) -> None:
    world.presenter.accounts.choose("room-mice")

"""The ICE configuration of a program that runs for days, from a real server."""

import pytest
from support.signaling_lab import Lab

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.transport import ice_source
from sleap_rtc_plugin.transport.ice_source import IceSource

pytestmark = pytest.mark.timeout(30)


class Clock:
    """Monotonic time that the test sets forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(ice_source, "monotonic", made)
    return made


async def test_it_is_fetched_again_when_it_is_too_old(lab: Lab, clock: Clock) -> None:
    _, token = await lab.room()
    source = IceSource(lab.server.url, token)
    first = await source.current()
    assert first.ice_servers
    assert await source.current() is first
    clock.now += ice_source_max_age()
    assert await source.current() is not first


async def test_it_is_fetched_again_after_it_did_not_work(lab: Lab) -> None:
    _, token = await lab.room()
    source = IceSource(lab.server.url, token)
    first = await source.current()
    source.forget()
    second = await source.current()
    assert second is not first
    assert await source.current() is second


async def test_the_old_one_serves_while_the_server_is_away(
    lab: Lab, clock: Clock
) -> None:
    _, token = await lab.room()
    source = IceSource(lab.server.url, token)
    first = await source.current()
    source._server = "http://127.0.0.1:9"
    clock.now += ice_source_max_age()
    assert await source.current() is first


async def test_without_any_it_fails(lab: Lab) -> None:
    source = IceSource(lab.server.url, "no token")
    with pytest.raises(RtcError):
        await source.current()


async def test_an_account_stands_in_for_a_room_token_that_is_refused(lab: Lab) -> None:
    owner = await lab.account()
    room_id, token = await lab.room(owner)

    async def account() -> str:
        return owner

    source = IceSource(lab.server.url, token, room_id=room_id, account=account)
    await source.current()
    assert (source.room_token, await source.bearer()) == (token, token)
    source = IceSource(lab.server.url, "spoiled", room_id=room_id, account=account)
    assert (await source.current()).ice_servers
    assert (source.room_token, await source.bearer()) == ("", owner)
    stranger = await lab.account()

    async def nobody_here() -> str:
        return stranger

    source = IceSource(lab.server.url, "spoiled", room_id=room_id, account=nobody_here)
    with pytest.raises(RtcError):
        await source.current()


def ice_source_max_age() -> float:
    from sleap_rtc_plugin.protocol.limits import ICE_MAX_AGE_S

    return ICE_MAX_AGE_S

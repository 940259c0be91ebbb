"""The fast path over a relay: a real TURN server, in every way it can be reached."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aioice import ice, turn
from aiortc import RTCConfiguration
from support.fast_calls import FAST, STOCK, CallEnd, Stream, called
from support.turn_server import TurnServer, turn_server

from sleap_rtc_plugin.transport.transport_options import TransportOptions

pytestmark = pytest.mark.timeout(60)

MEGABYTE = 1 << 20
CHANNEL_LIFETIME_S = 3


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[TurnServer]:
    async with turn_server(tmp_path) as server:
        yield server


def _kinds(end: CallEnd) -> tuple[str, str]:
    pair = end.ice._nominated[1]
    return pair.local_candidate.type, pair.remote_candidate.type


@pytest.mark.parametrize("peer", [FAST, STOCK], ids=["fast", "stock"])
async def test_both_sides_behind_a_relay(
    relay: TurnServer, peer: TransportOptions
) -> None:
    one = CallEnd(FAST, relay.configuration())
    other = CallEnd(peer, relay.configuration())
    async with called(one, other):
        assert _kinds(one) == ("relay", "relay")
        assert one.is_fast
        assert other.is_fast == (peer is FAST)
        await asyncio.gather(
            Stream(one, other, 6 * MEGABYTE).run(),
            Stream(other, one, 6 * MEGABYTE).run(),
        )
        assert one.is_fast


@pytest.mark.parametrize("relayed", ["caller", "called"])
async def test_one_side_behind_a_relay(relay: TurnServer, relayed: str) -> None:
    behind, direct = relay.configuration(), RTCConfiguration(iceServers=[])
    one = CallEnd(FAST, behind if relayed == "caller" else direct)
    other = CallEnd(FAST, direct if relayed == "caller" else behind)
    async with called(one, other):
        assert "relay" in _kinds(one) + _kinds(other)
        assert one.is_fast
        assert other.is_fast
        await asyncio.gather(
            Stream(one, other, 6 * MEGABYTE).run(),
            Stream(other, one, 6 * MEGABYTE).run(),
        )


async def test_channels_are_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aioice's checks of consent renew a channel long before the server forgets it."""
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.5)
    async with turn_server(tmp_path, channel_lifetime_s=CHANNEL_LIFETIME_S) as relay:
        one, other = (CallEnd(FAST, relay.configuration()) for _ in range(2))
        async with called(one, other):
            for end in (one, other):
                client = end.leg.protocol
                assert isinstance(client, turn.TurnClientUdpProtocol)
                client.channel_refresh_time = 1
                client.channel_refresh_at = dict.fromkeys(client.channel_refresh_at, 0)
            loop = asyncio.get_running_loop()
            end_at = loop.time() + 2 * CHANNEL_LIFETIME_S
            while loop.time() < end_at:
                await Stream(one, other, MEGABYTE).run(5)
            assert one.is_fast


async def test_a_relay_over_tcp_is_left_to_aiortc(
    relay: TurnServer, caplog: pytest.LogCaptureFixture
) -> None:
    one = CallEnd(FAST, relay.configuration("tcp"))
    other = CallEnd(FAST, relay.configuration("udp"))
    with caplog.at_level(logging.INFO):
        async with called(one, other):
            assert not one.is_fast
            assert other.is_fast
            await Stream(one, other, 2 * MEGABYTE).run()
            await Stream(other, one, 2 * MEGABYTE).run()
    lines = [record for record in caplog.records if "slow way" in record.message]
    assert [(line.levelname, line.message) for line in lines] == [
        ("INFO", "Data channels go the slow way: a relay over TCP.")
    ]


async def test_a_refused_allocation_leaves_nothing_behind(relay: TurnServer) -> None:
    # What a process opens for its first connection stays.
    async with called(CallEnd(), CallEnd()):
        pass
    before = psutil.Process().num_fds()
    one = CallEnd(FAST, relay.configuration(password="wrong"))
    other = CallEnd(FAST, relay.configuration())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3), called(one, other):
            pass
    assert not one.is_fast
    assert psutil.Process().num_fds() == before

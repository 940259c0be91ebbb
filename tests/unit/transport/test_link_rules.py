"""A link over channels that only remember what was sent."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiortc.exceptions import InvalidStateError

from sleap_rtc_plugin.protocol.authentication import Authenticated
from sleap_rtc_plugin.protocol.codec import encode_control
from sleap_rtc_plugin.protocol.limits import (
    CONTROL_BUFFER_HIGH_BYTES,
    CONTROL_BUFFER_MAX_BYTES,
    MAX_TRANSFER_FRAME_BYTES,
    SEND_BUFFER_FLOOR_BYTES,
    SEND_BUFFER_HIGH_BYTES,
)
from sleap_rtc_plugin.protocol.messages import Acknowledged, KeepAlive
from sleap_rtc_plugin.transport import link as module
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.link import Link, LinkClosed

ACK = Acknowledged(command_id="c-1")


class FakeChannel:
    """A data channel that keeps what it is given."""

    def __init__(self) -> None:
        self.bufferedAmount = 0
        self.bufferedAmountLowThreshold = 0
        self.sent: list[bytes | str] = []
        self.is_closing = False

    def send(self, data: bytes | str) -> None:
        if self.is_closing:
            raise InvalidStateError
        self.sent.append(data)


class Ends:
    """A link and what it was built on."""

    def __init__(self, max_bytes_per_s: int | None = None) -> None:
        self.control, self.transfer = FakeChannel(), FakeChannel()
        self.closes = 0
        self.heard: list[Any] = []
        self.link = Link(
            peer_id="worker-1",
            control=self.control,
            transfer=self.transfer,
            authenticated=Authenticated(1, frozenset(), "test"),
            kind="direct",
            engine="aiortc",
            close=self._close,
            max_bytes_per_s=max_bytes_per_s,
        )
        self.link.on_control = self.link.on_fragment = self.heard.append

    def _close(self) -> None:
        self.closes += 1


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.link.close("the test is over")


async def test_messages_both_ways(ends: Ends) -> None:
    ends.link.send(ACK)
    assert ends.control.sent == [encode_control(ACK)]
    ends.link.control_received(encode_control(ACK))
    ends.link.fragment_received(b"fragment")
    assert ends.heard == [ACK, b"fragment"]


async def test_a_keep_alive_stays_below_and_is_echoed_when_asked_for(
    ends: Ends,
) -> None:
    ends.link.control_received(encode_control(KeepAlive()))
    assert ends.control.sent == []
    ends.link.control_received(encode_control(KeepAlive(echo=True)))
    assert ends.control.sent == [encode_control(KeepAlive())]
    assert ends.heard == []


async def test_a_link_is_closed_when_this_computer_slept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_INTERVAL_S", 0.01)
    wall = 1e9
    monkeypatch.setattr(module, "wall_clock", lambda: wall)
    ends = Ends()
    wall += 3600.0
    async with asyncio.timeout(10):
        await ends.link.closed.wait()
    assert ends.link.close_reason == "this computer slept"
    assert ends.link.breach is None


async def test_nothing_is_acted_on_after_the_breach(ends: Ends) -> None:
    ends.link.control_received("NOTHING::{}")
    assert ends.closes == 1
    assert ends.link.breach is not None
    ends.link.control_received(encode_control(ACK))
    ends.link.fragment_received(b"fragment")
    ends.link.control_received("NOTHING::{}")
    assert ends.heard == []
    assert ends.closes == 1


async def test_nothing_is_sent_after_the_end(ends: Ends) -> None:
    ends.link.close("done")
    ends.link.send(ACK)
    assert ends.control.sent == []
    for sending in (ends.link.send_paced(ACK), ends.link.send_fragment(b"x")):
        with pytest.raises(LinkClosed, match="done"):
            await sending


async def test_a_closing_channel_ends_the_link(ends: Ends) -> None:
    ends.transfer.is_closing = True
    with pytest.raises(LinkClosed):
        await ends.link.send_fragment(b"x")
    assert ends.closes == 1
    other = Ends()
    other.control.is_closing = True
    other.link.send(ACK)
    assert other.closes == 1


async def test_a_peer_that_never_reads_loses_the_link(ends: Ends) -> None:
    ends.control.bufferedAmount = CONTROL_BUFFER_MAX_BYTES + 1
    ends.link.send(ACK)
    assert ends.link.closed.is_set()
    assert ends.control.sent == []


async def test_sending_waits_for_room(ends: Ends) -> None:
    ends.control.bufferedAmount = CONTROL_BUFFER_HIGH_BYTES + 1
    ends.transfer.bufferedAmount = SEND_BUFFER_HIGH_BYTES + 1
    paced = asyncio.ensure_future(ends.link.send_paced(ACK))
    fragment = asyncio.ensure_future(ends.link.send_fragment(b"x"))
    await turns()
    assert (ends.control.sent, ends.transfer.sent) == ([], [])
    ends.control.bufferedAmount = ends.transfer.bufferedAmount = 0
    ends.link.control_drained()
    ends.link.transfer_drained()
    await asyncio.gather(paced, fragment)
    assert ends.transfer.sent == [b"x"]


async def test_what_the_user_allows_is_kept_whatever_moves_the_packets() -> None:
    ends = Ends(max_bytes_per_s=1_000_000)
    begun_at = monotonic()
    for _ in range(16):
        await ends.link.send_fragment(b"x" * 10_000)
    # All but the last one, and what a moment of silence is worth.
    assert monotonic() - begun_at >= 0.1 - 0.01
    ends.link.close("the test is over")


async def test_who_waits_for_what_the_user_allows_hears_of_the_end() -> None:
    ends = Ends(max_bytes_per_s=1)
    await ends.link.send_fragment(b"x" * 1000)
    waiting = asyncio.ensure_future(ends.link.send_fragment(b"x"))
    await turns()
    assert not waiting.done()
    ends.link.close("done")
    with pytest.raises(LinkClosed, match="done"):
        await waiting


async def test_the_threshold_is_where_the_frame_has_room(ends: Ends) -> None:
    ends.transfer.bufferedAmount = SEND_BUFFER_FLOOR_BYTES
    waiting = asyncio.ensure_future(ends.link.send_fragment(b"x" * 1000))
    await turns()
    threshold = ends.transfer.bufferedAmountLowThreshold
    assert threshold == SEND_BUFFER_FLOOR_BYTES - 1000
    # Woken for the sake of another transfer, it waits on.
    ends.transfer.bufferedAmount = threshold + 1
    ends.link._room_in_transfer.set()
    await turns()
    assert ends.transfer.sent == []
    ends.transfer.bufferedAmount = threshold
    ends.link.transfer_drained()
    await waiting
    assert ends.transfer.sent == [b"x" * 1000]


async def test_a_frame_larger_than_all_room_is_sent_when_nothing_waits(
    ends: Ends,
) -> None:
    assert ends.link.fragment_bytes < SEND_BUFFER_FLOOR_BYTES // 2
    await ends.link.send_fragment(b"x" * MAX_TRANSFER_FRAME_BYTES)
    ends.transfer.bufferedAmount = 1
    waiting = asyncio.ensure_future(
        ends.link.send_fragment(b"y" * MAX_TRANSFER_FRAME_BYTES)
    )
    await turns()
    assert ends.transfer.bufferedAmountLowThreshold == 0
    assert len(ends.transfer.sent) == 1
    ends.transfer.bufferedAmount = 0
    ends.link.transfer_drained()
    await waiting
    assert len(ends.transfer.sent) == 2


async def test_whoever_waits_for_room_learns_of_the_end(ends: Ends) -> None:
    ends.transfer.bufferedAmount = SEND_BUFFER_HIGH_BYTES + 1
    fragment = asyncio.ensure_future(ends.link.send_fragment(b"x"))
    await turns()
    ends.link.close("it broke")
    with pytest.raises(LinkClosed, match="it broke"):
        await fragment


async def turns() -> None:
    """Let every task that can run come to where it waits."""
    for _ in range(5):
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn

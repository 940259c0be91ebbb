"""The channel for live frames, over one that only remembers what was sent."""

import asyncio
from typing import Any

import pytest
from aiortc.exceptions import InvalidStateError

from sleap_rtc_plugin.protocol.limits import (
    LIVE_SEND_BUFFER_BYTES,
    MAX_LIVE_MESSAGE_BYTES,
)
from sleap_rtc_plugin.transport.live_channel import LiveChannel


class FakeChannel:
    def __init__(self, state: str = "open") -> None:
        self.bufferedAmount = 0
        self.bufferedAmountLowThreshold = 0
        self.readyState = state
        self.sent: list[bytes | str] = []

    def send(self, data: bytes | str) -> None:
        if self.readyState != "open":
            raise InvalidStateError
        self.sent.append(data)


async def test_messages_out_and_in() -> None:
    below = FakeChannel()
    channel = LiveChannel(below)
    assert below.bufferedAmountLowThreshold == LIVE_SEND_BUFFER_BYTES
    heard: list[Any] = []
    channel.received(b"before anybody listens")
    channel.on_message = heard.append
    channel.received(b"one")
    channel.received("text is none of ours")
    channel.send(b"two")
    assert heard == [b"one"]
    assert below.sent == [b"two"]
    with pytest.raises(ValueError, match="bytes"):
        channel.send(bytes(MAX_LIVE_MESSAGE_BYTES + 1))


async def test_waiting_for_room() -> None:
    below = FakeChannel()
    channel = LiveChannel(below)
    await channel.until_room()
    below.bufferedAmount = LIVE_SEND_BUFFER_BYTES + 1
    assert not channel.has_room
    waiting = asyncio.ensure_future(channel.until_room())
    await asyncio.sleep(0)
    # Woken too early: it waits on.
    channel.drained()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    below.bufferedAmount = 0
    channel.drained()
    await waiting


async def test_opening_and_ending() -> None:
    below = FakeChannel("connecting")
    channel = LiveChannel(below)
    opening = asyncio.ensure_future(channel.until_open())
    await asyncio.sleep(0)
    assert not opening.done()
    channel.opened()
    await opening
    below.readyState = "closing"
    # It ends in a moment, and says so then.
    channel.send(b"lost")
    below.bufferedAmount = LIVE_SEND_BUFFER_BYTES + 1
    waiting = asyncio.ensure_future(channel.until_room())
    await asyncio.sleep(0)
    channel.ended()
    await waiting
    channel.send(b"lost too")
    assert below.sent == []
    assert channel.closed.is_set()

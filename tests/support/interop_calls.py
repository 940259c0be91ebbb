"""The near end of the interoperation tests: an aiortc connection that a test drives.

It talks with any far end of `interop_peers` or `interop_chromium`, stock or fast, and
compares what comes back with what it sent.
"""

import asyncio
import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from aiortc import RTCPeerConnection
from support.bad_link import BadLink
from support.interop_peers import (
    HIGH_WATER_BYTES,
    LOW_WATER_BYTES,
    AiortcEnd,
    FarPeer,
    Message,
)

__all__ = ["Line", "NearEnd", "seeded_messages", "size_bytes"]

# How much of what was sent may not have come back yet.
MAX_UNECHOED_BYTES = 2 << 20
LETTERS = "sleap üöß → 🐁"


def size_bytes(message: Message) -> int:
    """Return what a message takes on the wire, without what is around it."""
    return len(message.encode() if isinstance(message, str) else message)


def seeded_messages(seed: str, sizes: Sequence[int]) -> Iterator[Message]:
    """Make a binary and a text message of each size in bytes."""
    source = random.Random(seed)  # noqa: S311 - the same ones in each run
    for size in sizes:
        yield source.randbytes(size)
        text = "".join(source.choices(LETTERS, k=size)).encode()[:size]
        whole = text.decode(errors="ignore")
        yield whole + "." * (size - size_bytes(whole))


class Line:
    """A data channel as a test holds it."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.closed = asyncio.Event()
        self.opened = asyncio.Event()
        self._drained = asyncio.Event()
        self._received: deque[Message] = deque()
        self._arrived = asyncio.Event()
        channel.bufferedAmountLowThreshold = LOW_WATER_BYTES
        channel.on("open", self.opened.set)
        channel.on("close", self.closed.set)
        channel.on("bufferedamountlow", self._drained.set)
        channel.on("message", self._on_message)
        if channel.readyState == "open":
            self.opened.set()

    def _on_message(self, message: Message) -> None:
        self._received.append(message)
        self._arrived.set()

    async def send(self, message: Message) -> None:
        await self.opened.wait()
        while self.channel.bufferedAmount >= HIGH_WATER_BYTES:
            self._drained.clear()
            await self._drained.wait()
        self.channel.send(message)

    async def receive(self) -> Message:
        while not self._received:
            self._arrived.clear()
            await self._arrived.wait()
        return self._received.popleft()

    def take(self) -> list[Message]:
        """Return what has come and was not received."""
        came = list(self._received)
        self._received.clear()
        return came

    async def echoed(self, messages: Sequence[Message]) -> list[Message]:
        """Send messages to an `echo` and return what came back, as it came."""
        came: list[Message] = []
        unechoed_bytes = 0
        for message in messages:
            await self.send(message)
            unechoed_bytes += size_bytes(message)
            while unechoed_bytes > MAX_UNECHOED_BYTES:
                came.append(await self.receive())
                unechoed_bytes -= size_bytes(came[-1])
        while len(came) < len(messages):
            came.append(await self.receive())
        return came


class NearEnd(AiortcEnd):
    """The end that the test has in its hands; `lines` are its channels by label."""

    def __init__(self, connection: RTCPeerConnection) -> None:
        super().__init__(connection)
        self.lines: dict[str, Line] = {}
        self._adopted = asyncio.Event()

    def adopt(self, channel: Any) -> None:
        self.lines[channel.label] = Line(channel)
        self._adopted.set()

    def open_channel(self, label: str, **options: Any) -> Line:
        self.adopt(self.connection.createDataChannel(label, **options))
        return self.lines[label]

    async def line(self, label: str) -> Line:
        """Return a channel that the far end opens."""
        while label not in self.lines:
            self._adopted.clear()
            await self._adopted.wait()
        return self.lines[label]

    async def call(self, far: FarPeer) -> None:
        await self.accept(await far.answer(await self.offer()))

    async def call_through(self, link: BadLink, far: FarPeer) -> None:
        answer = await far.answer(await link.carry_offer(await self.offer()))
        await self.accept(link.carry_answer(answer))

    async def be_called(self, far: FarPeer) -> None:
        await far.accept(await self.answer(await far.offer()))

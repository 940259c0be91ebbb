"""A process that loads a signaling server, for `bench signaling`.

Reads its task as one JSON line on stdin, opens its sockets and registers them, says
when it is ready, waits for the word, and answers with one line of figures. Every
message that was sent is accounted for before it does.
"""

import asyncio
import contextlib
import gc
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.bench.signaling_files import allow_open_files
from sleap_rtc_plugin.bench.signaling_wire import (
    WireClient,
    WireClosed,
    connect,
    frame_of,
)
from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.signaling_messages import PeerMessage, Register, Role

__all__ = ["GO", "READY", "LoadFigures", "LoadRoom", "LoadTask"]

READY: Final = "ready"
GO: Final = "go"
# At once; a listening socket's queue is bounded, and so is what a server takes in.
CONNECT_TOGETHER: Final = 64
REPLY_TIMEOUT_S: Final = 30.0
_SAID: Final = b'"peer_message"'
_DELIVERED: Final = b'"delivered"'
_REGISTERED: Final = b'"registered"'


class LoadRoom(Struct):
    """A room of the server, and what admits to it."""

    room_id: str
    token: str


class LoadTask(Struct, kw_only=True):
    """What to do.

    Attributes:
        kind: hold sockets, let pairs talk as fast as they can, or now and then.
        url: the server's WebSocket.
        partner_url: where the other half of the pairs connects.
        rooms: as many as hold the sockets.
        sockets_per_room: how many; two are a pair.
        window: how many messages of one peer are on their way at most.
        message_bytes: how large a message is.
        seconds: how long to talk.
        interval_s: between two messages of a peer that talks now and then.
    """

    kind: Literal["hold", "talk", "measure"]
    url: str
    partner_url: str
    rooms: list[LoadRoom]
    sockets_per_room: int
    window: int = 1
    message_bytes: int = 360
    seconds: float = 0.0
    interval_s: float = 0.0


class LoadFigures(Struct, kw_only=True):
    """What was measured.

    Attributes:
        messages: how many were relayed.
        seconds: in which time.
        arrived_s: of each message of one that talks now and then, how long it took
            to its partner.
        failure: why it did not get to the end.
    """

    messages: int = 0
    seconds: float = 0.0
    arrived_s: list[float] = []
    failure: str = ""


class _Peer:
    """One registered peer of a pair, or one that is only there."""

    def __init__(self, client: WireClient, name: str, partner: str, size: int) -> None:
        self.client = client
        self._frame = frame_of(_message(partner, size))
        self.is_talking = False
        self.sent = self.delivered = self.arrived = 0
        self.failure = ""
        # Told of the partner's messages, where somebody waits for them.
        self.on_arrival: Callable[[], None] = lambda: None
        client.on_texts = self._take

    def begin(self, window: int) -> None:
        """Say as much as the window holds, and something new at every reply."""
        self.is_talking = True
        self.say(window)

    def say(self, count: int = 1) -> None:
        """Say something."""
        self.sent += count
        self.client.write(self._frame * count)

    def _take(self, texts: list[bytes]) -> None:
        replies = 0
        for text in texts:
            # A reply says so at once; a message only as far as its head goes.
            head = text[:128]
            if _DELIVERED in head:
                replies += 1
            elif _SAID in head:
                self.arrived += 1
                self.on_arrival()
            else:
                self.failure = head.decode(errors="replace")
        self.delivered += replies
        if replies and self.is_talking:
            self.say(replies)


def _message(partner: str, size: int) -> bytes:
    empty = PeerMessage(id="m", to=partner, payload=msgspec.Raw(b'""'))
    padding = max(0, size - len(codec.encode_signaling(empty)))
    filled = PeerMessage(
        id="m", to=partner, payload=msgspec.Raw(b'"' + b"x" * padding + b'"')
    )
    return codec.encode_signaling(filled).encode()


async def _enter(url: str, room: LoadRoom, name: str, role: Role) -> WireClient:
    """Connect and register."""
    client = await connect(url)
    reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    client.on_texts = lambda texts: None if reply.done() else reply.set_result(texts[0])
    message = Register(
        id="r",
        room_id=room.room_id,
        token=room.token,
        peer_id=name,
        role=role,
        resume_key=secrets.token_hex(32),
    )
    client.write(frame_of(codec.encode_signaling(message).encode()))
    async with asyncio.timeout(REPLY_TIMEOUT_S):
        text = await reply
    if _REGISTERED not in text:
        raise WireClosed(text[:200].decode(errors="replace"))
    return client


async def _gather(task: LoadTask) -> list[_Peer]:
    """Open all sockets, some at a time; the two of a pair are neighbours."""
    places = asyncio.Semaphore(CONNECT_TOGETHER)

    async def one(room: LoadRoom, number: int) -> _Peer:
        is_partner = number % 2 == 1
        url = task.partner_url if is_partner else task.url
        partner = f"peer-{number - 1 if is_partner else number + 1}"
        name = f"peer-{number}"
        role: Role = "client" if is_partner else "worker"
        async with places:
            client = await _enter(url, room, name, role)
        return _Peer(client, name, partner, task.message_bytes)

    wanted = [
        one(room, number)
        for room in task.rooms
        for number in range(task.sockets_per_room)
    ]
    return list(await asyncio.gather(*wanted))


async def _talk(task: LoadTask, peers: Sequence[_Peer]) -> LoadFigures:
    """Let all talk at once, then wait for what is on its way."""
    begun = time.perf_counter()
    for peer in peers:
        peer.begin(task.window)
    await asyncio.sleep(task.seconds)
    for peer in peers:
        peer.is_talking = False
    async with asyncio.timeout(REPLY_TIMEOUT_S):
        while _missing(peers):  # noqa: ASYNC110 -- an event would cost every message
            await asyncio.sleep(0.001)
    seconds = time.perf_counter() - begun
    return LoadFigures(messages=sum(p.arrived for p in peers), seconds=seconds)


def _missing(peers: Sequence[_Peer]) -> bool:
    sent = sum(peer.sent for peer in peers)
    return any(
        sum(counted) < sent
        for counted in (
            [peer.delivered for peer in peers],
            [peer.arrived for peer in peers],
        )
    )


async def _measure(task: LoadTask, peers: Sequence[_Peer]) -> LoadFigures:
    """Let the first of each pair talk now and then, and time each message."""
    arrived_s: list[float] = []

    async def one(speaker: _Peer, listener: _Peer, delay_s: float) -> None:
        said_at = 0.0
        arrival = asyncio.Event()

        def note() -> None:
            arrived_s.append(time.perf_counter() - said_at)
            arrival.set()

        listener.on_arrival = note
        await asyncio.sleep(delay_s)
        while time.perf_counter() < ends:
            arrival.clear()
            said_at = time.perf_counter()
            speaker.say()
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                await arrival.wait()
            await asyncio.sleep(task.interval_s)

    begun = time.perf_counter()
    ends = begun + task.seconds
    pairs = list(zip(peers[::2], peers[1::2], strict=True))
    await asyncio.gather(
        *(
            one(*pair, delay_s=task.interval_s * number / len(pairs))
            for number, pair in enumerate(pairs)
        )
    )
    seconds = time.perf_counter() - begun
    return LoadFigures(messages=len(arrived_s), seconds=seconds, arrived_s=arrived_s)


def _tell(what: Struct | str) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()


async def _run(task: LoadTask) -> LoadFigures:
    peers = await _gather(task)
    # What is collected while it is measured is collected in the server alone.
    gc.collect()
    gc.freeze()
    _tell(READY)
    await asyncio.to_thread(sys.stdin.readline)
    match task.kind:
        case "hold":
            await asyncio.sleep(task.seconds)
            figures = LoadFigures(seconds=task.seconds)
        case "talk":
            figures = await _talk(task, peers)
        case "measure":
            figures = await _measure(task, peers)
    closed = [peer.client.closed for peer in peers if peer.client.closed]
    refused = [peer.failure for peer in peers if peer.failure]
    figures.failure = next(iter(closed + refused), "")
    _tell(figures)
    # The sockets stay open until whoever measures has measured.
    await asyncio.to_thread(sys.stdin.read)
    for peer in peers:
        peer.client.close()
    return figures


def main() -> None:
    """Carry out the task on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = msgspec.json.decode(sys.stdin.readline(), type=LoadTask)
    allow_open_files()
    try:
        asyncio.run(_run(task))
    except (OSError, TimeoutError, WireClosed) as error:
        with contextlib.suppress(OSError):
            _tell(LoadFigures(failure=str(error) or type(error).__name__))


if __name__ == "__main__":
    main()

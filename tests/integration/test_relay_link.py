"""Links through a relay: as good as any other, whatever the relay tries."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.relay_stand_in import RelayStandIn, relay_stand_in
from support.transfer_ends import End, make_files

from sleap_rtc_plugin.protocol import liveness
from sleap_rtc_plugin.protocol.errors import (
    PeerNotAuthenticated,
    RelayRefused,
    RemoteProtocolError,
)
from sleap_rtc_plugin.protocol.ids import new_relay_id
from sleap_rtc_plugin.protocol.messages import Acknowledged, TrainLog
from sleap_rtc_plugin.protocol.relay_messages import RelayTerms
from sleap_rtc_plugin.transport import link as link_module
from sleap_rtc_plugin.transport.link import Link, LinkClosed
from sleap_rtc_plugin.transport.relay_link import RelayConnection
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transport_options import TransportOptions

pytestmark = pytest.mark.timeout(60)
PATIENCE_S = 20
SECRET = b"s" * 32
FAST = RelayTerms(path="/relay", max_mbit=10_000.0)


def end(
    relay: RelayStandIn,
    role: Any,
    relay_id: str,
    *,
    secret: bytes = SECRET,
    terms: RelayTerms = FAST,
) -> RelayConnection:
    other = "worker" if role == "client" else "client"
    return RelayConnection(
        role=role,
        peer_id=f"{other}-1",
        own_peer_id=f"{role}-1",
        secret=secret,
        server=relay.url,
        terms=terms,
        token="t",
        relay_id=relay_id,
        options=TransportOptions(),
    )


async def meet(*connections: RelayConnection) -> list[Any]:
    async def one(connection: RelayConnection) -> Link:
        try:
            await connection.join()
            return await connection.authenticate()
        except BaseException:
            await connection.close()
            raise

    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*map(one, connections), return_exceptions=True)


@asynccontextmanager
async def met(relay: RelayStandIn, **options: Any) -> AsyncIterator[tuple[Link, Link]]:
    relay_id = new_relay_id()
    connections = [
        end(relay, role, relay_id, **options) for role in ("client", "worker")
    ]
    try:
        one, other = await meet(*connections)
        assert isinstance(one, Link), one
        assert isinstance(other, Link), other
        yield one, other
    finally:
        for connection in connections:
            await connection.close()


@pytest.fixture
async def relay() -> AsyncIterator[RelayStandIn]:
    async with relay_stand_in() as made:
        yield made


async def test_a_link_like_any_other(relay: RelayStandIn) -> None:
    async with met(relay) as (one, other):
        assert one.kind == other.kind == "relay"
        assert one.engine == one.peer_engine == "websocket"
        assert "job-list" in one.features
        heard: asyncio.Queue[Any] = asyncio.Queue()
        one.on_control = other.on_control = heard.put_nowait
        other.on_fragment = heard.put_nowait
        message = Acknowledged(command_id="c-1", last_seq=3)
        one.send(message)
        assert await heard.get() == message
        other.send(message)
        assert await heard.get() == message
        await one.send_fragment(b"\x01" * 65_536)
        assert await heard.get() == b"\x01" * 65_536
    assert one.close_reason
    assert other.closed.is_set()


async def test_files_cross_and_nobody_reads_them(
    relay: RelayStandIn, tmp_path: Path
) -> None:
    source = make_files(tmp_path / "from", 1, {"a.bin": 3_000_000, "b.bin": 10})
    content = (tmp_path / "from/a.bin").read_bytes()
    async with met(relay) as (one, other), asyncio.timeout(PATIENCE_S):
        sender, receiver = End(one), End(other)
        area = StagingArea(tmp_path / "to")
        await asyncio.gather(sender.send(source), receiver.receive(area))
    assert (area.files / "a.bin").read_bytes() == content
    carried = b"".join(relay.heard)
    assert len(carried) > len(content)
    for piece in (content[:64], content[1_000_000:1_000_032], b"HELLO", b"FILE_META"):
        assert piece not in carried


async def test_control_is_not_held_up_by_files(relay: RelayStandIn) -> None:
    """At 8 Mbit/s an answer is there long before the files that were on their way."""
    slow = RelayTerms(path="/relay", max_mbit=8.0)
    async with met(relay, terms=slow) as (one, other):
        got, half_a_megabyte = asyncio.Event(), asyncio.Event()
        arrived = 0

        def count(frame: bytes | str) -> None:
            nonlocal arrived
            arrived += len(frame)
            if arrived >= 500_000:
                half_a_megabyte.set()

        other.on_fragment = count
        other.on_control = lambda message: got.set()

        async def fill() -> None:
            while True:
                await one.send_fragment(bytes(32_768))

        filling = asyncio.get_running_loop().create_task(fill())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await half_a_megabyte.wait()
                before = arrived
                one.send(Acknowledged(command_id="c-1", last_seq=1))
                await got.wait()
            assert arrived - before < 600_000
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)


async def test_a_long_series_of_control_messages(relay: RelayStandIn) -> None:
    async with met(relay) as (one, other), asyncio.timeout(PATIENCE_S):
        seen: list[Any] = []
        done = asyncio.Event()

        def take(message: Any) -> None:
            seen.append(message.seq)
            if message.seq == 2_000:
                done.set()

        other.on_control = take
        for seq in range(1, 2_001):
            log = TrainLog(
                job_id="job-" + "0" * 20, seq=seq, at=0.0, step=0, lines=["x" * 400]
            )
            await one.send_paced(log)
        await done.wait()
        assert seen == list(range(1, 2_001))


async def test_closing_one_side_closes_the_other(relay: RelayStandIn) -> None:
    async with met(relay) as (one, other), asyncio.timeout(PATIENCE_S):
        one.close("done")
        await other.closed.wait()
        assert other.close_reason == "the peer closed the connection"
        with pytest.raises(LinkClosed):
            await other.send_fragment(b"x")
        other.send(Acknowledged(command_id="c-1", last_seq=1))


async def test_a_peer_that_falls_silent_loses_the_link(
    relay: RelayStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "KEEP_ALIVE_INTERVAL_S", 0.02)
    monkeypatch.setattr(liveness, "KEEP_ALIVE_TIMEOUT_S", 0.5)
    async with met(relay) as (one, other), asyncio.timeout(PATIENCE_S):
        other._keep_alive.cancel()
        await one.closed.wait()
        assert one.close_reason == "it stopped answering"


# -- what is refused ------------------------------------------------------------------


async def test_a_wrong_secret_is_refused_by_both(relay: RelayStandIn) -> None:
    relay_id = new_relay_id()
    one = end(relay, "client", relay_id)
    other = end(relay, "worker", relay_id, secret=b"x" * 32)
    try:
        results = await meet(one, other)
        assert PeerNotAuthenticated in [type(result) for result in results]
        assert not any(isinstance(result, Link) for result in results)
    finally:
        await one.close()
        await other.close()


KEY_OF_ITS_OWN = secrets.token_bytes(32)
TAMPERINGS = {
    "its own key": lambda n, f: [f[:5] + KEY_OF_ITS_OWN] if n == 0 else [f],
    "another role": lambda n, f: [f[:4] + b"w" + f[5:]] if n == 0 else [f],
    "a cut key": lambda n, f: [f[:-1]] if n == 0 else [f],
    "a changed confirmation": lambda n, f: (
        [bytes([f[0] ^ 1]) + f[1:]] if n == 1 else [f]
    ),
    "a repeated confirmation": lambda n, f: [f, f] if n == 1 else [f],
    "no confirmation": lambda n, f: [] if n == 1 else [f],
    "a changed HELLO": lambda n, f: [f[:-1] + bytes([f[-1] ^ 1])] if n == 2 else [f],
    "a repeated HELLO": lambda n, f: [f, f] if n == 2 else [f],
    "no HELLO": lambda n, f: [] if n == 2 else [f],
    "a HELLO that was cut": lambda n, f: [f[:20]] if n == 2 else [f],
    "nothing": lambda n, f: [b""] if n == 2 else [f],
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
async def test_a_relay_that_tampers_gets_no_link(
    relay: RelayStandIn, tamper: Any
) -> None:
    relay.tamper = tamper
    relay_id = new_relay_id()
    one, other = (end(relay, role, relay_id) for role in ("client", "worker"))
    try:
        results = await meet(one, other)
        kinds = (PeerNotAuthenticated, RemoteProtocolError)
        # The worker, to whom it happens, refuses; to the client it has hung up.
        assert isinstance(results[1], kinds), results
        if isinstance(results[0], Link):
            async with asyncio.timeout(PATIENCE_S):
                await results[0].closed.wait()
    finally:
        await one.close()
        await other.close()


@pytest.mark.parametrize(
    "tamper",
    [
        lambda frame: [frame, frame],
        lambda frame: [frame[:-1] + bytes([frame[-1] ^ 1])],
        lambda frame: [frame[:-1]],
        lambda frame: [frame + b"x"],
        lambda frame: [b"an injected frame", frame],
    ],
    ids=["twice", "changed", "cut", "longer", "injected"],
)
async def test_a_relay_that_tampers_later_ends_the_link(
    relay: RelayStandIn, tamper: Any
) -> None:
    async with met(relay) as (one, other), asyncio.timeout(PATIENCE_S):
        heard: list[Any] = []
        other.on_control = heard.append
        relay.tamper = lambda number, frame: tamper(frame)
        one.send(Acknowledged(command_id="c-1", last_seq=1))
        await other.closed.wait()
        await one.closed.wait()
        assert len(heard) <= 1


async def test_frames_that_change_places_end_the_link(relay: RelayStandIn) -> None:
    async with met(relay) as (one, other), asyncio.timeout(PATIENCE_S):
        held: list[bytes] = []
        heard: list[Any] = []
        other.on_control = heard.append

        def swap(number: int, frame: bytes) -> list[bytes]:
            held.append(frame)
            return held[::-1] if len(held) == 2 else []

        relay.tamper = swap
        for seq in (1, 2):
            one.send(Acknowledged(command_id="c-1", last_seq=seq))
        await other.closed.wait()
        assert heard == []


async def test_a_relay_that_is_not_there() -> None:
    async with relay_stand_in() as relay:
        pass
    connection = end(relay, "client", new_relay_id())
    try:
        [refused] = await meet(connection)
        assert isinstance(refused, RelayRefused)
        assert "connection refused" in str(refused)
    finally:
        await connection.close()

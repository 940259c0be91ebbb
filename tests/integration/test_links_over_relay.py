"""The programs' own links over the real server's relay, at its real rate."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.signaling_lab import Clock, Lab, config
from support.transfer_ends import End, make_files, same

from sleap_rtc_plugin.protocol.errors import PeerNotAuthenticated, RelayRefused
from sleap_rtc_plugin.protocol.ids import new_relay_id
from sleap_rtc_plugin.protocol.messages import Acknowledged
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.relay_link import RelayConnection
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transport_options import TransportOptions
from sleap_rtc_signaling.config import RelayConfig
from sleap_rtc_signaling.limits import BYTES_PER_MBIT, RELAY_BURST_BYTES
from sleap_rtc_signaling.server import SignalingServer

pytestmark = pytest.mark.timeout(120)
PATIENCE_S = 60
DEFAULT = RelayConfig(enabled=True)


class Room:
    """A real server with a room and its two members, and what it tells of the relay."""

    def __init__(
        self, lab: Lab, room: tuple[str, str], listed: IceServerList, owner: str
    ) -> None:
        self.owner = owner
        self.lab = lab
        self.room = room
        self.listed = listed

    def end(
        self, role: Any, relay_id: str, secret: bytes = b"s" * 32, token: str = ""
    ) -> RelayConnection:
        assert self.listed.relay is not None
        other = "worker" if role == "client" else "client"
        return RelayConnection(
            role=role,
            peer_id=f"{other}-1",
            own_peer_id=f"{role}-1",
            secret=secret,
            server=self.lab.server.url,
            terms=self.listed.relay,
            token=token or self.room[1],
            room_id=self.room[0],
            relay_id=relay_id,
            options=TransportOptions(),
        )

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[tuple[Link, Link]]:
        relay_id = new_relay_id()
        ends = [self.end("client", relay_id), self.end("worker", relay_id)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                client, worker = await asyncio.gather(*map(opened, ends))
            yield client, worker
        finally:
            for end in ends:
                await end.close()


async def opened(end: RelayConnection) -> Link:
    await end.join()
    return await end.authenticate()


@asynccontextmanager
async def relaying(folder: Path, relay: RelayConfig) -> AsyncIterator[Room]:
    clock = Clock()
    settings = config(folder, relay=relay)
    async with SignalingServer(settings, clock=clock) as server:
        lab = Lab(server, clock)
        owner = await lab.account()
        room = await lab.room(owner)
        for peer_id, role in (("worker-1", "worker"), ("client-1", "client")):
            await lab.join(room, peer_id, role)
        reply = await lab.get("/ice-servers", room[1])
        listed = msgspec.json.decode(reply.content, type=IceServerList)
        try:
            yield Room(lab, room, listed, owner)
        finally:
            await lab.close()


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with relaying(tmp_path / "server", DEFAULT) as made:
        yield made


async def test_files_cross_at_the_servers_rate(room: Room, tmp_path: Path) -> None:
    size = 2_000_000
    source = make_files(tmp_path / "from", 1, {"a.bin": size, "b.bin": 10})
    area = StagingArea(tmp_path / "to")
    async with room.linked() as (client, worker), asyncio.timeout(PATIENCE_S):
        assert client.kind == worker.kind == "relay"
        started = time.monotonic()
        await asyncio.gather(End(client).send(source), End(worker).receive(area))
        seconds = time.monotonic() - started
    assert same(source, area)
    assert seconds >= (size - 2 * RELAY_BURST_BYTES) / (8.0 * BYTES_PER_MBIT)


async def test_a_members_account_opens_it_as_a_room_token_does(room: Room) -> None:
    relay_id = new_relay_id()
    ends = [
        room.end("client", relay_id, token=room.owner),
        room.end("worker", relay_id),
    ]
    try:
        async with asyncio.timeout(PATIENCE_S):
            links = await asyncio.gather(*map(opened, ends))
        assert [link.kind for link in links] == ["relay", "relay"]
    finally:
        for end in ends:
            await end.close()
    stranger = room.end("client", new_relay_id(), token=await room.lab.account())
    with pytest.raises(RelayRefused):
        await opened(stranger)
    await stranger.close()


async def test_an_answer_is_there_long_before_the_files(room: Room) -> None:
    async with room.linked() as (client, worker), asyncio.timeout(PATIENCE_S):
        got, enough = asyncio.Event(), asyncio.Event()
        arrived = 0

        def count(frame: bytes | str) -> None:
            nonlocal arrived
            arrived += len(frame)
            if arrived >= 1_000_000:
                enough.set()

        worker.on_fragment = count
        worker.on_control = lambda message: got.set()

        async def fill() -> None:
            while True:
                await client.send_fragment(bytes(32_768))

        filling = asyncio.create_task(fill())
        try:
            await enough.wait()
            before = arrived
            client.send(Acknowledged(command_id="c-1", last_seq=1))
            await got.wait()
            assert arrived - before < 1_000_000
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)


async def test_a_room_that_ends_ends_the_links(tmp_path: Path) -> None:
    async with relaying(tmp_path, DEFAULT) as room:
        account = await room.lab.account()
        owned = await room.lab.room(account)
        for peer_id, role in (("worker-1", "worker"), ("client-1", "client")):
            await room.lab.join(owned, peer_id, role)
        other = Room(room.lab, owned, room.listed, account)
        async with other.linked() as (client, worker), asyncio.timeout(PATIENCE_S):
            async with AccountClient(room.lab.server.url) as rest:
                await rest.delete_room(account, owned[0])
            await client.closed.wait()
            await worker.closed.wait()


async def test_a_quota_ends_the_link_with_a_reason(tmp_path: Path) -> None:
    few = RelayConfig(enabled=True, max_mbit=400, room_gib_per_day=0.001)
    async with (
        relaying(tmp_path, few) as room,
        room.linked() as (client, worker),
        asyncio.timeout(PATIENCE_S),
    ):
        worker.on_fragment = lambda frame: None

        async def fill() -> None:
            while True:
                await client.send_fragment(bytes(32_768))

        filling = asyncio.create_task(fill())
        await client.closed.wait()
        await worker.closed.wait()
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        assert "limit" in client.close_reason
        assert "limit" in worker.close_reason


async def test_a_stop_of_the_server_ends_the_link(tmp_path: Path) -> None:
    async with relaying(tmp_path, DEFAULT) as room, room.linked() as (client, worker):
        await room.lab.server.stop()
        async with asyncio.timeout(PATIENCE_S):
            await client.closed.wait()
            await worker.closed.wait()


async def test_who_is_not_let_in_is_told_so(room: Room) -> None:
    # Alone: nobody comes.
    alone = room.end("client", new_relay_id())
    await alone.join()
    waiting = asyncio.create_task(alone.authenticate())
    async with asyncio.timeout(PATIENCE_S):
        # Each look gives the server its turn, until it has seen the join.
        while (
            "sleap_signaling_relays_waiting 1.0"
            not in (await room.lab.get("/metrics")).text
        ):
            pass
    room.lab.advance(11.0)
    with pytest.raises(RelayRefused):
        await waiting
    await alone.close()
    # With another secret, the two do not become a link.
    relay_id = new_relay_id()
    ends = [
        room.end("client", relay_id),
        room.end("worker", relay_id, secret=b"x" * 32),
    ]
    async with asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(*map(opened, ends), return_exceptions=True)
    assert any(isinstance(o, PeerNotAuthenticated) for o in outcomes), outcomes
    assert not any(isinstance(outcome, Link) for outcome in outcomes)
    for end in ends:
        await end.close()

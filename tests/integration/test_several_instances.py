"""Two instances of the server over one Redis, which is killed, frozen and emptied."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from support.redis_server import RedisServer, redis_server
from support.signaling_lab import WAIT_S, Clock, Lab, Peer, config, free_port
from websockets import InvalidStatus

from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.protocol.signaling_messages import (
    Delivered,
    DiscoverPeers,
    Offer,
    Registered,
    RelayedOffer,
)
from sleap_rtc_signaling import gate as gate_module
from sleap_rtc_signaling.bus.redis_bus import RedisBus
from sleap_rtc_signaling.config import BusConfig
from sleap_rtc_signaling.limits import REST_RATE
from sleap_rtc_signaling.server import SignalingServer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


class RealClock(Clock):
    """Unix time as it is: what waits here waits in earnest."""

    def __call__(self) -> float:
        return time.time()


class Department(Lab):
    """Two instances, of which each has a lab of its own."""

    one: Lab
    other: Lab

    @property
    def labs(self) -> tuple[Lab, Lab]:
        return self.one, self.other


@pytest.fixture
async def department(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Department]:
    clock, port = RealClock(), free_port()
    options = {
        "bus": BusConfig(url=redis.url, drain_s=0.5),
        "public_url": f"http://127.0.0.1:{port}",
    }
    one = SignalingServer(config(tmp_path, port=port, **options), clock=clock)
    other = SignalingServer(config(tmp_path, **options), clock=clock)
    async with one, other:
        opened = Department(one, clock, other)
        opened.one, opened.other = Lab(one, clock), Lab(other, clock)
        try:
            yield opened
        finally:
            for lab in (opened, opened.one, opened.other):
                await lab.close()


async def is_ready(lab: Lab) -> bool:
    address = f"http://127.0.0.1:{lab.server.port}/ready"
    return (await lab.http.get(address)).status_code == 200


async def eventually(what: Callable[[], Awaitable[bool]]) -> None:
    ends = time.monotonic() + WAIT_S
    while not await what():
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)


async def say(sender: Peer, receiver: Peer, to: str, from_: str, word: str) -> None:
    assert await sender.ask(Offer(id=word, to=to, sdp=word)) == Delivered(id=word)
    assert await receiver.receive() == RelayedOffer(id=word, from_=from_, sdp=word)


async def test_what_is_said_keeps_its_order(department: Department) -> None:
    room = await department.room()
    worker = await department.one.join(room, "worker-1", "worker")
    client = await department.other.join(room, "client-1")
    for number in range(50):
        await client.send(Offer(id=f"o-{number}", to="worker-1", sdp="x"))
    heard = [(await worker.receive()).id for _ in range(50)]
    assert heard == [f"o-{number}" for number in range(50)]
    assert {(await client.receive()).id for _ in range(50)} == set(heard)


async def test_a_peer_moves_to_another_instance(department: Department) -> None:
    room = await department.room()
    before = await department.one.join(room, "worker-1", "worker")
    client = await department.one.join(room, "client-1")
    after = await department.other.join(room, "worker-1", "worker")
    assert await before.closed() == CloseCode.REPLACED
    await say(client, after, "worker-1", "client-1", "here")
    listed = await client.ask(DiscoverPeers(id="d", role="worker"))
    assert [info.peer_id for info in listed.peers] == ["worker-1"]


async def test_nobody_takes_the_id_of_another(department: Department) -> None:
    room = await department.room()
    await department.one.join(room, "worker-1", "worker")
    key = "another" * 6
    _, refusal = await department.other.register(room, "worker-1", resume_key=key)
    assert refusal.code == "peer_id_taken"


async def test_one_of_many_gets_an_id(department: Department) -> None:
    room = await department.room()
    labs = [department.one, department.other] * 5
    tries = [
        lab.register(room, "worker-1", "worker", resume_key=f"{number}" * 32)
        for number, lab in enumerate(labs)
    ]
    replies = [reply for _, reply in await asyncio.gather(*tries)]
    assert sum(isinstance(reply, Registered) for reply in replies) == 1
    codes = {reply.code for reply in replies if not isinstance(reply, Registered)}
    assert codes == {"peer_id_taken"}


async def test_what_is_said_waits_for_one_that_comes_back_elsewhere(
    department: Department,
) -> None:
    room = await department.room()
    worker = await department.one.join(room, "worker-1", "worker")
    client = await department.other.join(room, "client-1")
    worker.socket.transport.abort()
    await worker.closed()
    await client.send(Offer(id="first", to="worker-1", sdp="x"))
    await client.send(Offer(id="second", to="worker-1", sdp="x"))
    await asyncio.sleep(0.2)
    worker = await department.other.join(room, "worker-1", "worker")
    assert [(await worker.receive()).id for _ in range(2)] == ["first", "second"]
    assert [await client.receive() for _ in range(2)] == [
        Delivered(id="first"),
        Delivered(id="second"),
    ]


async def test_one_that_said_good_bye_is_not_found(department: Department) -> None:
    room = await department.room()
    worker = await department.one.join(room, "worker-1", "worker")
    client = await department.other.join(room, "client-1")
    await worker.socket.close()
    await asyncio.sleep(0.2)
    began = time.monotonic()
    refusal = await client.ask(Offer(id="o", to="worker-1", sdp="x"))
    assert refusal.code == "peer_not_found"
    assert time.monotonic() - began < 2


async def test_a_deleted_room_is_left_at_every_instance(
    department: Department,
) -> None:
    account = await department.account()
    room = await department.room(account)
    peers = [
        await department.one.join(room, "worker-1", "worker"),
        await department.other.join(room, "client-1"),
    ]
    body = {"room_id": room[0]}
    deleted = await department.post("/delete-peers-and-room", account, json=body)
    assert deleted.is_success
    assert [await peer.closed() for peer in peers] == [CloseCode.ROOM_ENDED] * 2


async def test_redis_is_killed_and_comes_back_empty(
    department: Department, redis: RedisServer
) -> None:
    room = await department.room()
    worker = await department.one.join(room, "worker-1", "worker")
    beside = await department.one.join(room, "client-1")
    client = await department.other.join(room, "client-2")
    redis.kill()
    # Those of one instance go on, the others wait, and new ones may try again.
    await say(beside, worker, "worker-1", "client-1", "beside")
    refusal = await client.ask(Offer(id="away", to="worker-1", sdp="x"))
    assert refusal.code == "peer_not_found"
    _, refused = await department.one.register(room, "client-3")
    assert refused.code == StorageFailed.code
    assert not await is_ready(department.one)
    redis.start()
    await eventually(lambda: is_ready(department.one))
    await eventually(lambda: is_ready(department.other))
    # Nobody had to connect again.
    await say(client, worker, "worker-1", "client-2", "again")
    await say(worker, client, "client-2", "worker-1", "and-back")
    listed = await client.ask(DiscoverPeers(id="d"))
    assert len(listed.peers) == 3
    await department.one.join(room, "client-3")


async def test_redis_stands_still(department: Department, redis: RedisServer) -> None:
    room = await department.room()
    worker = await department.one.join(room, "worker-1", "worker")
    beside = await department.one.join(room, "client-1")
    client = await department.other.join(room, "client-2")
    redis.freeze()
    try:
        began = time.monotonic()
        await say(beside, worker, "worker-1", "client-1", "beside")
        assert time.monotonic() - began < 1
        await client.send(Offer(id="held", to="worker-1", sdp="x"))
        await asyncio.sleep(1)
    finally:
        redis.thaw()
    # A short stop loses nothing.
    assert (await worker.receive()).id == "held"
    assert await client.receive() == Delivered(id="held")


async def test_nonsense_in_redis_hurts_nobody(
    department: Department, redis: RedisServer
) -> None:
    room = await department.room()
    worker = await department.one.join(room, "worker-1", "worker")
    client = await department.other.join(room, "client-1")
    bus = RedisBus(redis.url, "sleap-remote")
    raw = bus._redis
    for channel in await raw.pubsub_channels():
        for nonsense in (b"", b"{", b'{"type":"forwarded"}', b"\xff" * 10, b"[" * 9999):
            await raw.publish(channel, nonsense)
    await raw.xadd("sleap-remote:events", {b"event": b"{}"})
    await raw.xadd("sleap-remote:events", {b"other": b"x"})
    async for key in raw.scan_iter(match="sleap-remote:peer:*client-1"):
        await raw.hset(key, "info", b'{"peer_id":1}')
    await raw.aclose()
    await say(client, worker, "worker-1", "client-1", "still")
    listed = await client.ask(DiscoverPeers(id="d"))
    assert [info.peer_id for info in listed.peers] == ["worker-1"]


async def test_an_instance_that_died_is_not_waited_for_in_vain(
    department: Department, redis: RedisServer
) -> None:
    """Its peers are taken for on their way, until they are back elsewhere."""
    room = await department.room()
    await department.one.join(room, "worker-1", "worker")
    client = await department.other.join(room, "client-1")
    bus = RedisBus(redis.url, "sleap-remote")
    raw = bus._redis
    async for key in raw.scan_iter(match="sleap-remote:peer:*worker-1"):
        await raw.hset(key, "instance", "0" * 16)  # of one that is no more
    await raw.aclose()
    await client.send(Offer(id="o", to="worker-1", sdp="x"))
    await asyncio.sleep(0.3)
    worker = await department.other.join(room, "worker-1", "worker")
    assert (await worker.receive()).id == "o"
    assert await client.receive() == Delivered(id="o")


async def test_a_message_to_an_instance_that_does_not_answer_ends(
    department: Department, redis: RedisServer
) -> None:
    room = await department.room()
    await department.one.join(room, "worker-1", "worker")
    client = await department.other.join(room, "client-1")
    bus = RedisBus(redis.url, "sleap-remote")
    raw = bus._redis
    mute = "0" * 16
    async with raw.pubsub() as listener:
        await listener.subscribe(f"sleap-remote:inbox:{mute}")
        await raw.set(f"sleap-remote:instance:{mute}", b"1")
        async for key in raw.scan_iter(match="sleap-remote:peer:*worker-1"):
            await raw.hset(key, "instance", mute)
        refusal = await client.ask(Offer(id="o", to="worker-1", sdp="x"))
    await raw.aclose()
    assert refusal.code == "peer_not_found"


async def test_an_instance_is_drained(department: Department) -> None:
    room = await department.room()
    worker = await department.one.join(room, "worker-1", "worker")
    client = await department.other.join(room, "client-1")
    draining = asyncio.create_task(department.one.server.drain())
    await asyncio.sleep(0.1)
    assert not await is_ready(department.one)
    assert await is_ready(department.other)
    with pytest.raises(InvalidStatus) as caught:
        await department.one.connect()
    assert caught.value.response.status_code == 503
    # Until its turn comes, everybody goes on.
    await say(client, worker, "worker-1", "client-1", "still")
    await draining
    assert await worker.closed() == 1012
    await client.send(Offer(id="o", to="worker-1", sdp="x"))
    await asyncio.sleep(0.2)
    worker = await department.other.join(room, "worker-1", "worker")
    assert (await worker.receive()).id == "o"


async def test_an_address_asks_all_instances_together(
    department: Department,
) -> None:
    asked = 0
    while asked < 2 * REST_RATE.burst:
        lab = (department.one, department.other)[asked % 2]
        address = f"http://127.0.0.1:{lab.server.port}/health"
        if (await department.http.get(address)).status_code == 429:
            break
        asked += 1
    # What comes back meanwhile is on top.
    assert REST_RATE.burst <= asked < 1.5 * REST_RATE.burst


async def test_an_address_has_so_many_sockets_at_all_instances(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "MAX_SOCKETS_PER_ADDRESS", 3)
    first = [await lab.connect() for lab in department.labs]
    await department.one.connect()
    for lab in department.labs:
        with pytest.raises(InvalidStatus) as caught:
            await lab.connect()
        assert caught.value.response.status_code == 429
    await first[0].socket.close()
    await asyncio.sleep(0.2)
    await department.other.connect()


async def test_nothing_stays_in_redis_for_ever(
    department: Department, redis: RedisServer
) -> None:
    room = await department.room()
    await department.one.join(room, "worker-1", "worker")
    await department.other.join(room, "client-1")
    raw = RedisBus(redis.url, "sleap-remote")._redis
    lives = {key: await raw.pttl(key) async for key in raw.scan_iter()}
    await raw.aclose()
    endless = {key for key, ms in lives.items() if ms < 0}
    assert endless == {b"sleap-remote:events"}  # bounded in its length

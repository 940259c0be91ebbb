"""The relay of last resort at a real server, with real WebSockets."""

import asyncio
import contextlib
import random
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import websockets
from support.signaling_lab import WAIT_S, Clock, Lab, Peer, bearer, config
from websockets.asyncio.client import ClientConnection, connect

from sleap_rtc_plugin.protocol.close_codes import RelayCloseCode
from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.protocol.ids import new_relay_id
from sleap_rtc_plugin.protocol.limits import (
    GIB,
    KIB,
    MAX_RELAY_FRAME_BYTES,
    MIB,
    RELAY_JOIN_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.relay_messages import (
    RELAY_PATH,
    RelayJoin,
    decode_relay_joined,
    encode_relay,
)
from sleap_rtc_signaling import gate as gate_module
from sleap_rtc_signaling import listener as listener_module
from sleap_rtc_signaling import relay_service as service_module
from sleap_rtc_signaling.config import RelayConfig
from sleap_rtc_signaling.limits import (
    BYTES_PER_MBIT,
    RELAY_BURST_BYTES,
    RELAY_IDLE_TIMEOUT_S,
    RELAY_RECEIVE_BUFFER_BYTES,
    STOP_DEADLINE_S,
)
from sleap_rtc_signaling.server import SignalingServer
from sleap_rtc_signaling.stores import Store

FAST = RelayConfig(enabled=True, max_mbit=10_000, total_mbit=10_000)


class Site:
    """A lab whose server relays, with a room, a worker and clients in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.account = ""
        self.room = ("", "")
        self.members: dict[str, Peer] = {}

    async def furnish(self) -> None:
        self.account = await self.lab.account()
        self.room = await self.lab.room(self.account)
        for peer_id, role in (("worker-1", "worker"), ("client-1", "client")):
            self.members[peer_id] = await self.lab.join(self.room, peer_id, role)

    async def open(self, token: str | None = None, **options: Any) -> ClientConnection:
        url = self.lab.server.websocket_url.removesuffix("/ws") + RELAY_PATH
        return await self.lab.stack.enter_async_context(
            connect(
                url,
                additional_headers=bearer(self.room[1] if token is None else token),
                compression=None,
                max_size=MAX_RELAY_FRAME_BYTES,
                **options,
            )
        )

    async def join(
        self, relay_id: str, peer_id: str, token: str | None = None, **options: Any
    ) -> ClientConnection:
        opened = await self.open(token, **options)
        join = RelayJoin(relay_id=relay_id, peer_id=peer_id)
        await opened.send(encode_relay(join))
        return opened

    async def pair(self, **options: Any) -> tuple[ClientConnection, ClientConnection]:
        relay_id = new_relay_id()
        worker = await self.join(relay_id, "worker-1", **options)
        client = await self.join(relay_id, "client-1", **options)
        await joined(worker)
        await joined(client)
        return worker, client

    async def metric(self, name: str) -> float:
        for line in (await self.lab.get("/metrics")).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    async def until(self, name: str, value: float) -> None:
        async with asyncio.timeout(WAIT_S):
            # Each look is a request, and gives the server its turn.
            while await self.metric(name) != value:
                pass


@contextlib.asynccontextmanager
async def opened_site(
    folder: Path, relay: RelayConfig = FAST, clock: Clock | None = None
) -> AsyncIterator[Site]:
    clock = clock or Clock()
    settings = config(folder, relay=relay)
    async with SignalingServer(settings, clock=clock) as server:
        lab = Lab(server, clock)
        site = Site(lab)
        try:
            await site.furnish()
            yield site
        finally:
            await lab.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with opened_site(tmp_path) as opened:
        yield opened


async def joined(peer: ClientConnection) -> None:
    async with asyncio.timeout(WAIT_S):
        text = await peer.recv()
    assert isinstance(text, str)
    decode_relay_joined(text)


async def received(peer: ClientConnection) -> bytes:
    async with asyncio.timeout(WAIT_S):
        data = await peer.recv()
    assert isinstance(data, bytes)
    return data


async def ended(peer: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(WAIT_S):
        await peer.wait_closed()
    return peer.close_code, peer.close_reason


async def code(peer: ClientConnection) -> int | None:
    return (await ended(peer))[0]


# -- relaying --------------------


async def test_frames_arrive_whole_and_in_order(site: Site) -> None:
    worker, client = await site.pair()
    chance = random.Random(7)  # noqa: S311 -- any bytes, the same in every run
    sizes = [0, 1, 125, 126, 65_535, 65_536, MAX_RELAY_FRAME_BYTES]
    sizes += [chance.randrange(MAX_RELAY_FRAME_BYTES) for _ in range(60)]
    there = [chance.randbytes(size) for size in sizes]
    back = [chance.randbytes(size) for size in reversed(sizes)]

    async def send(peer: ClientConnection, frames: list[bytes]) -> None:
        for frame in frames:
            await peer.send(frame)

    async with asyncio.TaskGroup() as group:
        group.create_task(send(client, there))
        group.create_task(send(worker, back))
        at_worker = group.create_task(take(worker, len(there)))
        at_client = group.create_task(take(client, len(back)))
    assert at_worker.result() == there
    assert at_client.result() == back
    assert await site.metric("sleap_signaling_relays") == 1
    await site.until("sleap_signaling_relay_bytes_total", float(2 * sum(sizes)))


async def take(peer: ClientConnection, count: int) -> list[bytes]:
    return [await received(peer) for _ in range(count)]


async def test_a_message_in_fragments_arrives_as_one_frame(site: Site) -> None:
    worker, client = await site.pair()
    await client.send([b"a" * 10, b"", b"b" * 10])
    assert await received(worker) == b"a" * 10 + b"b" * 10


async def test_the_last_frames_arrive_before_the_end(site: Site) -> None:
    worker, client = await site.pair()
    for number in range(20):
        await client.send(bytes([number]) * 50_000)
    await client.close()
    for number in range(20):
        assert await received(worker) == bytes([number]) * 50_000
    assert await ended(worker) == (RelayCloseCode.PARTNER_LEFT, "the partner has left")
    await site.until("sleap_signaling_relays", 0)


async def test_what_passes_keeps_to_the_rate(tmp_path: Path) -> None:
    rate = RelayConfig(enabled=True, max_mbit=4.0)
    size = 1 * MIB
    async with opened_site(tmp_path, rate) as site:
        worker, client = await site.pair()

        async def send() -> None:
            for _ in range(size // (32 * KIB)):
                await client.send(bytes(32 * KIB))

        started = time.monotonic()
        sending = asyncio.create_task(send())
        taken = sum([len(await received(worker)) for _ in range(size // (32 * KIB))])
        seconds = time.monotonic() - started
        await sending
    assert taken == size
    allowed = (size - RELAY_BURST_BYTES - 32 * KIB) / (4.0 * BYTES_PER_MBIT)
    assert seconds >= allowed


async def test_all_relays_share_the_total(tmp_path: Path) -> None:
    rate = RelayConfig(enabled=True, max_mbit=1_000, total_mbit=4.0)
    async with opened_site(tmp_path, rate) as site:
        pairs = [await site.pair() for _ in range(2)]
        started = time.monotonic()
        for _ in range(8):
            for _, client in pairs:
                await client.send(bytes(32 * KIB))
        for worker, _ in pairs:
            await take(worker, 8)
        seconds = time.monotonic() - started
    allowed = (512 * KIB - RELAY_BURST_BYTES - 32 * KIB) / (4.0 * BYTES_PER_MBIT)
    assert seconds >= allowed


async def test_small_frames_pay_for_their_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = RelayConfig(enabled=True, max_mbit=8.0)
    count = 3 * RELAY_BURST_BYTES // 1024
    monkeypatch.setattr(service_module, "MIN_RELAY_FRAME_COST_BYTES", 1024)
    async with opened_site(tmp_path, rate) as site:
        worker, client = await site.pair()
        started = time.monotonic()
        for _ in range(count):
            await client.send(b"x")
        assert len(await take(worker, count)) == count
        seconds = time.monotonic() - started
    assert seconds >= (count - 1) * 1024 / MIB - RELAY_BURST_BYTES / MIB


async def test_a_busy_relay_outlives_its_pings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pong lies behind a second of data; there is patience for less than half.
    monkeypatch.setattr(listener_module, "SIGNALING_PING_INTERVAL_S", 0.4)
    slow = RelayConfig(enabled=True, max_mbit=2.0)
    async with opened_site(tmp_path, slow) as site:
        worker, client = await site.pair()

        async def send() -> None:
            for _ in range(24):
                await client.send(bytes(32 * KIB))

        sending = asyncio.create_task(send())
        assert len(await take(worker, 24)) == 24
        await sending


# -- who gets in --------------------


async def test_it_is_off_by_default(tmp_path: Path) -> None:
    async with opened_site(tmp_path, RelayConfig()) as site:
        peer = await site.join(new_relay_id(), "worker-1")
        assert await ended(peer) == (
            RelayCloseCode.NOT_OFFERED,
            "this server offers no relay",
        )
        told = (await site.lab.get("/ice-servers", site.room[1])).json()
        assert told["relay"] is None


async def test_it_is_told_with_the_ice_servers(site: Site) -> None:
    for token in (site.account, site.room[1]):
        told = (await site.lab.get("/ice-servers", token)).json()
        assert told["relay"] == {"path": RELAY_PATH, "max_mbit": FAST.max_mbit}
        assert told["expires_at"] is None


async def test_the_rest_port_has_no_relay(tmp_path: Path) -> None:
    settings = config(tmp_path, rest_port=0, relay=FAST)
    async with SignalingServer(settings) as server:
        with pytest.raises(websockets.InvalidStatus):
            async with connect(f"ws://127.0.0.1:{server.rest_port}{RELAY_PATH}"):
                pass


async def refused_tokens(site: Site) -> dict[str, str]:
    other = await site.lab.room()
    gone = await site.lab.room(site.account)
    body = {"room_id": gone[0]}
    await site.lab.post("/delete-peers-and-room", site.account, json=body)
    return {
        "none": "",
        "garbage": "x" * 100,
        "an account's": site.account,
        "of another room": other[1],
        "of a room that is gone": gone[1],
        "changed": site.room[1][:-4] + "AAAA",
    }


async def test_only_a_token_of_the_room_opens_it(site: Site) -> None:
    relay_id = new_relay_id()
    worker = await site.join(relay_id, "worker-1")
    for kind, token in (await refused_tokens(site)).items():
        stranger = await site.join(relay_id, "client-1", token)
        assert await code(stranger) == RelayCloseCode.REFUSED, kind
    client = await site.join(relay_id, "client-1")
    await joined(worker)
    await joined(client)


async def test_a_token_in_another_place_is_none(site: Site) -> None:
    url = site.lab.server.websocket_url.removesuffix("/ws") + RELAY_PATH
    for address, headers in (
        (f"{url}?token={site.room[1]}", {}),
        (url, {"authorization": f"Basic {site.room[1]}"}),
        (url, {"authorization": site.room[1]}),
    ):
        async with connect(address, additional_headers=headers) as peer:
            assert await code(peer) == RelayCloseCode.REFUSED


async def test_an_expired_token_is_refused(site: Site) -> None:
    site.lab.advance(40 * 24 * 3600.0)
    peer = await site.open()
    assert await code(peer) == RelayCloseCode.REFUSED


async def test_a_peer_that_is_not_registered_is_refused(site: Site) -> None:
    relay_id = new_relay_id()
    worker = await site.join(relay_id, "worker-1")
    stranger = await site.join(relay_id, "client-2")
    assert await ended(stranger) == (
        RelayCloseCode.REFUSED,
        "the peer is not registered in the room",
    )
    # One that has left is not registered either.
    gone = await site.lab.join(site.room, "client-2")
    await gone.socket.close()
    await site.until('sleap_signaling_peers{role="client"}', 1)
    late = await site.join(relay_id, "client-2")
    assert await code(late) == RelayCloseCode.REFUSED
    assert worker.close_code is None


async def test_a_third_is_refused_and_hears_nothing(site: Site) -> None:
    relay_id = new_relay_id()
    worker = await site.join(relay_id, "worker-1")
    client = await site.join(relay_id, "client-1")
    await joined(worker)
    await joined(client)
    await site.lab.join(site.room, "client-2")
    third = await site.join(relay_id, "client-2")
    assert await code(third) == RelayCloseCode.REFUSED
    await client.send(b"secret")
    assert await received(worker) == b"secret"


async def test_the_same_id_in_two_rooms_is_two_relays(site: Site) -> None:
    relay_id = new_relay_id()
    other = await site.lab.room()
    await site.lab.join(other, "client-1")
    await site.join(relay_id, "client-1", other[1])
    worker = await site.join(relay_id, "worker-1")
    client = await site.join(relay_id, "client-1")
    await joined(worker)
    await joined(client)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "not json",
        b"",
        b"binary",
        '{"type":"register"}',
        '{"type":"relay_join","relay_id":"relay-1","peer_id":"client-1"}',
        '{"type":"relay_join","relay_id":"' + "x" * 10_000 + '"}',
    ],
)
async def test_anything_but_a_join_is_refused(site: Site, frame: str | bytes) -> None:
    peer = await site.open()
    await peer.send(frame)
    assert await ended(peer) == (
        RelayCloseCode.REFUSED,
        "the first message is no relay_join",
    )


async def test_who_never_joins_is_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "RELAY_JOIN_TIMEOUT_S", 0.05)
    peer = await site.open()
    assert await code(peer) == RelayCloseCode.REFUSED


async def test_a_store_that_fails_is_not_the_peers_fault(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Store, *_: object) -> None:
        raise StorageFailed(place="store", reason="a test")

    for method in ("find_room", "relayed"):
        with monkeypatch.context() as patch:
            patch.setattr(Store, method, fail)
            peer = await site.join(new_relay_id(), "client-1")
            assert await code(peer) == 1013
    await site.pair()


# -- partners that do not come, and that leave --------------------


async def test_a_partner_that_does_not_come(site: Site) -> None:
    peer = await site.join(new_relay_id(), "client-1")
    await site.until("sleap_signaling_relays_waiting", 1)
    site.lab.advance(RELAY_JOIN_TIMEOUT_S + 0.1)
    assert await ended(peer) == (
        RelayCloseCode.PARTNER_ABSENT,
        "the partner did not come in time",
    )


async def test_a_partner_that_leaves_before_the_other_comes(site: Site) -> None:
    relay_id = new_relay_id()
    first = await site.join(relay_id, "client-1")
    await site.until("sleap_signaling_relays_waiting", 1)
    await first.close()
    await site.until("sleap_signaling_relays_waiting", 0)
    worker = await site.join(relay_id, "worker-1")
    client = await site.join(relay_id, "client-1")
    await joined(worker)
    await joined(client)


async def test_a_partner_that_is_cut_off(site: Site) -> None:
    worker, client = await site.pair()
    client.transport.abort()
    assert await code(worker) == RelayCloseCode.PARTNER_LEFT


async def test_a_relay_outlives_the_signaling_of_its_partners(site: Site) -> None:
    worker, client = await site.pair()
    for member in site.members.values():
        await member.socket.close()
    await site.until("sleap_signaling_sockets", 0)
    await client.send(b"still here")
    assert await received(worker) == b"still here"


async def test_a_relay_on_which_nothing_happens(site: Site) -> None:
    worker, client = await site.pair()
    site.lab.advance(RELAY_IDLE_TIMEOUT_S - 1)
    await client.send(b"x")
    assert await received(worker) == b"x"
    site.lab.advance(2)
    await client.send(b"y")
    assert await received(worker) == b"y"
    site.lab.advance(RELAY_IDLE_TIMEOUT_S + 1)
    assert await code(worker) == await code(client) == RelayCloseCode.LIMIT


async def test_a_room_that_is_deleted(site: Site) -> None:
    worker, client = await site.pair()
    body = {"room_id": site.room[0]}
    await site.lab.post("/delete-peers-and-room", site.account, json=body)
    for peer in (worker, client):
        assert await ended(peer) == (RelayCloseCode.REFUSED, "the room has ended")


async def test_a_room_that_ended_while_nobody_was_in_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted by another server on the store, when the peers had lost this one."""
    worker, client = await site.pair()
    for member in site.members.values():
        await member.socket.close()
    await site.until("sleap_signaling_sockets", 0)
    service = site.lab.server._relays
    assert service is not None
    monkeypatch.setattr(service._hub, "has_room", lambda room_id: False)
    monkeypatch.setattr(service_module, "RELAY_USAGE_INTERVAL_S", 0.01)
    await service._store.delete_room(site.room[0], (await owner(site)))
    looking = asyncio.create_task(service.keep_usage())
    assert await code(worker) == await code(client) == RelayCloseCode.REFUSED
    looking.cancel()


async def owner(site: Site) -> str:
    service = site.lab.server._relays
    assert service is not None
    room = await service._store.find_room(site.room[0], site.lab.clock.now)
    assert room is not None
    return room.owner


async def test_a_token_that_ends_takes_the_relay_along(tmp_path: Path) -> None:
    clock = Clock()
    settings = config(
        tmp_path, relay=FAST, room_lifetime_s=5.0, room_token_lifetime_s=5.0
    )
    async with SignalingServer(settings, clock=clock) as server:
        lab = Lab(server, clock)
        site = Site(lab)
        await site.furnish()
        worker, client = await site.pair()
        lab.advance(6.0)
        codes = {await code(worker), await code(client)}
        assert codes <= {RelayCloseCode.REFUSED, RelayCloseCode.PARTNER_LEFT}
        await lab.close()


async def test_a_server_that_stops_says_come_back(tmp_path: Path) -> None:
    async with opened_site(tmp_path) as site:
        worker, client = await site.pair()
        waiting = await site.join(new_relay_id(), "client-1")
        await site.until("sleap_signaling_relays_waiting", 1)
        started = time.monotonic()
        await site.lab.server.stop()
        assert time.monotonic() - started < STOP_DEADLINE_S
        for peer in (worker, client, waiting):
            assert await code(peer) == 1012


# -- misbehaviour --------------------


async def test_text_after_joining_ends_the_relay(site: Site) -> None:
    worker, client = await site.pair()
    await client.send("text")
    assert await ended(client) == (
        RelayCloseCode.REFUSED,
        "what came is not what is expected now",
    )
    assert await code(worker) == RelayCloseCode.PARTNER_LEFT


async def test_bytes_before_the_partner_is_there_end_it(site: Site) -> None:
    peer = await site.join(new_relay_id(), "client-1")
    await peer.send(b"too early")
    assert await code(peer) == RelayCloseCode.REFUSED


async def test_a_frame_that_is_too_large_ends_it(site: Site) -> None:
    worker, client = await site.pair()
    await client.send(bytes(MAX_RELAY_FRAME_BYTES + 1))
    assert await code(client) == 1009
    assert await code(worker) == RelayCloseCode.PARTNER_LEFT


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"room_gib_per_day": 0.001}, "the room's quota of the day is used up"),
        (
            {"total_gib_per_day": 0.002, "account_share": 0.5},
            "the owner's quota of the day is used up",
        ),
    ],
)
async def test_a_quota_that_is_used_up_stays_so_across_a_restart(
    tmp_path: Path, limits: dict[str, float], reason: str
) -> None:
    relay = RelayConfig(enabled=True, max_mbit=1_000, total_mbit=1_000, **limits)  # type: ignore[arg-type]
    clock = Clock()
    async with opened_site(tmp_path, relay, clock) as site:
        worker, client = await site.pair()
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await client.send(bytes(64 * KIB))
                await received(worker)
        assert await ended(client) == (RelayCloseCode.LIMIT, reason)
        assert await ended(worker) == (RelayCloseCode.LIMIT, reason)
        passed = await site.metric("sleap_signaling_relay_bytes_total")
        assert 0.001 * GIB < passed <= 0.001 * GIB + 64 * KIB
        room = site.room
    settings = config(tmp_path, relay=relay)
    async with SignalingServer(settings, clock=clock) as server:
        lab = Lab(server, clock)
        again = Site(lab)
        again.room = room
        await lab.join(room, "client-1")
        late = await again.join(new_relay_id(), "client-1")
        assert await ended(late) == (RelayCloseCode.LIMIT, reason)
        # Tomorrow the peer is relayed again.
        clock.now += 24 * 3600.0
        fresh = Site(lab)
        await fresh.furnish()
        await fresh.pair()
        await lab.close()


async def test_too_many_relays_of_a_room(tmp_path: Path) -> None:
    few = RelayConfig(enabled=True, max_relays_per_room=1)
    async with opened_site(tmp_path, few) as site:
        await site.pair()
        late = await site.join(new_relay_id(), "client-1")
        assert await ended(late) == (
            RelayCloseCode.LIMIT,
            "too many relays in the room",
        )
        assert (
            await site.metric(
                'sleap_signaling_relay_ends_total{reason="too_many_in_room"}'
            )
            == 1
        )


async def test_connections_of_one_address_count_together(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "MAX_SOCKETS_PER_ADDRESS", 3)
    await site.open()  # the third beside two members
    with pytest.raises(websockets.InvalidStatus) as caught:
        await site.open()
    assert caught.value.response.status_code == 429


async def pair_with_deaf(site: Site) -> tuple[ClientConnection, ClientConnection]:
    """Return a pair whose first partner reads no more."""
    relay_id = new_relay_id()
    sock = socket.create_connection(("127.0.0.1", site.lab.server.port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
    sock.setblocking(False)
    deaf = await site.join(relay_id, "worker-1", sock=sock)
    client = await site.join(relay_id, "client-1")
    await joined(deaf)
    await joined(client)
    deaf.transport.pause_reading()
    return deaf, client


async def flood(peer: ClientConnection, sent: list[int]) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            await peer.send(bytes(64 * KIB))
            sent[0] += 64 * KIB


async def test_a_partner_that_never_reads_is_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "RELAY_STALL_TIMEOUT_S", 0.5)
    deaf, client = await pair_with_deaf(site)
    sent = [0]
    await flood(client, sent)
    assert await ended(client) == (RelayCloseCode.LIMIT, "one side did not read")
    deaf.transport.abort()
    await site.until("sleap_signaling_relays", 0)
    await site.pair()


async def test_a_slow_reader_slows_the_sender_and_fills_no_memory(
    tmp_path: Path,
) -> None:
    """What the sender gets rid of lies in bounded buffers, and stops growing."""
    async with opened_site(tmp_path) as site:
        deaf, client = await pair_with_deaf(site)
        sent = [0]
        flooding = asyncio.create_task(flood(client, sent))
        # The same amount at two looks: the sender waits.
        before = -1
        async with asyncio.timeout(WAIT_S):
            while sent[0] != before:
                before = sent[0]
                await asyncio.sleep(0.3)
        held = held_by_server(site)
        assert held < 2 * MIB
        # All that left the client, kernel buffers of both hops included.
        assert sent[0] < 16 * MIB
        # The others are not held up.
        one, two = await site.pair()
        await two.send(b"quick")
        assert await received(one) == b"quick"
        # When it reads again, nothing is missing.
        flooding.cancel()
        deaf.transport.resume_reading()
        for _ in range(sent[0] // (64 * KIB)):
            assert await received(deaf) == bytes(64 * KIB)


def held_by_server(site: Site) -> int:
    """Return the bytes that the server's relay sockets hold in its memory."""
    service = site.lab.server._relays
    assert service is not None
    total = 0
    for relayed in service._sockets.values():
        protocol = relayed._abort.__self__.get_protocol()  # type: ignore[attr-defined]
        total += protocol.transport.get_write_buffer_size()
        total += len(protocol.conn.reader.buffer)
        total += sum(len(e.get("bytes") or b"") for e in protocol.queue._queue)
    return total


async def test_memory_does_not_grow_with_what_passes(tmp_path: Path) -> None:
    async with opened_site(tmp_path) as site:
        worker, client = await site.pair()

        async def pass_on(count: int) -> None:
            async def send() -> None:
                for _ in range(count):
                    await client.send(bytes(64 * KIB))

            sending = asyncio.create_task(send())
            for _ in range(count):
                await received(worker)
            await sending

        await pass_on(200)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await pass_on(2_000)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * KIB < 16 * MIB


# -- what the library leaves open --------------------


async def test_a_message_in_endless_fragments_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "MAX_MESSAGE_FRAGMENTS", 100)
    _, client = await site.pair()
    member = site.members["client-1"].socket

    async def fragments(kind: Callable[[str], Any]) -> Any:
        for _ in range(5_000):
            yield kind("")

    with contextlib.suppress(websockets.ConnectionClosed):
        await client.send(fragments(str.encode))
    with contextlib.suppress(websockets.ConnectionClosed):
        await member.send(fragments(str))
    for peer in (client, member):
        assert await code(peer) in (1006, 1009)


async def test_pings_of_who_does_not_read_cost_nothing(site: Site) -> None:
    sock = socket.create_connection(("127.0.0.1", site.lab.server.port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)
    deaf = await site.open(sock=sock)
    join = RelayJoin(relay_id=new_relay_id(), peer_id="client-1")
    await deaf.send(encode_relay(join))
    await site.until("sleap_signaling_relays_waiting", 1)
    deaf.transport.pause_reading()
    payload = bytes(125)
    ping = bytes([0x89, 0x80 | len(payload), 0, 0, 0, 0]) + payload
    deaf.transport.write(ping * 40_000)  # 5 MB, whose pongs would be as much
    async with asyncio.timeout(WAIT_S):
        while deaf.transport.get_write_buffer_size():
            await site.lab.get("/health")
    assert held_by_server(site) < 512 * KIB
    deaf.transport.abort()


def test_the_kernel_holds_little_of_a_relay() -> None:
    # At the default rate it delays an urgent frame by half a second at most.
    assert RELAY_RECEIVE_BUFFER_BYTES * 2 / (8.0 * BYTES_PER_MBIT) < 0.6

"""The signaling server's WebSocket: rooms, peers, and what it does to misbehaviour."""

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from msgspec import Raw
from support.signaling_lab import WAIT_S, Clock, Lab, Peer, config, registration
from websockets.asyncio.client import connect

from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.limits import (
    MAX_SIGNALING_MESSAGE_BYTES,
    MAX_SIGNALING_SEND_QUEUE,
    PEER_ID_RESERVED_S,
    REGISTER_DEADLINE_S,
    ROOM_LIFETIME_S,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    Candidate,
    Delivered,
    DiscoverPeers,
    MetadataUpdated,
    Offer,
    PeerList,
    PeerMessage,
    PeerMetadata,
    Ping,
    Pong,
    Registered,
    RelayedAnswer,
    RelayedCandidate,
    RelayedOffer,
    RelayedPeerMessage,
    ServerError,
    UpdateMetadata,
)
from sleap_rtc_signaling import gate as gate_module
from sleap_rtc_signaling import listener as listener_module
from sleap_rtc_signaling import peer_socket as peer_socket_module
from sleap_rtc_signaling import rest as rest_module
from sleap_rtc_signaling.limits import (
    HELD_MESSAGE_S,
    MAX_MALFORMED_MESSAGES,
    PEER_MESSAGE_RATE,
    REFUSAL_RATE,
    STOP_DEADLINE_S,
    Rate,
)
from sleap_rtc_signaling.server import SignalingServer

# -- the WebSocket --------------------


async def test_two_peers_find_and_reach_each_other(lab: Lab) -> None:
    room = await lab.room()
    metadata = PeerMetadata(tags=["gpu"], properties={"gpu": {"memory_mb": 24_000}})
    worker = await lab.join(room, "worker-1", "worker", metadata=metadata)
    client = await lab.join(room, "client-1")

    query = DiscoverPeers(
        id="d",
        role="worker",
        tags=["gpu"],
        properties={"gpu.memory_mb": {"$gte": 8_192}},
    )
    found = await client.ask(query)
    assert isinstance(found, PeerList)
    assert [(p.peer_id, p.role, p.metadata) for p in found.peers] == [
        ("worker-1", "worker", metadata)
    ]
    busy = UpdateMetadata(id="u", metadata=PeerMetadata(properties={"busy": True}))
    assert await worker.ask(busy) == MetadataUpdated(id="u")
    assert (await client.ask(query)).peers == []

    exchanges: list[tuple[Peer, Peer, Any, Any]] = [
        (
            client,
            worker,
            Offer(id="o-1", to="worker-1", sdp="v=0\r\n"),
            RelayedOffer(id="o-1", from_="client-1", sdp="v=0\r\n"),
        ),
        (
            worker,
            client,
            Answer(id="a-1", to="client-1", sdp="v=0\r\n", offer_id="o-1"),
            RelayedAnswer(id="a-1", from_="worker-1", sdp="v=0\r\n", offer_id="o-1"),
        ),
        (
            client,
            worker,
            Candidate(id="c-1", to="worker-1", candidate="udp", offer_id="o-1"),
            RelayedCandidate(
                id="c-1", from_="client-1", candidate="udp", offer_id="o-1"
            ),
        ),
        (
            worker,
            client,
            PeerMessage(id="p-1", to="client-1", payload=Raw(b'{"type":"new"}')),
            RelayedPeerMessage(
                id="p-1", from_="worker-1", payload=Raw(b'{"type":"new"}')
            ),
        ),
    ]
    for sender, receiver, sent, relayed in exchanges:
        assert await sender.ask(sent) == Delivered(id=sent.id)
        assert await receiver.receive() == relayed

    assert await client.ask(Ping(id="p")) == Pong(id="p", time=lab.clock.now)
    missing = await client.ask(Offer(id="x", to="worker-2", sdp="v=0"))
    assert (missing.id, missing.code) == ("x", "peer_not_found")
    assert missing.fields == {"peer_id": "worker-2"}

    metrics = await lab.metrics()
    for line in (
        "sleap_signaling_rooms 1.0",
        'sleap_signaling_peers{role="worker"} 1.0',
        'sleap_signaling_relayed_messages_total{type="offer"} 1.0',
        'sleap_signaling_registrations_total{role="client"} 1.0',
        'sleap_signaling_refusals_total{code="peer_not_found"} 1.0',
    ):
        assert line in metrics


async def test_coming_back_with_the_resume_key(lab: Lab) -> None:
    room = await lab.room()
    old = await lab.join(room, "worker-1", "worker")
    new = await lab.join(room, "worker-1", "worker")
    assert await old.closed() == CloseCode.REPLACED
    assert isinstance(await new.ask(Ping(id="p")), Pong)

    await new.socket.close()
    client = await lab.join(room, "client-1")
    assert [p.peer_id for p in (await client.ask(DiscoverPeers(id="d"))).peers] == [
        "client-1"
    ]
    thief, refusal = await lab.register(room, "worker-1", resume_key="x" * 32)
    assert refusal.code == "peer_id_taken"
    assert await thief.closed() == CloseCode.REGISTRATION_REFUSED
    await lab.join(room, "worker-1", "worker")


async def test_what_is_said_to_a_lost_peer_reaches_it_when_it_is_back(
    lab: Lab,
) -> None:
    room = await lab.room()
    worker = await lab.join(room, "worker-1", "worker")
    client = await lab.join(room, "client-1")
    worker.socket.transport.abort()
    while len((await client.ask(DiscoverPeers(id="d"))).peers) > 1:
        pass
    await client.send(Offer(id="o-1", to="worker-1", sdp="v=0"))
    assert isinstance(await client.ask(Ping(id="p")), Pong)
    back = await lab.join(room, "worker-1", "worker")
    assert await back.receive() == RelayedOffer(id="o-1", from_="client-1", sdp="v=0")
    assert await client.receive() == Delivered(id="o-1")
    # One that does not come back is not waited for long.
    back.socket.transport.abort()
    while len((await client.ask(DiscoverPeers(id="d"))).peers) > 1:
        pass
    await client.send(Offer(id="o-2", to="worker-1", sdp="v=0"))
    assert isinstance(await client.ask(Ping(id="p")), Pong)
    lab.advance(HELD_MESSAGE_S)
    refused = await client.receive()
    assert (refused.id, refused.code) == ("o-2", "peer_not_found")
    # One that says good-bye is not waited for at all.
    left = await lab.join(room, "worker-1", "worker")
    await left.socket.close()
    while len((await client.ask(DiscoverPeers(id="d"))).peers) > 1:
        pass
    refused = await client.ask(Offer(id="o-3", to="worker-1", sdp="v=0"))
    assert refused.code == "peer_not_found"


async def test_a_reservation_ends(lab: Lab) -> None:
    room = await lab.room()
    worker = await lab.join(room, "worker-1", "worker")
    watcher = await lab.join(room, "worker-2", "worker")
    await worker.socket.close()
    while len((await watcher.ask(DiscoverPeers(id="d"))).peers) > 1:
        pass
    lab.advance(PEER_ID_RESERVED_S + 1)
    await watcher.ask(Ping(id="p"))
    await lab.join(room, "worker-1", "worker", resume_key="x" * 32)


async def test_a_socket_that_does_not_register_is_closed(lab: Lab) -> None:
    peer = await lab.connect()
    # The other socket's reply shows that the server knows this one by now.
    await lab.join(await lab.room(), "client-1")
    lab.advance(REGISTER_DEADLINE_S + 0.1)
    assert await peer.closed() == CloseCode.REGISTER_DEADLINE


async def test_a_room_without_a_worker_ends(lab: Lab) -> None:
    # How long depends on whose it is.
    made = (await lab.post("/create-room", await lab.account())).json()
    room = made["room_id"], made["token"]
    client = await lab.join(room, "client-1")
    lab.advance(made["expires_at"] - lab.clock.now + 1)
    assert await client.closed() == CloseCode.ROOM_ENDED
    peer, refusal = await lab.register(room, "client-1")
    # Of a room that was to live for long, the token may have ended before.
    assert refusal.code in ("room_gone", "token_refused")
    assert await peer.closed() == CloseCode.REGISTRATION_REFUSED


async def test_a_room_with_a_worker_lives_on_across_a_restart(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with SignalingServer(config(tmp_path), clock=clock) as server:
        lab = Lab(server, clock)
        room = await lab.room()
        worker = await lab.join(room, "worker-1", "worker")
        for _ in range(3):
            lab.advance(ROOM_LIFETIME_S * 0.75)
            await worker.ask(Ping(id="p"))
        await lab.close()
    async with SignalingServer(config(tmp_path), clock=clock) as server:
        lab = Lab(server, clock)
        await lab.join(room, "worker-1", "worker")
        await lab.close()


async def test_deleting_a_room_sends_its_peers_out(lab: Lab) -> None:
    account = await lab.account()
    room, other = await lab.room(account), await lab.room(account)
    peers = [await lab.join(room, f"peer-{n}") for n in range(3)]
    bystander = await lab.join(other, "peer-0")
    body = {"room_id": room[0]}
    deleted = await lab.post("/delete-peers-and-room", account, json=body)
    assert deleted.status_code == 200
    assert [await peer.closed() for peer in peers] == [CloseCode.ROOM_ENDED] * 3
    assert isinstance(await bystander.ask(Ping(id="p")), Pong)
    _, refusal = await lab.register(room, "peer-0")
    assert refusal.code == "room_gone"


# -- misbehaviour --------------------


async def test_malformed_messages_are_answered_then_closed(lab: Lab) -> None:
    peer = await lab.join(await lab.room(), "client-1")
    frames: list[str | bytes] = ["not json", b"\x00binary", '{"type":"unknown"}']
    assert len(frames) == MAX_MALFORMED_MESSAGES
    for frame in frames:
        await peer.socket.send(frame)
        error = await peer.receive()
        assert isinstance(error, ServerError)
        assert (error.id, error.code) == ("", "protocol")
    assert await peer.closed() == CloseCode.PROTOCOL_BROKEN


async def test_an_oversized_frame_closes_the_socket(lab: Lab) -> None:
    peer = await lab.join(await lab.room(), "client-1")
    await peer.socket.send("x" * (MAX_SIGNALING_MESSAGE_BYTES + 1))
    assert await peer.closed() == 1009
    assert (await lab.get("/health")).status_code == 200


async def test_a_frame_that_is_not_text_closes_the_socket(lab: Lab) -> None:
    peer = await lab.join(await lab.room(), "client-1")
    await peer.socket.send(b"\xff\xfe", text=True)
    assert await peer.closed() == 1007


async def test_a_burst_of_normal_size_is_all_answered(lab: Lab) -> None:
    peer = await lab.join(await lab.room(), "client-1")
    ids = [f"p-{n}" for n in range(PEER_MESSAGE_RATE.burst - 10)]
    for command_id in ids:
        await peer.send(Ping(id=command_id))
    assert [(await peer.receive()).id for _ in ids] == ids


async def test_a_flood_is_refused_then_closed(lab: Lab) -> None:
    room = await lab.room()
    peer = await lab.join(room, "client-1")
    other = await lab.join(room, "client-2")
    codes: list[str] = []

    async def flood() -> None:
        for _ in range(20 * (PEER_MESSAGE_RATE.burst + REFUSAL_RATE.burst)):
            await peer.send(Ping(id="p"))

    flooding = asyncio.create_task(flood())
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            reply = await peer.receive()
            codes.append(getattr(reply, "code", "ok"))
    with contextlib.suppress(websockets.ConnectionClosed):
        await flooding
    assert peer.socket.close_code == CloseCode.RATE_LIMITED
    assert set(codes) == {"ok", "rate_limited"}
    assert codes.index("rate_limited") >= PEER_MESSAGE_RATE.burst - 1
    assert isinstance(await other.ask(Ping(id="p")), Pong)


async def test_connections_of_one_address_are_limited(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "MAX_SOCKETS_PER_ADDRESS", 2)
    first, _ = await lab.connect(), await lab.connect()
    with pytest.raises(websockets.InvalidStatus) as caught:
        await lab.connect()
    assert caught.value.response.status_code == 429
    await first.socket.close()
    while True:  # the server learns of the closing in its own time
        with contextlib.suppress(websockets.InvalidStatus):
            await lab.connect()
            break


async def test_connecting_too_often_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "CONNECT_RATE", Rate(3, 0.001))
    async with SignalingServer(config(tmp_path)) as server:
        for _ in range(3):
            async with connect(server.websocket_url):
                pass
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with connect(server.websocket_url):
                pass
        assert caught.value.response.status_code == 429


async def test_the_routes_are_limited_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "REST_RATE", Rate(2, 0.001))
    async with (
        SignalingServer(config(tmp_path)) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        statuses = [(await http.get("/health")).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


async def stalled(lab: Lab, room: tuple[str, str], peer_id: str) -> socket.socket:
    """Register over a bare socket that never reads again."""
    sock = socket.create_connection(("127.0.0.1", lab.server.port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)
    opened = await connect(lab.server.websocket_url, sock=sock, compression=None)
    peer = Peer(opened)
    reply = await peer.ask(registration(room, peer_id))
    assert isinstance(reply, Registered)
    opened.transport.pause_reading()
    lab.stack.callback(opened.transport.abort)
    return sock


async def test_a_slow_consumer_is_cut_off_and_holds_nobody_up(lab: Lab) -> None:
    room = await lab.room()
    await stalled(lab, room, "slow-1")
    sender = await lab.join(room, "client-1")
    offer = Offer(id="o", to="slow-1", sdp="x" * 32_000)
    started = time.monotonic()
    while (reply := await sender.ask(offer)) == Delivered(id="o"):
        assert time.monotonic() - started < WAIT_S
    assert reply.code == "peer_not_found"
    metrics = await lab.metrics()
    assert 'sleap_signaling_closed_sockets_total{reason="too_slow"} 1.0' in metrics
    # Cut off, not waited for: only the sender's socket is left.
    while "sleap_signaling_sockets 1.0" not in await lab.metrics():
        assert time.monotonic() - started < WAIT_S


async def test_large_messages_for_a_slow_consumer_are_few(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_socket_module, "MAX_WAITING_BYTES", 64_000)
    room = await lab.room()
    await stalled(lab, room, "slow-1")
    sender = await lab.join(room, "client-1")
    offer, sent = Offer(id="o", to="slow-1", sdp="x" * 32_000), 0
    while await sender.ask(offer) == Delivered(id="o"):
        sent += 1
        assert sent < MAX_SIGNALING_SEND_QUEUE


async def test_stopping_does_not_wait_for_a_slow_consumer(tmp_path: Path) -> None:
    server = SignalingServer(config(tmp_path))
    await server.start()
    lab = Lab(server, Clock())
    room = await lab.room()
    await stalled(lab, room, "slow-1")
    sender = await lab.join(room, "client-1")
    for _ in range(50):
        await sender.ask(Offer(id="o", to="slow-1", sdp="x" * 32_000))
    started = time.monotonic()
    await server.stop()
    assert time.monotonic() - started < STOP_DEADLINE_S
    await lab.close()


async def test_a_connection_that_never_asks_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "REQUEST_DEADLINE_S", 0.05)
    async with SignalingServer(config(tmp_path)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\n")
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

"""A real signaling server on a free port, with real HTTP and WebSocket clients."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.errors import PortInUse, StorageFailed
from sleap_rtc_plugin.protocol.limits import (
    MAX_ROOMS_PER_ACCOUNT,
    MAX_SIGNALING_MESSAGE_BYTES,
    PEER_ID_RESERVED_S,
    REGISTER_DEADLINE_S,
    ROOM_LIFETIME_S,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    Candidate,
    Delivered,
    DiscoverPeers,
    IceServer,
    MetadataUpdated,
    Offer,
    PeerList,
    PeerMessage,
    PeerMetadata,
    Ping,
    Pong,
    Register,
    Registered,
    RelayedAnswer,
    RelayedCandidate,
    RelayedOffer,
    RelayedPeerMessage,
    ServerError,
    UpdateMetadata,
)
from sleap_rtc_signaling import app as app_module
from sleap_rtc_signaling import listener as listener_module
from sleap_rtc_signaling import switchboard as switchboard_module
from sleap_rtc_signaling.config import ConfigError, SignalingConfig
from sleap_rtc_signaling.limits import (
    MAX_BODY_BYTES,
    MAX_MALFORMED_MESSAGES,
    PEER_MESSAGE_RATE,
    REFUSAL_RATE,
    SIGN_IN_RATE,
    STOP_DEADLINE_S,
    Rate,
)
from sleap_rtc_signaling.server import SignalingServer

WAIT_S = 10.0
ICE = IceServer(urls=["turn:127.0.0.1:3478"], username="u", credential="c")


class Clock:
    """Unix time that the test sets forward."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Peer:
    """A raw WebSocket that speaks the protocol's messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, message: Any) -> None:
        await self.socket.send(codec.encode_signaling(message))

    async def receive(self) -> Any:
        async with asyncio.timeout(WAIT_S):
            return codec.decode_server_message(await self.socket.recv())

    async def ask(self, message: Any) -> Any:
        await self.send(message)
        return await self.receive()

    async def closed(self) -> int | None:
        async with asyncio.timeout(WAIT_S):
            await self.socket.wait_closed()
        return self.socket.close_code


class Lab:
    """A server, a clock, and what a person does with them."""

    def __init__(self, server: SignalingServer, clock: Clock) -> None:
        self.server = server
        self.clock = clock
        self.stack = contextlib.AsyncExitStack()
        self.http = httpx.AsyncClient(base_url=server.url)

    async def post(self, path: str, token: str = "", **options: Any) -> httpx.Response:
        return await self.http.post(path, headers=bearer(token), **options)

    async def get(self, path: str, token: str = "") -> httpx.Response:
        return await self.http.get(path, headers=bearer(token))

    async def account(self) -> str:
        token: str = (await self.post("/anonymous-signin")).json()["token"]
        return token

    async def room(self, account: str = "") -> tuple[str, str]:
        account = account or await self.account()
        made = (await self.post("/create-room", account)).json()
        return made["room_id"], made["token"]

    async def connect(self, **options: Any) -> Peer:
        opened = await self.stack.enter_async_context(
            connect(self.server.websocket_url, compression=None, **options)
        )
        return Peer(opened)

    async def register(
        self, room: tuple[str, str], peer_id: str, role: str = "client", **fields: Any
    ) -> tuple[Peer, Any]:
        peer = await self.connect()
        message = registration(room, peer_id, role, **fields)
        return peer, await peer.ask(message)

    async def join(
        self, room: tuple[str, str], peer_id: str, role: str = "client", **fields: Any
    ) -> Peer:
        peer, reply = await self.register(room, peer_id, role, **fields)
        assert isinstance(reply, Registered)
        return peer

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        self.server.wake()

    async def close(self) -> None:
        await self.stack.aclose()
        await self.http.aclose()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def registration(
    room: tuple[str, str], peer_id: str, role: str = "client", **fields: Any
) -> Register:
    return Register(
        **{
            "id": "r",
            "room_id": room[0],
            "token": room[1],
            "peer_id": peer_id,
            "role": role,
            "resume_key": (peer_id * 32)[:32],
            **fields,
        }
    )


def config(folder: Path, **fields: Any) -> SignalingConfig:
    return SignalingConfig(
        **{"port": 0, "rest_port": None, "data_dir": folder / "data", **fields}
    )


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    clock = Clock()
    settings = config(tmp_path, rest_port=0, ice_servers=(ICE,))
    async with SignalingServer(settings, clock=clock) as server:
        opened = Lab(server, clock)
        try:
            yield opened
        finally:
            await opened.close()


# -- REST -----------------------------------------------------------------------


async def test_rest_on_both_ports(lab: Lab) -> None:
    assert lab.server.rest_port not in (None, lab.server.port)
    for port in (lab.server.port, lab.server.rest_port):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            signed_in = await http.post("/anonymous-signin")
            assert signed_in.status_code == 200
            assert signed_in.headers["cache-control"] == "no-store"
            assert "server" not in signed_in.headers
            account = signed_in.json()
            assert set(account) == {"account_id", "token", "expires_at"}
            assert account["expires_at"] > lab.clock.now
            headers = bearer(account["token"])

            room = (await http.post("/create-room", headers=headers)).json()
            assert set(room) == {"room_id", "token", "expires_at"}
            assert room["expires_at"] == lab.clock.now + ROOM_LIFETIME_S

            for token in (account["token"], room["token"]):
                ice = await http.get("/ice-servers", headers=bearer(token))
                assert ice.json() == {
                    "ice_servers": [
                        {"urls": ICE.urls, "username": "u", "credential": "c"}
                    ]
                }
            body = {"room_id": room["room_id"]}
            gone = await http.post("/delete-peers-and-room", headers=headers, json=body)
            assert gone.json() == body
            ice = await http.get("/ice-servers", headers=bearer(room["token"]))
            assert (ice.status_code, ice.json()["code"]) == (404, "room_gone")

            assert (await http.get("/health")).json() == {"status": "ok"}
            assert (await http.get("/ready")).json() == {"status": "ready"}
            metrics = await http.get("/metrics")
            assert metrics.headers["content-type"].startswith("text/plain")
            assert "sleap_signaling_rooms 0.0" in metrics.text


async def test_the_rest_port_has_no_websocket(lab: Lab) -> None:
    url = f"ws://127.0.0.1:{lab.server.rest_port}/ws"
    with pytest.raises(websockets.InvalidStatus):
        async with connect(url):
            pass


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/anonymous-signin", 405),
        ("DELETE", "/health", 405),
        ("POST", "/create-room", 401),
        ("POST", "/delete-peers-and-room", 401),
        ("GET", "/ice-servers", 401),
    ],
)
async def test_errors_are_json_with_a_code(
    lab: Lab, method: str, path: str, status: int
) -> None:
    response = await lab.http.request(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"code", "message", "fields"}
    assert "access-control-allow-origin" not in response.headers


async def test_rooms_of_an_account_are_bounded(lab: Lab) -> None:
    account = await lab.account()
    for _ in range(MAX_ROOMS_PER_ACCOUNT):
        await lab.room(account)
    refused = await lab.post("/create-room", account)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many")
    assert refused.json()["fields"]["limit"] == str(MAX_ROOMS_PER_ACCOUNT)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[1]", 400),
        (b'{"room_id": 5}', 400),
        (b"\xff\xfe", 400),
        (b"[" * MAX_BODY_BYTES, 400),
        (b'{"room_id": "' + b"x" * MAX_BODY_BYTES + b'"}', 413),
    ],
)
async def test_a_bad_body_is_refused(lab: Lab, content: bytes, status: int) -> None:
    account = await lab.account()
    response = await lab.post("/delete-peers-and-room", account, content=content)
    assert (response.status_code, response.json()["code"]) == (status, "bad_request")


async def test_a_huge_body_is_not_read_to_its_end(lab: Lab) -> None:
    account = await lab.account()
    # The answer may be lost to the reset that cuts the upload short.
    with contextlib.suppress(httpx.TransportError):
        content = b"x" * 20_000_000
        response = await lab.post("/delete-peers-and-room", account, content=content)
        assert response.status_code == 413
    assert (await lab.get("/health")).status_code == 200


async def test_a_body_without_a_length_is_bounded_too(lab: Lab) -> None:
    account = await lab.account()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 1_024

    response = await lab.post("/delete-peers-and-room", account, content=parts())
    assert response.status_code == 413


async def test_signing_in_is_limited_and_says_when_to_come_back(lab: Lab) -> None:
    statuses = []
    for _ in range(SIGN_IN_RATE.burst + 20):
        response = await lab.post("/anonymous-signin")
        statuses.append(response.status_code)
        if response.status_code == 429:
            break
    assert statuses[: SIGN_IN_RATE.burst] == [200] * SIGN_IN_RATE.burst
    assert response.json()["code"] == "rate_limited"
    assert int(response.headers["retry-after"]) >= 1
    # The other routes have a larger allowance.
    assert (await lab.get("/health")).status_code == 200


async def test_a_broken_store_shows_in_ready_and_nothing_of_it_outside(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise StorageFailed(place="/secret/place/db", reason="disk I/O error")

    monkeypatch.setattr("sleap_rtc_signaling.stores.sqlite.SqliteStore.check", fail)
    response = await lab.get("/ready")
    assert (response.status_code, response.json()["code"]) == (503, "storage_failed")
    assert "/secret" not in response.text
    assert (await lab.get("/health")).status_code == 200


async def test_a_fault_of_the_server_is_json_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sleap_rtc_signaling.stores.sqlite.SqliteStore.check", fail)
    response = await lab.get("/ready")
    assert (response.status_code, response.json()["code"]) == (500, "remote_failure")
    assert "ZeroDivisionError" in caplog.text


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

    metrics = (await lab.get("/metrics")).text
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
    room = await lab.room()
    client = await lab.join(room, "client-1")
    lab.advance(ROOM_LIFETIME_S + 1)
    assert await client.closed() == CloseCode.ROOM_ENDED
    peer, refusal = await lab.register(room, "client-1")
    assert refusal.code == "room_gone"
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
    monkeypatch.setattr(switchboard_module, "MAX_SOCKETS_PER_ADDRESS", 2)
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
    monkeypatch.setattr(switchboard_module, "CONNECT_RATE", Rate(3, 0.001))
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
    monkeypatch.setattr(app_module, "REST_RATE", Rate(2, 0.001))
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
    metrics = (await lab.get("/metrics")).text
    assert 'sleap_signaling_closed_sockets_total{reason="too_slow"} 1.0' in metrics
    # Cut off, not waited for: only the sender's socket is left.
    while "sleap_signaling_sockets 1.0" not in (await lab.get("/metrics")).text:
        assert time.monotonic() - started < WAIT_S


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


# -- starting and stopping --------------------


@pytest.mark.parametrize(
    ("taken", "option"), [("port", "--port"), ("rest_port", "--rest-port")]
)
async def test_a_port_in_use_is_a_clear_error(
    tmp_path: Path, taken: str, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            await SignalingServer(config(tmp_path, **{taken: port})).start()
    assert caught.value == caught.value
    assert (caught.value.address, caught.value.option) == (f"127.0.0.1:{port}", option)
    assert not (tmp_path / "data").exists()


async def test_a_host_that_is_not_ours_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--host"):
        await SignalingServer(config(tmp_path, host="not a host")).start()


async def test_a_data_directory_that_cannot_be_is_a_clear_error(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").write_text("a file")
    server = SignalingServer(config(tmp_path))
    with pytest.raises(StorageFailed, match="data"):
        await server.start()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_stopping_leaves_nothing_behind(tmp_path: Path) -> None:
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    handlers = {number: signal.getsignal(number) for number in (2, 15)}
    server = SignalingServer(config(tmp_path, rest_port=0))
    await server.start()
    assert {number: signal.getsignal(number) for number in (2, 15)} == handlers
    port = server.port
    lab = Lab(server, Clock())
    peer = await lab.join(await lab.room(), "worker-1", "worker")
    idle = await lab.connect()
    started = time.monotonic()
    await server.stop()
    await server.stop()
    assert time.monotonic() - started < STOP_DEADLINE_S
    assert await peer.closed() == await idle.closed() == 1012
    await lab.close()
    assert asyncio.all_tasks() == tasks
    assert threading.active_count() == threads
    # The same port at once, in the same process.
    async with SignalingServer(config(tmp_path, port=port)) as again:
        assert again.port == port


async def test_a_second_start_knows_the_rooms_and_the_tokens(tmp_path: Path) -> None:
    async with SignalingServer(config(tmp_path)) as server:
        lab = Lab(server, Clock())
        account = await lab.account()
        room = await lab.room(account)
        await lab.close()
    async with SignalingServer(config(tmp_path)) as server:
        lab = Lab(server, Clock())
        await lab.join(room, "worker-1", "worker")
        body = {"room_id": room[0]}
        deleted = await lab.post("/delete-peers-and-room", account, json=body)
        assert deleted.status_code == 200
        await lab.close()


async def test_two_servers_on_the_same_data(tmp_path: Path) -> None:
    clock = Clock()
    servers = [SignalingServer(config(tmp_path), clock=clock) for _ in range(2)]
    await asyncio.gather(*(server.start() for server in servers))
    one, two = (Lab(server, clock) for server in servers)
    account = await one.account()
    room = await one.room(account)
    worker = await two.join(room, "worker-1", "worker")
    body = {"room_id": room[0]}
    deleted = await one.post("/delete-peers-and-room", account, json=body)
    assert deleted.status_code == 200
    # The other server learns of it when it comes to renew the room.
    two.advance(ROOM_LIFETIME_S * 0.6)
    assert await worker.closed() == CloseCode.ROOM_ENDED
    for opened in (one, two):
        await opened.close()
    for server in servers:
        await server.stop()


# -- the command --------------------


def command(*arguments: str) -> list[str]:
    run = "from sleap_rtc_plugin.cli.signaling import signaling; signaling()"
    return [sys.executable, "-c", run, *arguments]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_interrupted(tmp_path: Path, number: int) -> None:
    arguments = command("--port", "0", "--rest-port", "none", "--data", str(tmp_path))
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert "listens on http://127.0.0.1:" in first
        assert "`--host 0.0.0.0`" in process.stderr.readline()
        url = first.split("listens on ")[1].split(";")[0]
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        os.kill(process.pid, number)
        assert process.wait(timeout=WAIT_S) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--port", "{taken}"], 3, "already in use"),
        (["--port", "0", "--rest-port", "{taken}"], 3, "--rest-port"),
        (["--port", "80000"], 2, "--port"),
        (["--rest-port", "off"], 2, "neither a port"),
        (["--config", "{tmp}/missing.toml"], 2, "does not exist"),
        (["--config", "{tmp}/wrong.toml"], 2, "not valid TOML"),
        (["--port", "0", "--rest-port", "none", "--host", "no host"], 2, "--host"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "wrong.toml").write_text("port =")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        filled = [text.format(taken=taken, tmp=tmp_path) for text in arguments]
        done = subprocess.run(
            command(*filled, "--data", str(tmp_path / "data")),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


logging.getLogger("websockets.client").setLevel(logging.WARNING)

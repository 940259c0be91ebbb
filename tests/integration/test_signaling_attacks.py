"""What a stranger, a member of the room and a thief of tokens try, and do not get.

The predecessors of this server let an unregistered socket forge offers and list a
room, let anybody push a peer out, deleted without asking who, and logged secrets.
Each of these is tried here against a real server.
"""

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import websockets
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    Candidate,
    Delivered,
    DiscoverPeers,
    IceServer,
    Offer,
    PeerMessage,
    PeerMetadata,
    Ping,
    Pong,
    Register,
    Registered,
    RelayedOffer,
    ServerError,
    UpdateMetadata,
)
from sleap_rtc_signaling.config import SignalingConfig
from sleap_rtc_signaling.server import SignalingServer
from sleap_rtc_signaling.tokens import KEY_FILE, Tokens, load_or_make_key

WAIT_S = 10.0
TURN_PASSWORD = "turn-password-of-the-lab"
WORKER_KEY = "resume-key-of-the-worker-0123456789"

# The client library logs what it sends; what counts here is what the server logs.
QUIET = logging.getLogger("attacker")
QUIET.setLevel(logging.CRITICAL)


class Target:
    """A server with one room in it, in which a worker waits."""

    def __init__(self, server: SignalingServer, data: Path) -> None:
        self.server = server
        self.data = data
        self.http = httpx.AsyncClient(base_url=server.url)
        self.sockets = contextlib.AsyncExitStack()
        self.account = ""
        self.room_id = ""
        self.token = ""

    async def furnish(self) -> None:
        self.account = await self.sign_in()
        self.room_id, self.token = await self.make_room(self.account)
        self.worker = await self.socket()
        reply = await self.ask(
            self.worker, self.register("worker-1", "worker", resume_key=WORKER_KEY)
        )
        assert isinstance(reply, Registered)

    async def sign_in(self) -> str:
        token: str = (await self.http.post("/anonymous-signin")).json()["token"]
        return token

    async def make_room(self, account: str) -> tuple[str, str]:
        room = (await self.post("/create-room", account)).json()
        return room["room_id"], room["token"]

    async def post(self, path: str, token: str, body: object = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self.http.post(path, headers=headers, json=body)

    async def delete(self, token: str, room_id: str = "") -> httpx.Response:
        body = {"room_id": room_id or self.room_id}
        return await self.post("/delete-peers-and-room", token, body)

    async def socket(self) -> ClientConnection:
        opening = connect(self.server.websocket_url, compression=None, logger=QUIET)
        return await self.sockets.enter_async_context(opening)

    def register(self, peer_id: str, role: str = "client", **fields: Any) -> Register:
        defaults = {
            "id": "r",
            "room_id": self.room_id,
            "token": self.token,
            "peer_id": peer_id,
            "role": role,
            "resume_key": "k" * 32,
        }
        return Register(**(defaults | fields))

    async def member(self, peer_id: str, **fields: Any) -> ClientConnection:
        socket = await self.socket()
        reply = await self.ask(socket, self.register(peer_id, **fields))
        assert isinstance(reply, Registered)
        return socket

    async def ask(self, socket: ClientConnection, message: Any) -> Any:
        await socket.send(codec.encode_signaling(message))
        return await self.receive(socket)

    async def receive(self, socket: ClientConnection) -> Any:
        async with asyncio.timeout(WAIT_S):
            return codec.decode_server_message(await socket.recv())

    async def closed(self, socket: ClientConnection) -> int | None:
        async with asyncio.timeout(WAIT_S):
            await socket.wait_closed()
        return socket.close_code

    async def worker_is_untouched(self) -> None:
        """Check that the worker is there and that nothing was sent to it."""
        assert isinstance(await self.ask(self.worker, Ping(id="p")), Pong)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    ice = IceServer(urls=["turn:127.0.0.1"], username="u", credential=TURN_PASSWORD)
    config = SignalingConfig(
        port=0, rest_port=0, data_dir=tmp_path / "data", ice_servers=(ice,)
    )
    async with SignalingServer(config) as server:
        opened = Target(server, config.data_dir)
        await opened.furnish()
        try:
            yield opened
        finally:
            await opened.sockets.aclose()
            await opened.http.aclose()


# -- a stranger --------------------


@pytest.mark.parametrize(
    "message",
    [
        Offer(id="x", to="worker-1", sdp="v=0 forged"),
        Answer(id="x", to="worker-1", sdp="v=0 forged", offer_id="o"),
        Candidate(id="x", to="worker-1", candidate="forged", offer_id="o"),
        PeerMessage(id="x", to="worker-1", payload=Raw(b'{"type":"job_request"}')),
        DiscoverPeers(id="x"),
        UpdateMetadata(id="x", metadata=PeerMetadata()),
        Ping(id="x"),
    ],
)
async def test_an_unregistered_socket_can_do_nothing(
    target: Target, message: Any
) -> None:
    stranger = await target.socket()
    reply = await target.ask(stranger, message)
    assert isinstance(reply, ServerError)
    assert (reply.id, reply.code) == ("x", "not_registered")
    assert "worker-1" not in codec.encode_signaling(reply)
    assert await target.closed(stranger) == CloseCode.NOT_REGISTERED
    await target.worker_is_untouched()


async def test_nothing_after_the_refusal_is_read(target: Target) -> None:
    stranger = await target.socket()
    for message in (
        Ping(id="x"),
        target.register("client-1"),
        Offer(id="y", to="worker-1", sdp="v=0 forged"),
    ):
        with contextlib.suppress(websockets.ConnectionClosed):
            await stranger.send(codec.encode_signaling(message))
    assert (await target.receive(stranger)).code == "not_registered"
    assert await target.closed(stranger) == CloseCode.NOT_REGISTERED
    await target.worker_is_untouched()


async def test_a_sender_cannot_say_who_it_is(target: Target) -> None:
    member = await target.member("client-1")
    forged = json.dumps(
        {
            "type": "offer",
            "id": "o",
            "from": "worker-2",
            "from_": "worker-2",
            "to": "worker-1",
            "sdp": "v=0",
        }
    )
    await member.send(forged)
    assert await target.receive(member) == Delivered(id="o")
    assert await target.receive(target.worker) == RelayedOffer(
        id="o", from_="client-1", sdp="v=0"
    )


async def test_a_peer_cannot_send_what_only_the_server_says(target: Target) -> None:
    member = await target.member("client-1")
    await member.send('{"type":"registered","id":"x","peer_id":"a","room_id":"b"}')
    assert (await target.receive(member)).code == "protocol"
    await target.worker_is_untouched()


# -- a member of the room --------------------


@pytest.mark.parametrize("role", ["worker", "client"])
async def test_nobody_pushes_a_peer_out_by_taking_its_id(
    target: Target, role: str
) -> None:
    thief = await target.socket()
    reply = await target.ask(thief, target.register("worker-1", role))
    assert reply.code == "peer_id_taken"
    assert await target.closed(thief) == CloseCode.REGISTRATION_REFUSED
    await target.worker_is_untouched()


async def test_nobody_takes_the_id_of_a_peer_that_was_cut_off(target: Target) -> None:
    await target.worker.close()
    for _ in range(3):
        thief = await target.socket()
        reply = await target.ask(thief, target.register("worker-1", "worker"))
        assert reply.code == "peer_id_taken"
    back = await target.member("worker-1", role="worker", resume_key=WORKER_KEY)
    assert isinstance(await target.ask(back, Ping(id="p")), Pong)


async def test_a_members_room_token_does_not_delete(target: Target) -> None:
    response = await target.delete(target.token)
    assert (response.status_code, response.json()["code"]) == (401, "token_refused")
    response = await target.post("/create-room", target.token)
    assert response.status_code == 401
    await target.worker_is_untouched()


async def test_deleting_needs_a_token(target: Target) -> None:
    for token in ("", "x", "null", "undefined"):
        assert (await target.delete(token)).status_code == 401
    await target.worker_is_untouched()


async def test_another_account_neither_deletes_nor_learns_of_a_room(
    target: Target,
) -> None:
    stranger = await target.sign_in()
    foreign = await target.delete(stranger)
    missing = await target.delete(stranger, "room-00000000000000000000")
    senseless = await target.delete(stranger, "' OR 1=1 --")
    assert foreign.status_code == missing.status_code == senseless.status_code == 403
    assert foreign.content == missing.content == senseless.content
    assert foreign.json()["code"] == "not_allowed"
    await target.worker_is_untouched()
    assert (await target.delete(target.account)).status_code == 200
    assert await target.closed(target.worker) == CloseCode.ROOM_ENDED


# -- another room --------------------


async def test_a_token_of_one_room_does_not_open_another(target: Target) -> None:
    room_id, token = await target.make_room(await target.sign_in())
    stranger = await target.socket()
    reply = await target.ask(stranger, target.register("client-1", token=token))
    assert reply.code == "token_refused"
    unknown = await target.socket()
    absent = target.register(
        "client-1", token=token, room_id="room-00000000000000000000"
    )
    # A room that exists and one that does not are refused in the same words.
    assert await target.ask(unknown, absent) == reply
    own = target.register("client-1", token=token, room_id=room_id)
    assert isinstance(await target.ask(await target.socket(), own), Registered)


async def test_rooms_do_not_reach_or_see_each_other(target: Target) -> None:
    room_id, token = await target.make_room(await target.sign_in())
    spy = await target.member("spy-1", room_id=room_id, token=token)
    listed = await target.ask(spy, DiscoverPeers(id="d"))
    assert [peer.peer_id for peer in listed.peers] == ["spy-1"]
    for peer_id in ("worker-1", "worker-2"):
        offer = Offer(id="o", to=peer_id, sdp="v=0")
        refused = await target.ask(spy, offer)
        assert refused.code == "peer_not_found"
        assert refused.message.replace(peer_id, "") == (
            "The peer  is not online in this room; list the peers again."
        )
    await target.member(
        "worker-1", role="worker", room_id=room_id, token=token
    )  # the same id, but in its own room
    await target.worker_is_untouched()


# -- forged tokens --------------------


def encoded(value: object) -> str:
    text = json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def header_of(token: str) -> dict[str, Any]:
    return jwt.get_unverified_header(token)


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def without_signature(target: Target, token: str) -> str:
    header = header_of(token) | {"alg": "none"}
    return f"{encoded(header)}.{encoded(claims_of(token))}."


def kept_signature(target: Target, token: str) -> str:
    claims = claims_of(token) | {"exp": claims_of(token)["exp"] + 1_000}
    head, _, signature = token.split(".")
    return f"{head}.{encoded(claims)}.{signature}"


def other_key(target: Target, token: str) -> str:
    key, headers = Ed25519PrivateKey.generate(), header_of(token)
    return jwt.encode(claims_of(token), key, algorithm="EdDSA", headers=headers)


def shared_secret(target: Target, token: str) -> str:
    public = load_or_make_key(target.data).public_key().public_bytes_raw()
    headers = header_of(token) | {"alg": "HS256"}
    return jwt.encode(claims_of(token), public, algorithm="HS256", headers=headers)


def own_key_changed(target: Target, token: str, **changes: Any) -> str:
    """Sign with the server's own key what the server would not sign."""
    key = load_or_make_key(target.data)
    claims = claims_of(token) | changes
    return jwt.encode(claims, key, algorithm="EdDSA", headers=header_of(token))


def wrong_audience(target: Target, token: str) -> str:
    return own_key_changed(target, token, aud="sleap-rtc-something")


def wrong_issuer(target: Target, token: str) -> str:
    return own_key_changed(target, token, iss="somebody")


def expired(target: Target, token: str) -> str:
    return own_key_changed(target, token, exp=1_000)


def of_the_other_kind(target: Target, token: str) -> str:
    return target.account if token == target.token else target.token


FORGERIES: list[Callable[[Target, str], str]] = [
    without_signature,
    kept_signature,
    other_key,
    shared_secret,
    wrong_audience,
    wrong_issuer,
    expired,
    of_the_other_kind,
]


@pytest.mark.parametrize("forge", FORGERIES)
async def test_a_forged_room_token_does_not_admit(
    target: Target, forge: Callable[[Target, str], str]
) -> None:
    token = forge(target, target.token)
    socket = await target.socket()
    reply = await target.ask(socket, target.register("client-1", token=token))
    assert reply.code == "token_refused"
    assert await target.closed(socket) == CloseCode.REGISTRATION_REFUSED
    await target.worker_is_untouched()


@pytest.mark.parametrize("forge", FORGERIES)
async def test_a_forged_account_token_neither_opens_nor_deletes(
    target: Target, forge: Callable[[Target, str], str]
) -> None:
    token = forge(target, target.account)
    for response in (
        await target.delete(token),
        await target.post("/create-room", token),
    ):
        assert (response.status_code, response.json()["code"]) == (401, "token_refused")
    await target.worker_is_untouched()


async def test_a_token_for_an_account_that_is_not_there_is_refused(
    target: Target,
) -> None:
    tokens = Tokens(load_or_make_key(target.data), "s")
    token = tokens.issue("account", "anonymous-gone", 0.0, 1e12)
    assert (await target.post("/create-room", token)).status_code == 401


# -- secrets --------------------


async def test_no_secret_is_logged_listed_or_counted(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        caplog.set_level(logging.DEBUG, logger=name)
    account = await target.sign_in()
    room_id, token = await target.make_room(account)
    key = "resume-key-of-somebody-0123456789"
    mine = {"room_id": room_id, "token": token, "resume_key": key}
    member = await target.member("client-1", **mine)
    listed = await target.ask(member, DiscoverPeers(id="d"))

    answers = [codec.encode_signaling(listed)]
    # Everything that goes wrong with a secret in hand.
    wrong = await target.socket()
    broken = target.register("client-2", **(mine | {"token": token + "x"}))
    answers.append(codec.encode_signaling(await target.ask(wrong, broken)))
    taken = target.register("client-1", room_id=room_id, token=token)
    reply = await target.ask(await target.socket(), taken)
    answers.append(codec.encode_signaling(reply))
    malformed = await target.socket()
    await malformed.send(json.dumps({"type": "register", "token": token, "key": key}))
    answers.append(codec.encode_signaling(await target.receive(malformed)))
    invalid = await target.socket()
    await invalid.send(b"\xff" + token.encode(), text=True)
    await target.closed(invalid)
    with contextlib.suppress(websockets.InvalidStatus, websockets.ConnectionClosed):
        url = f"{target.server.websocket_url}?token={token}"
        async with connect(url, logger=QUIET):
            pass
    for path in (f"/ws?token={token}", f"/nothing?token={token}"):
        answers.append((await target.http.get(path)).text)
    answers.append((await target.delete(token + "x", room_id)).text)
    answers.append((await target.delete(token, room_id)).text)
    answers.append((await target.delete(account, room_id)).text)
    metrics = (await target.http.get("/metrics")).text
    answers.append(metrics)
    assert await target.closed(member) == CloseCode.ROOM_ENDED

    # httpx and its core are the attacker's here.
    logged = "\n".join(
        f"{record.getMessage()} {record.exc_text}"
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore"))
    )
    private = load_or_make_key(target.data).private_bytes_raw()
    secrets = [
        *account.split("."),
        *token.split(".")[1:],
        key,
        TURN_PASSWORD,
        private.hex(),
        base64.b64encode(private).decode(),
        (target.data / KEY_FILE).read_text().splitlines()[1],
    ]
    for secret in secrets:
        assert secret not in logged
        assert not [answer for answer in answers if secret in answer]
    for identity in (room_id, "client-1", "127.0.0.1"):
        assert identity not in metrics


async def test_the_store_keeps_no_secret(target: Target) -> None:
    kept = b"".join(
        path.read_bytes() for path in target.data.iterdir() if path.name != KEY_FILE
    )
    assert target.room_id.encode() in kept
    for secret in (target.token, target.account, WORKER_KEY):
        assert secret.encode() not in kept
        assert secret.rpartition(".")[2].encode() not in kept


async def test_forwarded_headers_of_a_stranger_are_not_believed(
    target: Target,
) -> None:
    statuses = set()
    for n in range(80):
        response = await target.http.post(
            "/anonymous-signin", headers={"x-forwarded-for": f"10.0.0.{n}"}
        )
        statuses.add(response.status_code)
    assert statuses == {200, 429}

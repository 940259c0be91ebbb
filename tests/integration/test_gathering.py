"""Gathering cut short leaves nothing behind; a refused allocation is repeated."""

import asyncio
import gc
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import aioice.stun
import pytest
from aioice import stun
from aioice.turn import make_integrity_key
from support.turn_server import HOST, turn_server

from sleap_rtc_plugin.protocol.limits import MAX_ALLOCATION_TRIES
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.transport.peer import PeerConnection

pytestmark = pytest.mark.timeout(60)

PATIENCE_S = 30.0


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes every question, answers none and refuses nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        yield server


def connection(*urls: str) -> PeerConnection:
    server = IceServer(urls=list(urls), username="somebody", credential="something")
    return PeerConnection(
        role="client", peer_id="worker", secret=b"s" * 32, ice_servers=[server]
    )


async def cut_short(made: PeerConnection, asked: socket.socket | None = None) -> None:
    """Gather, and change our mind once the questions are on their way.

    With `asked`, once one of them has come to that server.
    """
    offering = asyncio.ensure_future(made.make_offer())
    names = ("server_reflexive_candidate", "relayed_candidate")
    async with asyncio.timeout(PATIENCE_S):
        while not any(n in str(asyncio.all_tasks()) for n in names):  # noqa: ASYNC110
            await asyncio.sleep(0)
        if asked is not None:
            await asyncio.get_running_loop().sock_recv(asked, 1500)
    offering.cancel()
    await asyncio.gather(offering, return_exceptions=True)
    await made.close()


async def everything_ends() -> None:
    async with asyncio.timeout(PATIENCE_S):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    gc.collect()


@pytest.mark.parametrize("scheme", ["stun", "turn"])
@pytest.mark.parametrize("heard", [False, True], ids=["at once", "asked"])
async def test_servers_that_do_not_answer(
    silent: socket.socket, scheme: str, heard: bool
) -> None:
    unread: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unread.append(context))
    began = loop.time()
    made = connection(f"{scheme}:127.0.0.1:{silent.getsockname()[1]}")
    await cut_short(made, asked=silent if heard else None)
    await everything_ends()
    # A question that goes on is repeated after half a second.
    await asyncio.sleep(aioice.stun.RETRY_RTO * 1.2)
    assert unread == []
    # aioice by itself asks for half a minute.
    assert loop.time() - began < PATIENCE_S / 2


async def test_a_server_that_answers_too_late(tmp_path: Path) -> None:
    async with turn_server(tmp_path) as turn:
        unread: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unread.append(context))
        await cut_short(connection(f"turn:127.0.0.1:{turn.port}"))
        await everything_ends()
        assert unread == []


class FullTurnServer(asyncio.DatagramProtocol):
    """Has no relay port free for so many allocations, and one for the next."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.refused = 0
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        asked = stun.parse_message(data)
        kind = stun.Class.ERROR
        attributes: dict[str, Any] = {}
        if "USERNAME" not in asked.attributes:
            attributes = {"ERROR-CODE": (401, "Unauthorized")}
            attributes |= {"NONCE": b"0123456789abcdef", "REALM": "test"}
        elif asked.message_method == stun.Method.ALLOCATE:
            if self.refused < self.refusals:
                self.refused += 1
                attributes = {"ERROR-CODE": (508, "Cannot create socket")}
            else:
                kind = stun.Class.RESPONSE
                attributes = {"LIFETIME": 600, "XOR-MAPPED-ADDRESS": addr}
                attributes["XOR-RELAYED-ADDRESS"] = (HOST, 61000)
        else:
            kind, attributes = stun.Class.RESPONSE, {"LIFETIME": 0}
        answer = stun.Message(asked.message_method, kind, asked.transaction_id)
        answer.attributes.update(attributes)
        if "USERNAME" in asked.attributes:
            key = make_integrity_key("somebody", "test", "something")
            answer.add_message_integrity(key)
        self.transport.sendto(bytes(answer), addr)


@pytest.mark.parametrize(
    ("refusals", "has_candidates"),
    [
        *((0, True), (1, True), (MAX_ALLOCATION_TRIES - 1, True)),
        (MAX_ALLOCATION_TRIES, False),
    ],
)
async def test_a_refused_allocation_is_asked_for_again(
    refusals: int, has_candidates: bool
) -> None:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: FullTurnServer(refusals), local_addr=(HOST, 0)
    )
    port = transport.get_extra_info("sockname")[1]
    made = PeerConnection(
        role="client",
        peer_id="worker",
        secret=b"s" * 32,
        ice_servers=[
            IceServer(
                urls=[f"turn:{HOST}:{port}"],
                username="somebody",
                credential="something",
            )
        ],
        relay_only=True,
    )
    try:
        await made.make_offer()
        assert made.has_candidates is has_candidates
        assert server.refused == refusals
    finally:
        await made.close()
        transport.close()

"""Gathering that is cut short leaves no question, no error and no socket behind."""

import asyncio
import gc
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.turn_server import turn_server

from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.transport.peer import PeerConnection

pytestmark = pytest.mark.timeout(60)

PATIENCE_S = 30.0


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which nobody answers, and nobody refuses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]


def connection(*urls: str) -> PeerConnection:
    server = IceServer(urls=list(urls), username="somebody", credential="something")
    return PeerConnection(
        role="client", peer_id="worker", secret=b"s" * 32, ice_servers=[server]
    )


async def cut_short(made: PeerConnection) -> None:
    """Gather, and change our mind once the questions are on their way."""
    offering = asyncio.ensure_future(made.make_offer())
    names = ("server_reflexive_candidate", "relayed_candidate")
    async with asyncio.timeout(PATIENCE_S):
        while not any(n in str(asyncio.all_tasks()) for n in names):  # noqa: ASYNC110
            await asyncio.sleep(0)
    offering.cancel()
    await asyncio.gather(offering, return_exceptions=True)
    await made.close()


async def everything_ends() -> None:
    async with asyncio.timeout(PATIENCE_S):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
    gc.collect()


@pytest.mark.parametrize("scheme", ["stun", "turn"])
async def test_servers_that_do_not_answer(silent_port: int, scheme: str) -> None:
    unread: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unread.append(context))
    began = loop.time()
    await cut_short(connection(f"{scheme}:127.0.0.1:{silent_port}"))
    await everything_ends()
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

"""Gathering that is cut short leaves no question, no error and no socket behind."""

import asyncio
import gc
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aioice.stun
import pytest
from support.turn_server import turn_server

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

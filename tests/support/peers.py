"""Two real peer connections on this machine, and frames recorded on their way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.peer import PeerConnection
from sleap_rtc_plugin.transport.transport_options import TransportOptions

SECRET = b"s" * 32


def peer(
    role: Any, secret: bytes = SECRET, options: TransportOptions | None = None
) -> PeerConnection:
    """Return one end, with no server to ask for anything."""
    other = "worker" if role == "client" else "client"
    return PeerConnection(
        role=role, peer_id=f"{other}-1", secret=secret, options=options
    )


async def introduce(client: PeerConnection, worker: PeerConnection) -> None:
    """Carry the descriptions from one to the other."""
    answer = await worker.make_answer(await client.make_offer())
    await client.take_answer(answer)


async def outcomes(*connections: PeerConnection) -> list[Any]:
    """Return what authenticating gave on each side, errors included."""
    attempts = [connection.authenticate() for connection in connections]
    return await asyncio.gather(*attempts, return_exceptions=True)


@asynccontextmanager
async def linked(
    client_options: TransportOptions | None = None,
    worker_options: TransportOptions | None = None,
) -> AsyncIterator[tuple[Link, Link]]:
    """Two authenticated links, the client's and the worker's."""
    client = peer("client", options=client_options)
    worker = peer("worker", options=worker_options)
    try:
        await introduce(client, worker)
        yield tuple(await asyncio.gather(client.authenticate(), worker.authenticate()))
    finally:
        await client.close()
        await worker.close()

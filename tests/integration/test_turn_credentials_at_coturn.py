"""Credentials of a real signaling server at a real TURN server, coturn."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest
from aioice import stun, turn
from support.signaling_lab import WAIT_S, Clock, Lab, config
from support.turn_server import HOST, turn_server

from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_signaling.config import TurnServer
from sleap_rtc_signaling.limits import TURN_LIFETIME_S
from sleap_rtc_signaling.server import SignalingServer

SECRET = "shared by both servers of this test"


async def told(folder: Path, port: int, clock: Clock) -> IceServerList:
    """Ask a signaling server for what a member of a room is told."""
    shared = TurnServer(urls=(f"turn:{HOST}:{port}?transport=udp",), secret=SECRET)
    settings = config(folder, turn=(shared,))
    async with SignalingServer(settings, clock=clock) as server:
        lab = Lab(server, clock)
        room = await lab.room()
        reply = await lab.get("/ice-servers", room[1])
        await lab.close()
    assert SECRET not in reply.text
    return msgspec.json.decode(reply.content, type=IceServerList)


async def allocate(port: int, listed: IceServerList) -> tuple[str, int]:
    (server,) = listed.ice_servers
    async with asyncio.timeout(WAIT_S):
        transport, _ = await turn.create_turn_endpoint(
            asyncio.DatagramProtocol,
            server_addr=(HOST, port),
            username=server.username,
            password=server.credential,
        )
    relayed: tuple[str, int] = transport.get_extra_info("sockname")
    transport.close()
    return relayed


async def test_coturn_takes_them_until_they_expire(tmp_path: Path) -> None:
    async with turn_server(tmp_path, secret=SECRET) as server:
        clock = Clock()
        clock.now = time.time()
        listed = await told(tmp_path, server.port, clock)
        assert listed.expires_at == int(clock.now + TURN_LIFETIME_S)
        host, port = await allocate(server.port, listed)
        assert host == HOST
        assert port != server.port

        clock.now = time.time() - TURN_LIFETIME_S - 60
        expired = await told(tmp_path, server.port, clock)
        with pytest.raises(stun.TransactionFailed, match="401"):
            await allocate(server.port, expired)


async def test_coturn_refuses_what_was_made_with_another_secret(
    tmp_path: Path,
) -> None:
    async with turn_server(tmp_path, secret="a secret of its own") as server:
        listed = await told(tmp_path, server.port, Clock())
        with pytest.raises(stun.TransactionFailed, match="401"):
            await allocate(server.port, listed)

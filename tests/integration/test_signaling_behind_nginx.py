"""The signaling server and its relay behind a real TLS proxy, set up as in README."""

import asyncio
import contextlib
import os
from pathlib import Path

import httpx
import pytest
import websockets
from support.nginx_proxy import nginx_proxy
from support.signaling_lab import WAIT_S, Clock, Lab, Peer, bearer, config, registration
from websockets.asyncio.client import ClientConnection, connect

from sleap_rtc_plugin.protocol.close_codes import RelayCloseCode
from sleap_rtc_plugin.protocol.ids import new_relay_id
from sleap_rtc_plugin.protocol.limits import MAX_RELAY_FRAME_BYTES
from sleap_rtc_plugin.protocol.relay_messages import (
    RELAY_PATH,
    RelayJoin,
    encode_relay,
)
from sleap_rtc_plugin.protocol.signaling_messages import Registered
from sleap_rtc_signaling import gate as gate_module
from sleap_rtc_signaling.config import RelayConfig
from sleap_rtc_signaling.server import SignalingServer

RELAY = RelayConfig(enabled=True, max_mbit=400, total_mbit=400)


async def test_peers_meet_and_are_relayed_through_tls(tmp_path: Path) -> None:
    settings = config(tmp_path, relay=RELAY, trusted_proxies=("127.0.0.1",))
    async with (
        SignalingServer(settings) as server,
        nginx_proxy(tmp_path / "nginx", server.port) as proxy,
        httpx.AsyncClient(
            base_url=f"https://{proxy.netloc}", verify=proxy.trust
        ) as http,
        contextlib.AsyncExitStack() as opened,
    ):
        account = (await http.post("/anonymous-signin")).json()["token"]
        made = (await http.post("/create-room", headers=bearer(account))).json()
        room = made["room_id"], made["token"]
        told = (await http.get("/ice-servers", headers=bearer(room[1]))).json()
        assert told["relay"]["path"] == RELAY_PATH

        async def open_socket(path: str) -> ClientConnection:
            return await opened.enter_async_context(
                connect(
                    f"wss://{proxy.netloc}{path}",
                    ssl=proxy.trust,
                    additional_headers=bearer(room[1]),
                    compression=None,
                    max_size=MAX_RELAY_FRAME_BYTES,
                )
            )

        relay_id = new_relay_id()
        relayed = {}
        for peer_id in ("worker-1", "client-1"):
            member = Peer(await open_socket("/ws"))
            reply = await member.ask(registration(room, peer_id))
            assert isinstance(reply, Registered)
            relayed[peer_id] = await open_socket(RELAY_PATH)
            join = RelayJoin(relay_id=relay_id, peer_id=peer_id)
            await relayed[peer_id].send(encode_relay(join))
        worker, client = relayed["worker-1"], relayed["client-1"]
        async with asyncio.timeout(WAIT_S):
            for peer in (worker, client):
                assert await peer.recv() == '{"type":"relay_joined"}'
            frames = [os.urandom(MAX_RELAY_FRAME_BYTES) for _ in range(40)]

            async def send() -> None:
                for frame in frames:
                    await client.send(frame)

            sending = asyncio.create_task(send())
            for frame in frames:
                assert await worker.recv() == frame
            await sending
            await client.close()
            await worker.wait_closed()
        assert worker.close_code == RelayCloseCode.PARTNER_LEFT


async def test_the_address_that_the_proxy_tells_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "MAX_SOCKETS_PER_ADDRESS", 1)
    settings = config(tmp_path, trusted_proxies=("127.0.0.1",))
    async with SignalingServer(settings) as server:
        lab = Lab(server, Clock())
        for host in ("192.0.2.1", "192.0.2.2"):
            headers = {"x-forwarded-for": host}
            await lab.connect(additional_headers=headers)
        with pytest.raises(websockets.InvalidStatus, match="429"):
            await lab.connect(additional_headers={"x-forwarded-for": "192.0.2.2"})
        await lab.close()

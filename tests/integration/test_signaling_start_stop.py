"""The signaling server starts, stops, starts again: in this process, by command."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from support.signaling_lab import WAIT_S, Clock, Lab, config

from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.errors import PortInUse, StorageFailed
from sleap_rtc_plugin.protocol.limits import ROOM_LIFETIME_S
from sleap_rtc_plugin.protocol.signaling_messages import Ping, Pong
from sleap_rtc_signaling.config import ConfigError
from sleap_rtc_signaling.limits import STOP_DEADLINE_S
from sleap_rtc_signaling.server import SignalingServer

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


async def test_a_room_outlives_a_server_that_is_down_for_a_night(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with SignalingServer(config(tmp_path), clock=clock) as server:
        lab = Lab(server, clock)
        room = await lab.room()
        await lab.join(room, "worker-1", "worker")
        await lab.close()
    clock.now += 8 * ROOM_LIFETIME_S
    async with SignalingServer(config(tmp_path), clock=clock) as server:
        lab = Lab(server, clock)
        await lab.join(room, "worker-1", "worker")
        await lab.close()


async def test_nobody_takes_a_workers_id_while_the_server_restarts(
    tmp_path: Path,
) -> None:
    async with SignalingServer(config(tmp_path)) as server:
        lab = Lab(server, Clock())
        room = await lab.room()
        await lab.join(room, "worker-1", "worker")
        await lab.close()
    for _ in range(2):
        async with SignalingServer(config(tmp_path)) as server:
            lab = Lab(server, Clock())
            _, refused = await lab.register(
                room, "worker-1", "worker", resume_key="x" * 32
            )
            assert refused.code == "peer_id_taken"
            await lab.join(room, "worker-1", "worker")
            await lab.close()


async def test_a_machine_that_slept_longer_than_a_room_lives_keeps_it(
    tmp_path: Path,
) -> None:
    """Nobody looked at the clock, and the store is purged first of all."""
    clock = Clock()
    async with SignalingServer(config(tmp_path), clock=clock) as server:
        lab = Lab(server, clock)
        room = await lab.room()
        worker = await lab.join(room, "worker-1", "worker")
        clock.now += 3 * ROOM_LIFETIME_S
        # Registering is the first that happens after waking up.
        await lab.join(room, "client-1")
        clock.now += 3 * ROOM_LIFETIME_S
        # So is the purge.
        switchboard = server._switchboard
        assert switchboard is not None
        await switchboard._purge()
        await lab.join(room, "client-2")
        assert isinstance(await worker.ask(Ping(id="p")), Pong)
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
        assert httpx.get(f"{url}/health").json()["status"] == "ok"
        os.kill(process.pid, number)
        assert process.wait(timeout=WAIT_S) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
@pytest.mark.parametrize("flag", ["--relay", "--no-relay"])
def test_the_command_offers_a_relay_where_it_is_asked_to(
    tmp_path: Path, flag: str
) -> None:
    settings = tmp_path / "signaling.toml"
    settings.write_text('rest_port = "none"\n[relay]\nenabled = true\nmax_mbit = 2.5')
    arguments = command(
        *("--config", str(settings), "--port", "0", "--data", str(tmp_path)), flag
    )
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split("listens on ")[1].split(";")[0]
        account = httpx.post(f"{url}/anonymous-signin").json()["token"]
        headers = {"authorization": f"Bearer {account}"}
        told = httpx.get(f"{url}/ice-servers", headers=headers).json()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=WAIT_S) == 0
        rest = process.stderr.read()
    if flag == "--relay":
        assert told["relay"] == {"path": "/relay", "max_mbit": 2.5}
        assert "up to 2.5 Mbit/s each" in rest
    else:
        assert told["relay"] is None
        assert "relays" not in rest


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

"""The signaling server is killed at points from a seed; worker and clients are not.

The server and the worker are real programs. Two clients of the room talk to each
other through the server all the while, with the project's own transport, and further
rooms are opened. After every kill: every room is there, everybody is back under the
same id, every command has got one reply, and the database is sound.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from msgspec import Raw
from support.programs import POSIX, Program, Programs, Worker

from sleap_rtc_plugin.protocol.account_messages import RoomMade
from sleap_rtc_plugin.protocol.errors import PeerNotFound, RateLimited, RtcError
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import (
    Delivered,
    PeerMessage,
    RelayedMessage,
    RelayedPeerMessage,
)
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_plugin.transport.signaling_client import SignalingClient

pytestmark = POSIX

SEED = int(os.environ.get("CHAOS_SEED", "6"))
BACK_S = 60.0
"""By when everybody is to be back; on a quiet machine it takes two seconds."""
PAUSE_S = 0.005


class Server:
    """A signaling server that is started again on the same port and folder."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = programs.folder / "signaling"
        self.program: Program | None = None

    def start(self) -> None:
        self.program = self._programs.client(
            *("signaling", "--port", self.port, "--rest-port", "none"),
            *("--data", self.data),
        )

    async def is_up(self) -> None:
        assert self.program is not None
        program = self.program
        await asyncio.to_thread(
            program.wait_line, lambda line: " listens on " in line, stream="err"
        )

    def kill(self) -> None:
        assert self.program is not None
        self.program.kill()


class Talk:
    """Two clients; what one says is numbered, and the other notes what it hears."""

    def __init__(self, session: Session) -> None:
        self.heard: set[int] = set()
        self.said = 0
        self._more = asyncio.Event()
        self.one, self.two = (
            SignalingClient(
                server=session.url,
                room_id=session.room_id,
                token=session.token,
                peer_id=peer_id,
                role="client",
                keep_trying=True,
                on_relayed=self._hear,
            )
            for peer_id in ("client-one", "client-two")
        )

    def _hear(self, message: RelayedMessage) -> None:
        assert isinstance(message, RelayedPeerMessage)
        self.heard.add(json.loads(bytes(message.payload))["number"])

    async def go_on(self) -> None:
        """Say one thing after another, each until it is delivered, for ever."""
        while True:
            payload = Raw(json.dumps({"type": "test", "number": self.said}).encode())
            message = PeerMessage(id=new_command_id(), to="client-two", payload=payload)
            # The other is on its way back, or this one says too much.
            with contextlib.suppress(PeerNotFound, RateLimited):
                assert isinstance(await self.one.ask(message), Delivered)
                self.said += 1
                self._more.set()
            await asyncio.sleep(PAUSE_S)

    async def has_said(self, number: int) -> None:
        """Wait until so many messages were delivered."""
        async with asyncio.timeout(BACK_S):
            while self.said < number:
                self._more.clear()
                await self._more.wait()


async def open_rooms(url: str, rooms: list[RoomMade], wanted: asyncio.Event) -> None:
    """Open rooms, as fast as the server lets one; a room that is promised counts."""
    while True:
        await wanted.wait()
        wanted.clear()
        with contextlib.suppress(RtcError):
            async with AccountClient(url) as account:
                signed_in = await account.sign_in_anonymously()
                for _ in range(3):
                    rooms.append(await account.create_room(signed_in.token))


async def everybody_is_back(talk: Talk, worker: Worker, peer_id: str) -> float:
    """Wait until worker and both clients are in the room; return how long it took."""
    started = time.monotonic()
    wanted = {peer_id, "client-one", "client-two"}
    async with asyncio.timeout(BACK_S):
        while True:
            assert worker.is_running, worker.story()
            with contextlib.suppress(RtcError):
                there = {peer.peer_id for peer in await talk.two.discover()}
                if there == wanted:
                    return time.monotonic() - started
            await asyncio.sleep(0.02)


def check_database(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "signaling.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def kill_again_and_again(programs: Programs, kills: int, seed: int) -> str:
    chance = random.Random(seed)  # noqa: S311 -- a story that can be told again
    server = Server(programs)
    server.start()
    await server.is_up()
    worker = programs.scripted_worker("train", "--signaling", server.url)
    await asyncio.to_thread(worker.wait_ready)
    session = Session.parse(worker.session)
    talk, rooms, wanted = Talk(session), list[RoomMade](), asyncio.Event()
    slowest = 0.0
    async with talk.one, talk.two:
        tasks = [
            asyncio.create_task(talk.go_on()),
            asyncio.create_task(open_rooms(server.url, rooms, wanted)),
        ]
        try:
            for number in range(kills):
                # A point in the middle of something: after so many messages, with
                # rooms being opened, and so many milliseconds into the next one.
                wanted.set()
                await talk.has_said(talk.said + chance.randrange(100))
                await asyncio.sleep(chance.uniform(0.0, 0.02))
                await asyncio.to_thread(server.kill)
                check_database(server.data)
                server.start()
                if number % 3 == 2:
                    # Once more, before it has even begun to listen.
                    await asyncio.sleep(chance.uniform(0.0, 0.5))
                    await asyncio.to_thread(server.kill)
                    server.start()
                await server.is_up()
                took = await everybody_is_back(talk, worker, session.peer_id)
                slowest = max(slowest, took)
                assert not [task for task in tasks if task.done()]
                async with AccountClient(server.url) as account:
                    for room in rooms[-5:]:
                        await account.ice_servers(room.token)
            said = talk.said
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    # A kill takes along what lay in the server: delivered means queued, and the one
    # who talks waits for each.
    lost = len(set(range(said)) - talk.heard)
    assert lost <= kills + kills // 3
    check_database(server.data)
    return (
        f"{kills} kills, {said} messages delivered, {len(rooms)} rooms opened, "
        f"{lost} lost in the server; everybody back in {slowest:.1f} s at most"
    )


async def test_nothing_is_lost_when_the_server_is_killed(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    story = await kill_again_and_again(programs, 5, SEED)
    with capsys.disabled():
        print(f"\nseed {SEED}: {story}")  # noqa: T201 -- what a run is for


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
async def test_nothing_is_lost_in_twenty_kills(
    programs: Programs, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    story = await kill_again_and_again(programs, 20, seed)
    with capsys.disabled():
        print(f"\nseed {seed}: {story}")  # noqa: T201 -- what a run is for

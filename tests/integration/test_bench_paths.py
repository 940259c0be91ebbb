"""Paths, real ones: packets through namespaces, pipes of both kinds, whole turns."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from sleap_rtc_plugin.bench.namespaces import Namespace
from sleap_rtc_plugin.bench.path_end import (
    PathEndTask,
    Receiver,
    Sender,
    TurnFailed,
)
from sleap_rtc_plugin.bench.path_figures import speed
from sleap_rtc_plugin.bench.path_spec import LOOPBACK, PathSpec, parse_path
from sleap_rtc_plugin.bench.paths import PathsPlan, bench_paths
from sleap_rtc_plugin.bench.pipes import ENGINES, Engine, Pipe, open_pipe
from sleap_rtc_plugin.bench.turns import Work, refusal, take_turn, take_turn_beside_tcp
from sleap_rtc_plugin.bench.wan import WanFigures, WanReady, WanTask

KIB = 1024


@pytest.fixture(scope="module")
def emulation() -> None:
    """Skip where no path can be emulated, and say why."""
    reason = asyncio.run(refusal())
    if reason is not None:
        pytest.skip(f"no path can be emulated here: {reason}")


# -- pipes -----------------------------------------------------------------------------


class Queues:
    """Carries descriptions between two ends in one process."""

    def __init__(
        self, to_other: "asyncio.Queue[str]", to_here: "asyncio.Queue[str]"
    ) -> None:
        self._to_other = to_other
        self._to_here = to_here

    def tell(self, description: str) -> None:
        self._to_other.put_nowait(description)

    async def hear(self) -> str:
        return await self._to_here.get()


async def open_both(engine: Engine) -> tuple[Pipe, Pipe]:
    there: asyncio.Queue[str] = asyncio.Queue()
    back: asyncio.Queue[str] = asyncio.Queue()
    client, worker = await asyncio.gather(
        open_pipe(engine, "client", "127.0.0.1", Queues(there, back)),
        open_pipe(engine, "worker", "127.0.0.1", Queues(back, there)),
    )
    return client, worker


@pytest.fixture(params=ENGINES)
async def pipes(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Pipe, Pipe]]:
    both = await open_both(request.param)
    try:
        yield both
    finally:
        for pipe in both:
            await pipe.close()


def task(seconds: float = 30, size_bytes: int = 300 * KIB) -> PathEndTask:
    return PathEndTask("client", "TCP+TLS", "full", seconds, size_bytes, "127.0.0.1")


async def test_messages_and_words_arrive(pipes: tuple[Pipe, Pipe]) -> None:
    client, worker = pipes
    receiver, sender = Receiver(worker, task()), Sender(client, task())
    unloaded_s = await sender.ask_unloaded()
    assert len(unloaded_s) == 11
    receiving = asyncio.create_task(receiver.receive())
    cpu_s, loaded_s = await sender.send()
    assert receiver.size_bytes >= 300 * KIB
    assert 0 < receiver.seconds < 30
    assert cpu_s > 0
    assert loaded_s
    assert all(0 < seconds < 30 for seconds in unloaded_s + loaded_s)
    await client.close()
    await receiving


async def test_a_message_that_was_changed_is_noticed(
    pipes: tuple[Pipe, Pipe],
) -> None:
    client, worker = pipes
    receiver = Receiver(worker, task())
    client.say("begin")
    await client.send(bytes(KIB))
    with pytest.raises(TurnFailed, match="message 0 is not the one that was sent"):
        await receiver.receive()


async def test_a_connection_that_ends_is_no_turn(pipes: tuple[Pipe, Pipe]) -> None:
    client, worker = pipes
    sender = Sender(client, task())
    sending = asyncio.create_task(sender.send())
    await worker.close()
    with pytest.raises(TurnFailed, match="the connection ended"):
        await sending


# -- turns -----------------------------------------------------------------------------


async def test_idle_ends() -> None:
    turn = await take_turn(LOOPBACK, Work("fast", 0.5, load="idle"), seed=1)
    for end in (turn.client, turn.worker):
        assert end.engine == "fast"
        assert end.seconds >= 0.5
        assert end.cpu_s < 0.5


@pytest.mark.usefixtures("emulation")
async def test_a_turn_on_an_emulated_path() -> None:
    turn = await take_turn(parse_path("40ms-1%@20"), Work("TCP+TLS", 2), seed=1)
    assert turn.wan is not None
    assert min(turn.client.unloaded_s) >= 0.04
    assert 0 < speed(turn) <= 2.5
    assert 0 < turn.wan.lost < turn.wan.taken / 10
    assert len(turn.client.loaded_s) >= 15


@pytest.mark.usefixtures("emulation")
async def test_a_path_that_is_shared() -> None:
    spec = parse_path("10ms@20")
    ours, tcp = await take_turn_beside_tcp(spec, Work("stock", 2), seed=1)
    assert speed(ours) > 0
    assert speed(tcp) > 0
    assert speed(ours) + speed(tcp) <= 2.5


async def test_without_namespaces_loopback_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "a system without namespaces")
    said: list[str] = []
    plan = PathsPlan((PathSpec("20ms", 20),), True, 1, seconds=0.5)
    result = await bench_paths(plan, said.append)
    assert said == [
        "Only loopback can be measured here: only Linux has network namespaces."
    ]
    assert result.rows == []
    assert result.ratios == {}


# -- the emulator alone ----------------------------------------------------------------


@pytest.fixture
def wan(
    request: pytest.FixtureRequest, emulation: None
) -> Iterator[tuple["subprocess.Popen[bytes]", tuple[Namespace, Namespace]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sleap_rtc_plugin.bench.wan"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    spec = parse_path(getattr(request, "param", "20ms"))
    process.stdin.write(msgspec.json.encode(WanTask(spec, seed=1)) + b"\n")
    process.stdin.flush()
    ready = msgspec.json.decode(process.stdout.readline(), type=WanReady)
    assert ready.ends is not None
    with process:
        yield process, ready.ends
        process.kill()


Wan = tuple["subprocess.Popen[bytes]", tuple[Namespace, Namespace]]
INSIDE = """
import sys, msgspec
from sleap_rtc_plugin.bench.namespaces import Namespace, enter
enter(msgspec.json.decode(sys.argv[1], type=Namespace))
"""
ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
    echo.bind(("0.0.0.0", 7))
    print("ready", flush=True)
    while True:
        echo.sendto(*echo.recvfrom(2000))
"""
ASK = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.connect((sys.argv[2], 7))
    for number in range(10):
        begun = time.monotonic()
        asking.send(bytes(1400))
        assert asking.recv(2000) == bytes(1400)
        print(time.monotonic() - begun)
"""


def inside(end: Namespace, program: str, *arguments: str) -> "subprocess.Popen[str]":
    told = msgspec.json.encode(end).decode()
    return subprocess.Popen(
        [sys.executable, "-c", INSIDE + program, told, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_packets_there_and_back(wan: Wan) -> None:
    process, (here, there) = wan
    with inside(there, ECHO) as echo:
        try:
            assert echo.stdout is not None
            assert echo.stdout.readline() == "ready\n"
            with inside(here, ASK, there.address) as asking:
                output, _ = asking.communicate(timeout=30)
        finally:
            echo.kill()
    trips_s = [float(line) for line in output.splitlines()]
    assert len(trips_s) == 10
    assert all(trip_s >= 0.02 for trip_s in trips_s)
    # This machine may be busy, but hardly all the time.
    assert min(trips_s) < 0.04
    output, _ = process.communicate(timeout=30)
    figures = msgspec.json.decode(output, type=WanFigures)
    assert process.returncode == 0
    assert figures.taken >= 20
    assert figures.lost == figures.overflowed == 0


def test_nothing_outside_is_touched(wan: Wan) -> None:
    assert not Path("/sys/class/net/path0").exists()
    _, (here, there) = wan
    own = Path("/proc/self/ns/net").stat().st_ino
    inodes = {own, *(Path(end.network).stat().st_ino for end in (here, there))}
    assert len(inodes) == 3


def test_it_ends_with_whoever_started_it(wan: Wan) -> None:
    process, _ = wan
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0


def test_ctrl_c_is_not_for_it(wan: Wan) -> None:
    process, _ = wan
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert msgspec.json.decode(output, type=WanFigures).taken == 0


@pytest.mark.slow
@pytest.mark.parametrize("wan", ["20ms"], indirect=True)
def test_400_mbit_per_s_on_half_a_core(wan: Wan) -> None:
    """For a quiet machine: 40,000 packets a second for 5 s, none dropped."""
    process, (here, there) = wan
    flood = """
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flooding:
    flooding.connect((sys.argv[2], 7))
    begun, sent = time.monotonic(), 0
    while sent < 200_000:
        while sent < (time.monotonic() - begun) * 40_000:
            flooding.send(bytes(1172))
            sent += 1
        time.sleep(0.0005)
"""
    sink = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
    sink.bind(("0.0.0.0", 7))
    print("ready", flush=True)
    while True:
        sink.recv(2000)
"""
    with inside(there, sink) as sinking:
        try:
            assert sinking.stdout is not None
            assert sinking.stdout.readline() == "ready\n"
            with inside(here, flood, there.address) as flooding:
                assert flooding.wait(30) == 0
        finally:
            sinking.kill()
    output, _ = process.communicate(timeout=30)
    figures = msgspec.json.decode(output, type=WanFigures)
    assert figures.taken >= 200_000
    assert figures.overflowed == 0
    assert figures.cpu_s < 2.5

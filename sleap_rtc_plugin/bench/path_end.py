"""One end of a pipe in `bench transfer --paths`: a process that sends, or receives.

Reads its task as one JSON line on stdin, trades descriptions with the other end through
whoever started both, says when it is ready, waits for the word, and answers with one
line of figures. Messages come from memory; their order and every byte are checked.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import time
from typing import Final, Literal

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.bench.memory import PeakMemory
from sleap_rtc_plugin.bench.namespaces import Namespace, enter
from sleap_rtc_plugin.bench.pipes import Engine, Pipe, Role, open_pipe
from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.limits import KIB, LINK_CONNECT_TIMEOUT_S
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.link import LinkClosed

__all__ = [
    "GO",
    "READY",
    "PathEndFigures",
    "PathEndTask",
    "Receiver",
    "Sender",
    "TurnFailed",
]

READY: Final = "ready"
GO: Final = "go"
PING_INTERVAL_S: Final = 0.1
# Round trips before the load; their median is what the loaded ones are compared with.
UNLOADED_PINGS: Final = 11
# How long answers are waited for when the load is over; then they count as they are.
LAST_PONGS_S: Final = 2.0
# What may pass beyond the time of a turn before it counts as failed.
GRACE_S: Final = 30.0
# The worker is to have measured an idle connection before the client ends it.
SETTLE_S: Final = 1.0
_NUMBER_BYTES: Final = 8
_NOISE: Final = random.Random(7).randbytes(64 * KIB)  # noqa: S311 - to compare with


class PathEndTask(Struct):
    """What this end does.

    Attributes:
        role: the client sends and the worker receives.
        engine: what moves the messages.
        load: messages all the time, or none at all.
        seconds: how long.
        size_bytes: the load ends sooner once as much has arrived.
        address: this end's.
        namespace: where this end lives; None for where it is started.
    """

    role: Role
    engine: Engine
    load: Literal["full", "idle"]
    seconds: float
    size_bytes: int
    address: str
    namespace: Namespace | None = None


class PathEndFigures(Struct):
    """What it took at one end, or why there is nothing to tell.

    Attributes:
        failure: empty where all went well; the figures mean nothing otherwise.
        engine: what moved the messages, as the connection itself says in the end.
        seconds: how long was measured.
        size_bytes: what arrived; at the worker's end alone.
        cpu_s: CPU time meanwhile.
        idle_mib: memory with the connection open.
        peak_mib: the most since.
        unloaded_s: round trips of words before the load; at the client's end alone.
        loaded_s: the same under it.
    """

    failure: str = ""
    engine: str = ""
    seconds: float = 0.0
    size_bytes: int = 0
    cpu_s: float = 0.0
    idle_mib: float = 0.0
    peak_mib: float = 0.0
    unloaded_s: list[float] = msgspec.field(default_factory=list)
    loaded_s: list[float] = msgspec.field(default_factory=list)


class TurnFailed(Exception):
    """A turn has no figures; the text says why."""


def _message(number: int, size_bytes: int) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "big") + _NOISE[: size_bytes - _NUMBER_BYTES]


async def _wait(event: asyncio.Event, pipe: Pipe, seconds: float) -> None:
    """Wait for what the other end is to do.

    Raises:
        TurnFailed: it does not, or the connection ended before.
    """
    waits = [asyncio.ensure_future(each.wait()) for each in (event, pipe.closed)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    if not event.is_set():
        late = f"the other end said nothing for {seconds:.0f} s"
        raise TurnFailed("the connection ended" if pipe.closed.is_set() else late)


# -- sending ---------------------------------------------------------------------------


class Sender:
    """The client's end: sends all the time, and asks every 100 ms for an answer."""

    def __init__(self, pipe: Pipe, task: PathEndTask) -> None:
        self._pipe = pipe
        self._task = task
        self._asked: dict[str, float] = {}
        self._answered: list[float] = []
        self._all_answered = asyncio.Event()
        self._done = asyncio.Event()
        self._count = 0
        pipe.on_word = self._on_word

    def _on_word(self, word: str) -> None:
        if word == "done":
            self._done.set()
        elif (asked_at := self._asked.pop(word, None)) is not None:
            self._answered.append(monotonic() - asked_at)
            if not self._asked:
                self._all_answered.set()

    def _ask(self, due_at: float) -> None:
        """Ask; a question that is asked late counts from when it was due."""
        self._count += 1
        word = f"ping-{self._count}"
        self._asked[word] = due_at
        self._all_answered.clear()
        self._pipe.say(word)

    async def ask_unloaded(self) -> list[float]:
        """Return the round trips of a few words, one after another."""
        for _ in range(UNLOADED_PINGS):
            self._ask(monotonic())
            await _wait(self._all_answered, self._pipe, GRACE_S)
        answered, self._answered = self._answered, []
        return answered

    async def send(self) -> tuple[float, list[float]]:
        """Send until the other end has enough; return CPU seconds and round trips."""
        cpu = time.process_time()
        self._pipe.say("begin")
        work = [asyncio.create_task(each) for each in (self._load(), self._ask_on())]
        try:
            await _wait(self._done, self._pipe, self._task.seconds + GRACE_S)
            cpu_s = time.process_time() - cpu
        finally:
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        if self._asked:
            with contextlib.suppress(TurnFailed):
                await _wait(self._all_answered, self._pipe, LAST_PONGS_S)
        now = monotonic()
        return cpu_s, self._answered + [now - asked for asked in self._asked.values()]

    async def _load(self) -> None:
        number = 0
        while True:
            await self._pipe.send(_message(number, self._pipe.message_bytes))
            number += 1

    async def _ask_on(self) -> None:
        due_at = monotonic()
        while True:
            self._ask(due_at)
            due_at += PING_INTERVAL_S
            await asyncio.sleep(max(0.0, due_at - monotonic()))


# -- receiving -------------------------------------------------------------------------


class Receiver:
    """The worker's end: checks and counts what comes, and answers words."""

    def __init__(self, pipe: Pipe, task: PathEndTask) -> None:
        self._pipe = pipe
        self._task = task
        self._begun_at: float | None = None
        self._cpu = 0.0
        self._number = 0
        self._is_intact = True
        self.done = asyncio.Event()
        self.engine = ""
        self.size_bytes = 0
        self.seconds = 0.0
        self.cpu_s = 0.0
        pipe.on_word = self._on_word
        pipe.on_message = self._on_message

    def _on_word(self, word: str) -> None:
        if word != "begin":
            self._pipe.say(word)
        elif self._begun_at is None:
            self._begun_at, self._cpu = monotonic(), time.process_time()
            loop = asyncio.get_running_loop()
            loop.call_later(self._task.seconds, self._finish)

    def _on_message(self, message: bytes) -> None:
        if self.done.is_set():
            return
        if message != _message(self._number, len(message)):
            self._is_intact = False
            self._finish()
            return
        self._number += 1
        self.size_bytes += len(message)
        if self.size_bytes >= self._task.size_bytes:
            self._finish()

    def _finish(self) -> None:
        if not self.done.is_set() and self._begun_at is not None:
            self.seconds = monotonic() - self._begun_at
            self.cpu_s = time.process_time() - self._cpu
            self.engine = self._pipe.engine
            self.done.set()
            self._pipe.say("done")

    async def receive(self) -> None:
        """Receive until there is enough.

        Raises:
            TurnFailed: there never is, or not what was sent.
        """
        await _wait(self.done, self._pipe, self._task.seconds + GRACE_S)
        if not self._is_intact:
            raise TurnFailed(f"message {self._number} is not the one that was sent")
        # The sender hangs up, once it has the last answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._pipe.closed.wait()


# -- the process -----------------------------------------------------------------------


class _Parent:
    """Whoever started this process: a line each way at a time."""

    def tell(self, what: str | PathEndFigures) -> None:
        """Write a line."""
        sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
        sys.stdout.flush()

    async def hear(self) -> str:
        """Read a line."""
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            raise TurnFailed("whoever started this process is gone")
        return msgspec.json.decode(line, type=str)

    def watch(self) -> None:
        """End this process as soon as its parent does, once all lines were heard."""

        def wait() -> None:
            # Past Python's buffers: their lock must be free when the process ends.
            while os.read(sys.stdin.fileno(), 1):
                pass
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


async def _run(task: PathEndTask, parent: _Parent) -> PathEndFigures:
    async with asyncio.timeout(LINK_CONNECT_TIMEOUT_S + GRACE_S):
        pipe = await open_pipe(task.engine, task.role, task.address, parent)
    try:
        work = _idle if task.load == "idle" else _work
        return await work(pipe, task, parent)
    finally:
        await pipe.close()


async def _work(pipe: Pipe, task: PathEndTask, parent: _Parent) -> PathEndFigures:
    figures = PathEndFigures()
    with PeakMemory(os.getpid()) as memory:
        if task.role == "client":
            sender = Sender(pipe, task)
            figures.unloaded_s = await sender.ask_unloaded()
            await _ready(parent)
            begun = monotonic()
            figures.cpu_s, figures.loaded_s = await sender.send()
            figures.seconds = monotonic() - begun
            figures.engine = pipe.engine
        else:
            receiver = Receiver(pipe, task)
            await _ready(parent)
            await receiver.receive()
            figures.cpu_s = receiver.cpu_s
            figures.seconds = receiver.seconds
            figures.engine = receiver.engine
            figures.size_bytes = receiver.size_bytes
    figures.idle_mib, figures.peak_mib = memory.idle_mib, memory.peak_mib
    return figures


async def _idle(pipe: Pipe, task: PathEndTask, parent: _Parent) -> PathEndFigures:
    """Do nothing, and measure what it takes."""
    await _ready(parent)
    await asyncio.sleep(SETTLE_S)
    begun, cpu = monotonic(), time.process_time()
    await asyncio.sleep(task.seconds)
    figures = PathEndFigures(
        engine=pipe.engine,
        seconds=monotonic() - begun,
        cpu_s=time.process_time() - cpu,
    )
    await asyncio.sleep(SETTLE_S)
    return figures


async def _ready(parent: _Parent) -> None:
    parent.tell(READY)
    await parent.hear()
    parent.watch()


def main() -> None:
    """Carry out the task on stdin."""
    # Ctrl-C reaches this process too, but whoever started it decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = msgspec.json.decode(sys.stdin.readline(), type=PathEndTask)
    parent = _Parent()
    try:
        if task.namespace is not None:
            enter(task.namespace)
        figures = asyncio.run(_run(task, parent))
    except (RtcError, LinkClosed, OSError, TimeoutError, TurnFailed) as error:
        figures = PathEndFigures(failure=str(error) or type(error).__name__)
    with contextlib.suppress(OSError):
        parent.tell(figures)


if __name__ == "__main__":
    main()

"""Ctrl-C: a question at a terminal, a stop in a script, never a lost job."""

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sleap_rtc_plugin.cli.interruption import Interruption
from sleap_rtc_plugin.protocol.errors import NoReply
from sleap_rtc_plugin.protocol.job import JobState

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="a process cannot interrupt itself there"
)


class FakeScreen:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.drawing = True
        self.resumed = asyncio.Event()

    def pause(self) -> None:
        self.drawing = False

    def go_on(self) -> None:
        self.drawing = True
        self.resumed.set()

    def say(self, text: str) -> None:
        self.said.append(text)


class FakeMirror:
    state = JobState.RUNNING


class FakeJob:
    def __init__(self) -> None:
        self.mirror = FakeMirror()
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.error: Exception | None = None

    async def stop(self, scope: str) -> None:
        if self.error is not None:
            raise self.error
        self.asked.put_nowait(f"stop {scope}")

    async def cancel(self) -> None:
        self.asked.put_nowait("cancel")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Desk:
    """An interruption in place around a task that waits for ever."""

    def __init__(self) -> None:
        self.screen = FakeScreen()
        self.job = FakeJob()
        self.interruption = Interruption(self.screen)
        self.task: asyncio.Task[Any] = asyncio.ensure_future(asyncio.Event().wait())

    async def interrupt(self) -> None:
        signal.raise_signal(signal.SIGINT)
        # The loop reads its own pipe; two turns bring the signal to its handler.
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    with made.interruption.of_task(made.task):
        yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


@pytest.mark.parametrize(
    ("answer", "asked"), [("s", "stop step"), ("A\n", "stop job"), ("c\n", "cancel")]
)
async def test_an_answer_at_a_terminal_reaches_the_job(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, answer: str, asked: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with desk.interruption.of_job(desk.job):  # type: ignore[arg-type]
        await desk.interrupt()
        assert await asyncio.wait_for(desk.job.asked.get(), 5) == asked
    assert desk.screen.drawing
    assert not desk.task.cancelled()


async def test_enter_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    with desk.interruption.of_job(desk.job):  # type: ignore[arg-type]
        await desk.interrupt()
        await asyncio.wait_for(desk.screen.resumed.wait(), 5)
        assert desk.job.asked.empty()


async def test_d_leaves(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("d\n"))
    with desk.interruption.of_job(desk.job):  # type: ignore[arg-type]
        await desk.interrupt()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(desk.task), 5)
    assert desk.job.asked.empty()


async def test_stop_is_not_offered_before_the_training(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.job.mirror.state = JobState.QUEUED
    monkeypatch.setattr(sys, "stdin", Terminal("a\n"))
    with desk.interruption.of_job(desk.job):  # type: ignore[arg-type]
        await desk.interrupt()
        await asyncio.wait_for(desk.screen.resumed.wait(), 5)
        assert desk.job.asked.empty()
    assert "[s]" not in capsys.readouterr().err


async def test_in_a_script_the_first_stops_and_the_second_leaves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with desk.interruption.of_job(desk.job):  # type: ignore[arg-type]
        await desk.interrupt()
        assert await asyncio.wait_for(desk.job.asked.get(), 5) == "stop job"
        await desk.interrupt()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(desk.task), 5)


async def test_without_a_job_it_leaves(desk: Desk) -> None:
    await desk.interrupt()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(desk.task), 5)


async def test_a_refused_stop_is_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    desk.job.error = NoReply(peer="the worker w", command="ZMQ_CTRL")
    with desk.interruption.of_job(desk.job):  # type: ignore[arg-type]
        await desk.interrupt()
        async with asyncio.timeout(5):
            while len(desk.screen.said) < 2:  # noqa: ASYNC110 - a list tells nobody
                await asyncio.sleep(0)
    assert "no reply" in desk.screen.said[-1]

"""Ctrl-C while a job is on its way: a question, never a lost job.

At a terminal it asks whether to stop, cancel, or leave; in a script the first
interrupt stops the training and keeps the model, the second leaves. Used by `train`.
"""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import click

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.session.job_course import JobCourse

__all__ = ["Interruption"]

_TRAINING = (JobState.STARTING, JobState.RUNNING, JobState.STOPPING)
_QUESTION_WHILE_TRAINING = (
    "\n[s] stop this training, keep its model, go on with the next step\n"
    "[a] stop everything, keep the models made so far\n"
    "[c] cancel the job and discard it\n"
    "[d] leave; the job goes on, the same command comes back to it\n"
    "[Enter] go on"
)
_QUESTION_BEFORE = (
    "\n[c] cancel the job\n[d] leave; the same command goes on from here\n[Enter] go on"
)


class _Screen(Protocol):
    def pause(self) -> None: ...

    def go_on(self) -> None: ...

    def say(self, text: str) -> None: ...


class Interruption:
    """What Ctrl-C does during one submission."""

    def __init__(self, screen: _Screen) -> None:
        """Ask on `screen`."""
        self._screen = screen
        self._job: JobCourse | None = None
        self._task: asyncio.Task[Any] | None = None
        self._count = 0
        self._is_asking = False
        self._commands: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def of_task(self, task: "asyncio.Task[Any]") -> Iterator[None]:
        """Catch Ctrl-C while `task` runs; leaving cancels it."""
        self._task = task
        loop = asyncio.get_running_loop()
        before = signal.getsignal(signal.SIGINT)
        try:
            loop.add_signal_handler(signal.SIGINT, self._interrupted)
        except NotImplementedError:  # on Windows
            signal.signal(
                signal.SIGINT,
                lambda *_: loop.call_soon_threadsafe(self._interrupted),
            )
        try:
            yield
        finally:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def of_job(self, job: JobCourse) -> Iterator[None]:
        """Let the user stop or cancel `job`."""
        self._job = job
        try:
            yield
        finally:
            self._job = None

    # -- deciding --------------------------------------------------------------------

    def _interrupted(self) -> None:
        self._count += 1
        job = self._job
        if job is None or self._is_asking:
            self._leave()
        elif sys.stdin is not None and sys.stdin.isatty():
            self._ask(job)
        elif self._count == 1 and job.mirror.state in _TRAINING:
            self._screen.say("Stopping, and keeping the models made so far.")
            self._command(job.stop("job"))
        else:
            self._leave()

    def _answered(self, job: JobCourse, answer: str) -> None:
        self._is_asking = False
        self._screen.go_on()
        if self._job is not job:
            return
        training = job.mirror.state in _TRAINING
        match answer.strip().lower()[:1]:
            case "s" if training:
                self._command(job.stop("step"))
            case "a" if training:
                self._command(job.stop("job"))
            case "c":
                self._command(job.cancel())
            case "d":
                self._leave()

    def _leave(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # -- doing -----------------------------------------------------------------------

    def _ask(self, job: JobCourse) -> None:
        self._is_asking = True
        self._screen.pause()
        training = job.mirror.state in _TRAINING
        click.echo(_QUESTION_WHILE_TRAINING if training else _QUESTION_BEFORE, err=True)
        loop = asyncio.get_running_loop()

        def read() -> None:
            answer = sys.stdin.readline()
            with contextlib.suppress(RuntimeError):  # the loop may be gone
                loop.call_soon_threadsafe(self._answered, job, answer)

        # A daemon: an unanswered question must not keep the program alive.
        threading.Thread(target=read, name="question", daemon=True).start()

    def _command(self, coroutine: Any) -> None:
        async def carry_out() -> None:
            try:
                await coroutine
            except RtcError as error:
                self._screen.say(str(error))

        task = asyncio.get_running_loop().create_task(carry_out())
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

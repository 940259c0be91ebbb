"""SLEAP's side of the companion: starts it, asks it, hears of events, ends it.

Two hosts with one interface: `ChildHost` runs the companion as a process of its own,
`InProcessHost` runs the same service on the caller's event loop, for places that allow
no child processes. Used by the plugin; knows no Qt.
"""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

import platformdirs

from sleap_rtc_plugin.companion.messages import (
    Command,
    Event,
    FromCompanion,
    Notice,
    Request,
    Response,
    Result,
    Shutdown,
)
from sleap_rtc_plugin.companion.pipe import PipeEnd
from sleap_rtc_plugin.companion.priority import WINDOWS_PRIORITY
from sleap_rtc_plugin.protocol.errors import CompanionGone, RtcError, from_wire
from sleap_rtc_plugin.transport.effects import in_thread, monotonic

if TYPE_CHECKING:
    from sleap_rtc_plugin.companion.service import CompanionService

__all__ = ["ChildHost", "Host", "InProcessHost", "companion_command", "log_path"]

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S: Final = 2.0
REAP_TIMEOUT_S: Final = 1.0
# What was killed is gone at once, except on a machine that has too much to do.
KILL_TIMEOUT_S: Final = 5.0
RESTART_AGAIN_AFTER_S: Final = 600.0
MAX_LOG_BYTES: Final = 2 * 1024 * 1024


class Host(Protocol):
    """What SLEAP's side needs of a companion, wherever that runs.

    The callbacks are called on the event loop that `ask` was first called on.
    """

    on_event: Callable[[Event], None]
    on_restarted: Callable[[], None]
    on_dead: Callable[[str], None]

    async def ask(self, command: Command) -> Result:
        """Carry out a command.

        Raises:
            RtcError: why it could not be.
        """
        ...

    async def close(self, *, finish_sending: bool = False) -> None:
        """End the companion, or let it finish what it sends and then end."""
        ...


class _Quiet:
    """The callbacks of a host that nobody listens to yet."""

    def __init__(self) -> None:
        self.on_event: Callable[[Event], None] = lambda event: None
        self.on_restarted: Callable[[], None] = lambda: None
        self.on_dead: Callable[[str], None] = lambda reason: None


# -- in a process of its own -------------------------------------------------------


def companion_command() -> list[str]:
    """Return the command that starts a companion with this Python.

    `-P` keeps the folder that SLEAP was started in off the module path: a lab's
    `queue.py` there must not become part of us.
    """
    return [sys.executable, "-P", "-m", "sleap_rtc_plugin.companion"]


def log_path() -> Path:
    """Return where companions write their log."""
    return platformdirs.user_log_path("sleap-remote") / "companion.log"


class ChildHost(_Quiet):
    """The companion as a child process, started with the first command.

    A child that dies is started again once; one that dies again soon after is given
    up, and with it this host.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        """Prepare; no process is started yet."""
        super().__init__()
        self._command = list(command or companion_command())
        self._child: _Child | None = None
        self._starting = asyncio.Lock()
        self._restarted_at: float | None = None
        self._dead_reason: str | None = None
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        """The child's process id, or None where none runs."""
        return self._child.pid if self._child is not None else None

    async def ask(self, command: Command) -> Result:
        """Carry out a command; the first one starts the child."""
        child = await self._running_child()
        return await child.ask(command)

    async def close(self, *, finish_sending: bool = False) -> None:
        """End the child, within `SHUTDOWN_TIMEOUT_S` by asking and then by force.

        With `finish_sending` the child is let go and ends by itself later.
        """
        self._is_closing = True
        child, self._child = self._child, None
        if child is not None:
            await child.close(finish_sending=finish_sending)

    async def _running_child(self) -> "_Child":
        async with self._starting:
            if self._is_closing:
                raise CompanionGone(reason="SLEAP is closing")
            if self._dead_reason is not None:
                raise CompanionGone(reason=self._dead_reason)
            if self._child is None:
                self._child = await self._start()
            return self._child

    async def _start(self) -> "_Child":
        loop = asyncio.get_running_loop()
        try:
            process = await in_thread(None, _spawn, self._command)
        except OSError as error:
            reason = error.strerror or "it could not be started"
            raise CompanionGone(reason=reason) from error
        return _Child(process, loop, lambda event: self.on_event(event), self._ended)

    def _ended(self, child: "_Child", reason: str) -> None:
        if child is not self._child or self._is_closing:
            return
        self._child = None
        now = monotonic()
        restarted_at, self._restarted_at = self._restarted_at, now
        logger.warning("The companion ended (%s)", reason)
        if restarted_at is not None and now - restarted_at < RESTART_AGAIN_AFTER_S:
            self._dead_reason = reason
            self.on_dead(str(CompanionGone(reason=reason)))
            return
        self.on_restarted()


class _Child:
    """One process and the pipe to it."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        loop: asyncio.AbstractEventLoop,
        on_event: Callable[[Event], None],
        on_ended: "Callable[[_Child, str], None]",
    ) -> None:
        self._process = process
        self._loop = loop
        self._on_event = on_event
        self._on_ended = on_ended
        self._answers: dict[int, asyncio.Future[Result]] = {}
        self._next_id = 0
        self._gone = asyncio.Event()
        self._is_let_go = False
        if process.stdin is None or process.stdout is None:
            raise CompanionGone(reason="it has no pipe")
        self._pipe: PipeEnd[FromCompanion] = PipeEnd(
            cast(BinaryIO, process.stdout),
            cast(BinaryIO, process.stdin),
            FromCompanion,
            lambda message: self._soon(self._received, message),
            self._stopped_talking,
        )
        self._pipe.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def ask(self, command: Command) -> Result:
        """Send a command and wait for its answer."""
        if self._gone.is_set():
            raise CompanionGone(reason=self._reason())
        self._next_id += 1
        number = self._next_id
        answer: asyncio.Future[Result] = self._loop.create_future()
        self._answers[number] = answer
        try:
            if not self._pipe.send(Request(id=number, command=command)):
                raise CompanionGone(reason="it does not listen")
            return await answer
        finally:
            del self._answers[number]

    async def close(self, *, finish_sending: bool) -> None:
        """End it; nothing of it is left on this side afterwards."""
        self._is_let_go = finish_sending
        try:
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                await self.ask(Shutdown(finish_sending=finish_sending))
        except (RtcError, TimeoutError):
            self._is_let_go = False
        self._pipe.finish()
        if not self._is_let_go:
            await in_thread(None, self._reap)
        await in_thread(None, self._pipe.join)

    def _stopped_talking(self) -> None:
        """Its pipe ended; called on the reading thread."""
        if self._is_let_go:
            # It outlives us on purpose; Popen would warn about that.
            self._process.returncode = 0
        else:
            self._reap()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._soon(self._pipe_ended)

    def _reap(self) -> None:
        """Wait for its end; a child that says nothing any more is of no use."""
        try:
            self._process.wait(REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                self._process.wait(KILL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                # The system ends it when it can; nothing here has to wait for that.
                logger.warning("Process %d was killed, and is still there.", self.pid)

    def _soon(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop has closed; nobody is left to be told
            return

    def _received(self, message: FromCompanion) -> None:
        match message:
            case Response(id=number, result=result, error=error):
                answer = self._answers.get(number)
                if answer is None or answer.done():
                    return
                if error is not None:
                    answer.set_exception(from_wire(error))
                elif result is not None:
                    answer.set_result(result)
            case Notice(event=event):
                if not self._gone.is_set():
                    self._on_event(event)

    def _pipe_ended(self) -> None:
        if self._gone.is_set():
            return
        self._gone.set()
        reason = self._reason()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(CompanionGone(reason=reason))
        self._pipe.finish()
        self._on_ended(self, reason)

    def _reason(self) -> str:
        code = self._process.poll()
        if code is None:
            return "it closed its pipe"
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def _spawn(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start the child, apart from the terminal's Ctrl-C, its log in a file."""
    log = _open_log()
    try:
        return subprocess.Popen(  # noqa: S603  # our own command, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log if log is not None else subprocess.DEVNULL,
            close_fds=True,
            start_new_session=os.name == "posix",
            creationflags=_windows_flags(),
        )
    finally:
        if log is not None:
            os.close(log)


def _windows_flags() -> int:
    names = ("CREATE_NO_WINDOW", WINDOWS_PRIORITY)
    return sum(getattr(subprocess, name, 0) for name in names)


def _open_log() -> int | None:
    path = log_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".1.log"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return None


# -- in the caller's process -------------------------------------------------------


class InProcessHost(_Quiet):
    """The same service on the caller's own event loop."""

    def __init__(self) -> None:
        """Prepare; the service is made with the first command."""
        super().__init__()
        self._service: CompanionService | None = None
        self._is_closing = False

    async def ask(self, command: Command) -> Result:
        """Carry out a command."""
        if self._is_closing:
            raise CompanionGone(reason="SLEAP is closing")
        if self._service is None:
            from sleap_rtc_plugin.companion.service import CompanionService

            self._service = CompanionService(self._emit)
        return await self._service.carry_out(command)

    async def close(self, *, finish_sending: bool = False) -> None:
        """End the service.

        With SLEAP's process gone nothing goes on sending: what is to be finished is
        taken up by the next SLEAP.
        """
        self._is_closing = True
        if self._service is not None:
            await self._service.carry_out(Shutdown(finish_sending=finish_sending))
            await self._service.close()

    def _emit(self, event: Event) -> None:
        # As with a child, an event comes after its cause has returned.
        asyncio.get_running_loop().call_soon(lambda: self.on_event(event))

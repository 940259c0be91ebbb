"""The asyncio loop on SLEAP's running Qt loop; the one owner of qasync.

SLEAP runs Qt's loop itself, so the loop is made from a slot while Qt runs, and closed
when Qt is about to quit. Inside a coroutine nothing modal may be opened, and neither
the last window nor the application closed: leave it with `call_soon_in_qt` first. All
functions belong to the GUI thread.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import qtpy
from qtpy.QtCore import QCoreApplication, QEventLoop, QTimer

from sleap_rtc_plugin.session.qt_pair import bad_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = [
    "at_quit",
    "call_soon_in_qt",
    "ensure_loop",
    "refuse_bad_pair",
    "run_until_closed",
    "spawn",
]

QUIT_TIMEOUT_S = 3.0
"""How long closing SLEAP waits for everything of ours together."""

MAX_THREADS = 4
"""Threads for blocking work; few, since SLEAP's own work needs the cores."""

_PUMP_MS = 20
_THREAD_NAMES = "sleap-remote"

_log = logging.getLogger(__name__)


def refuse_bad_pair(
    pyside_version: str | None = None, python: tuple[int, ...] = sys.version_info[:2]
) -> str | None:
    """Say what to install where PySide6 and Python would crash together, else None."""
    return bad_pair(pyside_version or qtpy.PYSIDE_VERSION or "", python)


class _QtLoop:
    """The loop, its threads, its tasks, and what is to be done before it ends."""

    def __init__(self, app: QCoreApplication) -> None:
        import qasync

        self._app = app
        # Before qasync connects its own slot, which on Windows ends all I/O.
        app.aboutToQuit.connect(self._shut_down)
        self._executor = ThreadPoolExecutor(
            MAX_THREADS, thread_name_prefix=_THREAD_NAMES
        )
        self.loop: asyncio.AbstractEventLoop = qasync.QEventLoop(
            app, already_running=True
        )
        # qasync's own executor has QThreads, which abort a process that ends first.
        self.loop.set_default_executor(self._executor)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.last_words: list[Callable[[], Coroutine[Any, Any, Any]]] = []

    def _shut_down(self) -> None:
        deadline = time.monotonic() + QUIT_TIMEOUT_S
        if asyncio.current_task(self.loop) is None:
            self._end_tasks(deadline)
        else:
            # No other task can run before this one is left.
            _log.warning("The application was ended inside a coroutine.")
        self._executor.shutdown(wait=False, cancel_futures=True)
        for thread in threading.enumerate():
            if thread.name.startswith(_THREAD_NAMES):
                thread.join(max(0.0, deadline - time.monotonic()))
        # Or closing would wait for a thread that is still busy, without an end.
        self.loop.set_default_executor(None)  # type: ignore[arg-type]
        # qasync's stop calls the application's exit, which says aboutToQuit again.
        were_blocked = self._app.blockSignals(True)
        self.loop.stop()
        self._app.blockSignals(were_blocked)
        self.loop.close()
        asyncio._set_running_loop(None)

    def _end_tasks(self, deadline: float) -> None:
        for make in self.last_words:
            run_until_closed(make(), deadline - time.monotonic())
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        _pump(lambda: not asyncio.all_tasks(self.loop), deadline)


_current: _QtLoop | None = None


def ensure_loop() -> asyncio.AbstractEventLoop:
    """Return the loop; made at the first call, from a slot of the running Qt loop.

    Raises:
        RuntimeError: there is no QApplication.
    """
    return _ensure().loop


def _ensure() -> _QtLoop:
    global _current
    if _current is None:
        app = QCoreApplication.instance()
        if app is None:
            raise RuntimeError("create the QApplication before its asyncio loop")
        _current = _QtLoop(app)
    return _current


def spawn(coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Run a coroutine as a task that is kept until it ends; a failure is logged."""
    current = _ensure()
    task = current.loop.create_task(coro, name=name)
    current.tasks.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    if _current is not None:
        _current.tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed: %r", task.get_name(), error, exc_info=error)


def at_quit(make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run a coroutine when Qt is about to quit, before the loop is closed.

    All of them together have `QUIT_TIMEOUT_S`. Slots of `aboutToQuit` itself may come
    too late: they are called in the order of their connection.
    """
    _ensure().last_words.append(make)


def call_soon_in_qt(function: Callable[[], object]) -> None:
    """Call a function from Qt's loop, outside all coroutines: it may open a modal."""
    QTimer.singleShot(0, function)


def run_until_closed(coro: Coroutine[Any, Any, Any], timeout_s: float) -> bool:
    """Run a coroutine to its end while Qt's events are handled, except the user's.

    For a slot that must not return earlier, as SLEAP closes.

    Returns:
        Whether it ended in time; it is cancelled otherwise.

    Raises:
        RuntimeError: called inside a coroutine, which would hang the others.
    """
    current = _ensure()
    if current.loop.is_closed():
        coro.close()
        return False
    if asyncio.current_task(current.loop) is not None:
        coro.close()
        raise RuntimeError("run_until_closed was called inside a coroutine")
    task = spawn(coro, "closing")
    _pump(task.done, time.monotonic() + timeout_s)
    if not task.done():
        _log.warning("Closing took longer than %.1f s and was given up.", timeout_s)
        task.cancel()
        return False
    return True


def _pump(is_done: Callable[[], bool], deadline: float) -> None:
    """Handle events until something is done, or until a time of the monotonic clock."""
    heartbeat = QTimer()
    heartbeat.start(_PUMP_MS)
    flags = (
        QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents
        | QEventLoop.ProcessEventsFlag.WaitForMoreEvents
    )
    while not is_done() and time.monotonic() < deadline:
        QCoreApplication.processEvents(flags)
    heartbeat.stop()

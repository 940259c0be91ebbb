"""Calls to a file system that may never answer, each with a deadline.

A call that hangs in a network mount cannot be interrupted. So it is made in a daemon
thread, which is left behind when the time is up; the number of such threads is
bounded. Used by `shared_storage`; whoever waits here is in a thread himself.
"""

import contextlib
import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from sleap_rtc_plugin.protocol.limits import MAX_STUCK_CALLS, MOUNT_TIMEOUT_S

__all__ = ["Mount", "MountCaller"]

P = ParamSpec("P")
T = TypeVar("T")
_SILENCE: Final = "it does not answer"


class Mount:
    """One mounted file system and the calls that hang in it."""

    def __init__(self, timeout_s: float = MOUNT_TIMEOUT_S) -> None:
        """Give each call `timeout_s` seconds."""
        self._timeout_s = timeout_s
        self._stuck = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def caller(self) -> Iterator["MountCaller"]:
        """Yield a thread to make calls in, one after another.

        Raises:
            TimeoutError: too many calls hang already.
        """
        if self._stuck >= MAX_STUCK_CALLS:
            raise TimeoutError(errno.ETIMEDOUT, _SILENCE)
        caller = MountCaller(self._timeout_s, self._count)
        try:
            yield caller
        finally:
            caller.end()

    def _count(self, change: int) -> None:
        with self._lock:
            self._stuck += change


class MountCaller:
    """A thread that makes one call at a time and owns what the calls open."""

    def __init__(self, timeout_s: float, count: Callable[[int], None]) -> None:
        """Start it; `count` hears +1 when it hangs, and -1 when it hangs no more."""
        self._timeout_s = timeout_s
        self._count = count
        self._is_stuck = False
        self._descriptors: set[int] = set()
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="mount", daemon=True).start()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns, or raise what it raises.

        Raises:
            TimeoutError: the time is up; also for every call after that.
        """
        if self._is_stuck:
            raise TimeoutError(errno.ETIMEDOUT, _SILENCE)
        answer: Future[T] = Future()
        self._orders.put(partial(_perform, answer, partial(function, *args, **kwargs)))
        try:
            return answer.result(self._timeout_s)
        except TimeoutError:
            if answer.done():
                raise
            self._is_stuck = True
            self._count(1)
            raise TimeoutError(errno.ETIMEDOUT, _SILENCE) from None

    def open(self, opener: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
        """Return a descriptor that `opener` opens; `end` closes it at the latest."""

        def open_and_note() -> int:
            descriptor = opener(*args, **kwargs)
            self._descriptors.add(descriptor)
            return descriptor

        return self.call(open_and_note)

    def close(self, descriptor: int) -> None:
        """Close what `open` returned; on a network mount this writes."""

        def close() -> None:
            self._descriptors.discard(descriptor)
            os.close(descriptor)

        self.call(close)

    def end(self) -> None:
        """Let the thread close what is open and end; nobody waits for it."""
        self._orders.put(None)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            order()
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._is_stuck:
            self._count(-1)


def _perform(answer: Future[Any], function: Callable[[], Any]) -> None:
    try:
        answer.set_result(function())
    # Whoever waits gets it, whatever it is.
    except BaseException as error:
        answer.set_exception(error)

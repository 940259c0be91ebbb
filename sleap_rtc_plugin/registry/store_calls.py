"""Blocking calls to a store from an event loop, each in a thread, each with a deadline.

A call that hangs in a network disk cannot be interrupted, so it is left behind in a
daemon thread; there may be a few of those. obstore's own coroutines are not used: they
end in threads of its runtime, which abort the whole process where it exits at that
moment. Used by `directory_store` and `remote_store`.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from sleap_rtc_plugin.protocol.limits import MAX_STUCK_CALLS

__all__ = ["NoAnswer", "StoreCalls"]

T = TypeVar("T")


class NoAnswer(Exception):
    """The time is up, or too many calls hang already."""


class StoreCalls:
    """The calls to one store."""

    def __init__(self) -> None:
        """Begin with no call that hangs."""
        self._stuck = 0
        self._lock = threading.Lock()

    async def call(self, timeout_s: float, function: Callable[[], T]) -> T:
        """Return what the function returns, or raise what it raises.

        Raises:
            NoAnswer: it takes longer than `timeout_s` seconds.
        """
        if self._stuck >= MAX_STUCK_CALLS:
            raise NoAnswer
        answer: Future[T] = Future()
        threading.Thread(
            target=_perform, args=(answer, function), name="model store", daemon=True
        ).start()
        waited = asyncio.wrap_future(answer)
        waited.add_done_callback(_forget)
        done, _ = await asyncio.wait([waited], timeout=timeout_s)
        if done:
            return waited.result()
        self._count(1)
        answer.add_done_callback(lambda late: self._count(-1))
        raise NoAnswer

    def _count(self, change: int) -> None:
        with self._lock:
            self._stuck += change


def _perform(answer: Future[Any], function: Callable[[], Any]) -> None:
    try:
        result = function()
    # Whoever waits gets it, whatever it is.
    except BaseException as error:
        _tell(answer, partial(answer.set_exception, error))
    else:
        _tell(answer, partial(answer.set_result, result))


def _tell(answer: Future[Any], tell: Callable[[], None]) -> None:
    if answer.set_running_or_notify_cancel():
        tell()


def _forget(waited: "asyncio.Future[Any]") -> None:
    """Look at a failure, so that asyncio does not report one that came too late."""
    if not waited.cancelled():
        waited.exception()

"""Prints lines from a thread, so that whoever reads them slowly holds nothing up.

Lines that do not fit into a bounded queue are dropped and counted; a reader that has
gone is told to whoever prints. Used by `live`, whose frames wait for nobody.
"""

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["LineWriter"]

MAX_LINES_WAITING: Final = 256


class LineWriter:
    """Lines on their way to stdout."""

    def __init__(self, on_gone: Callable[[], None] = lambda: None) -> None:
        """Print from now on; `on_gone` is called, in the thread, when nobody reads."""
        self.dropped = 0
        self._on_gone = on_gone
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_LINES_WAITING)
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Print a line in its turn, or drop it where too many wait."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self, last: str) -> None:
        """Print what waits and one more line, however long that takes."""
        self._lines.put(last)
        self._lines.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_there = True
        while (line := self._lines.get()) is not None:
            if not is_there:
                continue
            try:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            except OSError:
                is_there = False
                # Python flushes it once more at the end, and would complain.
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                self._on_gone()

"""An asyncio loop turned by a Qt timer, for windows whose work is done in coroutines.

Stands in for the plugin's own loop, which belongs to a whole process; a test has its
own and closes it.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from qtpy.QtCore import QTimer

PUMP_MS = 2


class PumpedLoop:
    """Runs coroutines while Qt's loop runs."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        self._timer = QTimer()
        self._timer.timeout.connect(self._turn)
        self._timer.start(PUMP_MS)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Run a coroutine as a task; what it raises fails the test at `close`."""
        task = self.loop.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.result()

    def _turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def close(self) -> None:
        """End what still runs."""
        self._timer.stop()
        for task in self.tasks:
            task.cancel()
        self._turn()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

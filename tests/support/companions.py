"""Both kinds of companion host on a plain event loop, and what they said.

A test asks through the host that SLEAP would use and waits for events with a deadline;
the child is a real process.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Literal, TypeVar

from sleap_rtc_plugin.companion.host import ChildHost, InProcessHost
from sleap_rtc_plugin.companion.messages import (
    Command,
    Connect,
    Event,
    Result,
    WorkerRow,
    WorkersChanged,
)

HostKind = Literal["child", "in-process"]
WAIT_S = 150.0

E = TypeVar("E")


class Companion:
    """A host, and every event it told."""

    def __init__(self, host: ChildHost | InProcessHost) -> None:
        self.host = host
        self.events: list[Event] = []
        self.restarts = 0
        self.deaths: list[str] = []
        self._news = asyncio.Event()
        host.on_event = self._take
        host.on_restarted = self._restarted
        host.on_dead = self._died

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    def _restarted(self) -> None:
        self.restarts += 1
        self._news.set()

    def _died(self, sentence: str) -> None:
        self.deaths.append(sentence)
        self._news.set()

    async def ask(self, command: Command) -> Result:
        async with asyncio.timeout(WAIT_S):
            return await self.host.ask(command)

    async def until(self, is_reached: Callable[[], bool]) -> None:
        """Wait until something holds that an event brings about."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not is_reached():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            last = "\n".join(map(repr, self.events[-20:]))
            raise AssertionError(
                f"it never came about; the last events:\n{last}"
            ) from None

    async def event(
        self, kind: type[E], matches: Callable[[E], bool] = lambda event: True
    ) -> E:
        """Return the first event of a kind that matches, past or to come."""
        found: list[E] = []

        def is_there() -> bool:
            found.extend(e for e in self.events if isinstance(e, kind) and matches(e))
            return bool(found)

        await self.until(is_there)
        return found[0]

    async def enter(self, session: str) -> WorkerRow:
        """Enter a room and return its first worker."""
        await self.ask(Connect(session=session, remember=False))
        seen = await self.event(WorkersChanged, lambda event: bool(event.workers))
        return seen.workers[0]


@contextlib.asynccontextmanager
async def companion(kind: HostKind) -> AsyncIterator[Companion]:
    """Run a companion of this kind until the block ends."""
    made = Companion(ChildHost() if kind == "child" else InProcessHost())
    try:
        yield made
    finally:
        await made.host.close()

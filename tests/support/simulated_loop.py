"""An asyncio loop in simulated time: with nothing ready, it jumps to the next timer.

A minute passes in as long as its callbacks take, and always in the same order. It has
no sockets and no threads; tests of transports run their coroutines on it.
"""

import asyncio
from asyncio import base_events
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from math import inf
from typing import Any, TypeVar

__all__ = ["SimulatedLoop", "SimulationFailed", "simulate"]

T = TypeVar("T")

LONGEST_RUN_S = 600.0
"""How far the simulated clock may go, unless told otherwise."""

MOST_TURNS_AT_ONE_TIME = 100_000
"""Turns of the loop without the clock going on: it would never end."""


class SimulationFailed(AssertionError):
    """The run cannot end, or something in it failed where nobody awaits it."""


class _Clock:
    """What the loop takes for a selector: to wait is to move the clock."""

    def __init__(self, loop: "SimulatedLoop") -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[Any]:
        """Move the clock to the next timer; no file ever becomes ready.

        Raises:
            SimulationFailed: there is nothing to wait for, or the run is too long.
        """
        self._loop.pass_time(timeout_s)
        return []


class SimulatedLoop(base_events.BaseEventLoop):
    """Runs coroutines in simulated seconds.

    Args:
        limit_s: the run fails when its clock passes this.
        start_s: what the clock shows at first, in seconds.
    """

    def __init__(self, limit_s: float = LONGEST_RUN_S, start_s: float = 1000.0) -> None:
        super().__init__()
        self.start_s = start_s
        self.failures: list[str] = []
        self._now = start_s
        self._end = start_s + limit_s
        self._turns = 0
        self._selector = _Clock(self)
        self.set_exception_handler(self._note_failure)

    def time(self) -> float:
        """The simulated time, in seconds."""
        return self._now

    @property
    def elapsed_s(self) -> float:
        """Simulated seconds since the start."""
        return self._now - self.start_s

    def pass_time(self, timeout_s: float | None) -> None:
        """Go to the next timer, if nothing is to be done before.

        Raises:
            SimulationFailed: there is nothing to wait for, or the run is too long.
        """
        if timeout_s is None:
            raise SimulationFailed(
                f"after {self.elapsed_s:.3f} simulated s nothing is left that could "
                f"happen, and these still wait: {self._waiting()}"
            )
        if timeout_s > 0:
            # The timer's own time: a sum would miss it by a rounding error.
            self._now = max(self._now, self._scheduled[0]._when)
            self._turns = 0
            if self._now > self._end:
                raise SimulationFailed(
                    f"after {self.elapsed_s:.3f} simulated s, which is past the "
                    f"limit, these still wait: {self._waiting()}"
                )
        self._turns += 1
        if self._turns > MOST_TURNS_AT_ONE_TIME:
            raise SimulationFailed(
                f"the loop turned {self._turns} times at {self.elapsed_s:.3f} simulated"
                " s: something calls itself for ever"
            )

    def wind_up(self) -> None:
        """Cancel what still runs, and let it end; the bounds hold no more."""
        self._turns, self._end = 0, inf
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()

        async def ended() -> None:
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run_until_complete(ended())

    def _waiting(self) -> str:
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks(self)]
        failed = f"; failed meanwhile: {self.failures}" if self.failures else ""
        return ", ".join(sorted(names)) + failed

    def _note_failure(
        self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        error = context.get("exception")
        self.failures.append(f"{context['message']}: {error!r}")

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Refuse: a thread has no place in simulated time.

        Raises:
            SimulationFailed: always.
        """
        raise SimulationFailed(
            f"{func} would run in a thread, which no clock simulates"
        )

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none: nothing here reads a file."""

    def _write_to_self(self) -> None:
        """Nobody to wake: no thread but this one."""


def simulate(
    main: Callable[[], Coroutine[Any, Any, T]], limit_s: float = LONGEST_RUN_S
) -> T:
    """Run a coroutine to its end in simulated time, and give back its result.

    Args:
        main: makes the coroutine.
        limit_s: simulated seconds after which the run fails.

    Raises:
        SimulationFailed: it cannot end, ran too long, or something failed meanwhile
            where nobody awaits it.
    """
    loop = SimulatedLoop(limit_s)

    try:
        result = loop.run_until_complete(main())
    finally:
        loop.wind_up()
        loop.close()
    if loop.failures:
        raise SimulationFailed("; ".join(loop.failures))
    return result

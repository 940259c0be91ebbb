"""Faults put into our own code: a method that fails once, before or after its work.

Which methods there are, and how often a run calls each, is found out by running it.
Used by the tests that the fast path gives way to aiortc's without losing anything.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

__all__ = ["BrokenOnPurpose", "Place", "Trap", "broken", "counting", "places_in"]


class BrokenOnPurpose(RuntimeError):
    """What a broken method raises."""


@dataclass(frozen=True)
class Place:
    """A method or property of a class, and whether it fails before its work or after.

    A generator fails when it is asked for its first item.
    """

    owner: type
    name: str
    moment: Literal["before", "after"] = "before"

    def __str__(self) -> str:
        return f"{self.moment} {self.owner.__name__}.{self.name}"


@dataclass
class Trap:
    """Counts the calls of one place, and fails at one of them.

    Attributes:
        at_call: the call that fails, the first is 1; 0 for none.
        is_lasting: the calls after that one fail as well.
        error: what it fails with.
        calls: how many there were.
        failures: how many of them failed.
    """

    at_call: int
    is_lasting: bool = False
    error: Exception = field(default_factory=BrokenOnPurpose)
    calls: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)

    def step(self) -> None:
        """One more call; it may be the one to fail."""
        self.calls += 1
        if self.calls == self.at_call or (
            self.is_lasting and self.calls > self.at_call > 0
        ):
            self.failures += 1
            raise self.error


def places_in(owners: Iterable[type]) -> list[Place]:
    """Return every method and property that these classes define themselves."""
    return [
        Place(owner, name)
        for owner in owners
        for name, member in vars(owner).items()
        if inspect.isfunction(member) or isinstance(member, property)
        if not name.startswith("__")
    ]


@contextmanager
def broken(place: Place, trap: Trap) -> Iterator[Trap]:
    """Let a place step into a trap at each of its calls."""
    member = vars(place.owner)[place.name]
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(member, property):
            assert member.fget is not None
            spoilt: Any = property(_trapped(member.fget, place, trap))
        else:
            spoilt = _trapped(member, place, trap)
        patch.setattr(place.owner, place.name, spoilt)
        yield trap


def _trapped(
    function: Callable[..., Any], place: Place, trap: Trap
) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            trap.step()
            yield from function(*args, **kwargs)

        return generate

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            trap.step()
            return await function(*args, **kwargs)

        return wait

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if place.moment == "before":
            trap.step()
            return function(*args, **kwargs)
        result = function(*args, **kwargs)
        trap.step()
        return result

    return call


@contextmanager
def counting(places: Iterable[Place]) -> Iterator[Callable[[], dict[Place, int]]]:
    """Give a function that tells how often each place has been called so far.

    Those that were never called are left out.
    """
    with ExitStack() as stack:
        traps = {
            place: stack.enter_context(broken(place, Trap(at_call=0)))
            for place in places
        }
        yield lambda: {place: trap.calls for place, trap in traps.items() if trap.calls}

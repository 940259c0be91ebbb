"""The ways to a worker, which to try when, and which of them to take.

Direct first, then over TURN servers, then through the signaling server's relay. A way
begins a while after the one before it, or as soon as that one has failed; the first
that comes about is taken unless a better one follows within a moment. Pure, time is
an argument; driven by `transport.climb`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal, get_args

from sleap_rtc_plugin.protocol.errors import NoWayToWorker
from sleap_rtc_plugin.protocol.limits import (
    BETTER_WAY_GRACE_S,
    LADDER_TIMEOUT_S,
    RELAY_AFTER_OTHERS_S,
    RUNG_TIMEOUT_S,
    TURN_AFTER_DIRECT_S,
    TURN_AFTER_TURN_S,
)
from sleap_rtc_plugin.protocol.machine import Machine
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.transport.ice_config import turn_ways

__all__ = [
    "WAYS",
    "Begun",
    "Drop",
    "Event",
    "Fail",
    "Instruction",
    "Ladder",
    "LadderState",
    "Take",
    "Ticked",
    "Try",
    "Way",
    "WayFailed",
    "WayOpened",
    "no_way",
    "possible_ways",
]

Way = Literal["direct", "turn-udp", "turn-tcp", "turn-tls", "relay"]
# The best first.
WAYS: Final[tuple[Way, ...]] = get_args(Way)
# How each is called in a sentence.
_NAMES: Final[Mapping[Way, str]] = MappingProxyType(
    {
        "direct": "direct",
        "turn-udp": "TURN over UDP",
        "turn-tcp": "TURN over TCP",
        "turn-tls": "TURN over TLS",
        "relay": "the signaling server's relay",
    }
)


class LadderState(Enum):
    """Where an attempt stands."""

    IDLE = "idle"
    CLIMBING = "climbing"
    CHOOSING = "choosing"
    DONE = "done"


@dataclass(frozen=True)
class Begun:
    """Begin with the first way."""


@dataclass(frozen=True)
class WayOpened:
    """A way has an authenticated link."""

    way: Way


@dataclass(frozen=True)
class WayFailed:
    """A way came to nothing; `reason` is a few words."""

    way: Way
    reason: str


@dataclass(frozen=True)
class Ticked:
    """The time that `deadline` named has come."""


@dataclass(frozen=True)
class Try:
    """Begin with this way."""

    way: Way


@dataclass(frozen=True)
class Drop:
    """This way is not wanted any more."""

    way: Way


@dataclass(frozen=True)
class Take:
    """This is the link."""

    way: Way


@dataclass(frozen=True)
class Fail:
    """No way came about; why, in the order of the ways."""

    failures: tuple[tuple[Way, str], ...]


Event = Begun | WayOpened | WayFailed | Ticked
Instruction = Try | Drop | Take | Fail


def possible_ways(
    config: IceServerList, *, relay_only: bool, takes_relay: bool
) -> tuple[Way, ...]:
    """Return the ways that can be tried, the best first.

    Args:
        config: what the server offers.
        relay_only: the user wants no address of this machine to be told.
        takes_relay: the worker understands the server's relay.
    """
    direct: list[Way] = [] if relay_only else ["direct"]
    relay: list[Way] = ["relay"] if takes_relay and config.relay is not None else []
    return (*direct, *turn_ways(config), *relay)


def _pause_s(before: Way, way: Way) -> float:
    """Return how long after the one before it a way begins, in seconds."""
    if way == "relay":
        return RELAY_AFTER_OTHERS_S
    return TURN_AFTER_DIRECT_S if before == "direct" else TURN_AFTER_TURN_S


@dataclass
class _Climb:
    """How one attempt has gone so far; times are of the caller's clock."""

    waiting: list[Way]
    next_at: float | None = None
    ends_at: float = 0.0
    choose_at: float | None = None
    # Each way that is being tried: since when, and until when.
    tried: dict[Way, tuple[float, float]] = field(default_factory=dict)
    newest: Way | None = None
    opened: Way | None = None
    failures: dict[Way, str] = field(default_factory=dict)


class Ladder(Machine[LadderState, Event, Instruction]):
    """One attempt to reach a worker."""

    TABLE = MappingProxyType(
        {
            LadderState.IDLE: {Begun: "_begin"},
            LadderState.CLIMBING: {
                WayOpened: "_opened",
                WayFailed: "_failed",
                Ticked: "_tick",
            },
            LadderState.CHOOSING: {
                WayOpened: "_opened",
                WayFailed: "_failed",
                Ticked: "_tick",
            },
            # What was under way when it was decided.
            LadderState.DONE: {
                WayOpened: "_too_late",
                WayFailed: "_ignore",
                Ticked: "_ignore",
            },
        }
    )

    def __init__(self, ways: Sequence[Way]) -> None:
        """Prepare to try `ways`, in this order."""
        super().__init__(LadderState.IDLE)
        self._climb = _Climb(list(ways))
        self._is_lone = len(ways) == 1

    def deadline(self) -> float | None:
        """When to send `Ticked`, on the clock of the events."""
        climb = self._climb
        if self.state is LadderState.DONE:
            return None
        if self.state is LadderState.CHOOSING:
            return climb.choose_at
        times = [ends_at for _, ends_at in climb.tried.values()]
        if climb.next_at is not None:
            times.append(climb.next_at)
        return min(times, default=None)

    def _begin(self, event: Begun, now: float) -> list[Instruction]:
        self.state = LadderState.CLIMBING
        self._climb.ends_at = now + LADDER_TIMEOUT_S
        return self._go_on(now, is_due=True)

    def _go_on(self, now: float, *, is_due: bool) -> list[Instruction]:
        """Begin with the next way if it is time; give up if there is none."""
        climb = self._climb
        instructions: list[Instruction] = []
        if climb.waiting and is_due:
            way = climb.waiting.pop(0)
            limit_s = LADDER_TIMEOUT_S if self._is_lone else RUNG_TIMEOUT_S
            climb.tried[way] = (now, min(now + limit_s, climb.ends_at))
            climb.newest = way
            following = climb.waiting[0] if climb.waiting else None
            climb.next_at = now + _pause_s(way, following) if following else None
            instructions.append(Try(way))
        elif not climb.tried and not climb.waiting:
            self.state = LadderState.DONE
            instructions.append(Fail(self._failures()))
        return instructions

    def _failures(self) -> tuple[tuple[Way, str], ...]:
        failures = self._climb.failures
        return tuple((way, failures[way]) for way in WAYS if way in failures)

    def _opened(self, event: WayOpened, now: float) -> list[Instruction]:
        climb = self._climb
        climb.tried.pop(event.way, None)
        if climb.opened is not None:
            better = min(climb.opened, event.way, key=WAYS.index)
            worse = max(climb.opened, event.way, key=WAYS.index)
            climb.opened = better
            return [Drop(worse), *self._choose(now)]
        climb.opened = event.way
        climb.choose_at = now + BETTER_WAY_GRACE_S
        self.state = LadderState.CHOOSING
        return self._choose(now)

    def _choose(self, now: float) -> list[Instruction]:
        """Take what is open, unless a better one may still come in time."""
        climb = self._climb
        if climb.opened is None or climb.choose_at is None:
            return []
        rank = WAYS.index(climb.opened)
        better = [way for way in climb.tried if WAYS.index(way) < rank]
        if better and now < climb.choose_at:
            return []
        self.state = LadderState.DONE
        return [Take(climb.opened), *(Drop(way) for way in climb.tried)]

    def _failed(self, event: WayFailed, now: float) -> list[Instruction]:
        climb = self._climb
        if climb.tried.pop(event.way, None) is None:
            return []
        climb.failures[event.way] = event.reason
        if self.state is LadderState.CHOOSING:
            return self._choose(now)
        is_due = event.way == climb.newest
        return self._go_on(now, is_due=is_due)

    def _tick(self, event: Ticked, now: float) -> list[Instruction]:
        if self.state is LadderState.CHOOSING:
            return self._choose(now)
        climb = self._climb
        instructions: list[Instruction] = []
        late = [way for way, (_, ends_at) in climb.tried.items() if ends_at <= now]
        for way in late:
            began_at, _ = climb.tried.pop(way)
            climb.failures[way] = f"no answer in {now - began_at:.0f} s"
            instructions.append(Drop(way))
        is_due = climb.next_at is not None and climb.next_at <= now
        return instructions + self._go_on(now, is_due=is_due or climb.newest in late)

    def _too_late(self, event: WayOpened, now: float) -> list[Instruction]:
        return [Drop(event.way)]

    def _ignore(self, event: Event, now: float) -> list[Instruction]:
        return []


def no_way(
    worker: str,
    failures: Sequence[tuple[Way, str]],
    config: IceServerList,
) -> NoWayToWorker:
    """Return the error that says in one sentence what was tried, and what to do."""
    tried = ", ".join(f"{_NAMES[way]} failed ({reason})" for way, reason in failures)
    ways = {way for way, _ in failures}
    if not tried:
        tried = "no address of this machine may be told, and there is no other way"
        remedy = "ask whoever runs the signaling server for a TURN server or its relay"
    elif not any(way.startswith("turn") for way in ways) and config.relay is None:
        remedy = (
            "check that both machines allow UDP, or ask whoever runs the signaling "
            "server for a TURN server or its relay"
        )
    elif "relay" in ways:
        remedy = "check that the worker is well and try again"
    else:
        remedy = (
            "ask whoever runs the signaling server to mend its TURN server, or to "
            "offer its relay"
        )
    return NoWayToWorker(worker=worker, tried=tried, remedy=remedy)

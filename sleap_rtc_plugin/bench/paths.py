"""`bench transfer --paths`: data channels of both kinds and TCP, on paths of all kinds.

The engines take turns on every path, run after run, since a machine's load changes.
Beside speed stand CPU time, memory, the round trip of a control message under load,
what an idle connection takes, and how a bottleneck is shared with TCP.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sleap_rtc_plugin.bench.figures import BenchResult, describe_machine
from sleap_rtc_plugin.bench.path_end import TurnFailed
from sleap_rtc_plugin.bench.path_figures import (
    IDLE_CASE,
    fairness_ratio,
    fairness_row,
    idle_ratio,
    idle_row,
    load_ratios,
    load_row,
    speed,
)
from sleap_rtc_plugin.bench.path_spec import LOOPBACK, PathSpec, parse_path
from sleap_rtc_plugin.bench.pipes import ENGINES, TCP_TLS, Engine
from sleap_rtc_plugin.bench.turns import (
    Turn,
    Work,
    refusal,
    take_turn,
    take_turn_beside_tcp,
)

__all__ = ["PathsPlan", "bench_paths"]

_STOCK: Final[Engine] = "stock"
_IDLE_ENGINES: Final[tuple[Engine, ...]] = ("stock", "fast")
_FAIR_ENGINES: Final[tuple[Engine, ...]] = ("fast", "fast+rate", "TCP+TLS")
# Bottlenecks narrow enough that they, and not this machine, are what is shared.
_BOTTLENECKS: Final = ("20ms@50", "80ms@100")
_FAIR_S: Final = 20.0
# What a turn takes beside its load: processes, a connection, the last answers.
_AROUND_S: Final = 4.0
# From here on others are part of what is measured.
_OTHERS_PERCENT: Final = 15.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class PathsPlan:
    """What to measure.

    Attributes:
        specs: the paths.
        with_fairness: whether to share bottlenecks with TCP as well.
        runs: how often everything has its turn.
        seconds: how long a turn is at most.
        size_bytes: how much a turn sends at most.
    """

    specs: tuple[PathSpec, ...]
    with_fairness: bool
    runs: int
    seconds: float
    size_bytes: int = sys.maxsize


async def bench_paths(plan: PathsPlan, say: Say) -> BenchResult:
    """Measure, on the paths that this machine can emulate.

    Args:
        plan: what.
        say: told what is going on, and what cannot be done here.
    """
    plan = await _possible(plan, say)
    bench = _Bench(plan, say)
    seconds = bench.expected_s()
    if seconds:
        say(f"This takes about {max(1, round(seconds / 60))} min.")
    for number in range(1, plan.runs + 1):
        await bench.run(number)
    rows = bench.rows()
    others = max((row["others_cpu_percent"] or 0.0 for row in rows), default=0.0)
    if others > _OTHERS_PERCENT:
        say(
            f"Other programs took up to {others:.0f} % of this machine's CPU; close "
            "them and measure again for figures that hold."
        )
    return BenchResult(
        bench="transfer",
        machine=describe_machine(),
        rows=rows,
        ratios=bench.ratios(),
    )


async def _possible(plan: PathsPlan, say: Say) -> PathsPlan:
    """Leave out what this machine does not let us emulate."""
    if not plan.with_fairness and not any(spec.is_emulated for spec in plan.specs):
        return plan
    reason = await refusal()
    if reason is None:
        return plan
    say(f"Only loopback can be measured here: {reason}.")
    kept = tuple(spec for spec in plan.specs if not spec.is_emulated)
    return PathsPlan(kept, False, plan.runs, plan.seconds, plan.size_bytes)


@dataclass
class _Turns:
    """The turns of one engine in one case, a failed one as None; TCP's beside it."""

    own: list[Turn | None]
    beside: list[Turn | None]


class _Bench:
    """All turns, and what was measured in them."""

    def __init__(self, plan: PathsPlan, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._load = _table((spec.name for spec in plan.specs), ENGINES)
        self._idle = _table([IDLE_CASE] if plan.specs else [], _IDLE_ENGINES)
        self._bottlenecks = (
            [parse_path(name) for name in _BOTTLENECKS] if plan.with_fairness else []
        )
        self._fair = _table((spec.name for spec in self._bottlenecks), _FAIR_ENGINES)
        self._seeds = itertools.count(1)

    def expected_s(self) -> float:
        """Return how long all runs take, about."""
        turn_s = self._plan.seconds + _AROUND_S
        a_run = (len(self._load) + len(self._idle)) * turn_s
        return self._plan.runs * (a_run + len(self._fair) * (_FAIR_S + _AROUND_S))

    async def run(self, number: int) -> None:
        """Let everything have its turn."""
        plan = self._plan
        suffix = f"run {number} of {plan.runs}"
        for spec, engine in itertools.product(plan.specs, ENGINES):
            work = Work(engine, plan.seconds, plan.size_bytes)
            turn = await self._take(f"{spec.name}, {engine}, {suffix}", spec, work)
            self._load[spec.name, engine].own.append(turn)
        for case, engine in self._idle:
            work = Work(engine, plan.seconds, load="idle")
            turn = await self._take(f"{case}, {engine}, {suffix}", LOOPBACK, work)
            self._idle[case, engine].own.append(turn)
        for spec, engine in itertools.product(self._bottlenecks, _FAIR_ENGINES):
            name = f"{spec.name} beside TCP, {engine}, {suffix}"
            turns = self._fair[spec.name, engine]
            own, beside = await self._share(name, spec, Work(engine, _FAIR_S))
            turns.own.append(own)
            turns.beside.append(beside)

    async def _take(self, name: str, spec: PathSpec, work: Work) -> Turn | None:
        try:
            turn = await take_turn(spec, work, next(self._seeds))
        except TurnFailed as error:
            self._say(f"{name}: it failed, {error}.")
            return None
        told = f": {speed(turn):.3g} MB/s" if work.load == "full" else ""
        self._say(f"{name}{told}.")
        return turn

    async def _share(
        self, name: str, spec: PathSpec, work: Work
    ) -> tuple[Turn | None, Turn | None]:
        try:
            own, beside = await take_turn_beside_tcp(spec, work, next(self._seeds))
        except TurnFailed as error:
            self._say(f"{name}: it failed, {error}.")
            return None, None
        self._say(f"{name}: {speed(own):.3g} and {speed(beside):.3g} MB/s.")
        return own, beside

    def rows(self) -> list[dict[str, Any]]:
        """Return the medians."""
        return [
            *(load_row(*key, turns.own) for key, turns in self._load.items()),
            *(idle_row(key[1], turns.own) for key, turns in self._idle.items()),
            *(
                fairness_row(_beside(case), engine, turns.own, turns.beside)
                for (case, engine), turns in self._fair.items()
            ),
        ]

    def ratios(self) -> dict[str, float]:
        """Return what is worth comparing, within each run."""
        ratios: dict[str, float] = {}
        for spec in self._plan.specs:
            turns = {each: self._load[spec.name, each].own for each in ENGINES}
            ratios |= load_ratios(spec.name, turns, (_STOCK, TCP_TLS))
        compared: dict[str, float | None] = {}
        for (case, engine), idle in self._idle.items():
            if engine != _STOCK:
                stock = self._idle[case, _STOCK].own
                compared[f"{case}, CPU, {engine} / stock"] = idle_ratio(idle.own, stock)
        for (case, engine), fair in self._fair.items():
            name = f"{_beside(case)}, speed, {engine} / TCP"
            compared[name] = fairness_ratio(fair.own, fair.beside)
        known = {name: ratio for name, ratio in compared.items() if ratio is not None}
        return ratios | known


def _beside(case: str) -> str:
    return f"{case} beside TCP"


def _table(
    cases: Iterable[str], engines: Sequence[Engine]
) -> dict[tuple[str, Engine], _Turns]:
    return {key: _Turns([], []) for key in itertools.product(cases, engines)}

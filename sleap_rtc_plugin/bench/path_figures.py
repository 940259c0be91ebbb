"""What the turns of `bench transfer --paths` come to: rows of medians, and ratios.

Pure. A turn that failed is None in its place, so that the turns of one run stay
together: every ratio is the median of the ratios within the runs.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sleap_rtc_plugin.bench.pipes import Engine
from sleap_rtc_plugin.bench.turns import Turn

__all__ = [
    "IDLE_CASE",
    "Turns",
    "fairness_ratio",
    "fairness_row",
    "idle_ratio",
    "idle_row",
    "load_ratios",
    "load_row",
    "percentile",
    "speed",
]

IDLE_CASE: Final = "idle connection"
# What a control message may take under load: so many round trips, and so much more.
GOAL_ROUND_TRIPS: Final = 3
GOAL_MS: Final = 20
_GB: Final = 1e9
_DIGITS: Final = 4

Turns = Sequence[Turn | None]
Figure = Callable[[Turn], float]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that as many percent do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def speed(turn: Turn) -> float:
    """Return MB/s, of what arrived."""
    return turn.worker.size_bytes / 1e6 / turn.worker.seconds


def _client_cpu(turn: Turn) -> float:
    return turn.client.cpu_s * _GB / max(1, turn.worker.size_bytes)


def _worker_cpu(turn: Turn) -> float:
    return turn.worker.cpu_s * _GB / max(1, turn.worker.size_bytes)


def _unloaded_ms(turn: Turn) -> float:
    return statistics.median(turn.client.unloaded_s) * 1000


def _idle_cpu(turn: Turn) -> float:
    """Return CPU milliseconds a second, of both ends."""
    return sum(1000 * end.cpu_s / end.seconds for end in (turn.client, turn.worker))


_LOAD_FIGURES: Final[dict[str, Figure]] = {
    "mb_per_s": speed,
    "client_cpu_s_per_gb": _client_cpu,
    "worker_cpu_s_per_gb": _worker_cpu,
    "client_peak_above_idle_mib": lambda turn: (
        turn.client.peak_mib - turn.client.idle_mib
    ),
    "worker_peak_above_idle_mib": lambda turn: (
        turn.worker.peak_mib - turn.worker.idle_mib
    ),
    "control_unloaded_ms": _unloaded_ms,
}
_PATH_FIGURES: Final = (
    "path_lost_percent",
    "path_overflowed_percent",
    "path_cpu_percent",
)
_IDLE_FIGURES: Final[dict[str, Figure]] = {
    "client_cpu_ms_per_s": lambda turn: 1000 * turn.client.cpu_s / turn.client.seconds,
    "worker_cpu_ms_per_s": lambda turn: 1000 * turn.worker.cpu_s / turn.worker.seconds,
}


def load_row(case: str, engine: str, turns: Turns) -> dict[str, Any]:
    """Return the figures of one engine on one path."""
    row = _row(case, engine, turns, _LOAD_FIGURES)
    return row | _control(turns) | _path(turns)


def idle_row(engine: str, turns: Turns) -> dict[str, Any]:
    """Return what a connection takes on which nothing is sent."""
    return _row(IDLE_CASE, engine, turns, _IDLE_FIGURES)


def fairness_row(case: str, engine: str, turns: Turns, beside: Turns) -> dict[str, Any]:
    """Return how a path was shared; `beside` are TCP's turns, in the same order."""
    tcp = [turn for turn in beside if turn is not None]
    shares = [
        100 * speed(one) / (speed(one) + speed(other))
        for one, other in _both(turns, beside)
    ]
    return {
        **_row(case, engine, turns, {"mb_per_s": speed}),
        "tcp_mb_per_s": _median([speed(turn) for turn in tcp]),
        "share_percent": _median(shares),
        "control_unloaded_ms": _median([_unloaded_ms(turn) for turn in turns if turn]),
        **_control(turns),
        **_path(turns),
    }


def load_ratios(
    case: str, turns: Mapping[Engine, Turns], yardsticks: Sequence[Engine]
) -> dict[str, float]:
    """Return how engines compare on a path: speed to all yardsticks, CPU to the first.

    Args:
        case: the path's name.
        turns: each engine's.
        yardsticks: engines to compare with, of which any may be missing.
    """
    ratios: dict[str, float] = {}
    for number, yardstick in enumerate(yardsticks):
        figures: dict[str, Figure] = {"speed": speed}
        if number == 0:
            figures["client CPU per GB"] = _client_cpu
            figures["worker CPU per GB"] = _worker_cpu
        for engine in turns:
            if engine in yardsticks or yardstick not in turns:
                continue
            for name, figure in figures.items():
                found = _ratio(turns[engine], turns[yardstick], figure)
                if found is not None:
                    ratios[f"{case}, {name}, {engine} / {yardstick}"] = found
    return ratios


def idle_ratio(turns: Turns, stock: Turns) -> float | None:
    """Return the CPU time of an idle connection as a multiple of stock's."""
    return _ratio(turns, stock, _idle_cpu)


def fairness_ratio(turns: Turns, beside: Turns) -> float | None:
    """Return how much of a path an engine took, as a multiple of what TCP got."""
    return _ratio(turns, beside, speed)


# -- parts of a row --------------------------------------------------------------------


def _row(
    case: str, engine: str, turns: Turns, figures: dict[str, Figure]
) -> dict[str, Any]:
    good = [turn for turn in turns if turn is not None]
    ran = sorted({turn.client.engine for turn in good})
    return {
        "case": case,
        "engine": engine,
        "ran": " and ".join(ran) or None,
        "runs": len(good),
        "failed_runs": len(turns) - len(good),
        "others_cpu_percent": _median([100 * turn.others_share for turn in good]),
        **{name: _median([of(turn) for turn in good]) for name, of in figures.items()},
    }


def _control(turns: Turns) -> dict[str, float | None]:
    """Return the round trips of control messages under load, of all runs together."""
    good = [turn for turn in turns if turn is not None]
    waits_ms = [1000 * wait_s for turn in good for wait_s in turn.client.loaded_s]
    unloaded_ms = _median([_unloaded_ms(turn) for turn in good])
    goal_ms = None if unloaded_ms is None else GOAL_ROUND_TRIPS * unloaded_ms + GOAL_MS
    return {
        "control_p50_ms": _rounded(percentile(waits_ms, 50)),
        "control_p99_ms": _rounded(percentile(waits_ms, 99)),
        "control_p99_goal_ms": _rounded(goal_ms),
    }


def _path(turns: Turns) -> dict[str, float | None]:
    """Return what the emulated path did; None of the machine's own."""
    found = [turn.wan for turn in turns if turn is not None and turn.wan is not None]
    values = (
        [100 * wan.lost / max(1, wan.taken) for wan in found],
        [100 * wan.overflowed / max(1, wan.taken) for wan in found],
        [100 * wan.cpu_s / wan.seconds for wan in found],
    )
    return {
        name: _median(each) for name, each in zip(_PATH_FIGURES, values, strict=True)
    }


def _both(turns: Turns, others: Turns) -> list[tuple[Turn, Turn]]:
    return [
        (one, other)
        for one, other in zip(turns, others, strict=True)
        if one is not None and other is not None
    ]


def _ratio(turns: Turns, others: Turns, figure: Figure) -> float | None:
    ratios = [
        figure(one) / figure(other)
        for one, other in _both(turns, others)
        if figure(other) > 0
    ]
    return _median(ratios)


def _median(values: Sequence[float]) -> float | None:
    return _rounded(statistics.median(values)) if values else None


def _rounded(value: float | None) -> float | None:
    """Keep as many digits as anybody can believe."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")

"""What `bench gui` noted in one run, and the figures that follow from it.

Pure: runs of one round are cut to the same length and compared here. The window
process gets a task and writes the notes, the benchmark reads them.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from sleap_rtc_plugin.protocol.limits import MIB

__all__ = [
    "CASES",
    "INTERVAL_MS",
    "Case",
    "Figures",
    "Notes",
    "Sent",
    "Tick",
    "WindowTask",
    "differences",
    "figures",
    "medians",
    "shared_seconds",
]

Case = Literal["idle", "companion", "in-process"]
CASES: Final[tuple[Case, ...]] = ("idle", "companion", "in-process")

INTERVAL_MS: Final = 10
"""How often the timer is to fire whose lateness is measured."""

Figures = dict[str, float | None]


class WindowTask(Struct):
    """What to do in this run, and where its notes go."""

    case: Case
    session: str
    package: str
    folder: str
    seconds: float
    notes: str


class Tick(Struct, array_like=True):
    """One time that the timer fired.

    Attributes:
        at_s: since the measuring began.
        late_ms: how much longer than `INTERVAL_MS` after the tick before.
        drawn: batches that the viewer holds.
        gui_cpu_s: CPU time of the process with the window, so far.
        companion_cpu_s: of the companion's own process, None where there is none.
    """

    at_s: float
    late_ms: float
    drawn: int
    gui_cpu_s: float
    companion_cpu_s: float | None


class Sent(Struct, array_like=True):
    """So many bytes of the package had arrived at a time."""

    at_s: float
    done_bytes: int


class Notes(Struct, kw_only=True):
    """One run.

    Attributes:
        seconds: how long was measured.
        ticks: each time the timer fired, from the first one within that time on.
        sent: the transfer's progress, empty where nothing is sent.
        batches_per_s_in: what the feed's trainer told of.
        qt_platform: how Qt showed the window.
    """

    seconds: float
    ticks: list[Tick]
    sent: list[Sent] = []
    batches_per_s_in: float = 0.0
    qt_platform: str = ""


def shared_seconds(notes: Sequence[Notes]) -> float:
    """Return the length that runs are cut to: a longer one meets more bad luck."""
    return min(run.seconds for run in notes)


def figures(notes: Notes, seconds: float) -> Figures:
    """Return the figures of a run's first `seconds`.

    A tick counts if the wait for it began within that time, so that one which blocks
    the loop to the end and beyond is not lost.
    """
    ticks = [
        tick
        for tick in notes.ticks
        if tick.at_s - (tick.late_ms + INTERVAL_MS) / 1000 < seconds
    ]
    late = sorted(tick.late_ms for tick in ticks)
    first, last = ticks[0], ticks[-1]
    # The first tick ends the wait in which the measuring began.
    span_s = max(last.at_s - first.at_s, INTERVAL_MS / 1000)
    return {
        "late_p50_ms": _percentile(late, 50),
        "late_p99_ms": _percentile(late, 99),
        "late_max_ms": late[-1],
        "mib_per_s": _mib_per_s(notes.sent, seconds),
        "gui_cpu_s": last.gui_cpu_s - first.gui_cpu_s,
        "companion_cpu_s": _difference(last.companion_cpu_s, first.companion_cpu_s),
        "batches_per_s_in": notes.batches_per_s_in,
        "messages_per_s_shown": (last.drawn - first.drawn) / span_s,
        "ticks": float(len(ticks)),
        "seconds_measured": seconds,
    }


def medians(runs: Sequence[Figures]) -> Figures:
    """Return the median of every figure, None for one that no run has."""
    found: Figures = {}
    for name in runs[0]:
        values = [value for run in runs if (value := run[name]) is not None]
        found[name] = round(statistics.median(values), 2) if values else None
    return found


def differences(rounds: Sequence[Mapping[Case, Figures]]) -> dict[str, float]:
    """Return how much later than idle the timer is while a package is sent.

    The median of the rounds' own differences: what a round's runs have in common, as
    another program's load, falls out.
    """
    found: dict[str, float] = {}
    for case in CASES[1:]:
        for figure in ("p99_ms", "max_ms"):
            name = f"late_{figure}"
            pairs = [
                more - less
                for one in rounds
                if (more := one[case][name]) is not None
                and (less := one["idle"][name]) is not None
            ]
            key = f"{case.replace('-', '_')}_minus_idle_{figure}"
            found[key] = round(statistics.median(pairs), 2)
    return found


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile of values in order."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def _mib_per_s(sent: Sequence[Sent], seconds: float) -> float | None:
    within = [one for one in sent if one.at_s <= seconds]
    if len(within) < 2:
        return None
    first, last = within[0], within[-1]
    if last.at_s <= first.at_s:
        return None
    return (last.done_bytes - first.done_bytes) / MIB / (last.at_s - first.at_s)


def _difference(more: Any, less: Any) -> float | None:
    return None if more is None or less is None else float(more - less)

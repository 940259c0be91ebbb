"""The figures of `bench gui`, from notes made by hand."""

import pytest

from sleap_rtc_plugin.bench.gui_figures import (
    Case,
    Figures,
    Notes,
    Sent,
    Tick,
    differences,
    figures,
    medians,
    shared_seconds,
)
from sleap_rtc_plugin.protocol.limits import MIB


def tick(at_s: float, late_ms: float = 0.0, companion: float | None = None) -> Tick:
    drawn, cpu = round(at_s * 20), at_s / 2
    return Tick(at_s, late_ms, drawn, gui_cpu_s=cpu, companion_cpu_s=companion)


def steady(seconds: float = 2.0, **rest: list[Sent]) -> Notes:
    ticks = [tick(n / 100) for n in range(1, round(seconds * 100) + 1)]
    return Notes(seconds=seconds, ticks=ticks, **rest)


def test_a_loop_that_is_never_late() -> None:
    found = figures(steady(), 2.0)
    assert (found["late_p50_ms"], found["late_p99_ms"], found["late_max_ms"]) == (
        (0.0, 0.0, 0.0)
    )
    assert found["ticks"] == 200
    assert found["seconds_measured"] == 2.0
    assert found["messages_per_s_shown"] == pytest.approx(20, rel=0.05)
    assert found["gui_cpu_s"] == pytest.approx(1.0, rel=0.02)
    assert found["companion_cpu_s"] is None
    assert found["mib_per_s"] is None


def test_percentiles_are_values_that_were_measured() -> None:
    notes = steady(1.0)
    for number, one in enumerate(notes.ticks):
        one.late_ms = float(number)
    # Each wait as long as it says would overlap; only the order matters here.
    found = figures(notes, 1.0)
    assert found["late_p50_ms"] == 49.0
    assert found["late_p99_ms"] == 98.0
    assert found["late_max_ms"] == 99.0


def test_runs_are_cut_to_the_shortest() -> None:
    assert shared_seconds([steady(2.0), steady(0.5), steady(1.0)]) == 0.5
    notes = steady(2.0)
    notes.ticks[150].late_ms = 80.0
    assert figures(notes, 2.0)["late_max_ms"] == 80.0
    cut = figures(notes, 1.0)
    assert cut["late_max_ms"] == 0.0
    assert cut["ticks"] == 100
    assert cut["seconds_measured"] == 1.0


def test_a_wait_that_goes_on_beyond_the_end_counts() -> None:
    notes = steady(1.0)
    notes.ticks[-1] = tick(1.29, late_ms=290.0)
    assert figures(notes, 1.0)["late_max_ms"] == 290.0


def test_one_blocked_wait_is_all_there_is() -> None:
    found = figures(Notes(seconds=0.4, ticks=[tick(5.0, late_ms=4_990.0)]), 0.4)
    assert found["late_p50_ms"] == found["late_max_ms"] == 4_990.0
    assert found["messages_per_s_shown"] == 0.0


def test_the_rate_is_that_of_the_bytes_within_the_time() -> None:
    sent = [
        Sent(0.0, MIB),
        Sent(0.5, 6 * MIB),
        Sent(1.0, 11 * MIB),
        Sent(1.9, 12 * MIB),
    ]
    assert figures(steady(sent=sent), 1.0)["mib_per_s"] == pytest.approx(10.0)
    assert figures(steady(sent=sent[:1]), 1.0)["mib_per_s"] is None


def test_cpu_of_the_companion() -> None:
    notes = steady()
    for one in notes.ticks:
        one.companion_cpu_s = 3.0 + one.at_s
    assert figures(notes, 2.0)["companion_cpu_s"] == pytest.approx(1.99)


def test_medians_of_what_there_is() -> None:
    runs: list[Figures] = [
        {"a": 1.0, "b": None},
        {"a": 5.0, "b": None},
        {"a": 2.0, "b": None},
    ]
    assert medians(runs) == {"a": 2.0, "b": None}


def test_differences_are_medians_of_pairs() -> None:
    def late(p99: float, most: float) -> Figures:
        return {"late_p99_ms": p99, "late_max_ms": most}

    rounds: list[dict[Case, Figures]] = [
        {"idle": late(50, 60), "companion": late(51, 70), "in-process": late(90, 200)},
        # Another program came in between, for all of them.
        {
            "idle": late(500, 600),
            "companion": late(503, 590),
            "in-process": late(550, 900),
        },
        {"idle": late(50, 60), "companion": late(48, 65), "in-process": late(80, 160)},
    ]
    assert differences(rounds) == {
        "companion_minus_idle_p99_ms": 1,
        "companion_minus_idle_max_ms": 5,
        "in_process_minus_idle_p99_ms": 40,
        "in_process_minus_idle_max_ms": 140,
    }

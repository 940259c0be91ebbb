"""What the turns on paths come to, from turns made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.bench.path_end import PathEndFigures
from sleap_rtc_plugin.bench.path_figures import (
    fairness_ratio,
    fairness_row,
    idle_ratio,
    idle_row,
    load_ratios,
    load_row,
    percentile,
)
from sleap_rtc_plugin.bench.turns import Turn
from sleap_rtc_plugin.bench.wan import WanFigures


def turn(
    mb: float = 100.0,
    seconds: float = 10.0,
    cpu_s: float = 1.0,
    loaded_s: tuple[float, ...] = (),
    wan: WanFigures | None = None,
    ran: str = "fast",
) -> Turn:
    client = PathEndFigures(
        engine=ran,
        seconds=seconds + 1,
        cpu_s=cpu_s,
        idle_mib=50,
        peak_mib=58,
        unloaded_s=[0.019, 0.02, 0.5],
        loaded_s=list(loaded_s),
    )
    worker = PathEndFigures(
        engine=ran,
        seconds=seconds,
        size_bytes=round(mb * 1e6),
        cpu_s=2 * cpu_s,
        idle_mib=60,
        peak_mib=63,
    )
    return Turn(client, worker, wan, others_share=0.25)


def test_a_row_holds_medians_of_the_runs_that_worked() -> None:
    wan = WanFigures(seconds=10, cpu_s=3, taken=1_000, lost=5, overflowed=20)
    turns = [turn(100), None, turn(300, wan=wan), turn(200)]
    assert load_row("20ms", "fast", turns) == {
        "case": "20ms",
        "engine": "fast",
        "ran": "fast",
        "runs": 3,
        "failed_runs": 1,
        "others_cpu_percent": 25.0,
        "mb_per_s": 20.0,
        "client_cpu_s_per_gb": 5.0,
        "worker_cpu_s_per_gb": 10.0,
        "client_peak_above_idle_mib": 8.0,
        "worker_peak_above_idle_mib": 3.0,
        "control_unloaded_ms": 20.0,
        "control_p50_ms": None,
        "control_p99_ms": None,
        "control_p99_goal_ms": 80.0,
        "path_lost_percent": 0.5,
        "path_overflowed_percent": 2.0,
        "path_cpu_percent": 30.0,
    }


def test_round_trips_of_all_runs_count_together() -> None:
    turns = [turn(loaded_s=(0.03,) * 98), turn(loaded_s=(0.2, 0.9))]
    row = load_row("20ms", "fast", turns)
    assert row["control_p50_ms"] == 30
    assert row["control_p99_ms"] == 200


def test_what_ran_in_its_place_is_named() -> None:
    row = load_row("20ms", "fast", [turn(), turn(ran="aiortc")])
    assert row["ran"] == "aiortc and fast"


def test_where_nothing_worked_there_are_no_figures() -> None:
    row = load_row("20ms", "fast", [None, None])
    assert (row["runs"], row["failed_runs"]) == (0, 2)
    assert {value for name, value in row.items() if name.endswith(("_s", "_ms"))} == {
        None
    }
    assert row["ran"] is None


def test_ratios_are_of_one_run_each() -> None:
    # The machine was ten times slower in the second run; the ratios do not show it.
    stock = [turn(10), turn(1), turn(10)]
    fast = [turn(100), turn(10), turn(50)]
    tcp = [turn(200), turn(20), turn(200)]
    ratios = load_ratios(
        "20ms", {"stock": stock, "fast": fast, "TCP+TLS": tcp}, ("stock", "TCP+TLS")
    )
    assert ratios == {
        "20ms, speed, fast / stock": 10.0,
        "20ms, client CPU per GB, fast / stock": 0.1,
        "20ms, worker CPU per GB, fast / stock": 0.1,
        "20ms, speed, fast / TCP+TLS": 0.5,
    }


def test_a_failed_turn_takes_its_run_out_of_the_ratio_alone() -> None:
    turns = {"stock": [turn(10), None, turn(10)], "fast": [turn(80), turn(9), turn(40)]}
    assert load_ratios("20ms", turns, ("stock",))["20ms, speed, fast / stock"] == 6.0
    failed = {"stock": [None], "fast": [turn()]}
    assert load_ratios("20ms", failed, ("stock", "TCP+TLS")) == {}


def test_idle_connections() -> None:
    row = idle_row("fast", [turn(seconds=9, cpu_s=0.0018)])
    assert row["case"] == "idle connection"
    assert row["client_cpu_ms_per_s"] == 0.18
    assert row["worker_cpu_ms_per_s"] == 0.4
    assert idle_ratio([turn(cpu_s=3)], [turn(cpu_s=2)]) == 1.5
    assert idle_ratio([turn()], [None]) is None


def test_a_shared_path() -> None:
    own, beside = [turn(40), turn(90), None], [turn(60), turn(10), None]
    row = fairness_row("20ms@50 beside TCP", "fast", own, beside)
    assert row["mb_per_s"] == 6.5
    assert row["tcp_mb_per_s"] == 3.5
    assert row["share_percent"] == 65.0
    assert fairness_ratio(own, beside) == pytest.approx((40 / 60 + 9) / 2, rel=1e-3)


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=300),
    st.floats(0.1, 100),
)
def test_percentiles_are_values_that_were_measured(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    assert found in values
    within = sum(value <= found for value in values)
    assert within >= len(values) * percent / 100 - 1e-9
    assert percentile([], percent) is None

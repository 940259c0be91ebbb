"""`bench transfer`, small enough for a test: every case, every engine."""

import json
from pathlib import Path

import pytest
from support.programs import Programs

FIGURES = {
    "case",
    "engine",
    "runs",
    "mib_per_s",
    "client_cpu_s_per_gib",
    "worker_cpu_s_per_gib",
    "client_idle_mib",
    "client_peak_above_idle_mib",
    "worker_idle_mib",
    "worker_peak_above_idle_mib",
    "stop_p50_ms",
    "stop_max_ms",
}


@pytest.mark.needs_sleap_nn
@pytest.mark.timeout(240)
def test_every_case_has_its_turn(programs: Programs) -> None:
    client = programs.client(
        *("bench", "transfer", "--size-mib", "1", "--runs", "1", "--json")
    )
    assert client.wait(200) == 0, client.story()
    told = json.loads(client.out[-1])
    assert set(told) == {"bench", "machine", "rows", "ratios"}
    assert [(row["case"], row["engine"]) for row in told["rows"]] == [
        ("1 MiB file", "ours"),
        ("1 MiB file", "plain loop"),
        ("2000 files of 3000 B", "ours"),
        ("2000 files of 3000 B", "plain loop"),
        ("1 MiB package, real programs", "ours"),
    ]
    for row in told["rows"]:
        assert set(row) == FIGURES
        assert row["mib_per_s"] > 0
    assert len(told["ratios"]) == 2


@pytest.mark.timeout(240)
def test_paths(programs: Programs, tmp_path: Path) -> None:
    picture = tmp_path / "speeds.svg"
    client = programs.client(
        *("bench", "transfer", "--paths", "loopback", "--seconds", "0.5"),
        *("--runs", "1", "--plot", str(picture), "--json"),
    )
    assert client.wait(200) == 0, client.story()
    told = json.loads(client.out[-1])
    assert set(told) == {"bench", "machine", "rows", "ratios"}
    assert [(row["case"], row["engine"], row["ran"]) for row in told["rows"]] == [
        ("loopback", "stock", "aiortc"),
        ("loopback", "fast", "fast"),
        ("loopback", "fast+rate", "fast"),
        ("loopback", "TCP+TLS", "TCP+TLS"),
        ("idle connection", "stock", "aiortc"),
        ("idle connection", "fast", "fast"),
    ]
    for row in told["rows"]:
        assert (row["runs"], row["failed_runs"]) == (1, 0)
        assert row.get("mb_per_s", 1) > 0
    assert "loopback, speed, fast / stock" in told["ratios"]
    assert "loopback, speed, fast / TCP+TLS" in told["ratios"]
    assert "idle connection, CPU, fast / stock" in told["ratios"]
    assert picture.stat().st_size > 0

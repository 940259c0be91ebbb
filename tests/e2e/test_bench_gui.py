"""`sleap-remote bench gui`, small: real signaling, worker, companions, LossViewer."""

import math

import pytest
from support.programs import Programs

pytest.importorskip("sleap")
pytest.importorskip("qasync")

LIMIT_S = 400.0


@pytest.mark.timeout(LIMIT_S + 60)
def test_every_case_is_measured_and_nothing_is_left(programs: Programs) -> None:
    bench = programs.client(
        *("bench", "gui", "--size-mib", "64", "--rounds", "1", "--seconds", "3"),
        "--json",
        QT_QPA_PLATFORM="offscreen",
    )
    assert bench.wait(LIMIT_S) == 0, bench.story()
    result = bench.report
    assert bench.out == [bench.out[-1]]
    assert result["bench"] == "gui"
    assert result["machine"]["qt_platform"] == "offscreen"
    rows = {row["case"]: row for row in result["rows"]}
    assert list(rows) == ["idle", "companion", "in-process"]
    for case, row in rows.items():
        assert 0 < row["seconds_measured"] <= 3, case
        assert row["seconds_measured"] == rows["idle"]["seconds_measured"]
        assert row["late_p50_ms"] <= row["late_p99_ms"] <= row["late_max_ms"]
        assert row["batches_per_s_in"] > 50
        assert (row["mib_per_s"] is None) == (case == "idle")
    assert rows["in-process"]["companion_cpu_s"] is None
    assert set(result["ratios"]) == {
        f"{case}_minus_idle_{figure}_ms"
        for case in ("companion", "in_process")
        for figure in ("p99", "max")
    }
    assert all(map(math.isfinite, result["ratios"].values()))
    assert list(programs.processes()) == []

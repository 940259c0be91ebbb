"""`bench dedupe` on packages small enough for a test: every case, every engine."""

import json

import pytest
from click.testing import CliRunner, Result

from sleap_rtc_plugin.bench.dedupe import PackagePlan, bench_dedupe
from sleap_rtc_plugin.cli.main import group

CASES = (
    "frames added",
    "frames added, one longer than all before",
    "labels moved",
    "nothing changed",
)


def test_a_small_project() -> None:
    said: list[str] = []
    plan = PackagePlan(frame_count=30, added_count=2, side_px=256)
    result = bench_dedupe(plan, 1, said.append)
    assert result.bench == "dedupe"
    needed = {
        (row["case"], row["engine"]): row["needed_percent"]
        for row in result.rows
        if "needed_percent" in row
    }
    assert set(needed) == {
        (case, engine)
        for case in CASES
        for engine in ("ours", "FastCDC", "64 KiB blocks")
    }
    # Two of 32 frames are 6.25 %; the labels weigh more here than in a real package.
    assert 6.25 < needed["frames added", "ours"] < 12
    assert 6.25 < needed["frames added, one longer than all before", "ours"] < 12
    assert needed["frames added", "64 KiB blocks"] > 60
    assert needed["labels moved", "ours"] < 6
    assert needed["nothing changed", "ours"] == 0
    assert result.ratios["nothing changed, ours"] == 0
    planned = {
        (row["case"], row["engine"]): row for row in result.rows if "mb_per_s" in row
    }
    assert set(planned) == {
        ("planning", "ours"),
        ("planning", "FastCDC"),
        ("planning what is known", "ours"),
    }
    assert all(row["mb_per_s"] > 0 for row in planned.values())
    [cut] = [row for row in result.rows if "sent_twice_percent" in row]
    assert cut["case"] == "after a cut at 50%"
    assert 0 < cut["sent_after_mib"] < cut["package_mib"]
    assert result.ratios["sent twice after a cut"] < 1
    assert len(said) == 4 + len(CASES)


# -- as a command ----------------------------------------------------------------------

SMALL = ("dedupe", "--frames", "4", "--added", "1", "--side-px", "96", "--runs", "1")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["bench", *arguments])


def test_dedupe_prints_one_json_line() -> None:
    result = run(*SMALL, "--json")
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    told = json.loads(line)
    assert set(told) == {"bench", "machine", "rows", "ratios"}
    assert told["bench"] == "dedupe"
    assert told["ratios"]["nothing changed, ours"] == 0
    assert "Saving the first package." in result.stderr


def test_dedupe_prints_tables_of_like_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = run(*SMALL)
    assert result.exit_code == 0
    heads = [line.split()[0] for line in result.stdout.splitlines() if line]
    assert heads.index("Case") < heads.index("frames") < heads.index("Figure")
    assert heads.index("Figure") < heads.index("mb_per_s") < heads.index("cores:")

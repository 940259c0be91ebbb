"""`bench dedupe` on packages small enough for a test: every case, every engine."""

from pathlib import Path

import pytest

from sleap_rtc_plugin.bench.dedupe import PackagePlan, bench_dedupe, needed_bytes
from sleap_rtc_plugin.transport.file_source import FileSource

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
    assert len(said) == 3 + len(CASES)


@pytest.mark.parametrize(
    ("data", "chunk_bytes", "new_bytes"),
    [(b"aabbcc", 2, 0), (b"aaddddee", 2, 4), (b"xyz" * 2, 3, 3)],
    ids=repr,
)
def test_equal_chunks_are_needed_once(
    tmp_path: Path, data: bytes, chunk_bytes: int, new_bytes: int
) -> None:
    def scan(contents: bytes) -> FileSource:
        (tmp_path / "file").write_bytes(contents)
        return FileSource.scan(tmp_path, ["file"], chunk_bytes=chunk_bytes)

    known, offer = scan(b"aabbccff"), scan(data)
    assert needed_bytes(offer, known) == new_bytes + len(offer.encoded_manifest)
    assert needed_bytes(offer, offer) == 0


def test_holes_are_needed_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    known = FileSource.scan(tmp_path, ["file"])
    (tmp_path / "file").write_bytes(bytes(10_000_000))
    offer = FileSource.scan(tmp_path, ["file"])
    assert needed_bytes(offer, known) == len(offer.encoded_manifest) < 200

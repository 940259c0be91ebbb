"""Images are found where SLEAP puts them, and nowhere else."""

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from sleap_rtc_plugin.transport import frame_rows
from sleap_rtc_plugin.transport.frame_rows import FrameRows, find_frame_rows

MIN_ROW_BYTES = 4096
ROWS = np.arange(3 * 5000, dtype=np.uint32).astype(np.int8).reshape(3, 5000)


def found(path: Path) -> list[FrameRows]:
    return find_frame_rows(path, MIN_ROW_BYTES)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "labels.pkg.slp"
    with h5py.File(path, "w") as file:
        file["metadata"] = np.arange(1000)
        file["video3/video"] = ROWS
        file["video3/frame_numbers"] = np.arange(3)
        file["video/video"] = ROWS.view(np.uint8) + 1
    return path


def test_images_of_every_video(package: Path) -> None:
    rows = found(package)
    data = package.read_bytes()
    contents = {data[each.offset : each.end] for each in rows}
    assert contents == {ROWS.tobytes(), (ROWS.view(np.uint8) + 1).tobytes()}
    assert {(each.row_bytes, each.row_count) for each in rows} == {(5000, 3)}
    assert rows == sorted(rows)


def test_a_user_block_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.slp"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["video0/video"] = ROWS
    # HDF5 looks for its beginning further on; we need not.
    assert found(path) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("video0/video", {"data": ROWS, "chunks": (1, 5000)}),
        ("video0/video", {"data": ROWS, "compression": "gzip"}),
        ("video0/video", {"data": ROWS.astype(np.int16)}),
        ("video0/video", {"data": ROWS > 0}),
        ("video0/video", {"data": ROWS[0]}),
        ("video0/video", {"data": ROWS.reshape(3, 50, 100)}),
        ("video0/video", {"data": ROWS[:, :4095]}),
        ("video0/video", {"shape": (0,), "dtype": "int8"}),
        ("video0/video", {"shape": (0, 5000), "dtype": "int8"}),
        ("video0/video", {"shape": (3, 5000), "dtype": "int8"}),
        ("video0/other", {"data": ROWS}),
        ("videos/video", {"data": ROWS}),
        ("video0", {"data": ROWS}),
        ("video0/video/video", {"data": ROWS}),
    ],
    ids=str,
)
def test_other_layouts_have_no_rows(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    path = tmp_path / "labels.slp"
    with h5py.File(path, "w") as file:
        file.create_dataset(name, **options)
    assert found(path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the trap is a pipe")
def test_only_links_inside_the_file_are_followed(tmp_path: Path, package: Path) -> None:
    path = tmp_path / "evil.slp"
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(15_000))
    with h5py.File(path, "w") as file:
        file["video0"] = h5py.ExternalLink(str(package), "/video3")
        file["video1/video"] = h5py.ExternalLink(str(package), "/video3/video")
        file["video2"] = h5py.SoftLink("/video2")
        file.create_dataset(
            "video4/video", (3, 5000), "int8", external=[(str(raw), 0, 15_000)]
        )
        layout = h5py.VirtualLayout((3, 5000), "int8")
        layout[:] = h5py.VirtualSource(str(package), "video3/video", (3, 5000), "int8")
        file.create_virtual_dataset("video5/video", layout)
    package.unlink()
    os.mkfifo(package)  # whoever opened it would wait for ever
    assert found(path) == []


def test_overlapping_rows_are_not_trusted(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [FrameRows(5000, 5000, 2), FrameRows(14_999, 5000, 1)]
    monkeypatch.setattr(frame_rows, "_rows_of", lambda *_: iter(rows))
    assert found(package) == []
    rows[1] = rows[1]._replace(offset=15_000)
    assert found(package) == rows


def test_rows_beyond_the_end_are_not_trusted(package: Path) -> None:
    size_bytes = max(each.end for each in found(package))
    with package.open("r+b") as file:
        file.truncate(size_bytes - 1)
    assert found(package) == []


def test_one_dataset_under_two_names_is_not_trusted(package: Path) -> None:
    with h5py.File(package, "a") as file:
        file["video9"] = file["video3"]
    assert found(package) == []


def test_other_files_have_no_rows(package: Path) -> None:
    other = package.rename(package.with_suffix(".h5"))
    assert found(other) == []
    text = package.with_name("text.slp")
    text.write_text("no HDF5")
    assert found(text) == []


def test_a_layout_that_takes_too_much_reading(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_rows, "MAX_LAYOUT_BYTES", 1000)
    assert found(package) == []


def test_without_h5py_there_are_no_rows(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert found(package) == []


def test_damaged_files_are_plain_files(package: Path) -> None:
    sound = package.read_bytes()
    chance = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(sound)
        for _ in range(chance.integers(1, 21)):
            damaged[chance.integers(8, 6000)] = chance.integers(256)
        package.write_bytes(damaged)
        for rows in found(package):
            assert 0 <= rows.offset < rows.end <= len(sound)

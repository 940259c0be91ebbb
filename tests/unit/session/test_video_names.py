"""Videos of labels files get other names, and nothing else changes."""

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import sleap_io
from support.saved_projects import write_project

from sleap_rtc_plugin.session.video_names import (
    rename_videos,
    rename_videos_in_results,
)

NAMES = {"/data/lab/a.mp4": "C:/Users/Ann/a.mp4"}


def video(name: str) -> dict[str, Any]:
    return {
        "filename": name,
        "backend": {
            "type": "MediaVideo",
            "filename": name,
            "shape": [5, 8, 8, 1],
            "grayscale": True,
            "fps": 30.0,
        },
    }


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A labels file of two videos, with more in it than videos."""
    path = write_project(tmp_path / "results")
    with h5py.File(path, "r+") as file:
        del file["videos_json"]
        file["videos_json"] = [
            json.dumps(video(name)) for name in ("/data/lab/a.mp4", "/b.mp4")
        ]
    return path


def names_in(path: Path) -> list[str]:
    labels = sleap_io.load_slp(str(path), open_videos=False)
    return [video.filename for video in labels.videos]


def contents(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def look(name: str, member: Any) -> None:
        if isinstance(member, h5py.Dataset) and name != "videos_json":
            found[name] = np.asarray(member[()]).tolist()

    with h5py.File(path) as file:
        file.visititems(look)
    return found


def test_only_the_names_change(labels: Path) -> None:
    before = contents(labels)
    assert rename_videos(labels, NAMES)
    assert names_in(labels) == ["C:/Users/Ann/a.mp4", "/b.mp4"]
    assert repr(contents(labels)) == repr(before)  # NaN equals no NaN
    read = sleap_io.load_slp(str(labels), open_videos=False)
    assert list(read.videos[0].shape) == [5, 8, 8, 1]


def test_there_and_back_again(labels: Path) -> None:
    before = names_in(labels)
    rename_videos(labels, NAMES)
    rename_videos(labels, {new: old for old, new in NAMES.items()})
    assert names_in(labels) == before


def test_results_are_changed_in_a_copy(labels: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.slp"
    os.link(labels, kept)
    before = kept.read_bytes()
    rename_videos_in_results(labels.parent, NAMES)
    assert names_in(labels)[0] == "C:/Users/Ann/a.mp4"
    assert kept.read_bytes() == before
    assert {p.suffix for p in labels.parent.iterdir() if p.is_file()} == {".slp"}


def test_what_needs_no_change_stays_the_same_file(labels: Path) -> None:
    before = labels.stat()
    rename_videos_in_results(labels.parent, {})
    rename_videos_in_results(labels.parent, {"/elsewhere.mp4": "/x.mp4"})
    assert labels.stat().st_ino == before.st_ino
    assert labels.stat().st_mtime_ns == before.st_mtime_ns


def replace_videos(file: Any, value: Any) -> None:
    del file["videos_json"]
    if value is not None:
        file["videos_json"] = value


@pytest.mark.parametrize(
    "value",
    [
        None,
        h5py.ExternalLink("/etc/passwd", "/x"),
        h5py.SoftLink("/points"),
        np.zeros((2, 2)),
        [b"{"],
        [b"[]"],
        [b"1"],
        [b"[" * 20_000],
    ],
)
def test_a_file_in_which_it_does_not_work_stays_as_it_is(
    labels: Path, value: Any
) -> None:
    with h5py.File(labels, "r+") as file:
        replace_videos(file, value)
    before = labels.read_bytes()
    rename_videos_in_results(labels.parent, NAMES)
    assert labels.read_bytes() == before


@pytest.mark.parametrize("data", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_a_file_that_is_none_stays_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.slp"
    path.write_bytes(data)
    rename_videos_in_results(tmp_path, NAMES)
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_virtual_and_external_lists_are_not_read(labels: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"x" * 100)
    with h5py.File(labels, "r+") as file:
        del file["videos_json"]
        file.create_dataset("videos_json", (1,), "S100", external=[(str(raw), 0, 100)])
    before = labels.read_bytes()
    rename_videos_in_results(labels.parent, NAMES)
    assert labels.read_bytes() == before

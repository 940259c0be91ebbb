"""Which images of a training the worker offers while sleap-nn goes on drawing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pictures import chunk, png

from sleap_rtc_plugin.protocol import limits
from sleap_rtc_plugin.protocol.messages import TrainStep
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_worker import file_manager
from sleap_rtc_worker.file_manager import FileManager

JOB = "job-" + "0" * 20
STEP = TrainStep(config="c.yaml", labels="l.slp", run_name="run=1", head="centroid")


@pytest.fixture
def files(tmp_path: Path) -> FileManager:
    return FileManager(tmp_path)


@pytest.fixture
def viz(files: FileManager) -> Path:
    folder = files.package_dir(JOB) / "models" / STEP.run_name / "viz"
    folder.mkdir(parents=True)
    return folder


def names(source: FileSource) -> list[str]:
    return [entry.path for entry in source.manifest.files]


def test_there_may_be_none_yet(files: FileManager) -> None:
    assert names(files.images(JOB, STEP)) == []


def test_what_is_no_whole_image_is_left_for_the_next_time(
    files: FileManager, viz: Path
) -> None:
    (viz / "validation.0000.png").write_bytes(png())
    (viz / "train.pafs_magnitude.0000.png").write_bytes(png(1))
    (viz / "validation.0001.png").write_bytes(png()[:-3])
    (viz / "train.0001.png").write_bytes(b"")
    (viz / "train.0002.png").mkdir()
    (viz / "notes.txt").write_text("x")
    (viz / "validation.0002.png").write_bytes(
        png(extra=chunk(b"tEXt", bytes(limits.MAX_IMAGE_BYTES)))
    )
    source = files.images(JOB, STEP)
    assert sorted(names(source)) == [
        "train.pafs_magnitude.0000.png",
        "validation.0000.png",
    ]
    assert source.read_chunk(source.manifest.chunk(0))


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_leads_nowhere(files: FileManager, viz: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (viz / "train.0000.png").symlink_to(tmp_path / "secret.png")
    assert names(files.images(JOB, STEP)) == []


def test_the_newest_are_offered(
    files: FileManager, viz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_manager, "MAX_IMAGES_PER_FETCH", 3)
    for number in range(5):
        path = viz / f"train.{number:04d}.png"
        path.write_bytes(png(number))
        os.utime(path, ns=(number, number))
    assert names(files.images(JOB, STEP)) == [
        "train.0004.png",
        "train.0003.png",
        "train.0002.png",
    ]
    monkeypatch.setattr(
        file_manager, "MAX_IMAGES_TOTAL_BYTES", len(png(4)) + len(png(3))
    )
    assert len(names(files.images(JOB, STEP))) == 2


@pytest.mark.parametrize(
    "change",
    [lambda path: path.unlink(), lambda path: path.write_bytes(png(9))],
    ids=["deleted", "drawn again"],
)
def test_an_image_that_changes_between_two_looks_is_left_out(
    files: FileManager,
    viz: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
) -> None:
    for name in ("train.0000.png", "train.0001.png"):
        (viz / name).write_bytes(png())
    scan = FileSource.scan

    def scan_then_change(root: Path, paths: list[str]) -> FileSource:
        found = scan(root, paths)
        if paths == ["train.0001.png"]:
            change(root / paths[0])
        return found

    monkeypatch.setattr(FileSource, "scan", scan_then_change)
    assert names(files.images(JOB, STEP)) == ["train.0000.png"]

"""Files to stage, and how tests of staging areas bring them in."""

import shutil
from pathlib import Path

import pytest

from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.staging_area import StagingArea

FILES = {
    "a/one": b"x" * 2500,
    "a/two": b"y" * 700,
    "same": b"x" * 2500,
    "empty": b"",
    "also-empty": b"",
}


def source_in(root: Path) -> FileSource:
    """Write `FILES` and offer them in chunks of 1000 bytes."""
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return FileSource.scan(root, list(FILES), chunk_bytes=1000)


def store(area: StagingArea, source: FileSource, *numbers: int) -> None:
    for number in numbers or range(source.manifest.chunk_count):
        data = source.read_chunk(source.manifest.chunk(number))
        assert area.store(number, data)


def fill(root: Path, source: FileSource) -> StagingArea:
    area = StagingArea(root)
    area.inventory(source.manifest)
    store(area, source)
    return area


def contents(area: StagingArea) -> dict[str, bytes]:
    return {
        path.relative_to(area.files).as_posix(): path.read_bytes()
        for path in area.files.rglob("*")
        if path.is_file()
    }


def let_disk_have(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    usage = shutil._ntuple_diskusage(free_bytes * 2, free_bytes, free_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

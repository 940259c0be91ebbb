"""What `bench dedupe` counts."""

from pathlib import Path

import pytest

from sleap_rtc_plugin.bench.dedupe import needed_bytes
from sleap_rtc_plugin.transport.file_source import FileSource


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

"""Whatever a zip holds: nothing appears outside the folder, nothing else is raised."""

import io
import pickle
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import PackageError, UnsafeCheckpoint
from sleap_rtc_plugin.session.package_archive import extract_zip
from sleap_rtc_plugin.transport.checkpoint_scan import scan_result
from sleap_rtc_plugin.transport.zip_directory import read_end_record

PIECES = st.sampled_from(
    [
        "..",
        ".",
        "",
        "a",
        "A",
        "b.yaml",
        "/",
        "\\",
        "C:",
        "~",
        "con",
        "\x00",
        "é",
        "e\u0301",
    ]
)
NAMES = st.one_of(
    st.lists(PIECES, min_size=1, max_size=5).map("/".join),
    st.text(min_size=1, max_size=30).filter(
        lambda text: not any(0xD800 <= ord(char) < 0xE000 for char in text)
    ),
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(
    st.lists(
        st.tuples(
            NAMES, st.binary(max_size=20), st.sampled_from([0, 0o120777, 0o100644])
        ),
        max_size=6,
    )
)
def test_nothing_is_written_outside(members: list[tuple[str, bytes, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        workdir = base / "deep" / "work"
        workdir.mkdir(parents=True)
        path = base / "p.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data, mode in members:
                info = zipfile.ZipInfo("x")
                info.filename = name
                info.external_attr = mode << 16
                archive.writestr(info, data)
        try:
            root, extracted = extract_zip(path, workdir)
        except PackageError as error:
            assert str(error)
            assert list(workdir.iterdir()) == []
        else:
            assert list(workdir.iterdir()) == [root]
            files = {
                p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()
            }
            assert len(files) == len(extracted)
            assert not any(p.is_symlink() for p in root.rglob("*"))
        assert sorted(base.iterdir()) == [base / "deep", path]
        assert list((base / "deep").iterdir()) == [workdir]


@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06"]))
def test_any_bytes_are_refused_with_words(data: bytes, magic: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.zip"
        path.write_bytes(magic + data)
        with path.open("rb") as file:
            read_end_record(file)
        try:
            _, members = extract_zip(path, Path(folder))
        except PackageError as error:
            assert str(path) in str(error)
        else:
            assert members == []  # 22 bytes of nothing are an empty zip


@given(st.data())
def test_one_changed_byte_never_gives_other_contents(data: st.DataObject) -> None:
    contents = {"a.yaml": b"alpha: 1\n" * 9, "sub/b.slp": bytes(range(200))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in contents.items():
                archive.writestr(name, value)
        changed = bytearray(path.read_bytes())
        index = data.draw(st.integers(0, len(changed) - 1))
        changed[index] ^= data.draw(st.integers(1, 255))
        path.write_bytes(changed)
        try:
            root, members = extract_zip(path, Path(folder))
        except PackageError:
            return
        for member in members:
            value = (root / member.path).read_bytes()
            assert value in contents.values()


def _checkpoint() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": [1.5, "x"]}, 2))
    return buffer.getvalue()


@given(st.data(), st.sampled_from(["a.ckpt", "a.npz", "a.npy"]))
def test_any_result_passes_or_is_refused(data: st.DataObject, name: str) -> None:
    changed = bytearray(_checkpoint())
    for _ in range(data.draw(st.integers(0, 3))):
        index = data.draw(st.integers(0, len(changed) - 1))
        changed[index] = data.draw(st.integers(0, 255))
    start = data.draw(st.sampled_from([b"", b"\x93NUMPY\x01\x00"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(start + changed)
        try:
            scan_result(path, name)
        except UnsafeCheckpoint as error:
            assert name in str(error)

"""Which results are refused because loading them could run code."""

import collections
import datetime
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleap_rtc_plugin.protocol.errors import StorageFailed, UnsafeCheckpoint
from sleap_rtc_plugin.transport import checkpoint_scan
from sleap_rtc_plugin.transport.checkpoint_scan import scan_result


class Attack:
    """Pickles to a call of `os.system`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


# A state dict as torch.save pickles it (protocol 2): a tensor of one float.
TENSOR = (
    b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02("
    b"(X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05"
    b"X\x03\x00\x00\x00cpuq\x06K\x01tq\x07QK\x00K\x01\x85q\x08K\x01\x85q\t\x89"
    b"ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs."
)


def checkpoint(data: bytes, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", struct.pack("<f", 1.5))
        for name, value in more.items():
            archive.writestr(name, value)
    return buffer.getvalue()


def scan(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    scan_result(path, f"models/r/{name}")


def refused(tmp_path: Path, name: str, data: bytes) -> str:
    with pytest.raises(UnsafeCheckpoint) as caught:
        scan(tmp_path, name, data)
    assert f"The result models/r/{name} is refused (" in str(caught.value)
    return str(caught.value)


def test_weights(tmp_path: Path) -> None:
    scan(tmp_path, "best.ckpt", checkpoint(TENSOR))
    plain = {
        "epoch": 3,
        "loss": 0.5,
        "names": ["a"],
        "s": {1, 2},
        "b": b"raw",
        "n": None,
    }
    counter = collections.Counter(["a"])
    scan(tmp_path, "best.ckpt", checkpoint(pickle.dumps([plain, counter], 2)))


def test_call(tmp_path: Path) -> None:
    words = refused(tmp_path, "best.ckpt", checkpoint(pickle.dumps(Attack(), 2)))
    assert "it would call" in words
    assert "system" in words


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("suffix", ["ckpt", "npz", "npy"])
def test_call_in_every_protocol(tmp_path: Path, protocol: int, suffix: str) -> None:
    data = pickle.dumps(Attack(), protocol)
    if suffix == "ckpt":
        refused(tmp_path, "a.ckpt", checkpoint(data))
    else:
        array = io.BytesIO()
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(array, header)
        array.write(data)
        whole = array.getvalue()
        refused(tmp_path, f"m.{suffix}", npz(whole) if suffix == "npz" else whole)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02ctorch._utils\nos.system\n.",
        b"\x80\x02ctorch\n_utils._rebuild_tensor\n.",
        b"\x80\x02cbuiltins\neval\n.",
        b"\x80\x02ctorch\nload\n.",
    ],
)
def test_other_ways_to_a_call(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, "best.ckpt", checkpoint(data))


def test_object_of_another_kind(tmp_path: Path) -> None:
    data = pickle.dumps(datetime.date(2026, 1, 1), 2)
    assert "datetime.date" in refused(tmp_path, "a.ckpt", checkpoint(data))


@pytest.mark.parametrize("name", ["a.ckpt", "A.CKPT", "a.pt", "a.pth", "a.bin"])
def test_every_name_that_torch_would_load(tmp_path: Path, name: str) -> None:
    refused(tmp_path, name, checkpoint(pickle.dumps(Attack(), 2)))


def test_second_pickle_behind_the_first(tmp_path: Path) -> None:
    data = checkpoint(TENSOR + pickle.dumps(Attack(), 2))
    assert "something behind its pickle" in refused(tmp_path, "a.ckpt", data)


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"\xff\xff", TENSOR[:50]])
def test_not_a_pickle(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, "a.ckpt", checkpoint(data))


def test_old_format_without_zip(tmp_path: Path) -> None:
    words = refused(tmp_path, "a.ckpt", pickle.dumps({"a": 1}, 2))
    assert "it is not a zip, as sleap-nn writes it" in words


def test_zip_behind_another(tmp_path: Path) -> None:
    data = checkpoint(pickle.dumps(Attack(), 2)) + checkpoint(TENSOR)
    assert "something before or behind" in refused(tmp_path, "a.ckpt", data)


def test_zip_with_a_comment(tmp_path: Path) -> None:
    data = checkpoint(TENSOR)
    with_comment = data[:-2] + b"\x02\x00hi"
    assert "something before or behind" in refused(tmp_path, "a.ckpt", with_comment)


@pytest.mark.parametrize(
    "name", ["other/data.pkl", "archive/constants.pkl", "archive/sub/data.pkl"]
)
def test_second_pickle_in_the_zip(tmp_path: Path, name: str) -> None:
    words = refused(tmp_path, "a.ckpt", checkpoint(TENSOR, **{name: TENSOR}))
    assert "not laid out as torch.save does it" in words


def test_two_members_that_differ_in_case(tmp_path: Path) -> None:
    data = checkpoint(TENSOR, **{"archive/DATA.pkl": pickle.dumps(Attack(), 2)})
    assert "the same name" in refused(tmp_path, "a.ckpt", data)


def test_compressed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", TENSOR)
    assert "compressed" in refused(tmp_path, "a.ckpt", buffer.getvalue())


def test_pickle_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_scan, "MAX_CHECKPOINT_PICKLE_BYTES", 10)
    assert "is larger than 10 bytes" in refused(tmp_path, "a.ckpt", checkpoint(TENSOR))


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_scan, "MAX_CHECKPOINT_MEMBERS", 1)
    assert "it holds 2 members" in refused(tmp_path, "a.ckpt", checkpoint(TENSOR))


def test_bare_pickle(tmp_path: Path) -> None:
    assert "it is a bare pickle" in refused(tmp_path, "a.pkl", b"\x80\x02N.")


def test_other_files_are_not_looked_at(tmp_path: Path) -> None:
    scan(tmp_path, "training_log.csv", pickle.dumps(Attack()))


def test_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        scan_result(tmp_path / "a.ckpt", "a.ckpt")


# -- numpy, which SLEAP loads with allow_pickle ---------------------------------------


def npz(*arrays: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(arrays):
            archive.writestr(f"{number}.npy", data)
    return buffer.getvalue()


def metrics() -> dict[str, Any]:
    return {
        "voc": {"mAP": np.float64(0.5), "list": np.arange(3)},
        "dist": np.array([np.nan, 1.0]),
        "names": np.array(["a", "b"]),
        "objects": np.array([{"a": 1}, None], dtype=object),
        "flag": np.bool_(True),
        "none": None,
    }


def test_metrics_as_sleap_nn_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "metrics.val.0.npz"
    np.savez_compressed(path, metrics=metrics(), numbers=np.zeros((3, 4)))  # type: ignore[arg-type]
    scan_result(path, path.name)


def test_plain_arrays(tmp_path: Path) -> None:
    types = np.dtype([("x", "f4"), ("n", "i8", (2,))])
    np.savez(tmp_path / "a.npz", a=np.zeros(3, types), b=np.zeros(2, "M8[D]"))
    scan_result(tmp_path / "a.npz", "a.npz")
    np.save(tmp_path / "b.npy", np.zeros(3))
    scan_result(tmp_path / "b.npy", "b.npy")


def test_attack_among_metrics(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, good=np.zeros(3), metrics={**metrics(), "x": Attack()})  # type: ignore[arg-type]
    with pytest.raises(UnsafeCheckpoint, match="it would call"):
        scan_result(path, "m.npz")


def test_attack_in_a_field(tmp_path: Path) -> None:
    array = np.zeros(1, np.dtype([("x", "f4"), ("o", "O")]))
    array[0]["o"] = Attack()
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnsafeCheckpoint, match="it would call"):
        scan_result(tmp_path / "a.npy", "a.npy")


def test_npz_that_is_a_pickle(tmp_path: Path) -> None:
    refused(tmp_path, "m.npz", pickle.dumps(Attack()))


def test_name_put_together_while_running(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    # The two strings stand on the stack, but a value in between was taken off again.
    data = b"\x80\x04\x8c\x02os\x8c\x06systemN0\x93."
    words = refused(tmp_path, "a.npy", header.getvalue() + data)
    assert "puts a name together while it runs" in words


def test_memo_cannot_hide_a_name(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    # memo 0 is "numpy" first and "os" later; the memo is read after the change.
    data = b"\x80\x04\x8c\x05numpyq\x00\x8c\x02osq\x00h\x00\x8c\x06system\x93."
    assert "os.system" in refused(tmp_path, "a.npy", header.getvalue() + data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x01\x00\x05\x00{bad}",
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
        b"\x93NUMPY\x01\x00\x03\x00{ }",
    ],
)
def test_array_headers_that_cannot_be_read(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, "a.npy", data)

"""What lies on a worker's mounts is not sent, and nothing else there is ever touched.

Real programs; only the trainer is scripted, except where a video is trained on.
"""

import json
from pathlib import Path

import h5py
import pytest
from support.packages import extract, pad_labels
from support.programs import Programs, Worker
from support.shared_mounts import names_below

USAGE, REFUSED, BAD_PACKAGE = 2, 4, 5
PADDING_MIB = 12


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "lab"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def worker(programs: Programs, lab: Path) -> Worker:
    mount = ("--mount", f"lab={lab}", "--name", "gpu-box")
    return programs.scripted_worker("train", *mount).wait_ready()


@pytest.fixture
def package(small_package: Path, tmp_path: Path) -> Path:
    """A package as a folder, with labels that are worth looking for."""
    padded = pad_labels(small_package, tmp_path / "padded.zip", PADDING_MIB, tmp_path)
    return extract(padded, tmp_path / "home" / "ann" / "flies")


# -- browsing --------------------------------------------------------------------------


def test_mounts_are_browsed(programs: Programs, worker: Worker, lab: Path) -> None:
    (lab / "2026").mkdir()
    (lab / "2026" / "fly [red].mp4").write_bytes(b"x" * 1_500_000)
    (lab / "2026" / "out").symlink_to("/etc")
    where = ("--session", worker.session)
    mounts = programs.client("files", *where)
    assert mounts.wait() == 0, mounts.story()
    assert [line.split() for line in mounts.out] == [["lab/"]]
    folder = programs.client("files", "lab/2026/", *where, "--worker", "gpu-box")
    assert folder.wait() == 0, folder.story()
    assert [line.strip() for line in folder.out] == ["1.5 MB  fly [red].mp4"]
    as_json = programs.client("files", "lab", *where, "--json")
    assert as_json.wait() == 0, as_json.story()
    assert json.loads(as_json.out[0]) == {"name": "2026", "kind": "folder", "bytes": 0}


def test_what_is_not_there_is_said_in_a_sentence(
    programs: Programs, worker: Worker
) -> None:
    where = ("--session", worker.session)
    for place, code in (("lab/nothing", REFUSED), ("x", REFUSED), ("a/../b", USAGE)):
        client = programs.client("files", place, *where)
        assert client.wait() == code, client.story()
        assert client.out == []
        assert client.err[-1].endswith((".", "FOLDER"))


@pytest.mark.parametrize(
    "word", ["lab", "=/", "a b=/", "lab=relative", "lab=/nothing/there", "lab="]
)
def test_what_is_no_mount_is_refused_at_the_start(
    programs: Programs, word: str
) -> None:
    worker = programs.worker("--mount", word)
    assert worker.wait() == USAGE, worker.story()
    assert "--mount" in worker.err[-1]


def test_two_mounts_of_one_name_are_refused(programs: Programs, lab: Path) -> None:
    worker = programs.worker("--mount", f"a={lab}", "--mount", f"a={lab.parent}")
    assert worker.wait() == USAGE, worker.story()
    assert "two mounts are named a" in worker.err[-1]


# -- packages --------------------------------------------------------------------------


def test_labels_that_lie_on_a_mount_are_not_sent(
    programs: Programs, worker: Worker, lab: Path, package: Path, output: Path
) -> None:
    copy = lab / "exports" / "2026" / "demo.pkg.slp"
    copy.parent.mkdir(parents=True)
    copy.write_bytes((package / "demo.pkg.slp").read_bytes())
    before = {name: (lab / name).stat().st_mtime_ns for name in names_below(lab)}
    client = programs.train(package, worker.session, output)
    assert client.wait() == 0, client.story()
    report = client.report
    assert report["state"] == "succeeded"
    assert report["bytes_sent"] < 0.01 * report["bytes_total"]
    assert report["bytes_sent"] + report["bytes_reused"] == report["bytes_total"]
    [found] = [event for event in client.events if event.get("event") == "mounts"]
    assert found["is_complete"]
    assert found["files"] == [
        {
            "path": "demo.pkg.slp",
            "mount": "lab",
            "place": "exports/2026/demo.pkg.slp",
            "bytes": copy.stat().st_size,
        }
    ]
    assert any("gpu-box has demo.pkg.slp already" in line for line in client.err)
    files = programs.folder / "worker-data" / "jobs" / report["job_id"] / "package"
    assert (files / "files" / "demo.pkg.slp").read_bytes() == copy.read_bytes()
    assert before == {
        name: (lab / name).stat().st_mtime_ns for name in names_below(lab)
    }


def test_labels_that_only_look_the_same_are_sent(
    programs: Programs, worker: Worker, lab: Path, package: Path, output: Path
) -> None:
    data = (package / "demo.pkg.slp").read_bytes()
    (lab / "demo.pkg.slp").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    client = programs.train(package, worker.session, output)
    assert client.wait() == 0, client.story()
    assert client.report["bytes_sent"] > PADDING_MIB * 1024 * 1024
    assert not any(event.get("event") == "mounts" for event in client.events)


# -- labels that name videos -----------------------------------------------------------


def name_video(labels: Path, name: str) -> None:
    """Add a video to labels that lies outside them."""
    video = {"filename": name, "backend": {"type": "MediaVideo", "filename": name}}
    with h5py.File(labels, "r+") as file:
        rows = [*file["videos_json"][:], json.dumps(video).encode()]
        del file["videos_json"]
        file["videos_json"] = rows


@pytest.mark.needs_sleap_nn
def test_labels_that_name_a_video_outside_every_mount_are_refused(
    programs: Programs, lab: Path, small_package: Path, tmp_path: Path, output: Path
) -> None:
    package = extract(small_package, tmp_path / "flies")
    outside = lab.parent / "secret.mp4"
    outside.write_bytes(b"\0\0\0\x18ftypmp42")
    (lab / "way out.mp4").symlink_to(outside)
    worker = programs.worker("--mount", f"lab={lab}").wait_ready()
    name_video(package / "demo.pkg.slp", str(lab / "way out.mp4"))
    client = programs.train(package, worker.session, output)
    assert client.wait() == BAD_PACKAGE, client.story()
    assert client.report["state"] == "rejected"
    assert client.report["error"]["code"] == "labels_unreadable"
    assert "way out.mp4 lies outside" in client.report["error"]["message"]
    states = [e["state"] for e in client.events if e.get("event") == "state"]
    assert "starting" not in states

"""A package and its results through storage that both programs mount."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs import POSIX, Program, Programs, wait_for
from support.shared_mounts import names_below, two_mounts

pytestmark = POSIX
MOUNT, UMOUNT = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
EMPTY = {"jobs", "probes"}


@pytest.fixture(params=["links", "bind mounts"])
def views(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Path, Path]]:
    """Two mount points, in two places, of the same storage."""
    laptop, gpu = two_mounts(tmp_path)
    if request.param == "links":
        yield laptop, gpu
        return
    with contextlib.ExitStack() as stack:
        for view in (laptop, gpu):
            exported = view.resolve()
            view.unlink()
            view.mkdir()
            bound = subprocess.run(
                [MOUNT, "--bind", exported, view], capture_output=True, check=False
            )
            if bound.returncode:
                pytest.skip("this user may mount nothing")
            stack.callback(subprocess.run, [UMOUNT, view], check=True)
        yield laptop, gpu


def assert_home(client: Program, output: Path) -> None:
    assert client.wait() == 0, client.story()
    report = client.report
    assert report["state"] == "succeeded"
    assert report["bytes_sent"] + report["bytes_reused"] == report["bytes_total"]
    (model,) = report["models"]
    assert (Path(model) / "best.ckpt").is_file()
    assert not (output / ".sleap-remote").exists()


def warnings(client: Program) -> list[str]:
    return [line for line in client.err if "is not used" in line]


def test_there_and_back(
    programs: Programs, small_package: Path, tmp_path: Path, views: tuple[Path, Path]
) -> None:
    worker = programs.scripted_worker(
        "train", "--shared-storage-root", views[1], "--name", "gpu-box"
    ).wait_ready()
    output = tmp_path / "out"
    where = ("--shared-storage-root", str(views[0]))
    client = programs.train(small_package, worker.session, output, *where)
    assert_home(client, output)
    assert not warnings(client)
    assert names_below(views[0]) == EMPTY


def test_by_the_environment(
    programs: Programs, small_package: Path, tmp_path: Path
) -> None:
    laptop, gpu = two_mounts(tmp_path)
    worker = programs.scripted_worker("train", SHARED_STORAGE_ROOT=str(gpu))
    session = worker.wait_ready().session
    where = ("--session", session, "--output", tmp_path / "out", "--json")
    client = programs.client(
        "train", small_package, *where, SHARED_STORAGE_ROOT=str(laptop)
    )
    assert_home(client, tmp_path / "out")
    assert not warnings(client)
    assert names_below(laptop) == EMPTY


@pytest.mark.parametrize("has_one", [True, False])
def test_without_a_common_folder_it_goes_over_the_link(
    programs: Programs, small_package: Path, tmp_path: Path, has_one: bool
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    words = ("--shared-storage-root", tmp_path / "other") if has_one else ()
    worker = programs.scripted_worker("train", *words).wait_ready()
    where = ("--shared-storage-root", str(tmp_path / "one"))
    client = programs.train(small_package, worker.session, tmp_path / "out", *where)
    assert_home(client, tmp_path / "out")
    assert len(warnings(client)) == 2
    assert str(tmp_path / "other") not in client.story()
    assert names_below(tmp_path / "one") == {"probes"}


def test_a_mount_that_goes_while_the_job_runs(
    programs: Programs, small_package: Path, tmp_path: Path
) -> None:
    """The results come over the link, and nothing stays behind."""
    laptop, gpu = two_mounts(tmp_path)
    gate = tmp_path / "gate"
    worker = programs.scripted_worker(
        f"gated,gate={gate}", "--shared-storage-root", gpu
    ).wait_ready()
    where = ("--shared-storage-root", str(laptop))
    client = programs.train(small_package, worker.session, tmp_path / "out", *where)
    client.wait_event(event="progress", kind="epoch_end")
    assert names_below(laptop) == EMPTY
    gpu.unlink()
    gate.touch()
    assert_home(client, tmp_path / "out")
    assert len(warnings(client)) == 1
    wait_for(lambda: names_below(laptop) == EMPTY, "an empty storage")

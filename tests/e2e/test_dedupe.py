"""What a worker has of earlier packages is not sent; what changes meanwhile is.

Real programs; only the trainer is scripted.
"""

import os
import random
from pathlib import Path
from typing import Any

import pytest
from support.packages import (
    LABELS,
    bytes_on_disk,
    extract,
    pad_labels,
    read_members,
    with_images,
)
from support.programs import Program, Programs, Worker, wait_for

MIB = 1024 * 1024
IMAGE_BYTES = 40_000
IMAGES = 300
ADDED = 9
PADDING_MIB = 40


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def images(count: int, seed: int) -> list[bytes]:
    """Return what no two packages share by chance, and nothing compresses."""
    rng = random.Random(seed)  # noqa: S311 - noise, not a secret
    sizes = [IMAGE_BYTES + rng.randrange(1000) for _ in range(count)]
    return [rng.randbytes(size) + b"\x01" for size in sizes]


@pytest.fixture(scope="session")
def packages(
    small_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A package, and the next one: more images between the others, one longer."""
    folder = tmp_path_factory.mktemp("packages")
    known, new = images(IMAGES, 1), images(ADDED, 2)
    new[-1] += b"longer than all before"
    grown = list(known)
    for number, image in enumerate(new):
        grown.insert(number * IMAGES // ADDED, image)
    first, second = folder / "flies.zip", folder / "next" / "flies.zip"
    second.parent.mkdir()
    return (
        with_images(small_package, first, known, folder),
        with_images(small_package, second, grown, folder),
    )


def train(
    programs: Programs, package: Path, worker: Worker, output: Path
) -> dict[str, Any]:
    client = programs.train(package, worker.session, output)
    assert client.wait() == 0, client.story()
    assert client.report["state"] == "succeeded"
    assert_arrived(programs, client.report, read_members(package))
    return client.report


def assert_arrived(
    programs: Programs, report: dict[str, Any], members: dict[str, bytes]
) -> None:
    """The worker's files are those of the package, byte by byte."""
    jobs = programs.folder / "worker-data" / "jobs"
    files = jobs / report["job_id"] / "package" / "files"
    for name, data in members.items():
        assert (files / name).read_bytes() == data, name


def test_of_a_package_with_more_images_only_those_are_sent(
    programs: Programs, packages: tuple[Path, Path], output: Path
) -> None:
    worker = programs.scripted_worker("train").wait_ready()
    first = train(programs, packages[0], worker, output)
    assert first["bytes_sent"] + first["bytes_reused"] == first["bytes_total"]
    assert first["bytes_sent"] > IMAGES * IMAGE_BYTES
    second = train(programs, packages[1], worker, output)
    assert second["bytes_sent"] + second["bytes_reused"] == second["bytes_total"]
    assert second["bytes_reused"] > 0.9 * second["bytes_total"]
    assert train(programs, packages[0], worker, output)["bytes_sent"] == 0
    # The worker's next room is told nothing of it.
    worker.terminate()
    worker.wait()
    again = programs.scripted_worker("train").wait_ready()
    report = train(programs, packages[0], again, output)
    assert report["bytes_sent"] == first["bytes_sent"]


def test_a_worker_that_keeps_nothing_is_sent_everything(
    programs: Programs, packages: tuple[Path, Path], output: Path
) -> None:
    worker = programs.scripted_worker("train", "--store-limit", "0").wait_ready()
    for package in packages:
        report = train(programs, package, worker, output)
        assert report["bytes_sent"] > IMAGES * IMAGE_BYTES
    assert not (programs.folder / "worker-data" / "store").exists()


# -- two at once ---------------------------------------------------------------------


def stored_files(programs: Programs) -> list[Path]:
    return list(programs.folder.glob("worker-data/store/*/files/*"))


def test_two_clients_that_send_the_same_package_at_once(
    programs: Programs, folder: Path, tmp_path: Path
) -> None:
    """Both arrive, as jobs of their own, and what they share is kept once."""
    worker = programs.scripted_worker("train").wait_ready()
    clients = []
    for name in ("one", "two"):
        # Two people: neither knows what the other has submitted.
        home = tmp_path / name
        clients.append(
            programs.client(
                *("train", folder, "--session", worker.session),
                *("--output", home / "out", "--json"),
                XDG_STATE_HOME=str(home),
                XDG_CACHE_HOME=str(home),
            )
        )
    for client in clients:
        assert client.wait() == 0, client.story()
        labels = (folder / LABELS).read_bytes()
        assert_arrived(programs, client.report, {LABELS: labels})
    one, two = clients
    assert one.report["job_id"] != two.report["job_id"]
    assert not list(programs.folder.glob("worker-data/jobs/*/package/parts/*"))
    labels = [f for f in stored_files(programs) if f.stat().st_size > PADDING_MIB * MIB]
    assert len(labels) == 1


def test_a_command_that_is_run_twice_at_once(
    programs: Programs, folder: Path, output: Path
) -> None:
    """The later one takes over; the earlier one says so, or brings it home too."""
    worker = programs.scripted_worker("train").wait_ready()
    first = programs.train(folder, worker.session, output)
    wait_for_part(first, programs.folder / "worker-data", PADDING_MIB * MIB // 4)
    # On a quick machine it would be done before the other one has begun.
    with first.paused():
        second = programs.train(folder, worker.session, output)
        assert second.wait() == 0, second.story()
    assert second.report["job_id"] == first.events[0]["job_id"]
    # Whichever it hears first: that it is not needed, or that the job has ended.
    if first.wait() == 0:
        assert first.report["models"] == second.report["models"]
    else:
        assert first.report["error"]["code"] == "transfer_taken_over", first.story()


# -- files that change on their way ----------------------------------------------------


def change(labels: Path) -> None:
    """Write other bytes of the same size near the end, in place."""
    with labels.open("r+b") as file:
        file.seek(labels.stat().st_size * 9 // 10)
        file.write(os.urandom(MIB))


@pytest.fixture
def folder(small_package: Path, tmp_path: Path) -> Path:
    """A package that was extracted, and takes a while to send."""
    package = pad_labels(small_package, tmp_path / "l.zip", PADDING_MIB, tmp_path)
    return extract(package, tmp_path / "flies")


def wait_for_part(client: Program, data: Path, size_bytes: int) -> None:
    """Wait until so much of a package has arrived at the worker."""

    def arrived() -> bool:
        assert client.is_running, client.story()
        return bytes_on_disk(data, "jobs/*/package/parts/*.part") > size_bytes

    wait_for(arrived, "a part of the package")


def test_a_file_that_changed_on_its_way_is_sent_as_it_is_now(
    programs: Programs, folder: Path, output: Path
) -> None:
    worker = programs.scripted_worker("train").wait_ready()
    client = programs.train(folder, worker.session, output)
    wait_for_part(client, programs.folder / "worker-data", PADDING_MIB * MIB // 4)
    change(folder / LABELS)
    assert client.wait() == 0, client.story()
    report = client.report
    assert report["state"] == "succeeded"
    moved = report["bytes_sent"] + report["bytes_reused"]
    # Of the quarter that had arrived of the earlier version, most was of use.
    assert 0 <= moved - report["bytes_total"] < PADDING_MIB * MIB // 10
    assert_arrived(programs, report, {LABELS: (folder / LABELS).read_bytes()})


def test_a_file_that_changes_again_and_again_is_said_to(
    programs: Programs, folder: Path, output: Path
) -> None:
    worker = programs.scripted_worker("train").wait_ready()
    client = programs.train(folder, worker.session, output)
    data = programs.folder / "worker-data"
    wait_for_part(client, data, PADDING_MIB * MIB // 4)
    [before] = data.glob("jobs/*/package/parts/*.part")
    change(folder / LABELS)
    wait_for(lambda: not before.exists(), "the second attempt")
    change(folder / LABELS)
    assert client.wait() == 1, client.story()
    assert client.report["error"]["code"] == "source_changed"
    assert "run the same command again" in client.err[-1]
    # And the same command again sends what it is by then.
    third = programs.train(folder, worker.session, output)
    assert third.wait() == 0, third.story()
    assert_arrived(programs, third.report, {LABELS: (folder / LABELS).read_bytes()})

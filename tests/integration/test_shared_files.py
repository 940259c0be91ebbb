"""A client, a worker and storage that both mount, over a real link."""

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.linked_workers import leave_packages_alone, linked_worker
from support.shared_mounts import hanging, names_below, two_mounts

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    JobCancelled,
    JobUnknown,
    SharedStorageUnusable,
    WorkerVanished,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import (
    JobSpec,
    SharedInputPath,
    SharedJobId,
    SharedOutputPath,
    SharedStorageJob,
    TrainStep,
)
from sleap_rtc_plugin.protocol.shared_storage import (
    input_path,
    output_path,
    probe_path,
)
from sleap_rtc_plugin.session import remote_job
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport import shared_storage
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals
from sleap_rtc_worker.job_coordinator import JobCoordinator
from sleap_rtc_worker.job_run import JobRun

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(os.name == "nt", reason="the two mount points are links"),
]
JOB = "job-" + "0a" * 10
OTHER = "job-" + "0b" * 10
SPEC = JobSpec(
    name="flies",
    steps=[TrainStep(config="c.yaml", labels="l.slp", run_name="run", head="centroid")],
)
CHUNK_BYTES = 50_000
SOON_S = 0.3
EMPTY = {"jobs", "probes"}


@dataclass
class Pair:
    """Both ends, and what crossed the link as fragments."""

    link: WorkerLink
    coordinator: JobCoordinator
    laptop: Path
    gpu: Path
    folder: Path
    fragments: list[int]

    @property
    def run(self) -> JobRun:
        return self.coordinator.find(JOB)

    async def submitted(self, source: FileSource) -> RemoteJob:
        job = RemoteJob(self.link, JOB, SPEC)
        await job.submit(source)
        return job

    def arrived(self, source: FileSource) -> bool:
        files = self.folder / "worker" / "jobs" / JOB / "package" / "files"
        return all(
            (files / entry.path).read_bytes() == (source.root / entry.path).read_bytes()
            for entry in source.manifest.files
        )


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    laptop, gpu = two_mounts(tmp_path)
    theirs = SharedStorage(gpu, place="the w's", timeout_s=SOON_S)
    async with linked_worker(tmp_path / "worker", shared_storage=theirs) as ends:
        leave_packages_alone(ends.coordinator)
        ours = SharedStorage(laptop, timeout_s=SOON_S)
        link = WorkerLink(ends.client, "w", shared_storage=ours)
        yield Pair(link, ends.coordinator, laptop, gpu, tmp_path, ends.fragments)


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    return files_in(tmp_path / "package", {"a/l.slp": 1_000_000, "c.yaml": 100})


def files_in(root: Path, sizes: dict[str, int]) -> FileSource:
    made = random.Random(3)  # noqa: S311 - contents of test files
    for path, size in sizes.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(made.randbytes(size))
    return FileSource.scan(root, list(sizes), chunk_bytes=CHUNK_BYTES)


async def test_a_package_crosses_the_storage_alone(
    pair: Pair, source: FileSource
) -> None:
    seen: list[TransferTotals] = []
    job = await pair.submitted(source)
    totals = await job.send_package(source, seen.append)
    assert pair.arrived(source)
    assert sum(pair.fragments) < 5_000  # the manifest
    assert totals.moved_bytes == totals.total_bytes == totals.verified_bytes
    assert totals.reused_bytes == 0
    assert seen[0].moved_bytes > 0
    assert names_below(pair.laptop) == EMPTY


async def test_results_come_home_by_the_storage(
    pair: Pair, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await pair.submitted(source)
    await job.cancel()
    made = files_in(pair.folder / "made", {"models/run/best.ckpt": 1_000_000})
    monkeypatch.setattr(pair.run, "_results", made)
    arrived: list[bytes] = []

    def take(files: Path, *_: object, **__: object) -> None:
        arrived.append((files / "models/run/best.ckpt").read_bytes())

    monkeypatch.setattr(remote_job, "import_results", take)
    _, totals = await job.fetch(pair.folder / "home", lambda _: None)
    assert arrived == [(made.root / "models/run/best.ckpt").read_bytes()]
    assert sum(pair.fragments) < 5_000
    assert (totals.moved_bytes, totals.reused_bytes) == (1_000_000, 0)
    assert names_below(pair.laptop) == EMPTY


async def test_two_folders_that_are_not_the_same(
    pair: Pair, source: FileSource
) -> None:
    (pair.folder / "elsewhere").mkdir()
    pair.link.shared_storage = SharedStorage(pair.folder / "elsewhere")
    job = await pair.submitted(source)
    totals = await job.send_package(source, lambda _: None)
    assert pair.arrived(source)
    assert sum(pair.fragments) > totals.moved_bytes == 1_000_100


@pytest.mark.parametrize("after_calls", [0, 5, 30])
async def test_a_mount_that_hangs_at_either_side(
    pair: Pair,
    source: FileSource,
    monkeypatch: pytest.MonkeyPatch,
    after_calls: int,
) -> None:
    """While it is written, or while it is read: the link brings the rest."""
    with hanging(monkeypatch, pair.laptop) as hang:
        hang.begin_reading(after_calls)
        job = await pair.submitted(source)
        await job.send_package(source, lambda _: None)
        assert hang.is_hanging.is_set()
    assert pair.arrived(source)
    laid_bytes = max(0, after_calls - 21) * CHUNK_BYTES
    assert sum(pair.fragments) > 1_000_000 - laid_bytes


async def test_a_mount_that_goes_before_it_is_read(
    pair: Pair, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SharedStorage.lay_files

    def lay_and_go(self: SharedStorage, *args: object) -> None:
        real(self, *args)  # type: ignore[arg-type]
        pair.gpu.unlink()

    monkeypatch.setattr(SharedStorage, "lay_files", lay_and_go)
    job = await pair.submitted(source)
    await job.send_package(source, lambda _: None)
    assert pair.arrived(source)
    assert sum(pair.fragments) > 1_000_000
    assert names_below(pair.laptop) == EMPTY


async def test_a_full_storage(
    pair: Pair, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_storage, "_write_at", write)
    job = await pair.submitted(source)
    await job.send_package(source, lambda _: None)
    assert pair.arrived(source)
    assert names_below(pair.laptop) == EMPTY


async def test_a_job_that_ended_is_not_copied(
    pair: Pair, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await pair.submitted(source)
    await job.attach(lambda *_: None)
    await job.cancel()
    await job.wait_until(lambda mirror: mirror.has_ended)
    with pytest.raises(JobCancelled):
        await job.send_package(source, lambda _: None)
    assert not pair.fragments
    assert names_below(pair.laptop) <= EMPTY


async def test_a_job_that_is_cancelled_while_it_is_copied(
    pair: Pair, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await pair.submitted(source)
    await job.attach(lambda *_: None)
    loop = asyncio.get_running_loop()
    ended = threading.Event()
    real = shared_storage._write_at

    def cancel_first(*args: Any) -> None:
        if not ended.is_set():
            asyncio.run_coroutine_threadsafe(job.cancel(), loop).result()
            asyncio.run_coroutine_threadsafe(
                job.wait_until(lambda mirror: mirror.has_ended), loop
            ).result()
            ended.set()
        real(*args)

    monkeypatch.setattr(shared_storage, "_write_at", cancel_first)
    with pytest.raises(JobCancelled):
        await job.send_package(source, lambda _: None)
    assert names_below(pair.laptop) == EMPTY


async def test_a_lost_link_leaves_the_package_for_the_next_attempt(
    pair: Pair, source: FileSource
) -> None:
    job = await pair.submitted(source)
    send = pair.link.link.send

    def send_and_cut(message: object) -> None:
        send(message)  # type: ignore[arg-type]
        if isinstance(message, SharedStorageJob):
            pair.link.link.close("cut")

    pair.link.link.send = send_and_cut  # type: ignore[method-assign, assignment]
    with pytest.raises(WorkerVanished):
        await job.send_package(source, lambda _: None)
    laid = pair.laptop / input_path(JOB) / "a" / "l.slp"
    assert laid.stat().st_size == 1_000_000


# -- what a client may not ---------------------------------------------------------


async def prove(pair: Pair, job_id: str = JOB) -> None:
    storage = pair.link.shared_storage
    assert storage is not None
    probe = storage.lay_probe()
    await pair.link.ask(SharedJobId(command_id="c-1", job_id=job_id, probe=probe.name))
    storage.remove(probe_path(probe.name))


async def test_nothing_without_the_proof(pair: Pair, source: FileSource) -> None:
    await pair.submitted(source)
    storage = pair.link.shared_storage
    assert storage is not None
    storage.make_folder(input_path(JOB), JOB)
    for command in (
        SharedInputPath(command_id="c-1", job_id=JOB, path=input_path(JOB)),
        SharedStorageJob(command_id="c-2", job_id=JOB),
        SharedOutputPath(command_id="c-3", job_id=JOB, path=output_path(JOB)),
    ):
        with pytest.raises(SharedStorageUnusable, match="has not shown"):
            await pair.link.ask(command)
    with pytest.raises(SharedStorageUnusable) as caught:
        await pair.link.ask(SharedJobId(command_id="c-4", job_id=JOB, probe="0" * 64))
    assert str(pair.gpu) not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "/etc",
        f"jobs/{JOB}/../{OTHER}/input",
        input_path(OTHER),
        f"jobs/{JOB}/link",
        f"jobs/{JOB}/link/deeper",
        f"jobs/{JOB}/missing",
        "..",
        "jobs",
    ],
)
async def test_a_path_that_is_not_the_job_s(
    pair: Pair, source: FileSource, path: str
) -> None:
    await pair.submitted(source)
    storage = pair.link.shared_storage
    assert storage is not None
    storage.make_folder(input_path(JOB), JOB)
    storage.make_folder(input_path(OTHER), OTHER)
    (pair.folder / "outside" / "deeper").mkdir(parents=True)
    (pair.laptop / "jobs" / JOB / "link").symlink_to(pair.folder / "outside")
    await prove(pair)
    with pytest.raises(SharedStorageUnusable):
        await pair.link.ask(SharedInputPath(command_id="c-2", job_id=JOB, path=path))
    with pytest.raises(SharedStorageUnusable):
        await pair.link.ask(SharedStorageJob(command_id="c-3", job_id=JOB))


async def test_everything_has_its_time(pair: Pair, source: FileSource) -> None:
    job = await pair.submitted(source)
    storage = pair.link.shared_storage
    assert storage is not None
    storage.make_folder(input_path(JOB), JOB)
    await prove(pair)
    path = input_path(JOB)
    with pytest.raises(SharedStorageUnusable, match="not at that point"):
        await pair.link.laid_results(
            SharedOutputPath(command_id="c-2", job_id=JOB, path=path)
        )
    await job.cancel()
    assert pair.run.state is JobState.CANCELLED
    with pytest.raises(SharedStorageUnusable, match="not at that point"):
        await pair.link.ask(SharedInputPath(command_id="c-3", job_id=JOB, path=path))


async def test_a_job_that_the_worker_does_not_know(
    pair: Pair, source: FileSource
) -> None:
    with pytest.raises(SharedStorageUnusable) as caught:
        await prove(pair, OTHER)
    assert str(JobUnknown(job_id=OTHER)) in str(caught.value)


async def test_results_that_cannot_be_read(
    pair: Pair, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await pair.submitted(source)
    await job.cancel()
    storage = pair.link.shared_storage
    assert storage is not None
    storage.make_folder(output_path(JOB), JOB)
    await prove(pair)

    async def fail() -> FileSource:
        raise ConfigRefused(config="c", reason="r")

    monkeypatch.setattr(pair.run, "results", fail)
    with pytest.raises(SharedStorageUnusable):
        await pair.link.laid_results(
            SharedOutputPath(command_id="c-2", job_id=JOB, path=output_path(JOB))
        )

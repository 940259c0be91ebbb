"""Results come home over a real link; what earlier ones brought is not sent again."""

import asyncio
import os
import pickle
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.peers import linked

from sleap_rtc_plugin.protocol.errors import UnsafeCheckpoint
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    ControlMessage,
    FileDone,
    FileNeed,
    JobFetch,
    JobSpec,
    TrainStep,
)
from sleap_rtc_plugin.session import result_store
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.transfer_pump import TransferPump, TransferTotals

pytestmark = pytest.mark.timeout(60)
STEP = TrainStep(config="c.yaml", labels="l.slp", run_name="run", head="centroid")
SPEC = JobSpec(name="flies", steps=[STEP])
SIZE_BYTES = 300_000


class Worker:
    """The far end: offers `files` to whoever asks."""

    def __init__(self, link: Link, root: Path) -> None:
        self._link = link
        self._root = root
        self._pump = TransferPump(link)
        self._tasks: set[asyncio.Task[None]] = set()
        link.on_control = self._on_control

    def leave(self, **files: bytes) -> None:
        for name, data in files.items():
            path = self._root / "models" / "run" / name.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _on_control(self, message: ControlMessage) -> None:
        match message:
            case JobFetch():
                task = asyncio.get_running_loop().create_task(self._send(message))
                self._tasks.add(task)
            case FileNeed() | FileDone():
                self._pump.handle(message)

    async def _send(self, message: JobFetch) -> None:
        paths = [p.relative_to(self._root) for p in self._root.rglob("*.*")]
        source = FileSource.scan(self._root, sorted(p.as_posix() for p in paths))
        self._link.send(Acknowledged(command_id=message.command_id, last_seq=0))
        await self._pump.send(source, job_id=message.job_id, purpose="results")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(
        result_store.platformdirs, "user_cache_path", lambda name: folder
    )
    return folder


@pytest.fixture
async def lab(tmp_path: Path, cache: Path) -> AsyncIterator[tuple[WorkerLink, Worker]]:
    async with linked() as (client, worker):
        yield WorkerLink(client, "w", "room-1"), Worker(worker, tmp_path / "worker")


async def fetch(link: WorkerLink, number: int, output: Path) -> TransferTotals:
    job = RemoteJob(link, f"job-{number:020x}", SPEC)
    _, totals = await job.fetch(output, lambda totals: None)
    return totals


async def test_the_second_time_little_is_sent(
    lab: tuple[WorkerLink, Worker], tmp_path: Path
) -> None:
    link, worker = lab
    weights = os.urandom(SIZE_BYTES)
    worker.leave(weights_log=weights, notes_txt=b"first")
    first = await fetch(link, 1, tmp_path / "out")
    assert first.moved_bytes == first.total_bytes
    worker.leave(weights_log=weights + b"more", notes_txt=b"again")
    second = await fetch(link, 2, tmp_path / "other")
    assert second.moved_bytes < second.total_bytes // 2
    assert (tmp_path / "out/models/run/weights.log").read_bytes() == weights
    home = tmp_path / "other/models/run"
    assert (home / "weights.log").read_bytes() == weights + b"more"
    assert (home / "notes.txt").read_bytes() == b"again"


async def test_a_model_that_its_user_changed_is_sent_again(
    lab: tuple[WorkerLink, Worker], tmp_path: Path
) -> None:
    link, worker = lab
    weights = os.urandom(SIZE_BYTES)
    worker.leave(weights_log=weights)
    await fetch(link, 1, tmp_path / "out")
    with (tmp_path / "out/models/run/weights.log").open("r+b") as file:
        file.write(bytes(SIZE_BYTES))
    second = await fetch(link, 2, tmp_path / "other")
    assert second.moved_bytes == second.total_bytes
    assert (tmp_path / "other/models/run/weights.log").read_bytes() == weights


class _Runs:
    def __reduce__(self) -> object:
        return os.system, ("true",)


async def test_what_is_refused_is_kept_nowhere(
    lab: tuple[WorkerLink, Worker], tmp_path: Path, cache: Path
) -> None:
    link, worker = lab
    worker.leave(best_ckpt=pickle.dumps(_Runs()))
    with pytest.raises(UnsafeCheckpoint):
        await fetch(link, 1, tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.ckpt")) == []
    assert list(cache.glob("store/*/files/*")) == []

"""A client looks into a worker's mounts and sends what is not there, by a real link."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.linked_workers import leave_packages_alone, linked_worker
from support.shared_mounts import names_below

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    JobUnknown,
    MountUnusable,
    RemoteProtocolError,
    TooMany,
    WorkerTooOld,
)
from sleap_rtc_plugin.protocol.features import MOUNTS
from sleap_rtc_plugin.protocol.limits import MAX_MOUNT_COMMANDS_WAITING
from sleap_rtc_plugin.protocol.messages import JobSpec, TrainStep
from sleap_rtc_plugin.protocol.mount_messages import (
    FoundFile,
    MountEntry,
    MountList,
    MountListing,
    MountPlace,
    MountResolve,
    MountResolved,
)
from sleap_rtc_plugin.session.mount_memory import MountMemory, SamePlace
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.session.worker_files import (
    LocalFile,
    find_files,
    list_place,
)
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_worker import mounts
from sleap_rtc_worker.mounts import MountTable

pytestmark = pytest.mark.timeout(60)
JOB = "job-" + "0a" * 10
SPEC = JobSpec(
    name="flies",
    steps=[TrainStep(config="c.yaml", labels="l.slp", run_name="run", head="centroid")],
)
LABELS_BYTES = 3_000_000
SOON_S = 0.3


@dataclass
class Pair:
    """Both ends, and what crossed the link as fragments."""

    link: WorkerLink
    worker: Link
    lab: Path
    folder: Path
    fragments: list[int]

    @property
    def home(self) -> Path:
        return self.folder / "home" / "ann" / "flies"

    async def submitted(self) -> tuple[RemoteJob, FileSource]:
        source = FileSource.scan(self.home, ["l.slp", "c.yaml"])
        job = RemoteJob(self.link, JOB, SPEC)
        await job.submit(source)
        return job, source

    def arrived(self) -> bool:
        files = self.folder / "worker" / "jobs" / JOB / "package" / "files"
        return (files / "l.slp").read_bytes() == (self.home / "l.slp").read_bytes()


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    lab = tmp_path / "data" / "lab"
    lab.mkdir(parents=True)
    table = MountTable({"lab": lab}, call_timeout_s=SOON_S)
    async with linked_worker(tmp_path / "worker", mounts=table) as ends:
        leave_packages_alone(ends.coordinator)
        link = WorkerLink(ends.client, "w")
        made = Pair(link, ends.worker, lab, tmp_path, ends.fragments)
        made.home.mkdir(parents=True)
        (made.home / "l.slp").write_bytes(os.urandom(LABELS_BYTES))
        (made.home / "c.yaml").write_text("a: 1")
        yield made


def lay(pair: Pair, place: str, data: bytes) -> None:
    path = pair.lab / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# -- looking into mounts ---------------------------------------------------------------


async def test_mounts_and_their_folders_are_listed(pair: Pair) -> None:
    lay(pair, "2026/fly.mp4", b"fly")
    entries, is_complete = await list_place(pair.link, None)
    assert (entries, is_complete) == ([MountEntry(name="lab", kind="mount")], True)
    entries, _ = await list_place(pair.link, MountPlace(mount="lab", path="2026"))
    assert entries == [MountEntry(name="fly.mp4", kind="file", size_bytes=3)]


async def test_a_folder_of_many_pages_is_listed_whole(pair: Pair) -> None:
    (pair.lab / "many").mkdir()
    for number in range(1000):
        (pair.lab / "many" / f"{number:04}.png").touch()
    entries, is_complete = await list_place(
        pair.link, MountPlace(mount="lab", path="many")
    )
    assert [entry.name for entry in entries] == [f"{n:04}.png" for n in range(1000)]
    assert is_complete


async def test_a_folder_past_the_bound_is_listed_as_far_as_it_goes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "MAX_MOUNT_FOLDER_ENTRIES", 600)
    for number in range(700):
        (pair.lab / f"{number:04}.png").touch()
    entries, is_complete = await list_place(pair.link, MountPlace(mount="lab"))
    assert len(entries) == 600
    assert not is_complete


async def test_what_is_not_there_is_refused(pair: Pair) -> None:
    for place in (
        MountPlace(mount="other"),
        MountPlace(mount="lab", path="nothing"),
        MountPlace(mount="lab", path="../.."),
        MountPlace(mount="lab", path="/etc"),
    ):
        with pytest.raises(MountUnusable):
            await list_place(pair.link, place)


async def test_an_older_worker_is_not_asked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = pair.link.link.features - {MOUNTS}
    monkeypatch.setattr(pair.link.link, "features", older)
    with pytest.raises(WorkerTooOld, match="looking into its mounts"):
        await list_place(pair.link, None)
    job, source = await pair.submitted()
    found = await job.find_on_mounts(source, pair.home)
    assert found.files == []


async def test_a_client_that_asks_without_end_is_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    real = mounts._contained

    def contained(root: Path, path: str) -> Any:
        released.wait()
        return real(root, path)

    monkeypatch.setattr(mounts, "_contained", contained)
    asked = [
        asyncio.ensure_future(
            pair.link.ask(
                MountList(command_id=f"c-{number}", place=MountPlace(mount="lab"))
            )
        )
        for number in range(MAX_MOUNT_COMMANDS_WAITING + 1)
    ]
    with pytest.raises(TooMany):
        await asked[-1]
    released.set()
    for one in await asyncio.gather(*asked[:-1], return_exceptions=True):
        assert isinstance(one, MountListing | MountUnusable | TooMany)


# -- files of a package ----------------------------------------------------------------


async def test_what_lies_on_a_mount_is_not_sent(pair: Pair) -> None:
    lay(pair, "exports/flies/l.slp", (pair.home / "l.slp").read_bytes())
    before = names_below(pair.lab)
    job, source = await pair.submitted()
    found = await job.find_on_mounts(source, pair.home)
    [file] = found.files
    assert (file.file.member, file.place.path) == ("l.slp", "exports/flies/l.slp")
    assert file.location == f"{pair.lab}/exports/flies/l.slp"
    totals = await job.send_package(source, lambda _: None)
    assert pair.arrived()
    assert totals.reused_bytes == LABELS_BYTES
    assert sum(pair.fragments) < 20_000
    assert names_below(pair.lab) == before


async def test_what_changed_between_its_samples_is_sent(pair: Pair) -> None:
    data = bytearray((pair.home / "l.slp").read_bytes())
    data[LABELS_BYTES // 4] ^= 1
    lay(pair, "l.slp", bytes(data))
    job, source = await pair.submitted()
    assert len((await job.find_on_mounts(source, pair.home)).files) == 1
    totals = await job.send_package(source, lambda _: None)
    assert pair.arrived()
    assert 0 < totals.moved_bytes < 300_000


async def test_what_vanished_meanwhile_is_sent(pair: Pair) -> None:
    lay(pair, "l.slp", (pair.home / "l.slp").read_bytes())
    job, source = await pair.submitted()
    await job.find_on_mounts(source, pair.home)
    (pair.lab / "l.slp").unlink()
    totals = await job.send_package(source, lambda _: None)
    assert pair.arrived()
    assert totals.moved_bytes >= LABELS_BYTES


async def test_a_mount_that_hangs_only_costs_its_deadline(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(pair, "l.slp", (pair.home / "l.slp").read_bytes())
    released = threading.Event()

    def hang(*_: object) -> Any:
        released.wait()
        raise OSError

    monkeypatch.setattr(mounts, "_contained", hang)
    try:
        job, source = await pair.submitted()
        found = await job.find_on_mounts(source, pair.home)
        assert (found.files, found.is_complete) == ([], False)
        totals = await job.send_package(source, lambda _: None)
        assert pair.arrived()
        assert totals.moved_bytes >= LABELS_BYTES
    finally:
        released.set()


async def test_a_mount_that_hangs_while_the_package_is_taken(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(pair, "l.slp", (pair.home / "l.slp").read_bytes())
    job, source = await pair.submitted()
    assert len((await job.find_on_mounts(source, pair.home)).files) == 1
    released = threading.Event()

    def hang(*_: object) -> Any:
        released.wait()
        raise OSError

    monkeypatch.setattr(mounts, "_contained", hang)
    try:
        await job.send_package(source, lambda _: None)
        assert pair.arrived()
    finally:
        released.set()


async def test_a_job_is_named_only_while_it_waits_for_its_package(pair: Pair) -> None:
    with pytest.raises(JobUnknown):
        await pair.link.ask(MountResolve(command_id="c-1", files=[], job_id=JOB))
    job, _ = await pair.submitted()
    await job.cancel()
    with pytest.raises(BadRequest, match="waits for no package"):
        await pair.link.ask(MountResolve(command_id="c-2", files=[], job_id=JOB))


# -- what is remembered ----------------------------------------------------------------


async def test_folders_are_remembered_for_the_next_file(pair: Pair) -> None:
    memory = MountMemory(pair.folder / "mounts.json")
    for name in ("a", "b"):
        (pair.home / name).write_bytes(name.encode() * 100)
        lay(pair, f"deep/er/{name}", name.encode() * 100)
    # Another file of the same kind at a place that is looked at sooner.
    lay(pair, "b", b"b" * 100)
    first = LocalFile.read(pair.home / "a")
    await find_files(pair.link, [first], memory=memory)
    ours = str(pair.home).strip("/")
    assert memory.of("worker-1") == [
        SamePlace(ours=ours, mount="lab", folder="deep/er")
    ]
    found = await find_files(
        pair.link, [LocalFile.read(pair.home / "b")], memory=memory
    )
    assert found.files[0].place.path == "deep/er/b"


# -- a worker that makes no sense ------------------------------------------------------


def answering(pair: Pair, answer: MountResolved | MountListing) -> None:
    """Let the worker say this, after it listed a mount where it is asked for files."""
    mounts = [MountEntry(name="lab", kind="mount")]
    answers: list[MountResolved | MountListing] = [answer]
    if isinstance(answer, MountResolved):
        answers.insert(0, MountListing(command_id="c-1", entries=mounts))
    pair.worker.on_control = lambda message: pair.worker.send(answers.pop(0))


LAB = MountPlace(mount="lab", path="a")


@pytest.mark.parametrize(
    "answer",
    [
        {"found": [FoundFile(index=1, place=LAB)], "roots": {"lab": "/data"}},
        {"found": [FoundFile(index=0, place=LAB)] * 2, "roots": {"lab": "/data"}},
        {"found": [FoundFile(index=0, place=LAB)]},
        {"found": [FoundFile(index=0, place=LAB)], "roots": {"lab": "/da\nta"}},
        {
            "found": [FoundFile(index=0, place=MountPlace(mount="lab", path="../a"))],
            "roots": {"lab": "/data"},
        },
        {
            "found": [FoundFile(index=0, place=MountPlace(mount="lab"))],
            "roots": {"lab": "/data"},
        },
    ],
)
async def test_senseless_answers_are_refused(
    pair: Pair, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sleap_rtc_plugin.session.worker_files.new_command_id", lambda: "c-1"
    )
    answering(pair, MountResolved(command_id="c-1", **answer))
    file = LocalFile("/home/ann/a", 5, "ab" * 32)
    with pytest.raises(RemoteProtocolError):
        await find_files(pair.link, [file])


@pytest.mark.parametrize(
    "names", [["b", "a"], ["a", "a"], ["../a"], ["a/b"], ["a\u202eb"]]
)
async def test_senseless_lists_are_refused(
    pair: Pair, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sleap_rtc_plugin.session.worker_files.new_command_id", lambda: "c-1"
    )
    entries = [MountEntry(name=name, kind="file") for name in names]
    answering(pair, MountListing(command_id="c-1", entries=entries, more=True))
    with pytest.raises(RemoteProtocolError):
        await list_place(pair.link, None)


async def test_a_worker_without_mounts_is_told_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    monkeypatch.setattr(
        "sleap_rtc_plugin.session.worker_files.new_command_id", lambda: "c-1"
    )

    def answer(message: object) -> None:
        heard.append(message)
        pair.worker.send(MountListing(command_id="c-1", entries=[]))

    pair.worker.on_control = answer  # type: ignore[assignment]
    found = await find_files(pair.link, [LocalFile("/home/ann/a", 5, "ab" * 32)])
    assert (found.files, found.is_complete) == ([], True)
    assert heard == [MountList(command_id="c-1")]

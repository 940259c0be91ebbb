"""Videos that lie on a worker's mount are trained on where they are.

A saved project, a companion, a real worker; sleap-nn is the real one where it matters.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import h5py
import psutil
import pytest
import sleap_io
from support.companions import Companion, companion
from support.packages import CONFIGS, read_members, rewrite, shorten
from support.programs import Programs, Worker
from support.saved_projects import item

from sleap_rtc_plugin.companion.host import ChildHost
from sleap_rtc_plugin.companion.messages import (
    JobChanged,
    ResultsHome,
    SubmitRun,
    VideosFound,
)
from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.session.demo_project import make_demo_package
from sleap_rtc_plugin.session.run_records import RunRecords
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    ProjectFacts,
    RunRequest,
)
from sleap_rtc_plugin.session.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning:aioice"),
    pytest.mark.timeout(300),
]
# A box that players skip: the same video, and another file.
NOTHING = b"\0\0\0\x08free"


@pytest.fixture(autouse=True)
def own_home(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in programs.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")


@pytest.fixture
async def desk(own_home: None) -> AsyncIterator[Companion]:
    async with companion("child") as made:
        yield made


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "lab"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def fish(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The demo's project and video, and short configurations."""
    folder = tmp_path_factory.mktemp("fish")
    package = make_demo_package(folder)
    short = rewrite(
        package, folder / "short.zip", lambda m: shorten(m, epochs=1, steps=2)
    )
    (project,) = (path for path in folder.glob("*.slp") if ".pkg" not in path.name)
    members = read_members(short)
    return {name: members[name] for name in CONFIGS} | {
        "project": project.read_bytes(),
        "demo.mp4": (folder / "demo.mp4").read_bytes(),
    }


@pytest.fixture
def project(tmp_path: Path, fish: dict[str, bytes]) -> Path:
    """A project of two videos; a few frames of each are labeled."""
    folder = tmp_path / "home" / "ann" / "fish"
    folder.mkdir(parents=True)
    (folder / "old.slp").write_bytes(fish["project"])
    (folder / "demo.mp4").write_bytes(fish["demo.mp4"])
    (folder / "second.mp4").write_bytes(fish["demo.mp4"] + NOTHING)
    labels = sleap_io.load_slp(str(folder / "old.slp"), open_videos=False)
    first, second = (
        sleap_io.Video.from_filename(str(folder / name), grayscale=True)
        for name in ("demo.mp4", "second.mp4")
    )
    frames = [
        sleap_io.LabeledFrame(
            video=second if number % 2 else first,
            frame_idx=frame.frame_idx,
            instances=frame.instances,
        )
        for number, frame in enumerate(labels.labeled_frames)
    ]
    saved = sleap_io.Labels(
        frames, videos=[first, second], skeletons=labels.skeletons, tracks=labels.tracks
    )
    path = folder / "fish.slp"
    sleap_io.save_file(saved, str(path), verbose=False)
    (folder / "old.slp").unlink()
    return path


def run_of(
    project: Path, fish: dict[str, bytes], *predictions: list[str]
) -> RunRequest:
    return RunRequest(
        project=ProjectFacts(path=str(project)),
        models=[
            ModelToTrain(head=name.removesuffix(".yaml"), config=fish[name].decode())
            for name in CONFIGS
        ],
        predictions=list(predictions),
    )


async def submit(desk: Companion, worker: Worker, run: RunRequest) -> str:
    row = await desk.enter(worker.session)
    job_id = new_job_id()
    await desk.ask(SubmitRun(job_id=job_id, worker_id=row.worker_id, run=run))
    return job_id


def videos_in(path: Path) -> list[str]:
    with h5py.File(path) as file:
        videos = [json.loads(row) for row in file["videos_json"][:]]
    return [video["backend"]["filename"] for video in videos]


def sent_labels(programs: Programs, job_id: str) -> Path:
    jobs = programs.folder / "worker-data" / "jobs"
    return jobs / job_id / "package" / "files" / "fish.pkg.slp"


def mounting(programs: Programs, lab: Path, *, scripted: bool) -> Worker:
    words = ("--mount", f"lab={lab}", "--name", "gpu-box")
    if scripted:
        return programs.scripted_worker("train", *words).wait_ready()
    return programs.worker(*words).wait_ready()


@pytest.mark.needs_sleap_nn
async def test_sleap_nn_trains_on_the_workers_own_video(
    desk: Companion,
    programs: Programs,
    lab: Path,
    project: Path,
    fish: dict[str, bytes],
) -> None:
    there = lab / "2026" / "demo.mp4"
    there.parent.mkdir()
    there.write_bytes(fish["demo.mp4"])
    worker = mounting(programs, lab, scripted=False)
    predictions = [
        item("--video_index", str(index), "--frames", "0,-4") for index in range(2)
    ]
    job_id = await submit(desk, worker, run_of(project, fish, *predictions))
    found = await desk.event(VideosFound)
    assert (found.job_id, found.found, found.total) == (job_id, 1, 2)
    home = await desk.event(ResultsHome)
    assert home.job_id == job_id
    # The first is there; the second, another file, came along in the package.
    for labels in sent_labels(programs, job_id).parent.glob("*.pkg.slp"):
        assert videos_in(labels) == [str(there), "."]
    ours = [str(project.with_name(name)) for name in ("demo.mp4", "second.mp4")]
    (file,) = map(Path, home.predictions)
    predicted = sleap_io.load_slp(str(file), open_videos=False)
    assert [video.filename for video in predicted.videos] == ours
    places = {
        (frame.video.filename, frame.frame_idx)
        for frame in predicted
        if frame.has_predicted_instances
    }
    assert places <= {(name, number) for name in ours for number in range(5)}
    for model in map(Path, home.models):
        for labels in model.glob("*.slp"):
            assert str(there) not in videos_in(labels)
    # Merged, they add no video to the project.
    merged = sleap_io.load_slp(str(project), open_videos=False)
    merged.merge(predicted)
    assert len(merged.videos) == 2


async def test_a_video_that_only_looks_the_same_is_sent(
    desk: Companion,
    programs: Programs,
    lab: Path,
    project: Path,
    fish: dict[str, bytes],
) -> None:
    data = bytearray(fish["demo.mp4"])
    data[len(data) // 2] ^= 1
    (lab / "demo.mp4").write_bytes(data)
    worker = mounting(programs, lab, scripted=True)
    job_id = await submit(desk, worker, run_of(project, fish))
    found = await desk.event(VideosFound)
    assert (found.found, found.total) == (0, 2)
    await desk.event(ResultsHome)
    assert videos_in(sent_labels(programs, job_id)) == [".", "."]


async def test_all_videos_are_there_and_no_image_is_sent(
    desk: Companion,
    programs: Programs,
    lab: Path,
    project: Path,
    fish: dict[str, bytes],
) -> None:
    for name in ("demo.mp4", "second.mp4"):
        (lab / name).write_bytes(project.with_name(name).read_bytes())
    worker = mounting(programs, lab, scripted=True)
    job_id = await submit(desk, worker, run_of(project, fish))
    found = await desk.event(VideosFound)
    assert (found.found, found.total) == (2, 2)
    await desk.event(ResultsHome)
    labels = sent_labels(programs, job_id)
    assert videos_in(labels) == [str(lab / "demo.mp4"), str(lab / "second.mp4")]
    record = RunRecords().find(job_id)
    assert record is not None
    assert record.video_names == {
        str(lab / name): str(project.with_name(name))
        for name in ("demo.mp4", "second.mp4")
    }
    with h5py.File(labels) as file:
        assert not any(name.startswith("video0") for name in file)


async def test_the_users_names_of_videos_outlive_the_companion(
    desk: Companion,
    programs: Programs,
    lab: Path,
    project: Path,
    fish: dict[str, bytes],
) -> None:
    (lab / "demo.mp4").write_bytes(fish["demo.mp4"])
    worker = mounting(programs, lab, scripted=True)
    run = run_of(project, fish)
    job_id = await submit(desk, worker, run)
    await desk.event(VideosFound)
    assert isinstance(desk.host, ChildHost)
    assert desk.host.pid is not None
    psutil.Process(desk.host.pid).kill()
    await desk.until(lambda: desk.restarts == 1)
    desk.events.clear()
    row = await desk.enter(worker.session)
    await desk.ask(SubmitRun(job_id=job_id, worker_id=row.worker_id, run=run))
    await desk.event(ResultsHome)
    record = RunRecords().find(job_id)
    assert record is not None
    ours = str(project.with_name("demo.mp4"))
    assert record.video_names == {str(lab / "demo.mp4"): ours}


async def test_who_does_not_want_it_sends_the_images(
    desk: Companion,
    programs: Programs,
    lab: Path,
    project: Path,
    fish: dict[str, bytes],
) -> None:
    settings = Settings.load()
    settings.use_worker_videos = False
    settings.save()
    (lab / "demo.mp4").write_bytes(fish["demo.mp4"])
    worker = mounting(programs, lab, scripted=True)
    job_id = await submit(desk, worker, run_of(project, fish))
    await desk.event(ResultsHome)
    assert videos_in(sent_labels(programs, job_id)) == [".", "."]
    assert not any(isinstance(event, VideosFound) for event in desk.events)


@pytest.mark.needs_sleap_nn
async def test_a_video_that_is_gone_is_named_before_the_job_starts(
    desk: Companion,
    programs: Programs,
    lab: Path,
    project: Path,
    fish: dict[str, bytes],
) -> None:
    """The mount is there when the package is made, and not when it is checked."""
    there = lab / "demo.mp4"
    there.write_bytes(fish["demo.mp4"])
    worker = mounting(programs, lab, scripted=False)
    await submit(desk, worker, run_of(project, fish))
    await desk.event(VideosFound)
    there.unlink()
    failed = await desk.event(JobChanged, lambda e: e.error is not None)
    assert failed.job.state == JobState.REJECTED
    assert failed.error is not None
    assert failed.error.code == "labels_unreadable"
    assert "demo.mp4" in failed.error.fields["reason"]

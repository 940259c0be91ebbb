"""The companion, in a process of its own and in ours: one session, the same tests.

A real signaling server, a real worker whose trainer is a script, real packages.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import psutil
import pytest
from support.companions import Companion, HostKind, companion
from support.doctor_faults import start_turn
from support.packages import CENTROID, LABELS, extract, pad_labels, read_members
from support.programs import POSIX, Programs, Worker

from sleap_rtc_plugin.companion import host
from sleap_rtc_plugin.companion.messages import (
    AttachJob,
    CancelJob,
    Connect,
    ConnectRemembered,
    Disconnect,
    FetchResults,
    JobChanged,
    JobLog,
    Jobs,
    LinkBack,
    LinkLost,
    ListJobs,
    ListRooms,
    Log,
    Pair,
    Paired,
    ResultsHome,
    Rooms,
    SignedIn,
    SignIn,
    StepBegan,
    StepEnded,
    StopJob,
    SubmitPackage,
    SubmitRun,
    TransferProgress,
    WaitingResults,
    WorkersChanged,
)
from sleap_rtc_plugin.companion.priority import NICENESS
from sleap_rtc_plugin.protocol.errors import (
    CompanionGone,
    JobFollowedElsewhere,
    JobUnknown,
    PairingRefused,
    SessionStringInvalid,
    SignalingUnreachable,
)
from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.session.demo_project import make_demo_package
from sleap_rtc_plugin.session.run_records import RunRecords
from sleap_rtc_plugin.session.run_request import ModelToTrain, ProjectFacts, RunRequest
from sleap_rtc_plugin.session.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning:aioice")


@pytest.fixture(params=get_args(HostKind))
def kind(request: pytest.FixtureRequest) -> HostKind:
    found: HostKind = request.param
    return found


@pytest.fixture(autouse=True)
def own_home(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hosts in this process and their children use the test's home."""
    for name, value in programs.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")


@pytest.fixture
async def desk(kind: HostKind, own_home: None) -> AsyncIterator[Companion]:
    async with companion(kind) as made:
        yield made


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.fixture
def worker(programs: Programs) -> Worker:
    return programs.scripted_worker("train", "--name", "gpu").wait_ready()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def gated_worker(programs: Programs, gate: Path) -> Worker:
    return programs.scripted_worker(f"gated,gate={gate}", "--name", "gpu").wait_ready()


async def submit(desk: Companion, session: str, package: Path, output: Path) -> str:
    row = await desk.enter(session)
    job_id = new_job_id()
    command = SubmitPackage(
        job_id=job_id,
        worker_id=row.worker_id,
        package=str(package),
        output=str(output),
    )
    await desk.ask(command)
    return job_id


# -- the way of a run ------------------------------------------------------------------


async def test_a_package_is_sent_trained_and_its_results_come_home(
    desk: Companion, worker: Worker, small_package: Path, output: Path
) -> None:
    job_id = await submit(desk, worker.session, small_package, output)
    home = await desk.event(ResultsHome)
    assert home.job_id == job_id
    assert home.worker == "gpu"
    assert home.project is None
    (model,) = map(Path, home.models)
    assert (model / "best.ckpt").is_file()
    assert model.parent == output / "models"
    states = [e.job.state for e in desk.events if isinstance(e, JobChanged)]
    assert states[0] == JobState.SUBMITTED
    assert JobState.SUCCEEDED in states
    sent = [e for e in desk.events if isinstance(e, TransferProgress)]
    assert sent[-1].total > 0
    assert [e for e in sent if e.purpose == "package"][-1].done == sent[0].total
    began = [e for e in desk.events if isinstance(e, StepBegan)]
    assert [(e.step, e.worker, e.is_replay) for e in began] == [(0, "gpu", False)]
    assert any(isinstance(e, StepEnded) for e in desk.events)
    jobs = await desk.ask(ListJobs(worker_id=desk_worker(desk)))
    assert isinstance(jobs, Jobs)
    assert [(row.job_id, row.state) for row in jobs.jobs] == [(job_id, "succeeded")]


async def test_an_address_is_hidden_from_the_next_link_on(
    desk: Companion, programs: Programs
) -> None:
    secret = "f" * 32
    turn = start_turn(programs, secret)
    config = programs.folder / "signaling.toml"
    urls = f"urls = ['turn:127.0.0.1:{turn.port}']"
    config.write_text(f"[[turn]]\n{urls}\nsecret = '{secret}'\n")
    url = programs.signaling("--config", config)
    worker = programs.scripted_worker("train", "--signaling", url).wait_ready()
    row = await desk.enter(worker.session)
    settings = Settings.load()
    settings.relay_only = True
    settings.save()
    await desk.ask(ListJobs(worker_id=row.worker_id))
    seen = await desk.event(
        WorkersChanged, lambda e: any(w.link_kind for w in e.workers)
    )
    assert seen.workers[0].link_kind == "turn-udp"


def desk_worker(desk: Companion) -> str:
    seen = [e for e in desk.events if isinstance(e, WorkersChanged) and e.workers]
    return seen[-1].workers[0].worker_id


async def test_stop_keeps_the_model(
    desk: Companion, gated_worker: Worker, small_package: Path, output: Path
) -> None:
    job_id = await submit(desk, gated_worker.session, small_package, output)
    await desk.event(StepBegan)
    await desk.ask(StopJob(worker_id=desk_worker(desk), job_id=job_id))
    home = await desk.event(ResultsHome)
    assert len(home.models) == 1


async def test_cancel_discards_the_job(
    desk: Companion, gated_worker: Worker, small_package: Path, output: Path
) -> None:
    job_id = await submit(desk, gated_worker.session, small_package, output)
    await desk.event(StepBegan)
    await desk.ask(CancelJob(worker_id=desk_worker(desk), job_id=job_id))
    await desk.event(JobChanged, lambda e: e.job.state == JobState.CANCELLED)
    await desk.ask(WaitingResults())
    assert not any(isinstance(e, ResultsHome) for e in desk.events)
    assert not (output / "models").exists()


async def test_an_attached_job_is_replayed_from_its_first_event(
    desk: Companion,
    kind: HostKind,
    gated_worker: Worker,
    gate: Path,
    small_package: Path,
    output: Path,
) -> None:
    job_id = await submit(desk, gated_worker.session, small_package, output)
    await desk.event(StepBegan)
    await desk.host.close()
    async with companion(kind) as later:
        # The run is taken up by itself; attaching shows its monitor.
        row = await later.enter(gated_worker.session)
        await later.ask(AttachJob(worker_id=row.worker_id, job_id=job_id))
        began = await later.event(StepBegan)
        assert not began.is_replay
        gate.touch()
        home = await later.event(ResultsHome)
        assert Path(home.models[0]).parent == output / "models"
        log = await later.ask(JobLog(job_id=job_id))
        assert isinstance(log, Log)


async def test_an_ended_job_can_be_watched_and_fetched_by_anyone(
    desk: Companion,
    kind: HostKind,
    worker: Worker,
    small_package: Path,
    output: Path,
    tmp_path: Path,
) -> None:
    job_id = await submit(desk, worker.session, small_package, output)
    await desk.event(ResultsHome)
    await desk.host.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with companion(kind) as colleague:
        row = await colleague.enter(worker.session)
        await colleague.ask(AttachJob(worker_id=row.worker_id, job_id=job_id))
        began = await colleague.event(StepBegan)
        assert began.is_replay
        await colleague.ask(
            FetchResults(worker_id=row.worker_id, job_id=job_id, output=str(elsewhere))
        )
        home = await colleague.event(
            ResultsHome, lambda e: Path(e.models[0]).parent.parent == elsewhere
        )
        assert home.job_id == job_id


async def test_results_that_another_sleap_brings_home_are_not_fetched_twice(
    desk: Companion,
    gated_worker: Worker,
    gate: Path,
    small_package: Path,
    output: Path,
    tmp_path: Path,
) -> None:
    job_id = await submit(desk, gated_worker.session, small_package, output)
    await desk.event(StepBegan)
    async with companion("child") as other:
        row = await other.enter(gated_worker.session)
        elsewhere = str(tmp_path)
        await other.ask(
            AttachJob(worker_id=row.worker_id, job_id=job_id, output=elsewhere)
        )
        began = await other.event(StepBegan)
        assert began.job_id == job_id
        with pytest.raises(JobFollowedElsewhere, match="close it and fetch"):
            await other.ask(
                FetchResults(worker_id=row.worker_id, job_id=job_id, output=elsewhere)
            )
        gate.touch()
        home = await desk.event(ResultsHome)
    assert Path(home.models[0]).parent == output / "models"
    assert not (tmp_path / "models").exists()


# -- what goes wrong -------------------------------------------------------------------


@POSIX
async def test_a_worker_that_goes_away_and_comes_back(
    desk: Companion,
    programs: Programs,
    gate: Path,
    small_package: Path,
    output: Path,
) -> None:
    url = programs.signaling()
    first = programs.scripted_worker(
        f"gated,gate={gate}", "--signaling", url, "--name", "gpu"
    ).wait_ready()
    job_id = await submit(desk, first.session, small_package, output)
    await desk.event(StepBegan)
    first.kill()
    lost = await desk.event(LinkLost)
    assert lost.job_id == job_id
    assert lost.reason.endswith(".")
    gate.touch()
    programs.scripted_worker(
        f"gated,gate={gate}", "--session", first.session, "--name", "gpu"
    ).wait_ready()
    await desk.event(LinkBack)
    home = await desk.event(ResultsHome)
    assert len(home.models) == 1


async def test_a_folder_that_is_gone_is_not_made_again(
    desk: Companion,
    gated_worker: Worker,
    gate: Path,
    small_package: Path,
    output: Path,
) -> None:
    await submit(desk, gated_worker.session, small_package, output)
    await desk.event(StepBegan)
    output.rmdir()
    gate.touch()
    home = await desk.event(ResultsHome)
    assert not output.exists()
    assert Path(home.models[0], "best.ckpt").is_file()


async def test_bad_sessions_and_unknown_things_have_words(
    desk: Companion, worker: Worker
) -> None:
    with pytest.raises(SessionStringInvalid):
        await desk.ask(Connect(session="nonsense"))
    with pytest.raises(SignalingUnreachable):
        await desk.ask(SignIn(server="http://127.0.0.1:1"))
    row = await desk.enter(worker.session)
    with pytest.raises(JobUnknown):
        await desk.ask(AttachJob(worker_id=row.worker_id, job_id=new_job_id()))
    with pytest.raises(JobUnknown):
        await desk.ask(JobLog(job_id=new_job_id()))


async def test_a_package_that_is_none_says_so(
    desk: Companion, worker: Worker, tmp_path: Path, output: Path
) -> None:
    nothing = tmp_path / "nothing.zip"
    nothing.write_bytes(b"no zip")
    job_id = await submit(desk, worker.session, nothing, output)
    failed = await desk.event(JobChanged, lambda e: e.error is not None)
    assert failed.job.job_id == job_id
    assert failed.error is not None
    assert failed.error.code == "not_a_package"


# -- rooms -----------------------------------------------------------------------------


async def test_rooms_are_remembered_without_showing_their_secret(
    desk: Companion, worker: Worker, kind: HostKind
) -> None:
    await desk.ask(Connect(session=worker.session, remember=True))
    rooms = await desk.ask(ListRooms())
    assert isinstance(rooms, Rooms)
    (room,) = rooms.rooms
    assert worker.session not in repr(rooms)
    await desk.ask(Disconnect())
    await desk.host.close()
    async with companion(kind) as later:
        await later.ask(ConnectRemembered(room_id=room.room_id))
        await later.event(WorkersChanged, lambda e: bool(e.workers))


async def test_signing_in_opens_a_room_for_workers_to_join(
    desk: Companion, programs: Programs
) -> None:
    url = programs.signaling()
    signed_in = await desk.ask(SignIn(server=url, remember=False))
    assert isinstance(signed_in, SignedIn)
    programs.scripted_worker(
        "train", "--session", signed_in.session, "--name", "late"
    ).wait_ready()
    seen = await desk.event(WorkersChanged, lambda e: bool(e.workers))
    assert seen.workers[0].name == "late"
    measured = await desk.event(
        WorkersChanged,
        lambda e: bool(e.workers) and e.workers[0].round_trip_ms is not None,
    )
    assert measured.workers[0].refusal == ""


async def test_a_workers_code_opens_its_room(
    desk: Companion, programs: Programs
) -> None:
    url = programs.signaling()
    worker = programs.scripted_worker("train", "--pair", "--signaling", url)
    worker.wait_ready()
    code = worker.wait_line(
        lambda line: line.startswith("    ") and line.strip()[:1].isdigit(),
        stream="err",
    ).strip()
    paired = await desk.ask(Pair(server=url, code=code, remember=False))
    assert isinstance(paired, Paired)
    assert paired.session == worker.session
    assert paired.session not in repr(paired.room)
    await desk.event(WorkersChanged, lambda e: bool(e.workers))
    with pytest.raises(PairingRefused):
        await desk.ask(Pair(server=url, code=code, remember=False))


# -- the child process -----------------------------------------------------------------


@pytest.fixture
async def child_desk(own_home: None) -> AsyncIterator[Companion]:
    async with companion("child") as made:
        yield made


def pid_of(desk: Companion) -> int:
    pid: int | None = desk.host.pid  # type: ignore[union-attr]
    assert pid is not None
    return pid


@POSIX
async def test_it_leaves_the_processor_to_sleap(child_desk: Companion) -> None:
    await child_desk.ask(ListRooms())
    lowest = 19
    expected = min(psutil.Process().nice() + NICENESS, lowest)
    assert psutil.Process(pid_of(child_desk)).nice() == expected


async def test_a_child_that_dies_is_started_again_once(child_desk: Companion) -> None:
    await child_desk.ask(ListRooms())
    first = psutil.Process(pid_of(child_desk))
    first.kill()
    await child_desk.until(lambda: child_desk.restarts == 1)
    await child_desk.ask(ListRooms())
    second = psutil.Process(pid_of(child_desk))
    assert second.pid != first.pid
    second.kill()
    await child_desk.until(lambda: bool(child_desk.deaths))
    assert child_desk.deaths[0].endswith(".")
    with pytest.raises(CompanionGone):
        await child_desk.ask(ListRooms())


async def test_a_question_that_is_open_when_the_child_dies_is_answered(
    child_desk: Companion, worker: Worker
) -> None:
    await child_desk.ask(ListRooms())
    process = psutil.Process(pid_of(child_desk))
    process.suspend()
    asking = asyncio.ensure_future(child_desk.ask(ListRooms()))
    await asyncio.sleep(0)
    process.kill()
    with pytest.raises(CompanionGone):
        await asking


async def test_a_killed_child_goes_on_with_the_same_job(
    child_desk: Companion,
    gated_worker: Worker,
    gate: Path,
    small_package: Path,
    output: Path,
) -> None:
    job_id = await submit(child_desk, gated_worker.session, small_package, output)
    await child_desk.event(StepBegan)
    psutil.Process(pid_of(child_desk)).kill()
    await child_desk.until(lambda: child_desk.restarts == 1)
    child_desk.events.clear()
    await child_desk.enter(gated_worker.session)
    began = await child_desk.event(StepBegan)
    assert began.job_id == job_id
    gate.touch()
    await child_desk.event(ResultsHome)


@POSIX
async def test_a_child_that_does_not_answer_is_ended_by_force(
    child_desk: Companion, monkeypatch: pytest.MonkeyPatch
) -> None:
    await child_desk.ask(ListRooms())
    child = psutil.Process(pid_of(child_desk))
    monkeypatch.setattr(host, "SHUTDOWN_TIMEOUT_S", 0.1)
    monkeypatch.setattr(host, "REAP_TIMEOUT_S", 0.1)
    # A busy machine may not even end what was killed in time; that is no error here.
    monkeypatch.setattr(host, "KILL_TIMEOUT_S", 0.0)
    child.suspend()
    await child_desk.host.close()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone


async def test_the_child_ends_with_its_parent(programs: Programs) -> None:
    script = (
        "import asyncio, sys\n"
        "from sleap_rtc_plugin.companion.host import ChildHost\n"
        "from sleap_rtc_plugin.companion.messages import ListRooms\n"
        "async def main():\n"
        "    host = ChildHost()\n"
        "    await host.ask(ListRooms())\n"
        "    print(host.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = programs.start("-c", script)
    pid = int(parent.wait_line(str.isdigit))
    child = psutil.Process(pid)
    parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone


@POSIX
async def test_ctrl_c_in_the_terminal_does_not_end_the_child(
    child_desk: Companion,
) -> None:
    await child_desk.ask(ListRooms())
    os.kill(pid_of(child_desk), signal.SIGINT)
    await child_desk.ask(ListRooms())
    assert child_desk.restarts == 0


async def test_secrets_are_neither_in_the_command_line_nor_in_the_log(
    child_desk: Companion, worker: Worker, programs: Programs
) -> None:
    await child_desk.enter(worker.session)
    process = psutil.Process(pid_of(child_desk))
    assert not any("sleap-session" in word for word in process.cmdline())
    await child_desk.host.close()
    for path in programs.home.rglob("*"):
        if path.is_file():
            assert worker.session.encode() not in path.read_bytes(), path


@pytest.fixture
def large_package(small_package: Path, tmp_path: Path) -> Path:
    """A package that takes a while to send."""
    target = tmp_path / "large.training_job.zip"
    return pad_labels(small_package, target, 60, tmp_path)


async def test_a_package_may_be_sent_to_its_end_after_sleap_closed(
    child_desk: Companion, worker: Worker, large_package: Path, output: Path
) -> None:
    job_id = await submit(child_desk, worker.session, large_package, output)
    await child_desk.event(TransferProgress, lambda e: 0 < e.done < e.total)
    process = psutil.Process(pid_of(child_desk))
    await child_desk.host.close(finish_sending=True)
    assert process.is_running()
    gone, _ = await asyncio.to_thread(psutil.wait_procs, [process], 60)
    assert gone
    async with companion("child") as later:
        row = await later.enter(worker.session)
        home = await later.event(ResultsHome)
        assert (home.job_id, row.name) == (job_id, "gpu")


async def test_a_file_that_changed_on_its_way_is_sent_as_it_is_now(
    child_desk: Companion,
    worker: Worker,
    large_package: Path,
    output: Path,
    tmp_path: Path,
) -> None:
    labels = extract(large_package, tmp_path / "flies") / LABELS
    job_id = await submit(child_desk, worker.session, labels.parent, output)
    await child_desk.event(TransferProgress, lambda e: 0 < e.done < e.total)
    with labels.open("r+b") as file:
        file.seek(labels.stat().st_size * 9 // 10)
        file.write(os.urandom(1024 * 1024))
    home = await child_desk.event(ResultsHome)
    assert home.job_id == job_id
    files = tmp_path / "worker-data" / "jobs" / job_id / "package" / "files"
    assert (files / LABELS).read_bytes() == labels.read_bytes()


@pytest.fixture
def fish_run(tmp_path: Path, small_package: Path) -> RunRequest:
    """One model of the demo's fish, as SLEAP's dialog would ask for it."""
    folder = tmp_path / "fish"
    folder.mkdir()
    make_demo_package(folder)
    (project,) = (path for path in folder.glob("*.slp") if ".pkg" not in path.name)
    config = read_members(small_package)[CENTROID].decode()
    return RunRequest(
        project=ProjectFacts(path=str(project)),
        models=[ModelToTrain(head="centroid", config=config)],
    )


@POSIX
async def test_what_was_being_sent_when_all_crashed_is_sent_on(
    child_desk: Companion, worker: Worker, fish_run: RunRequest
) -> None:
    row = await child_desk.enter(worker.session)
    process = psutil.Process(worker.pid)
    process.suspend()
    try:
        job_id = new_job_id()
        await child_desk.ask(
            SubmitRun(job_id=job_id, worker_id=row.worker_id, run=fish_run)
        )
        async with asyncio.timeout(60):
            while RunRecords().find(job_id) is None:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.02)
        psutil.Process(pid_of(child_desk)).kill()
        await child_desk.until(lambda: child_desk.restarts == 1)
    finally:
        process.resume()
    async with companion("child") as later:
        await later.enter(worker.session)
        home = await later.event(ResultsHome)
        assert home.job_id == job_id
        assert home.project == fish_run.project
        assert (
            Path(home.models[0]).parent == Path(fish_run.project.path).parent / "models"
        )

"""Worker and server restart under a companion: its run and jobs go on by themselves.

Real programs; only the trainer is scripted. Nobody presses anything meanwhile.
"""

from pathlib import Path
from typing import get_args

import pytest
from support.companions import HostKind, companion
from support.programs import POSIX, Programs
from support.story import Story

from sleap_rtc_plugin.companion.messages import (
    JobChanged,
    Jobs,
    LinkBack,
    LinkLost,
    ListJobs,
    ResultsHome,
    RoomChanged,
    StepBegan,
    SubmitPackage,
)
from sleap_rtc_plugin.protocol.ids import new_job_id

pytestmark = [
    POSIX,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::ResourceWarning:aioice"),
]


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


async def test_worker_and_server_restart_under_a_run(
    programs: Programs, kind: HostKind, small_package: Path, tmp_path: Path
) -> None:
    output = tmp_path / "results"
    output.mkdir()
    story = Story(programs)
    async with companion(kind) as desk:
        row = await desk.enter(story.session)
        job_id = new_job_id()
        await desk.ask(
            SubmitPackage(
                job_id=job_id,
                worker_id=row.worker_id,
                package=str(small_package),
                output=str(output),
            )
        )
        await desk.event(StepBegan)
        story.allow(0)
        await desk.event(JobChanged, lambda e: e.job.epoch == 0)
        story.worker.kill()
        story.server.program.kill()
        await desk.event(LinkLost)
        await desk.event(RoomChanged, lambda e: e.state == "offline")
        story.allow(1, 2)
        story.server.program = story.server.start()
        story.start_worker()
        await desk.event(LinkBack)
        online = [e for e in desk.events if isinstance(e, RoomChanged)]
        await desk.until(
            lambda: (
                [e for e in desk.events if isinstance(e, RoomChanged)][-1].state
                == "online"
            )
        )
        assert all(event.room is not None for event in online)
        await desk.event(JobChanged, lambda e: e.job.epoch == 2)
        # The window of jobs lists as before.
        jobs = await desk.ask(ListJobs(worker_id=row.worker_id))
        assert isinstance(jobs, Jobs)
        assert [(job.job_id, job.state) for job in jobs.jobs] == [(job_id, "running")]
        story.allow_all()
        home = await desk.event(ResultsHome)
        assert (Path(home.models[0]) / "best.ckpt").read_bytes() == story.checkpoint(
            job_id
        )
        assert story.trainings == 1

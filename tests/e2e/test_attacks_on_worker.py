"""What the existing systems fell to, tried against our own worker.

The attackers run here, in the test, and leave out whatever rule they like; the worker
is a real process, the same for all of them. What a worker tries with its clients is in
`test_attacks_on_client`; what the signaling server withstands is in
`integration/test_signaling_attacks`.
"""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.attackers import FALSE_AUTH, be_rude_to_worker, hello, member
from support.packages import CENTROID, LABELS, edit_config, extract, read_members
from support.programs import POSIX, Programs, Worker
from support.refusals import files_in

from sleap_rtc_plugin.protocol.codec import encode_control
from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    JobConflict,
    OptionRefused,
    RtcError,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.ids import new_command_id, new_job_id
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import (
    JobSpec,
    JobSubmit,
    KeepAlive,
    PredictStep,
    TrainStep,
)
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource

RUN_NAME = "demo.centroid.n=20"
TRAIN = TrainStep(config=CENTROID, labels=LABELS, run_name=RUN_NAME, head="centroid")


@pytest.fixture(scope="module")
def worker(module_programs: Programs) -> Worker:
    """The worker that is attacked, by every test; it must survive them all."""
    return module_programs.scripted_worker("train").wait_ready()


@pytest.fixture
def unpacked(small_package: Path, tmp_path: Path) -> Path:
    return extract(small_package, tmp_path / "unpacked")


# -- without the secret ----------------------------------------------------------------


async def test_a_client_with_another_secret(worker: Worker) -> None:
    known = Session.parse(worker.session)
    wrong = Session(
        url=known.url,
        room_id=known.room_id,
        token=known.token,
        peer_id=known.peer_id,
        secret=secrets.token_bytes(32),
    )
    with pytest.raises(RtcError, match="could not prove"):
        async with member(wrong.encode()):
            pass


def _submit() -> str:
    return encode_control(
        JobSubmit(
            command_id="c-1",
            job_id=new_job_id(),
            spec=JobSpec(name="x", steps=[TRAIN]),
            package_digest="0" * 64,
            package_bytes=1,
        )
    )


RUDE: dict[str, Callable[[], list[str | bytes]]] = {
    "a job": lambda: [_submit()],
    "a job behind a HELLO": lambda: [hello(), _submit()],
    "a job behind a wrong AUTH": lambda: [hello(), FALSE_AUTH, _submit()],
    "AUTH first": lambda: [FALSE_AUTH],
    "an empty keep-alive": lambda: [encode_control(KeepAlive())],
    "two HELLOs": lambda: [hello(), hello()],
    "a HELLO of a worker": lambda: [hello("worker")],
    "an old version": lambda: [hello().replace('"protocol_min":1', '"protocol_min":9')],
    "garbage": lambda: ["\x00 garbage"],
    "bytes": lambda: [b"HELLO::{}"],
    "an unknown frame": lambda: ["RUN::{}"],
    "a flood": lambda: ["HELLO::" + "[" * 100_000],
}


@pytest.mark.parametrize("frames", RUDE.values(), ids=RUDE.keys())
async def test_frames_before_proof_close_the_link(
    worker: Worker, frames: Callable[[], list[str | bytes]]
) -> None:
    heard = await be_rude_to_worker(Session.parse(worker.session), frames())
    # At most the worker's own half of the handshake came.
    assert {str(f).partition("::")[0] for f in heard} <= {"HELLO", "AUTH"}
    assert worker.is_running


async def test_a_fragment_before_proof_closes_the_link(worker: Worker) -> None:
    session = Session.parse(worker.session)
    await be_rude_to_worker(session, [b"\x00" * 64], on_transfer=True)
    assert worker.is_running


# -- a member of the room --------------------------------------------------------------


async def submit(
    link: WorkerLink, steps: list[TrainStep | PredictStep], source: FileSource
) -> RemoteJob:
    """Submit and send; return the job, at its end."""
    job = RemoteJob(link, new_job_id(), JobSpec(name="evil", steps=steps))
    await job.submit(source)
    await job.attach(lambda event, mirror: None)
    try:
        await job.send_package(source, lambda totals: None)
    except RtcError:
        await job.wait_until(lambda mirror: mirror.has_ended)
    await job.wait_until(lambda mirror: mirror.has_ended)
    return job


BAD_NAMES = (
    "../x",
    "../../x",
    "a/../../x",
    "/outside/x",
    "C:/x",
    "C:x",
    "\\\\server\\x",
    "a\\..\\x",
    "con",
    "lpt1.slp",
    "x.",
    "x ",
    "x\ny",
    "~root\u202e",
    "file:x",
    "x" * 230,
)
BAD_STEPS: list[TrainStep | PredictStep] = [
    *(TrainStep(config=n, labels=LABELS, run_name="r", head="h") for n in BAD_NAMES),
    *(TrainStep(config=CENTROID, labels=n, run_name="r", head="h") for n in BAD_NAMES),
    *(
        TrainStep(config=CENTROID, labels=LABELS, run_name=n, head="h")
        for n in (*BAD_NAMES, "a/b", ".", "..")
    ),
    *(PredictStep(data=n, models=["m"], output="p.slp") for n in BAD_NAMES),
    *(PredictStep(data=LABELS, models=[n], output="p.slp") for n in BAD_NAMES),
    *(PredictStep(data=LABELS, models=["m"], output=n) for n in (*BAD_NAMES, "a/b")),
    *(
        PredictStep(data=url, models=["m"], output="p.slp")
        for url in (
            "http://127.0.0.1/x.slp",
            "https://example.org/x.slp",
            "s3://bucket/x.slp",
            "gs://bucket/x.slp",
            "file:///etc/passwd",
        )
    ),
]
BAD_OPTIONS = [
    {"data_path": "/etc/passwd"},
    {"output_path": "/outside/x"},
    {"model_paths": "/outside/model"},
    {"o": "/outside/x"},
    {"headers": "A: b"},
    {"-o": "/outside/x"},
    {"--output_path": "/outside/x"},
    {"peak_threshold": "--output_path=/outside/x"},
    {"peak_threshold": "0.1 --output_path=/outside/x"},
    {"peak_threshold": "$(touch /outside/x)"},
    {"frames": "0;touch /outside/x"},
    {"device": "cpu\n--output_path=/outside/x"},
    {"tracking": "/outside/x"},
    {"peak_threshold\n": "1"},
]


async def test_names_and_options_that_lead_out_are_refused(worker: Worker) -> None:
    async with member(worker.session) as link:
        for step in BAD_STEPS:
            with pytest.raises((UnsafeMember, OptionRefused)):
                await link.ask(_job(step))
        for options in BAD_OPTIONS:
            step = PredictStep(
                data=LABELS, models=["m"], output="p.slp", options=options
            )
            with pytest.raises((UnsafeMember, OptionRefused)):
                await link.ask(_job(TRAIN, step))


def _job(*steps: TrainStep | PredictStep) -> JobSubmit:
    return JobSubmit(
        command_id=new_command_id(),
        job_id=new_job_id(),
        spec=JobSpec(name="evil", steps=list(steps)),
        package_digest="0" * 64,
        package_bytes=1,
    )


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize(
    "name", ["../escaped", "../../escaped", "models/../../escaped", "{tmp}/absolute"]
)
async def test_members_that_lead_out_are_not_written(
    module_programs: Programs,
    worker: Worker,
    unpacked: Path,
    tmp_path: Path,
    name: str,
) -> None:
    name = name.format(tmp=tmp_path)
    target = unpacked / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("escaped")
    source = FileSource.scan(unpacked, [CENTROID, LABELS, name])
    before = set(module_programs.folder.rglob("*escaped*"))
    async with member(worker.session) as link:
        job = RemoteJob(link, new_job_id(), JobSpec(name="evil", steps=[TRAIN]))
        await job.submit(source)
        with pytest.raises(RtcError):
            await job.send_package(source, lambda totals: None)
    assert set(module_programs.folder.rglob("*escaped*")) == before
    assert worker.is_running


OUTSIDE = "/outside/of/the/job"
BAD_CONFIGS: list[dict[str, Any]] = [
    {"trainer_config.ckpt_dir": OUTSIDE},
    {"trainer_config.ckpt_dir": "../../.."},
    {"trainer_config.run_name": "../../outside"},
    {"trainer_config.run_name": OUTSIDE},
    {"trainer_config.resume_ckpt_path": OUTSIDE},
    {"trainer_config.wandb": {"save_dir": OUTSIDE, "api_key": "k", "project": "p"}},
    {"data_config.train_labels_path": [OUTSIDE]},
    {"data_config.val_labels_path": ["http://127.0.0.1/outside.slp"]},
    {"data_config.test_file_path": OUTSIDE},
    {"data_config.cache_img_path": OUTSIDE},
    {"data_config.data_pipeline_fw": OUTSIDE},
    {"model_config.pretrained_backbone_weights": OUTSIDE},
    {"model_config.pretrained_head_weights": OUTSIDE},
    {"hydra": {"run": {"dir": OUTSIDE}}},
    {"defaults": [{"outside": OUTSIDE}]},
    {"trainer_config.profiler": "${oc.env:HOME}/outside"},
]


async def test_configs_cannot_choose_paths(
    module_programs: Programs, worker: Worker, small_package: Path, tmp_path: Path
) -> None:
    original = read_members(small_package)
    async with member(worker.session) as link:
        for number, values in enumerate(BAD_CONFIGS):
            members = dict(original)
            edit_config(members, CENTROID, values)
            root = tmp_path / str(number)
            root.mkdir()
            for name, data in members.items():
                (root / name).write_bytes(data)
            source = FileSource.scan(root, [CENTROID, LABELS])
            job = await submit(link, [TRAIN], source)
            if job.mirror.state is JobState.REJECTED:
                assert isinstance(job.mirror.error, ConfigRefused), values
                continue
            # Accepted: then what sleap-nn was given does not speak of it any more.
            assert job.mirror.state is JobState.SUCCEEDED, (values, job.mirror.error)
            jobs = module_programs.folder / "worker-data" / "jobs"
            (guarded,) = (jobs / job.job_id / "configs" / "0").iterdir()
            text = guarded.read_text()
            assert "outside" not in text, values
            assert "api_key: k" not in text, values
            assert "../.." not in text, values
    assert files_in(Path(OUTSIDE)) == []


async def test_a_job_id_is_not_taken_over(worker: Worker, unpacked: Path) -> None:
    source = FileSource.scan(unpacked, [CENTROID, LABELS])
    async with member(worker.session) as link:
        mine = _job(TRAIN)
        await link.ask(mine)
        job = RemoteJob(link, mine.job_id, JobSpec(name="other", steps=[TRAIN]))
        with pytest.raises(JobConflict):
            await job.submit(source)
        # Nor its package, by another manifest than the one that was announced.
        job = RemoteJob(link, mine.job_id, mine.spec)
        with pytest.raises(JobConflict):
            await job.send_package(source, lambda totals: None)


# -- jsonpickle ------------------------------------------------------------------------


@POSIX
def test_what_a_trainer_pickles_is_not_run(
    programs: Programs, small_package: Path, tmp_path: Path, output: Path
) -> None:
    marker = tmp_path / "run-by-the-trainer"
    worker = programs.scripted_worker(f"hostile,marker={marker}").wait_ready()
    client = programs.train(small_package, worker.session, output)
    assert client.wait() == 0, client.story()
    assert not marker.exists()
    progress = [e for e in client.events if e.get("event") == "progress"]
    assert "py/" not in json.dumps(progress)
    said = "\n".join((*client.out, *client.err, *worker.out, *worker.err))
    assert "\x1b" not in said
    assert "\x07" not in said


# -- after all of that -----------------------------------------------------------------


@POSIX
def test_the_attacked_worker_still_works(
    programs: Programs, worker: Worker, small_package: Path, output: Path
) -> None:
    client = programs.train(small_package, worker.session, output)
    assert client.wait() == 0, client.story()
    assert "Traceback" not in "\n".join(worker.err), worker.story()

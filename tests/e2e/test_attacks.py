"""What the existing systems fell to, tried against our own worker and client.

The attackers run here, in the test, and leave out whatever rule they like; the worker
and the client are real processes. What the signaling server withstands is in
`integration/test_signaling_attacks`.
"""

import asyncio
import io
import json
import pickle
import secrets
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.attackers import (
    FakeWorker,
    RudeWorker,
    be_rude_to_worker,
    member,
)
from support.evil_signaling import EvilSignaling
from support.packages import CENTROID, LABELS, edit_config, extract, read_members
from support.programs import POSIX, Program, Programs, Worker

from sleap_rtc_plugin.protocol import manifest
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
    Auth,
    FileMeta,
    Hello,
    JobSpec,
    JobSubmit,
    KeepAlive,
    PredictStep,
    TrainLog,
    TrainStep,
)
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport import file_source
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_plugin.transport.file_source import FileSource

MIB = 1024 * 1024
RUN_NAME = "demo.centroid.n=20"
TRAIN = TrainStep(config=CENTROID, labels=LABELS, run_name=RUN_NAME, head="centroid")
PREDICT = PredictStep(data=LABELS, models=[f"models/{RUN_NAME}"], output="p.slp")
BASE_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def module_programs(
    tmp_path_factory: pytest.TempPathFactory, caches: Path
) -> Iterator[Programs]:
    found = Programs(tmp_path_factory.mktemp("room"), caches)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def worker(module_programs: Programs) -> Worker:
    """The worker that is attacked, by every test; it must survive them all."""
    return module_programs.scripted_worker("train").wait_ready()


@pytest.fixture(scope="module")
def signaling(module_programs: Programs) -> str:
    return module_programs.signaling()


@pytest.fixture
def session(signaling: str) -> str:
    """A room in which no worker is yet."""

    async def make() -> str:
        async with AccountClient(signaling) as account:
            owner = await account.sign_in_anonymously()
            room = await account.create_room(owner.token)
        return Session(
            url=signaling,
            room_id=room.room_id,
            token=room.token,
            peer_id="worker-fake",
            secret=secrets.token_bytes(32),
        ).encode()

    return asyncio.run(make())


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def unpacked(small_package: Path, tmp_path: Path) -> Path:
    return extract(small_package, tmp_path / "unpacked")


async def exit_of(program: Program) -> int:
    return await asyncio.to_thread(program.wait, BASE_TIMEOUT_S)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_refused(client: Program, code: int, error: str, output: Path) -> None:
    assert client.wait() == code, client.story()
    assert client.report["error"]["code"] == error, client.story()
    assert client.err[-1] == client.report["error"]["message"]
    assert "Traceback" not in "\n".join(client.err), client.story()
    assert client.report["models"] == client.report["predictions"] == []
    private = output / ".sleap-remote"
    assert [path for path in files_in(output) if private not in path.parents] == []


def jobs_at(programs: Programs) -> dict[str, str]:
    """Return the state of every job that the worker knows, from its journal."""
    journal = programs.folder / "worker-data" / "journal.sqlite3"
    if not journal.exists():
        return {}
    # The worker holds the lock, so read a copy.
    copy = programs.folder / "copy"
    copy.mkdir(exist_ok=True)
    for part in journal.parent.glob("journal.sqlite3*"):
        (copy / part.name).write_bytes(part.read_bytes())
    with sqlite3.connect(copy / journal.name) as database:
        rows = database.execute("SELECT job_id, record FROM jobs").fetchall()
    database.close()
    return {job_id: json.loads(record)["state"] for job_id, record in rows}


# -- 1: in the middle ------------------------------------------------------------------


async def test_a_relay_in_the_middle_is_refused_by_both(
    programs: Programs, small_package: Path, output: Path
) -> None:
    async with EvilSignaling() as evil:
        session = Session(
            url=evil.url,
            room_id="room-1",
            token="any",
            peer_id="worker-1",
            secret=secrets.token_bytes(32),
        ).encode()
        worker = programs.scripted_worker("train", "--session", session)
        await asyncio.to_thread(worker.wait_ready)
        client = programs.train(small_package, session, output)
        await exit_of(client)
        await asyncio.to_thread(
            worker.wait_line, lambda line: "No link with" in line, stream="err"
        )
    assert_refused(client, 4, "peer_not_authenticated", output)
    assert client.report["state"] == "unsent"
    (complaint,) = [line for line in worker.err if "No link with" in line]
    assert "could not prove" in complaint
    # It was really in between, and learnt nothing but the handshake.
    assert evil.links == 1
    heard = [str(f).partition("::")[0] for f in evil.from_client + evil.from_worker]
    assert set(heard) == {"HELLO", "AUTH"}
    assert jobs_at(programs) == {}


# -- 2 and 3: without the secret -------------------------------------------------------


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


def _hello(role: str = "client") -> str:
    return encode_control(
        Hello(role=role, protocol_min=1, protocol_max=1, nonce=secrets.token_hex(32))  # type: ignore[arg-type]
    )


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


AUTH = encode_control(Auth(mac="0" * 64))
RUDE: dict[str, Callable[[], list[str | bytes]]] = {
    "a job": lambda: [_submit()],
    "a job behind a HELLO": lambda: [_hello(), _submit()],
    "a job behind a wrong AUTH": lambda: [_hello(), AUTH, _submit()],
    "AUTH first": lambda: [AUTH],
    "an empty keep-alive": lambda: [encode_control(KeepAlive())],
    "two HELLOs": lambda: [_hello(), _hello()],
    "a HELLO of a worker": lambda: [_hello("worker")],
    "an old version": lambda: [
        _hello().replace('"protocol_min":1', '"protocol_min":9')
    ],
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


async def test_a_worker_without_the_secret_is_refused(
    programs: Programs, session: str, small_package: Path, tmp_path: Path, output: Path
) -> None:
    class Impostor(FakeWorker):
        def secret(self) -> bytes:
            return secrets.token_bytes(32)

    async with Impostor(session, tmp_path) as fake:
        client = programs.train(small_package, session, output)
        await exit_of(client)
    assert_refused(client, 4, "peer_not_authenticated", output)
    assert fake.heard == []
    assert client.report["bytes_sent"] == 0


@pytest.mark.parametrize(
    "frames",
    [
        lambda: ['JOB_ACCEPTED::{"command_id":"c-1","job_id":"j","state":"running"}'],
        lambda: [_hello("worker"), AUTH],
        lambda: [_hello("worker"), 'PROGRESS_REPORT::{"py/reduce":[]}'],
    ],
    ids=["a reply", "a wrong AUTH", "an event"],
)
async def test_a_worker_that_skips_its_proof_is_refused(
    programs: Programs,
    session: str,
    small_package: Path,
    tmp_path: Path,
    output: Path,
    frames: Callable[[], list[str]],
) -> None:
    async with RudeWorker(session, tmp_path, frames) as fake:
        client = programs.train(small_package, session, output)
        assert await exit_of(client) == 4, client.story()
    assert client.report["state"] == "unsent"
    (peer,) = fake.peers
    assert {str(f).partition("::")[0] for f in peer.heard} <= {"HELLO", "AUTH"}
    assert files_in(output) == []


# -- 4: a member of the room -----------------------------------------------------------


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


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process offer any path at all."""
    for module in (manifest, file_source):
        monkeypatch.setattr(module, "check_paths", lambda paths: None)


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


# -- 5: jsonpickle ---------------------------------------------------------------------


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


def pickled_frames(job_id: str, marker: Path) -> list[str]:
    """Return events that jsonpickle would turn into a call."""
    call = {
        "py/reduce": [
            {"py/function": "builtins.open"},
            {"py/tuple": [str(marker), "w"]},
        ]
    }
    event = {"job_id": job_id, "seq": 1, "at": 0.0, "step": 0}
    bodies = [
        ("PROGRESS_REPORT", {**event, "kind": "epoch_end", "losses": call}),
        ("PROGRESS_REPORT", {**event, "kind": call}),
        ("PROGRESS_REPORT", {**event, "kind": "epoch_end", "epoch": call}),
        ("TRAIN_LOG", {**event, "lines": [call]}),
        ("JOB_EVENT", {**event, "state": call}),
        ("JOB_EVENT", {**event, "state": "failed", "error": call}),
        ("JOB_EVENT", call),
        ("py/object", {**event, "py/object": "os.system"}),
    ]
    return [f"{name}::{json.dumps(body)}" for name, body in bodies]


@pytest.mark.parametrize("number", range(8))
async def test_what_a_worker_pickles_is_not_run(
    programs: Programs,
    session: str,
    small_package: Path,
    tmp_path: Path,
    output: Path,
    number: int,
) -> None:
    marker = tmp_path / "run-by-the-worker"

    class Pickler(FakeWorker):
        async def run(self, job_id: str) -> None:
            self.send_raw(pickled_frames(job_id, marker)[number])

    async with Pickler(session, tmp_path) as _:
        client = programs.train(small_package, session, output)
        code = await exit_of(client)
    assert code in (3, 4), client.story()
    assert not marker.exists()
    assert "Traceback" not in "\n".join(client.err)
    assert "py/" not in "\n".join(client.out)


# -- 6: a worker's results -------------------------------------------------------------


def write_model(root: Path, checkpoint: bytes) -> list[str]:
    folder = root / "models" / RUN_NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "best.ckpt").write_bytes(checkpoint)
    (folder / "training_config.yaml").write_text("trainer_config: {}\n")
    names = ("best.ckpt", "training_config.yaml")
    return [f"models/{RUN_NAME}/{name}" for name in names]


def checkpoint_of(data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("best/data.pkl", data)
    return packed.getvalue()


GOOD_CHECKPOINT = checkpoint_of(pickle.dumps({}, protocol=2))


class Liar(FakeWorker):
    """Sends whatever lies in its folder `home`, and says that it is the results."""

    extra: tuple[str, ...] = ()
    checkpoint = GOOD_CHECKPOINT

    async def results(self) -> FileSource:
        home = self.scratch / "home"
        names = write_model(home, self.checkpoint)
        for name in self.extra:
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("escaped")
        return FileSource.scan(home, [*names, *self.extra])


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize(
    "name",
    [
        "../escaped.slp",
        "models/../../escaped.slp",
        f"models/{RUN_NAME}/../../../escaped.slp",
        "{tmp}/absolute.slp",
        "models/escaped.slp",
        "a/b/escaped.slp",
        ".sleap-remote/escaped.slp",
        "con.slp",
        "escaped\u202e.slp",
    ],
)
async def test_results_that_lead_out_are_not_kept(
    programs: Programs,
    session: str,
    small_package: Path,
    tmp_path: Path,
    output: Path,
    name: str,
) -> None:
    class Escaping(Liar):
        extra = (name.format(tmp=tmp_path / "scratch"),)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    async with Escaping(session, scratch) as _:
        client = programs.train(small_package, session, output)
        code = await exit_of(client)
    assert code != 0, client.story()
    assert client.report["models"] == []
    assert "Traceback" not in "\n".join(client.err), client.story()
    assert client.err[-1] == client.report["error"]["message"]
    escaped = [p for p in files_in(tmp_path) if "escaped" in p.name]
    assert [p for p in escaped if scratch not in p.parents] == []


class _Call:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("kind", ["zip", "bare", "compressed"])
async def test_a_checkpoint_with_code_in_it_is_not_kept(
    programs: Programs,
    session: str,
    small_package: Path,
    tmp_path: Path,
    output: Path,
    kind: str,
) -> None:
    marker = tmp_path / "run-by-the-checkpoint"
    bomb = pickle.dumps({"state_dict": _Call(marker)}, protocol=2)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("best/data.pkl", bomb)

    class Bomber(Liar):
        checkpoint = {
            "zip": checkpoint_of(bomb),
            "bare": bomb,
            "compressed": packed.getvalue(),
        }[kind]

    async with Bomber(session, tmp_path) as _:
        client = programs.train(small_package, session, output)
        await exit_of(client)
    assert_refused(client, 1, "unsafe_checkpoint", output)
    assert not marker.exists()


async def test_results_of_another_job_are_refused(
    programs: Programs, session: str, small_package: Path, tmp_path: Path, output: Path
) -> None:
    class Mistaken(Liar):
        def results_job(self, job_id: str) -> str:
            return "job-" + "0" * 20

    async with Mistaken(session, tmp_path) as _:
        client = programs.train(small_package, session, output)
        assert await exit_of(client) in (3, 4), client.story()
    # It is noticed when the link closes, not when an answer is overdue.
    assert client.report["error"]["code"] == "worker_vanished"
    assert client.report["models"] == []
    assert "Traceback" not in "\n".join(client.err)
    assert files_in(output) == []


async def test_files_that_nobody_asked_for_are_refused(
    programs: Programs, session: str, small_package: Path, tmp_path: Path, output: Path
) -> None:
    class Pushy(Liar):
        async def run(self, job_id: str) -> None:
            assert self.link is not None
            source = await self.results()
            self.link.send(
                FileMeta(
                    transfer_id="transfer-" + "0" * 20,
                    stream=7,
                    job_id=job_id,
                    purpose="results",
                    manifest_bytes=len(source.encoded_manifest),
                    manifest_digest=source.manifest_digest.hex(),
                    total_bytes=source.manifest.total_bytes,
                    file_count=2,
                )
            )

    async with Pushy(session, tmp_path) as _:
        client = programs.train(small_package, session, output)
        assert await exit_of(client) in (3, 4), client.story()
    assert files_in(output) == []


@POSIX
async def test_endless_events_do_not_fill_the_memory(
    programs: Programs, session: str, small_package: Path, tmp_path: Path, output: Path
) -> None:
    """And the user can always leave."""
    sent = asyncio.Event()

    class Talker(FakeWorker):
        async def run(self, job_id: str) -> None:
            assert self.link is not None
            for state in ("queued", "starting", "running"):
                self.say(job_id, state)
            while True:
                lines = ["x" * 500] * 50
                event = TrainLog(
                    job_id=job_id, seq=self.next_seq(), at=0.0, step=0, lines=lines
                )
                await self.link.send_paced(event)
                if event.seq == 1000:
                    sent.set()

    async with Talker(session, tmp_path) as _:
        client = programs.train(small_package, session, output)
        await asyncio.to_thread(client.wait_event, event="state", state="running")
        process = psutil.Process(client.pid)
        before = process.memory_info().rss
        async with asyncio.timeout(BASE_TIMEOUT_S):
            await sent.wait()
        assert process.memory_info().rss - before < 100 * MIB
        client.interrupt()
        await asyncio.to_thread(
            client.wait_line, lambda line: line.startswith("Stopping"), stream="err"
        )
        client.interrupt()
        assert await exit_of(client) == 130, client.story()


async def test_events_after_the_end_are_refused(
    programs: Programs, session: str, small_package: Path, tmp_path: Path, output: Path
) -> None:
    class Undead(Liar):
        async def run(self, job_id: str) -> None:
            for state in ("queued", "failed", "running"):
                self.say(job_id, state)

    async with Undead(session, tmp_path) as _:
        client = programs.train(small_package, session, output)
        assert await exit_of(client) in (1, 3, 4), client.story()
    assert "Traceback" not in "\n".join(client.err)


# -- 8: secrets ------------------------------------------------------------------------


@POSIX
def test_secrets_are_nowhere(
    programs: Programs, small_package: Path, tmp_path: Path, output: Path
) -> None:
    gate = tmp_path / "gate"
    log = tmp_path / "log"
    worker = programs.scripted_worker(f"gated,gate={gate},log={log}", "--verbose")
    worker.wait_ready()
    session = Session.parse(worker.session)
    body = worker.session.partition(":")[2]
    encoded = json.loads(_decode(body))["secret"]
    hidden = [session.token, encoded, session.secret.hex(), body, worker.session]

    client = programs.client(
        *("train", small_package, "--output", output, "--json", "--verbose"),
        SLEAP_SESSION=worker.session,
    )
    client.wait_event(event="progress", kind="epoch_end")
    running = list(programs.processes())
    assert len(running) >= 4  # the worker, the client, the runner, the trainer
    for process in running:
        words = " ".join(process.cmdline())
        assert not [secret for secret in hidden if secret in words]
        if process.pid not in (client.pid, worker.pid):
            environment = " ".join(process.environ().values())
            assert not [secret for secret in hidden if secret in environment]
    gate.touch()
    assert client.wait() == 0, client.story()
    worker.terminate()
    worker.wait()

    said = "\n".join((*client.out, *client.err, *worker.out[1:], *worker.err))
    assert "DEBUG" in said or "INFO" in said  # it was verbose indeed
    assert not [secret for secret in hidden if secret in said]
    wanted = [secret.encode() for secret in hidden] + [session.secret]
    files = [
        path
        for folder in (programs.home, programs.folder / "worker-data", output)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert any(path.name == "journal.sqlite3" for path in files)
    found = [p for p in files for secret in wanted if secret in p.read_bytes()]
    assert found == []


def _decode(body: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))[:-4]


# -- after all of that -----------------------------------------------------------------


@POSIX
def test_the_attacked_worker_still_works(
    programs: Programs, worker: Worker, small_package: Path, output: Path
) -> None:
    client = programs.train(small_package, worker.session, output)
    assert client.wait() == 0, client.story()
    assert "Traceback" not in "\n".join(worker.err), worker.story()

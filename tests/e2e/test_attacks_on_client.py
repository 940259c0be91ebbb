"""What the existing systems fell to, tried against our own client.

The workers that lie run here, in the test, and leave out whatever rule they like; the
client that falls for them, or does not, is a real process.
"""

import asyncio
import contextlib
import io
import json
import pickle
import secrets
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.attackers import FALSE_AUTH, FakeWorker, RudeWorker, hello
from support.programs import POSIX, Programs
from support.refusals import BASE_TIMEOUT_S, assert_refused, exit_of, files_in

from sleap_rtc_plugin.protocol.errors import NoWayToWorker, RtcError
from sleap_rtc_plugin.protocol.messages import FileMeta, TrainLog
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import RelayedOffer
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.transport.account import AccountClient
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.peer import accept_offer

MIB = 1024 * 1024
RUN_NAME = "demo.centroid.n=20"


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


# -- a worker without the secret -------------------------------------------------------


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
        lambda: [hello("worker"), FALSE_AUTH],
        lambda: [hello("worker"), 'PROGRESS_REPORT::{"py/reduce":[]}'],
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


async def test_a_worker_that_cannot_be_reached_anywhere(
    session: str, tmp_path: Path
) -> None:
    class Unreachable(FakeWorker):
        async def _serve(self, offer: RelayedOffer) -> None:
            with contextlib.suppress(RtcError):
                await accept_offer(
                    self._signaling, offer, secret=self.secret(), relay_only=True
                )

    async with (
        Unreachable(session, tmp_path),
        RemoteSession(Session.parse(session)) as room,
    ):
        with pytest.raises(NoWayToWorker, match="the worker got no address"):
            await room.connect(await room.choose())


# -- jsonpickle ------------------------------------------------------------------------


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


# -- a worker's results ----------------------------------------------------------------


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
    # It is noticed when the link closes, not when an answer is overdue; and such a
    # worker is not tried again.
    assert client.report["error"]["code"] == "protocol"
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

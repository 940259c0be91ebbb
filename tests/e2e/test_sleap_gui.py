"""The real SLEAP window with bad input and bad luck.

Every test runs SLEAP's own program with the plugin, a real signaling server and a real
worker whose trainer is a script; `support/sleap_mishaps` is the user.
"""

import asyncio
import contextlib
import importlib.util
import json
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.attackers import FakeWorker
from support.programs import POSIX, SUPPORT, Program, Programs, Worker, wait_for

from sleap_rtc_plugin.gui import messages
from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.transport.account import AccountClient

pytestmark = [
    POSIX,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        importlib.util.find_spec("sleap") is None, reason="SLEAP is not installed"
    ),
]

# Longer than the user's own patience, whose words say more.
WAIT_S = 130.0
CLOSES_S = 3.0
# Python takes SLEAP and all that it has loaded apart, which is not ours to hasten.
ENDS_S = 20.0
# Drawing alone takes SLEAP some 0.1 s at a time; what freezes takes longer than this.
MAX_LATENESS_MS = 2000.0
SUGGESTED = list(range(7, 87, 10))
NOISY_LABELED = 4
NOISY_SUGGESTED = list(range(NOISY_LABELED, 40))
NOISE_SIZE_PX = 1024
NOWHERE = Session(
    url="http://127.0.0.1:1",
    room_id="room-nowhere",
    token="token",
    peer_id="worker-gpu",
    secret=bytes(32),
)


class Desk:
    """Starts SLEAP for a user, and leaves notes for them."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self._notes = programs.folder / "notes"
        self._notes.mkdir()

    def sleap(
        self, scenario: str, project: Path | None, session: str = "", **options: object
    ) -> Program:
        """Start SLEAP with a project and a user."""
        known = {"notes": self._notes, "session": session, **options}
        return self.programs.start(
            SUPPORT / "sleap_mishaps.py",
            scenario,
            *(f"{name}={value}" for name, value in known.items()),
            "--",
            *([project] if project else []),
            QT_QPA_PLATFORM="offscreen",
            PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring",
        )

    def tell(self, note: str) -> None:
        (self._notes / note).touch()


@pytest.fixture
def desk(programs: Programs) -> Desk:
    return Desk(programs)


@pytest.fixture
def project(demo_package: Path, tmp_path: Path) -> Path:
    """A saved project with labels and suggestions, in a folder of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Path(shutil.copy(demo_package.with_name("demo.slp"), folder))


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of large pictures that nothing compresses: sending it takes a while."""
    import numpy as np
    import sleap_io

    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(7)
    shape = (NOISE_SIZE_PX, NOISE_SIZE_PX, 1)
    with sleap_io.VideoWriter(folder / "noise.mp4", fps=25, crf=18) as writer:
        for _ in range(NOISY_LABELED + len(NOISY_SUGGESTED)):
            writer(rng.integers(0, 256, shape, np.uint8).repeat(3, axis=2))
    skeleton = sleap_io.Skeleton(nodes=["a", "b"], edges=[("a", "b")], name="ab")
    video = sleap_io.Video.from_filename(str(folder / "noise.mp4"), grayscale=True)
    points = [[50.0, 50.0], [90.0, 90.0]]
    labels = sleap_io.Labels(
        labeled_frames=[
            sleap_io.LabeledFrame(
                video=video,
                frame_idx=frame,
                instances=[sleap_io.Instance.from_numpy(points, skeleton=skeleton)],
            )
            for frame in range(NOISY_LABELED)
        ],
        suggestions=[
            sleap_io.SuggestionFrame(video=video, frame_idx=frame)
            for frame in NOISY_SUGGESTED
        ],
    )
    labels.save(str(folder / "noise.slp"), verbose=False)
    return folder / "noise.slp"


@pytest.fixture
def large_project(noise: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return Path(shutil.copy(noise, folder))


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def worker_behind(
    programs: Programs, gate: Path, *words: str, **options: int
) -> Worker:
    """Start a worker that trains until the gate opens, and sees animals."""
    more = "".join(f",{name}={value}" for name, value in options.items())
    behaviour = f"gated,gate={gate},sees=1{more}"
    return programs.scripted_worker(behaviour, "--name", "gpu", *words).wait_ready()


def signaling(
    programs: Programs, data: str = "signaling", port: str = "0"
) -> tuple[Program, str]:
    """Start a signaling server that can be ended, and return it with its address."""
    where = ("--port", port, "--rest-port", "none", "--data", programs.folder / data)
    server = programs.client("signaling", *where)
    line = server.wait_line(lambda text: " listens on " in text, stream="err")
    return server, line.partition(" listens on ")[2].partition(";")[0]


def saw(sleap: Program, what: str) -> dict[str, Any]:
    """Return what the user told when they saw this."""
    return sleap.wait_event(WAIT_S, saw=what)


def assert_ended_well(sleap: Program) -> None:
    assert sleap.wait(WAIT_S) == 0, sleap.story()
    assert "Traceback" not in "\n".join(sleap.err), sleap.story()


def assert_merged(home: dict[str, Any], frames: list[int]) -> None:
    """Expect one animal in each of these frames, and the project as it was else."""
    assert sorted(home["predicted"]) == [[frame, 1] for frame in frames]
    assert (home["videos"], home["skeletons"], home["boxes"]) == (1, 1, [])


def assert_home_once(project: Path) -> None:
    assert len(list(project.parent.glob("models/*/best.ckpt"))) == 2
    assert len(list(project.parent.glob("predictions/*.slp"))) == 1


# -- the whole way ---------------------------------------------------------------------


def assert_whole(sleap: Program, project: Path) -> None:
    """Expect what a run leaves, now that its gate is open."""
    curve = saw(sleap, "curve")
    assert curve["epochs"] == [1.0, 2.0]
    assert curve["batches"] >= 2
    assert_merged(saw(sleap, "home"), SUGGESTED)
    assert_ended_well(sleap)
    assert_home_once(project)


def test_a_run_in_the_process_of_sleap_from_the_menu_to_the_results(
    desk: Desk, programs: Programs, project: Path, gate: Path
) -> None:
    settings = programs.home / "config" / "sleap-remote" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"host": "in-process"}')
    worker = worker_behind(programs, gate)
    sleap = desk.sleap("whole", project, worker.session)
    training = saw(sleap, "training")
    assert "gpu" in training["title"]
    assert training["companions"] == 0
    gate.touch()
    assert_whole(sleap, project)


def test_a_run_with_a_companion_and_a_worker_that_goes_and_comes_back(
    desk: Desk, programs: Programs, project: Path, gate: Path
) -> None:
    url = programs.signaling()
    first = worker_behind(programs, gate, "--signaling", url)
    sleap = desk.sleap("whole", project, first.session, away="yes")
    training = saw(sleap, "training")
    assert "gpu" in training["title"]
    assert training["companions"] == 1
    first.kill()
    away = saw(sleap, "away")
    assert away["footer"] == messages.worker_gone("gpu")
    assert "cannot be reached" in away["title"]
    worker_behind(programs, gate, "--session", first.session)
    back = saw(sleap, "back")
    assert back["footer"] == messages.worker_back("gpu")
    assert "cannot be reached" not in back["title"]
    gate.touch()
    assert_whole(sleap, project)


# -- not ready -------------------------------------------------------------------------


def test_projects_that_are_not_ready_and_a_server_that_is_down(
    desk: Desk, project: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.slp"
    sleap = desk.sleap("unready", None, NOWHERE.encode(), labels=project, saved=saved)
    assert saw(sleap, "without videos")["status"] == messages.PROJECT_EMPTY
    unreachable = saw(sleap, "without a server")
    assert "127.0.0.1:1" in unreachable["status"]
    assert unreachable["form"]
    assert saw(sleap, "never saved")["status"] == messages.PROJECT_NEVER_SAVED
    saw(sleap, "menus")
    assert saw(sleap, "changed")["status"] == messages.PROJECT_CHANGED
    pressed = saw(sleap, "pressed with changes")
    assert (pressed["status"], pressed["sent"]) == (messages.PROJECT_CHANGED, "")
    gone = saw(sleap, "file gone")
    assert gone["status"] == messages.project_file_gone(str(saved))
    assert gone["boxes"] == []
    assert_ended_well(sleap)


# -- projects that move ----------------------------------------------------------------


def test_results_wait_until_their_project_is_open_again(
    desk: Desk, programs: Programs, project: Path, gate: Path, tmp_path: Path
) -> None:
    worker = worker_behind(programs, gate)
    elsewhere = tmp_path / "elsewhere"
    sleap = desk.sleap("moved", project, worker.session, gate=gate, elsewhere=elsewhere)
    other = saw(sleap, "another is open")
    assert other["reasons"] == [
        "Another project is open; open demo.slp to merge its predictions."
    ]
    moved = saw(sleap, "moved")
    assert moved["reasons"] == [messages.project_moved(str(project))]
    replaced = saw(sleap, "replaced")
    assert replaced["reasons"] == [messages.project_replaced(str(project))]
    assert not any(seen["can_merge"] for seen in (other, moved, replaced))
    assert "Merge Now" in saw(sleap, "fits")["reasons"][0]
    assert_merged(saw(sleap, "home"), SUGGESTED)
    deleted = saw(sleap, "deleted")
    kept = programs.home / "Documents" / "SLEAP remote results" / project.parent.name
    words = messages.results_without_project(str(project), str(kept))
    assert deleted["reasons"] == [words]
    assert_ended_well(sleap)
    assert_home_once(kept / "labels.slp")
    assert not project.parent.exists()


# -- a lab that is gone ----------------------------------------------------------------


def test_a_lab_that_is_gone_is_said_and_the_form_comes_back(
    desk: Desk, programs: Programs, project: Path
) -> None:
    server, url = signaling(programs)
    owner, session = asyncio.run(open_room(url))
    sleap = desk.sleap("expired", project, session.encode())
    saw(sleap, "inside")
    asyncio.run(delete_room(session, owner))
    assert "no longer exists" in saw(sleap, "deleted")["status"]
    refused = saw(sleap, "refused")
    assert "no longer exists" in refused["status"]
    assert refused["form"]
    server.kill()
    signaling(programs, "forgetful", url.rpartition(":")[2])
    desk.tell("forgotten")
    unknown = saw(sleap, "unknown")
    assert "expired or is not accepted" in unknown["status"]
    assert unknown["form"]
    assert_ended_well(sleap)


async def open_room(url: str) -> tuple[str, Session]:
    """Return the token of a room's owner, and the room's session."""
    async with AccountClient(url) as account:
        owner = await account.sign_in_anonymously()
        room = await account.create_room(owner.token)
    session = Session(
        url=url,
        room_id=room.room_id,
        token=room.token,
        peer_id="worker-gpu",
        secret=secrets.token_bytes(32),
    )
    return owner.token, session


async def delete_room(session: Session, owner: str) -> None:
    async with AccountClient(session.url) as account:
        await account.delete_room(owner, session.room_id)


# -- a hostile worker ------------------------------------------------------------------


class HostileWorker(FakeWorker):
    """Sends a monitor what would run code, draw nonsense, or drown it."""

    def __init__(self, session: Session, scratch: Path, marker: Path) -> None:
        super().__init__(session.encode(), scratch)
        self.has_flooded = asyncio.Event()
        self.may_break = asyncio.Event()
        call = {"py/function": "builtins.open"}
        arguments = {"py/tuple": [str(marker), "w"]}
        self._payload = json.dumps({"py/reduce": [call, arguments]})

    async def run(self, job_id: str) -> None:
        for state in ("queued", "starting", "running"):
            self.say(job_id, state)
        await self.report(job_id, kind="train_begin")
        for epoch, loss in enumerate((0.5, 1e308, -1e308, 1e-320, 0.25)):
            losses = {"train/loss": loss, "val/loss": loss, self._payload[:60]: loss}
            await self.report(job_id, kind="epoch_begin", epoch=epoch)
            await self.batch(job_id, epoch, 0, {"loss": loss, **losses})
            await self.report(job_id, kind="epoch_end", epoch=epoch, losses=losses)
        await self.flood(job_id)
        self.has_flooded.set()
        await self.may_break.wait()
        where = {"job_id": job_id, "at": 0.0, "step": 0, "kind": "epoch_end"}
        for payload in (f'{{"loss": {self._payload}}}', '{"loss": NaN}', self._payload):
            body = json.dumps({**where, "seq": self.next_seq(), "epoch": 9})
            self.send_raw(f'PROGRESS_REPORT::{body[:-1]}, "losses": {payload}}}')

    async def flood(self, job_id: str) -> None:
        """Send ten thousand batches a second, for three seconds."""
        loop = asyncio.get_running_loop()
        for second in range(3):
            until = loop.time() + 1.0
            for batch in range(10_000):
                await self.batch(job_id, 5, 10_000 * second + batch, {"loss": 0.5})
            await asyncio.sleep(max(0.0, until - loop.time()))

    async def batch(
        self, job_id: str, epoch: int, batch: int, losses: dict[str, float]
    ) -> None:
        await self.report(
            job_id, kind="batch_end", epoch=epoch, batch=batch, losses=losses
        )

    async def report(self, job_id: str, **facts: Any) -> None:
        assert self.link is not None
        report = ProgressReport(
            job_id=job_id, seq=self.next_seq(), at=0.0, step=0, **facts
        )
        await self.link.send_paced(report)


async def test_a_hostile_worker_runs_nothing_and_freezes_nothing(
    desk: Desk, programs: Programs, project: Path, tmp_path: Path
) -> None:
    _, session = await open_room(programs.signaling())
    marker = tmp_path / "marker"
    async with HostileWorker(session, tmp_path / "scratch", marker) as worker:
        sleap = desk.sleap("hostile", project, session.encode())
        try:
            async with asyncio.timeout(WAIT_S):
                await worker.has_flooded.wait()
        except TimeoutError:
            pytest.fail(f"nothing was taken from the worker\n{sleap.story()}")
        desk.tell("flooded")
        flood = await asyncio.to_thread(saw, sleap, "flood")
        assert "fake" in flood["title"]
        assert 0 < flood["drawn"] < 1000
        assert sorted(set(flood["losses"])) == [0.25, 0.5]
        assert flood["worst_ms"] < MAX_LATENESS_MS
        worker.may_break.set()
        cut_off = await asyncio.to_thread(saw, sleap, "cut off")
        assert cut_off["boxes"] == []
        await asyncio.to_thread(assert_ended_well, sleap)
    assert not marker.exists()
    (log,) = programs.home.rglob("companion.log")
    assert "were not drawn" in log.read_text()


# -- a companion that is killed --------------------------------------------------------


def test_a_companion_that_is_killed_again_and_again(
    desk: Desk, programs: Programs, large_project: Path, gate: Path
) -> None:
    worker = worker_behind(programs, gate, checkpoint_mib=60)
    sleap = desk.sleap(
        "companion_killed",
        large_project,
        worker.session,
        gate=gate,
        worker=worker.pid,
    )
    assert messages.COMPANION_RESTARTED in saw(sleap, "restarted")["status"]
    assert saw(sleap, "dead")["status"] == messages.COMPANION_DEAD
    watching = saw(sleap, "watching again")
    assert watching["before"] == watching["now"] == [1.0]
    assert saw(sleap, "dead again")["status"] == messages.COMPANION_DEAD
    assert_merged(saw(sleap, "home"), NOISY_SUGGESTED)
    assert_ended_well(sleap)
    assert_home_once(large_project)


# -- SLEAP is closed -------------------------------------------------------------------


def assert_closes(sleap: Program, *, may_stay: bool = False) -> None:
    """Expect that SLEAP ends well and soon, and leaves no process behind."""
    closes = saw(sleap, "closes")
    code = sleap.wait(WAIT_S)
    ended_at = time.time()
    answered = [e["at"] for e in sleap.events if e.get("saw") == "answered"]
    assert code == 0, sleap.story()
    assert "Traceback" not in "\n".join(sleap.err), sleap.story()
    began_at = max([closes["at"], *answered])
    assert saw(sleap, "left")["at"] - began_at < CLOSES_S, sleap.story()
    assert ended_at - began_at < ENDS_S, sleap.story()
    if not may_stay:
        assert not any(map(psutil.pid_exists, closes["children"])), sleap.story()


def test_sleap_closes_while_it_connects(
    desk: Desk, programs: Programs, project: Path
) -> None:
    server, url = signaling(programs)
    _, session = asyncio.run(open_room(url))
    psutil.Process(server.pid).suspend()
    assert_closes(desk.sleap("closes", project, session.encode(), at="connecting"))


def test_sleap_closes_while_it_packs(
    desk: Desk, programs: Programs, large_project: Path, gate: Path
) -> None:
    worker = worker_behind(programs, gate)
    assert_closes(
        desk.sleap(
            "closes", large_project, worker.session, at="packaging", answer="Stop"
        )
    )


def test_a_package_is_sent_to_its_end_and_its_results_come_to_the_next_sleap(
    desk: Desk, programs: Programs, large_project: Path, gate: Path
) -> None:
    worker = worker_behind(programs, gate, "--signaling", programs.signaling())
    sleap = desk.sleap(
        "closes",
        large_project,
        worker.session,
        worker=worker.pid,
        at="sending",
        stays="yes",
        answer="Finish",
    )
    assert saw(sleap, "asked")["text"] == messages.closing_question("gpu")
    assert saw(sleap, "stays")["progress"].startswith("Sending")
    assert_closes(sleap, may_stay=True)
    left = list(filter(psutil.pid_exists, saw(sleap, "closes")["children"]))
    assert [is_companion(pid) for pid in left] == [True]
    later = desk.sleap("returns", large_project)
    saw(later, "inside")
    psutil.Process(worker.pid).resume()
    wait_for(lambda: not psutil.pid_exists(left[0]), "the companion ends", WAIT_S)
    gate.touch()
    assert_merged(saw(later, "home"), NOISY_SUGGESTED)
    assert_ended_well(later)
    assert_home_once(large_project)


def is_companion(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return "sleap_rtc_plugin.companion" in psutil.Process(pid).cmdline()
    return False


def test_the_companion_ends_when_sleap_is_killed_while_it_sends(
    desk: Desk, programs: Programs, large_project: Path, gate: Path
) -> None:
    worker = worker_behind(programs, gate)
    sleap = desk.sleap(
        "closes", large_project, worker.session, worker=worker.pid, at="sending"
    )
    children = saw(sleap, "closes")["children"]
    assert any(map(is_companion, children))
    sleap.kill()
    wait_for(lambda: not any(map(psutil.pid_exists, children)), "they end")


def test_sleap_closes_while_a_job_trains_and_while_its_results_come_home(
    desk: Desk, programs: Programs, project: Path, gate: Path
) -> None:
    worker = worker_behind(programs, gate)
    assert_closes(desk.sleap("closes", project, worker.session, at="training"))
    closed = desk.sleap("closes", project, worker.session, at="merging", gate=gate)
    attached = saw(closed, "attached")
    assert attached["epochs"] == [1.0]
    assert attached["batches"] >= 1
    assert_closes(closed)
    later = desk.sleap("returns", project)
    assert_merged(saw(later, "home"), SUGGESTED)
    assert_ended_well(later)
    assert_home_once(project)

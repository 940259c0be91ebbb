"""`kill -9` while a job trains: the training goes on, its curve and results are whole.

Real programs; only the trainer is scripted, with checkpoints and restarts as those of
sleap-nn. Each point kills somebody at a random moment of a training. The short series
runs with the other tests; the long one is started by hand, with `-m slow -s`.
"""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.packages import pad_labels
from support.programs import POSIX, Program, Programs, Worker, wait_for

EPOCHS = 4
PACE_MS = 150
BEHAVIOUR = f"epochs,epochs={EPOCHS},pace_ms={PACE_MS}"
# How long a training takes where nothing else runs; later moments miss it.
TRAINING_S = EPOCHS * 2 * PACE_MS / 1000
HOME_S = 180.0
RUNNERS = "jobs/*/steps/*/runner.json"
SHORT_SEED = 11
# Who is sent what: names of processes, and a signal.
KILLS: dict[str, tuple[tuple[str, ...], signal.Signals]] = {
    "trainer": (("trainer",), signal.SIGKILL),
    "trainer, politely": (("trainer",), signal.SIGTERM),
    "runner": (("runner",), signal.SIGKILL),
    "runner, politely": (("runner",), signal.SIGTERM),
    "worker": (("worker",), signal.SIGKILL),
    "worker and runner": (("worker", "runner"), signal.SIGKILL),
    "worker and trainer": (("worker", "trainer"), signal.SIGKILL),
    "everything": (("worker", "runner", "trainer"), signal.SIGKILL),
    "everything, as a shutdown does": (
        ("trainer", "runner", "worker"),
        signal.SIGTERM,
    ),
}

SHORT_KILLS = (
    "trainer",
    "runner",
    "worker and runner",
    "everything, as a shutdown does",
)

pytestmark = POSIX


class Story:
    """One worker's folder, with one job after another."""

    def __init__(self, programs: Programs, package: Path) -> None:
        self._programs, self._package = programs, package
        self._data = programs.folder / "worker-data"
        self._worker = self._start("--signaling", programs.signaling())
        self.session = self._worker.session
        self._jobs = 0
        self.restarts = 0

    def _start(self, *words: object) -> Worker:
        return self._programs.scripted_worker(BEHAVIOUR, *words).wait_ready()

    def tell(self, who: str, share: float) -> None:
        """Train, send `who` its signal after a share of the training, look."""
        self._jobs += 1
        output = self._programs.folder / f"out-{self._jobs}"
        client = self._programs.train(self._package, self.session, output)
        client.wait_event(event="progress", kind="train_begin")
        until = time.monotonic() + share * TRAINING_S
        wait_for(lambda: time.monotonic() > until, "a moment")
        names, how = KILLS[who]
        self._signal(names, how)
        if "worker" in names:
            wait_for(lambda: not self._worker.is_running, "the worker's end")
            self._worker = self._start("--session", self.session)
        code = client.wait(HOME_S)
        while code != 0:
            assert code == 3, client.story()
            client = self._programs.train(self._package, self.session, output)
            code = client.wait(HOME_S)
        self._check_curve(client)
        self._check_results(client)
        self._check_processes()

    def _signal(self, names: tuple[str, ...], how: signal.Signals) -> None:
        state = self._runner_state()
        pids = {"runner": state.get("pid"), "trainer": state.get("trainer_pid")}
        for name in names:
            pid = self._worker.pid if name == "worker" else pids[name]
            # Late moments find nobody any more.
            with contextlib.suppress(ProcessLookupError):
                if pid is not None:
                    os.kill(pid, how)

    def _runner_state(self) -> dict[str, Any]:
        found = sorted(
            self._data.glob(RUNNERS),
            key=lambda path: path.stat().st_mtime,
        )
        state: dict[str, Any] = json.loads(found[-1].read_bytes())
        return state

    # -- what must hold --------------------------------------------------------------

    def _check_curve(self, client: Program) -> None:
        """Whoever comes last is told everything, and of each epoch once."""
        said = [e for e in client.events if e.get("event") == "progress"]
        for kind in ("epoch_begin", "epoch_end"):
            epochs = [e["epoch"] for e in said if e["kind"] == kind]
            assert epochs == list(range(EPOCHS)), client.story()
        starts = [e for e in client.events if e.get("state") == "starting"]
        lines = [" ".join(e["lines"]) for e in client.events if e.get("event") == "log"]
        told = [line for line in lines if "was cut off" in line]
        assert len(told) == len(starts) - 1, client.story()
        self.restarts += len(told)
        kinds = [e["kind"] for e in said]
        assert kinds.count("train_begin") == kinds.count("train_end") == 1

    def _check_results(self, client: Program) -> None:
        assert client.report["state"] == "succeeded", client.story()
        [model] = map(Path, client.report["models"])
        with (model / "training_log.csv").open(newline="") as file:
            rows = [int(row["epoch"]) for row in csv.DictReader(file)]
        assert rows == list(range(EPOCHS))
        best = (EPOCHS - 1) // 2 * 2
        assert f"best of {best}".encode() in (model / "best.ckpt").read_bytes()
        config = (model / "training_config.yaml").read_text()
        assert "resume_ckpt_path: null" in config
        assert "save_last: true" not in config
        assert not (model / "last.ckpt").exists()
        assert [path.name for path in model.parent.iterdir()] == [model.name]

    def _check_processes(self) -> None:
        """Nobody is left but the worker and its server."""

        def left() -> list[str]:
            words = []
            for process in self._programs.processes():
                with contextlib.suppress(psutil.Error):
                    words.append(" ".join(process.cmdline()))
            return [w for w in words if "step_runner" in w or "scripted_sleap" in w]

        wait_for(lambda: not left(), "the end of runners and trainers")


@pytest.fixture
def story(small_package: Path, programs: Programs) -> Iterator[Story]:
    yield Story(programs, small_package)


@pytest.mark.timeout(900)
def test_a_short_series(story: Story) -> None:
    chosen = random.Random(SHORT_SEED)  # noqa: S311 - when to kill, not a secret
    for who in SHORT_KILLS:
        story.tell(who, chosen.random())
    # A killed worker alone cuts nothing off, and some moments come too late.
    assert len(SHORT_KILLS) / 2 <= story.restarts <= len(SHORT_KILLS)


@pytest.mark.timeout(300)
def test_a_queue_keeps_its_order_and_what_ended_can_be_fetched(
    programs: Programs, small_package: Path
) -> None:
    """One job has ended, one trains, two wait; then worker and runner are killed."""
    data, hold = programs.folder / "worker-data", programs.folder / "hold"
    behaviour = f"{BEHAVIOUR},hold={hold}"
    worker = programs.scripted_worker(
        behaviour, "--signaling", programs.signaling()
    ).wait_ready()
    states = ("succeeded", "running", "queued", "queued")
    for number, state in enumerate(states):
        # A package of its own each, or the same command would go on with the first.
        package = programs.folder / f"{number}.zip"
        pad_labels(small_package, package, 1, programs.folder)
        output = programs.folder / f"out-{number}"
        client = programs.train(package, worker.session, output)
        client.wait_event(event="state", state=state)
        if state == "succeeded":
            assert client.wait(HOME_S) == 0, client.story()
            hold.touch()
        else:
            client.kill()
    runners = [json.loads(p.read_bytes()) for p in data.glob(RUNNERS)]
    worker.kill()
    for state in runners:
        with contextlib.suppress(ProcessLookupError):
            os.kill(state["pid"], signal.SIGKILL)
    hold.unlink()
    programs.scripted_worker(behaviour, "--session", worker.session).wait_ready()
    ended = []
    for number in range(1, len(states)):
        output = programs.folder / f"out-{number}"
        package = programs.folder / f"{number}.zip"
        client = programs.train(package, worker.session, output)
        assert client.wait(HOME_S) == 0, client.story()
        ended.append(client.report)
    records = journaled(programs, data)
    assert [r["state"] for r in records] == ["succeeded"] * len(states)
    # None was submitted again, and they began in the order in which they came.
    begun = [record["started_at"] for record in records]
    assert begun == sorted(begun)
    assert [r["job_id"] for r in ended] == [r["job_id"] for r in records[1:]]


def journaled(programs: Programs, data: Path) -> list[dict[str, Any]]:
    """Return what the journal says of each job, as they came."""
    copy = programs.folder / "journal"
    copy.mkdir()
    for path in data.glob("journal.sqlite3*"):
        shutil.copy(path, copy)
    with contextlib.closing(sqlite3.connect(copy / "journal.sqlite3")) as database:
        rows = database.execute("SELECT record FROM jobs ORDER BY rowid").fetchall()
    return [json.loads(row) for (row,) in rows]


@pytest.mark.timeout(300)
def test_everybody_may_be_held_still(programs: Programs, small_package: Path) -> None:
    hold(programs, small_package, seconds=3.0)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_everybody_may_be_held_still_for_two_minutes(
    programs: Programs, small_package: Path
) -> None:
    hold(programs, small_package, seconds=130.0)


def hold(programs: Programs, package: Path, seconds: float) -> None:
    """Stop trainer, runner and worker, each and all together; nothing comes of it."""
    worker = programs.scripted_worker(BEHAVIOUR).wait_ready()
    data = programs.folder / "worker-data"
    for number, who in enumerate((("trainer",), ("runner",), ("worker",), ())):
        output = programs.folder / f"out-{number}"
        client = programs.train(package, worker.session, output)
        client.wait_event(event="progress", kind="epoch_end")
        newest = max(data.glob(RUNNERS), key=lambda path: path.stat().st_mtime)
        state = json.loads(newest.read_bytes())
        pids = {
            "trainer": state["trainer_pid"],
            "runner": state["pid"],
            "worker": worker.pid,
        }
        held = [pids[name] for name in who or pids]
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + seconds
        wait_for(lambda end=until: time.monotonic() > end, "a while", seconds + 60)
        for pid in held:
            os.kill(pid, signal.SIGCONT)
        code = client.wait(HOME_S)
        if code != 0:
            # A client gives a link up after 20 seconds without a word.
            assert code == 3, client.story()
            client = programs.train(package, worker.session, output)
            assert client.wait(HOME_S) == 0, client.story()
        lines = [" ".join(e["lines"]) for e in client.events if "lines" in e]
        assert not [line for line in lines if "was cut off" in line], client.story()


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_long_series(story: Story) -> None:
    seed = int(os.environ.get("KILL_SERIES_SEED", "0")) or int(time.time())
    chosen = random.Random(seed)  # noqa: S311 - the same
    sys.stderr.write(f"seed {seed}\n")
    for number in range(20 * len(KILLS)):
        who, share = chosen.choice(list(KILLS)), chosen.random() * 1.2
        sys.stderr.write(f"{number}: {who} at {share:.0%}\n")
        story.tell(who, share)

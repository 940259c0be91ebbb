"""A lab whose programs are killed, frozen and started again at random, and its tally.

Thirty jobs of a real server, two real workers and as many clients as there are jobs;
the trainer is scripted for most. From a seed: what is done to whom, and after how long.
"""

import contextlib
import random
import shutil
import signal
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import yaml
from support.doctor_faults import start_turn
from support.paced_sleap_nn import REAL, storage_of
from support.packages import CENTROID, Members, edit_config, rewrite
from support.programs import Program, Programs, Worker, wait_for

from sleap_rtc_plugin.protocol.messages import JobSpec, ProgressReport, TrainStep
from sleap_rtc_worker.journal import JobRecord, Journal

__all__ = ["Chaos", "Job", "Tally", "jobs_of", "say"]

EPOCHS: Final = 4
PACE_S: Final = 0.4
CLIENTS_AT_ONCE: Final = 6
WORKERS: Final = ("left", "right")
# Seconds between two faults, and how long what was frozen stays so.
BETWEEN_S: Final = (0.5, 3.0)
FROZEN_S: Final = (0.5, 6.0)
BACK_AFTER_S: Final = (0.0, 1.5)
# The share of the jobs that have ended when harm ends.
CALM_AT: Final = 0.8
QUIET_S: Final = 15.0
LOOK_S: Final = 0.1
TURN_SECRET: Final = "the-secret-of-the-lab-s-turn"
# Every so many jobs, one goes over the TURN server.
RELAYED: Final = 3
# Only the last line of a command has it.
REPORT: Final = "seconds"
WEIGHTS: Final = {
    "killed client": 4,
    "killed worker": 2,
    "killed runner": 4,
    "killed trainer": 4,
    "killed worker and runner": 1,
    "killed signaling": 2,
    "killed TURN server": 2,
    "frozen": 3,
}

RUNNER: Final = "sleap_rtc_worker.step_runner"
TRAINERS: Final = ("paced_sleap_nn", "sleap_nn.cli")


@dataclass
class Job:
    """A package and whoever submits it, until its end is known."""

    package: Path
    output: Path
    run_name: str
    client: Program | None = None
    job_id: str = ""
    was_accepted: bool = False
    starts: int = 0
    state: str = ""

    @property
    def has_ended(self) -> bool:
        return bool(self.state)

    @property
    def is_real(self) -> bool:
        return self.run_name.startswith(REAL)


@dataclass
class Tally:
    """What became of the jobs, and what was done to the programs."""

    accepted: int = 0
    ended: int = 0
    lost: int = 0
    doubled: int = 0
    verified: int = 0
    states: Counter[str] = field(default_factory=Counter)
    orphans: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        states = ", ".join(f"{n} {s}" for s, n in sorted(self.states.items()))
        faults = ", ".join(f"{n} {s}" for s, n in sorted(self.faults.items()))
        return (
            f"accepted {self.accepted}, ended {self.ended} ({states}), "
            f"lost {self.lost}, doubled {self.doubled}, verified {self.verified}, "
            f"orphans {len(self.orphans)}; {sum(self.faults.values())} faults in "
            f"{self.seconds:.0f} s ({faults}), {self.restarts} steps restarted"
        )


def has_turn() -> bool:
    """Tell whether there is a TURN server to kill."""
    return shutil.which("turnserver") is not None


def jobs_of(package: Path, folder: Path, *, scripted: int, real: int) -> list[Job]:
    """Make a package for each job, the real ones among the first and the last."""
    folder.mkdir()
    names = [f"run{number}" for number in range(scripted)]
    for number in range(real):
        names.insert(number * len(names) // max(1, real - 1), f"{REAL}{number}")
    return [_job(package, folder, name) for name in names]


def _job(package: Path, folder: Path, run_name: str) -> Job:
    def change(members: Members) -> None:
        values: dict[str, Any] = {"trainer_config.run_name": run_name}
        if run_name.startswith(REAL):
            values |= {
                "trainer_config.max_epochs": 3,
                "trainer_config.train_steps_per_epoch": 3,
                "trainer_config.min_train_steps_per_epoch": 3,
            }
        edit_config(members, CENTROID, values)
        jobs = yaml.safe_load(members["jobs.yaml"])
        jobs["training"][0]["run_path"] = f"models/{run_name}"
        members["jobs.yaml"] = yaml.safe_dump(jobs).encode()

    made = rewrite(package, folder / f"{run_name}.training_job.zip", change)
    return Job(made, folder / f"home of {run_name}", run_name)


def _parent_of(process: psutil.Process) -> int | None:
    """Return the pid of a process's parent, or None where the process is gone."""
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


class Chaos:
    """The lab, and what is done to it."""

    def __init__(self, programs: Programs, jobs: list[Job], seed: int) -> None:
        self._programs, self._jobs = programs, jobs
        self._chance = random.Random(seed)  # noqa: S311 - whom to kill, no secret
        self._tally = Tally()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._turn = start_turn(programs, TURN_SECRET) if has_turn() else None
        self._config = self._write_config()
        self._url = programs.signaling("--config", self._config)
        self._server = programs.started[-1]
        self._workers: dict[str, Worker | None] = {}
        self._session = self._start_worker(WORKERS[0], "--signaling", self._url)
        for name in WORKERS[1:]:
            self._start_worker(name, "--session", self._session)
        self._faults: dict[str, Callable[[], bool]] = {
            "killed client": self._kill_client,
            "killed worker": self._kill_worker,
            "killed runner": lambda: self._kill(self._runners()),
            "killed trainer": lambda: self._kill(self._trainers()),
            "killed worker and runner": self._kill_worker_and_runner,
            "killed signaling": self._kill_signaling,
            "killed TURN server": self._kill_turn,
            "frozen": self._freeze,
        }

    def run(self, busy_s: float, limit_s: float) -> Tally:
        """Do harm, then let everything end, within `limit_s` in all.

        Harm is done for `busy_s` at most, and until most jobs have ended.
        """
        began = time.monotonic()
        next_fault = began + 1.0
        while not all(job.has_ended for job in self._jobs):
            now = time.monotonic()
            assert now < began + limit_s, self._story()
            self._carry_on(now)
            self._look_after_clients()
            ended = sum(job.has_ended for job in self._jobs)
            is_busy = now < began + busy_s and ended < CALM_AT * len(self._jobs)
            if is_busy and now >= next_fault:
                self._do_harm()
                next_fault = now + self._chance.uniform(*BETWEEN_S)
            time.sleep(LOOK_S)
        while self._later:
            self._carry_on(time.monotonic())
            time.sleep(LOOK_S)
        self._tally.seconds = time.monotonic() - began
        self._end()
        return self._tally

    # -- clients ---------------------------------------------------------------------

    def _look_after_clients(self) -> None:
        running = 0
        for job in self._jobs:
            if job.client is not None:
                self._read(job, job.client)
            running += job.client is not None
        for job in self._jobs:
            if running < CLIENTS_AT_ONCE and not job.has_ended and job.client is None:
                job.client = self._programs.train(
                    job.package, self._session, job.output, *self._way_of(job)
                )
                job.starts += 1
                running += 1

    def _way_of(self, job: Job) -> tuple[str, ...]:
        is_relayed = self._turn is not None and self._jobs.index(job) % RELAYED == 0
        return ("--relay-only",) if is_relayed else ()

    def _read(self, job: Job, client: Program) -> None:
        for event in client.events:
            job.job_id = event.get("job_id") or job.job_id
            # What a client says of the state is the worker's word.
            job.was_accepted |= event.get("event") in ("state", "transfer")
        if client.is_running:
            return
        client.wait()
        job.client = None
        # One that is killed after its last word has done its work.
        said = client.report if client.events else {}
        report = said if REPORT in said else {}
        state = report.get("state", "")
        if state == "succeeded" and report["error"] is None:
            job.state = state
        elif state in ("failed", "lost", "cancelled"):
            job.state = state
            self._tally.wrong.append(f"{job.run_name}: {report['error']}")

    # -- harm --------------------------------------------------------------------------

    def _do_harm(self) -> None:
        names = list(self._faults)
        name = self._chance.choices(names, weights=[WEIGHTS[n] for n in names])[0]
        if self._faults[name]():
            self._tally.faults[name] += 1

    def _kill_client(self) -> bool:
        clients = [j.client for j in self._jobs if j.client and j.client.is_running]
        if not clients:
            return False
        self._chance.choice(clients).kill()
        return True

    def _kill_worker(self) -> bool:
        there = [name for name, worker in self._workers.items() if worker is not None]
        if not there:
            return False
        name = self._chance.choice(there)
        worker = self._workers[name]
        assert worker is not None
        worker.kill()
        self._workers[name] = None
        self._after(lambda: self._start_worker(name, "--session", self._session))
        return True

    def _kill_worker_and_runner(self) -> bool:
        return self._kill_worker() and (self._kill(self._runners()) or True)

    def _kill_signaling(self) -> bool:
        if not self._server.is_running:
            return False
        self._server.kill()
        self._after(self._start_signaling)
        return True

    def _kill_turn(self) -> bool:
        if self._turn is None or not self._turn.program.is_running:
            return False
        self._turn.program.kill()
        self._after(self._start_turn)
        return True

    def _kill(self, processes: list[psutil.Process]) -> bool:
        if not processes:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            self._chance.choice(processes).kill()
        return True

    def _freeze(self) -> bool:
        processes = list(self._programs.processes())
        if not processes:
            return False
        process = self._chance.choice(processes)

        def thaw() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
        self._later.append(
            (time.monotonic() + self._chance.uniform(*FROZEN_S), thaw),
        )
        return True

    # -- what comes back -------------------------------------------------------------

    def _after(self, action: Callable[[], object]) -> None:
        due = time.monotonic() + self._chance.uniform(*BACK_AFTER_S)

        def act() -> None:
            action()

        self._later.append((due, act))

    def _carry_on(self, now: float) -> None:
        due = [action for at, action in self._later if at <= now]
        self._later = [(at, action) for at, action in self._later if at > now]
        for action in due:
            action()

    def _start_worker(self, name: str, *words: str) -> str:
        worker = self._programs.scripted_worker(
            f"resuming,epochs={EPOCHS},pace_s={PACE_S}",
            *words,
            "--name",
            name,
            "--data",
            self._programs.folder / name,
        )
        self._workers[name] = worker
        # One that comes back finds the server in its own time.
        return worker.wait_ready().session if "--signaling" in words else ""

    def _start_signaling(self) -> None:
        port = self._url.rpartition(":")[2]
        self._programs.signaling("--port", port, "--config", self._config)
        self._server = self._programs.started[-1]

    def _start_turn(self) -> None:
        assert self._turn is not None
        self._turn = start_turn(self._programs, TURN_SECRET, port=self._turn.port)

    def _write_config(self) -> Path:
        path = self._programs.folder / "signaling.toml"
        lines = []
        if self._turn is not None:
            url = f"turn:127.0.0.1:{self._turn.port}"
            lines = ["[[turn]]", f'urls = ["{url}"]', f'secret = "{TURN_SECRET}"']
        path.write_text("\n".join(lines))
        return path

    # -- who is there ----------------------------------------------------------------

    def _runners(self) -> list[psutil.Process]:
        return list(self._with_words(RUNNER))

    def _trainers(self) -> list[psutil.Process]:
        found = [p for words in TRAINERS for p in self._with_words(words)]
        # A worker's own command line names its trainer as well, its runner's too.
        runners = {p.pid for p in self._runners()}
        return [p for p in found if p.pid not in runners and _parent_of(p) in runners]

    def _with_words(self, words: str) -> Iterator[psutil.Process]:
        for process in self._programs.processes():
            with contextlib.suppress(psutil.Error):
                if any(words in word for word in process.cmdline()):
                    yield process

    # -- the reckoning ---------------------------------------------------------------

    def _end(self) -> None:
        """End every program as a person would, then count."""
        for worker in self._workers.values():
            if worker is not None:
                worker.terminate()
        self._server.terminate()
        if self._turn is not None:
            self._turn.program.terminate()
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not list(self._programs.processes()), "the end", QUIET_S)
        for process in self._programs.processes():
            with contextlib.suppress(psutil.Error):
                self._tally.orphans.append(" ".join(process.cmdline())[:200])
        self._count()

    def _count(self) -> None:
        tally = self._tally
        held: dict[str, tuple[JobRecord, set[int]]] = {}
        records = 0
        for name in WORKERS:
            journal = Journal(self._programs.folder / name)
            try:
                for record in journal.jobs():
                    records += 1
                    held[record.job_id] = (record, _epochs(journal, record.job_id))
                    tally.restarts += getattr(record, "restarts", 0)
            finally:
                journal.close()
        tally.doubled = records - len(held)
        names = Counter(_run_name(record.spec) for record, _ in held.values())
        tally.doubled += sum(names.values()) - len(names)
        for job in self._jobs:
            tally.accepted += job.was_accepted
            tally.ended += job.has_ended
            tally.states[job.state] += 1
            if job.job_id not in held or not held[job.job_id][0].has_ended:
                tally.lost += job.was_accepted
                continue
            if job.state == "succeeded":
                fault = _fault(job, held[job.job_id][1])
                if fault:
                    tally.wrong.append(f"{job.run_name}: {fault}")
                else:
                    tally.verified += 1

    def _story(self) -> str:
        left = [job for job in self._jobs if not job.has_ended]
        stories = [job.client.story() for job in left if job.client]
        stories += [w.story() for w in self._workers.values() if w is not None]
        names = ", ".join(f"{job.run_name} ({job.starts} starts)" for job in left)
        return "\n".join([f"not ended: {names}", *stories])


def _run_name(spec: JobSpec) -> str:
    [step] = spec.steps
    assert isinstance(step, TrainStep)
    return step.run_name


def _epochs(journal: Journal, job_id: str) -> set[int]:
    """Return the epochs whose end the journal has."""
    found: set[int] = set()
    since = 0
    while events := journal.events(job_id, since):
        for event in events:
            if isinstance(event, ProgressReport) and event.kind == "epoch_end":
                found.add(-1 if event.epoch is None else event.epoch)
        since = events[-1].seq
    return found


def _fault(job: Job, epochs: set[int]) -> str:
    """Say what is wrong with results that came home, or nothing."""
    if (job.output / ".sleap-remote").exists():
        return "something half written was left at home"
    models = sorted(path.name for path in (job.output / "models").iterdir())
    if models != [job.run_name]:
        return f"the models at home are {models}"
    folder = job.output / "models" / job.run_name
    if not (folder / "training_config.yaml").is_file():
        return "the model has no training_config.yaml"
    with zipfile.ZipFile(folder / "best.ckpt") as archive:
        if archive.testzip() is not None:
            return "the checkpoint is damaged"
        if job.is_real:
            return ""
        if archive.read("best/data/0") != storage_of(job.run_name):
            return "the checkpoint is not that of this job"
    if epochs != set(range(EPOCHS)):
        return f"the curve has the epochs {sorted(epochs)}"
    return ""


def say(text: str) -> None:
    """Print a line that pytest shows with `-s`."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

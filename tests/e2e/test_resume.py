"""Whoever dies, the same command goes on: nothing is sent, trained or lost twice.

Real programs and real `kill -9`; only the trainer is scripted, so that a test holds
it at a gate instead of waiting for epochs.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.packages import bytes_on_disk, pad_labels
from support.programs import POSIX, Program, Programs, Worker, wait_for

CANCELLED = 130
MIB = 1024 * 1024
PADDING_MIB = 60
CHECKPOINT_MIB = 60

pytestmark = POSIX


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file that lets the scripted trainer finish."""
    return tmp_path / "gate"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """One line per start of the trainer."""
    return tmp_path / "trainings.log"


@pytest.fixture
def start_worker(programs: Programs, gate: Path, log: Path) -> Callable[..., Worker]:
    def start(*words: object, more: str = "") -> Worker:
        behaviour = f"gated,gate={gate},log={log}{more}"
        return programs.scripted_worker(behaviour, *words).wait_ready()

    return start


@pytest.fixture(scope="session")
def large_package(
    small_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("large")
    target = folder / "large.training_job.zip"
    return pad_labels(small_package, target, PADDING_MIB, folder)


def trainings(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_until_training(client: Program) -> None:
    client.wait_event(event="progress", kind="epoch_end")


def assert_home(client: Program, output: Path) -> None:
    assert client.wait() == 0, client.story()
    assert client.report["state"] == "succeeded"
    (model,) = client.report["models"]
    assert Path(model).parent == output / "models"
    assert (Path(model) / "best.ckpt").is_file()
    newest = max(Path(model).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "training_config.yaml"
    assert not (output / ".sleap-remote").exists()


# -- the package -----------------------------------------------------------------------


@pytest.mark.parametrize("who", ["client", "both"])
def test_a_package_that_was_cut_off_goes_on(
    programs: Programs,
    start_worker: Callable[..., Worker],
    large_package: Path,
    output: Path,
    gate: Path,
    who: str,
) -> None:
    gate.touch()
    data = programs.folder / "worker-data"
    parts = "jobs/*/package/parts/*.part"
    url = programs.signaling()
    worker = start_worker("--signaling", url)
    first = programs.train(large_package, worker.session, output)
    half = PADDING_MIB * MIB // 2
    wait_for(lambda: bytes_on_disk(data, parts) > half, "half of the package")
    first.kill()
    session = worker.session
    if who == "both":
        worker.kill()
        start_worker("--session", session)
    else:
        # What was on its way is still being written.
        programs.client("workers", "--session", session).wait()
    there = bytes_on_disk(data, parts)

    second = programs.train(large_package, session, output)
    assert_home(second, output)
    report = second.report
    assert report["job_id"] == first.events[0]["job_id"]
    assert report["bytes_reused"] > 0.4 * report["bytes_total"]
    sent, reused = report["bytes_sent"], report["bytes_reused"]
    assert sent + reused <= 1.02 * report["bytes_total"]
    assert sent <= report["bytes_total"] - there + 2 * MIB


# -- the training ----------------------------------------------------------------------


def test_a_client_that_dies_comes_back_to_its_training(
    programs: Programs,
    start_worker: Callable[..., Worker],
    small_package: Path,
    output: Path,
    gate: Path,
    log: Path,
) -> None:
    worker = start_worker()
    first = programs.train(small_package, worker.session, output)
    wait_until_training(first)
    first.kill()

    second = programs.train(small_package, worker.session, output)
    # Nothing of the curve is lost.
    second.wait_event(event="progress", kind="train_begin")
    wait_until_training(second)
    gate.touch()
    assert_home(second, output)
    assert second.report["job_id"] == first.events[0]["job_id"]
    assert second.report["bytes_sent"] == 0
    assert trainings(log) == 1


def test_detached_and_back(
    programs: Programs,
    start_worker: Callable[..., Worker],
    small_package: Path,
    output: Path,
    gate: Path,
    log: Path,
) -> None:
    worker = start_worker()
    first = programs.train(small_package, worker.session, output, "--detach")
    assert first.wait() == 0, first.story()
    assert first.report["state"] in ("queued", "starting", "running")
    assert first.report["error"] is None
    assert "the same command again" in first.err[-1]
    gate.touch()
    second = programs.train(small_package, worker.session, output)
    assert_home(second, output)
    assert second.report["job_id"] == first.report["job_id"]
    assert trainings(log) == 1
    # What is home is over: the same command now is a new job.
    third = programs.train(small_package, worker.session, output)
    assert third.wait() == 0
    assert third.report["job_id"] != first.report["job_id"]
    assert trainings(log) == 2


def test_the_first_interrupt_stops_and_keeps(
    programs: Programs,
    start_worker: Callable[..., Worker],
    small_package: Path,
    output: Path,
) -> None:
    worker = start_worker()
    client = programs.train(small_package, worker.session, output)
    wait_until_training(client)
    client.interrupt()
    assert_home(client, output)
    assert {"event": "state", "state": "stopping", "step": 0} in client.events


def test_the_second_interrupt_leaves_and_the_job_goes_on(
    programs: Programs,
    start_worker: Callable[..., Worker],
    small_package: Path,
    output: Path,
    gate: Path,
    log: Path,
) -> None:
    worker = start_worker(more=",deaf=1")
    client = programs.train(small_package, worker.session, output)
    wait_until_training(client)
    client.interrupt()
    client.wait_event(event="state", state="stopping")
    client.interrupt()
    assert client.wait() == CANCELLED, client.story()
    assert "the same command again" in client.err[-1]
    gate.touch()
    assert_home(programs.train(small_package, worker.session, output), output)
    assert trainings(log) == 1


def test_cancel_at_the_terminal(
    programs: Programs,
    start_worker: Callable[..., Worker],
    small_package: Path,
    output: Path,
) -> None:
    worker = start_worker()
    client, keyboard = programs.train_at_terminal(small_package, worker.session, output)
    wait_until_training(client)
    client.interrupt()
    client.wait_line(lambda line: line.startswith("[c]"), stream="err")
    os.write(keyboard, b"c\n")
    assert client.wait() == CANCELLED, client.story()
    assert client.report["state"] == "cancelled"
    assert client.report["error"]["code"] == "job_cancelled"
    assert not (output / "models").exists()
    jobs = programs.folder / "worker-data" / "jobs"
    wait_for(lambda: list(jobs.iterdir()) == [], "the worker to discard the job")


# -- the worker ------------------------------------------------------------------------


@pytest.fixture
def detached(
    programs: Programs,
    start_worker: Callable[..., Worker],
    small_package: Path,
    output: Path,
    log: Path,
) -> Worker:
    """A worker in a room of another program, at a training nobody watches."""
    worker = start_worker("--signaling", programs.signaling())
    client = programs.train(small_package, worker.session, output, "--detach")
    assert client.wait() == 0, client.story()
    wait_for(lambda: trainings(log) == 1, "the training")
    return worker


def test_a_worker_that_dies_finds_its_training_again(
    programs: Programs,
    start_worker: Callable[..., Worker],
    detached: Worker,
    small_package: Path,
    output: Path,
    gate: Path,
    log: Path,
) -> None:
    detached.kill()
    start_worker("--session", detached.session)
    client = programs.train(small_package, detached.session, output)
    wait_until_training(client)
    gate.touch()
    assert_home(client, output)
    kinds = [e["kind"] for e in client.events if e.get("event") == "progress"]
    assert kinds.count("train_begin") == 1
    assert kinds.count("epoch_end") == 2
    assert trainings(log) == 1


def test_a_training_that_ended_while_no_worker_ran(
    programs: Programs,
    start_worker: Callable[..., Worker],
    detached: Worker,
    small_package: Path,
    output: Path,
    gate: Path,
    log: Path,
) -> None:
    detached.kill()
    gate.touch()
    outcomes = programs.folder / "worker-data"
    wait_for(
        lambda: any(outcomes.glob("jobs/*/steps/0/outcome.json")), "the runner's end"
    )
    start_worker("--session", detached.session)
    client = programs.train(small_package, detached.session, output)
    assert_home(client, output)
    assert trainings(log) == 1


def test_a_training_that_died_with_its_worker_begins_again(
    programs: Programs,
    start_worker: Callable[..., Worker],
    detached: Worker,
    small_package: Path,
    output: Path,
    gate: Path,
    log: Path,
) -> None:
    detached.kill()
    for process in programs.processes():
        if any(
            "step_runner" in w or "scripted_sleap_nn" in w for w in process.cmdline()
        ):
            process.kill()
    start_worker("--session", detached.session)
    client = programs.train(small_package, detached.session, output)
    client.wait_line(lambda line: "(restart 1 of 5)" in line, stream="err")
    gate.touch()
    assert_home(client, output)
    assert trainings(log) == 2


# -- the results -----------------------------------------------------------------------


def test_results_that_were_cut_off_go_on(
    programs: Programs,
    start_worker: Callable[..., Worker],
    small_package: Path,
    output: Path,
    gate: Path,
    log: Path,
) -> None:
    gate.touch()
    worker = start_worker(more=f",checkpoint_mib={CHECKPOINT_MIB}")
    first = programs.train(small_package, worker.session, output)
    half = CHECKPOINT_MIB * MIB // 2
    arriving = ".sleap-remote/*/parts/*.part"
    wait_for(lambda: bytes_on_disk(output, arriving) > half, "half of the results")
    first.kill()
    assert not (output / "models").exists()

    second = programs.train(small_package, worker.session, output)
    assert_home(second, output)
    transfers = [e for e in second.events if e.get("purpose") == "results"]
    last = transfers[-1]
    assert last["bytes_reused"] > 0.4 * last["bytes_total"]
    assert last["bytes_sent"] + last["bytes_reused"] <= 1.02 * last["bytes_total"]
    assert trainings(log) == 1

"""The step runner and its executor against a real child process and real ZMQ."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, RunnerNotStarted
from sleap_rtc_plugin.protocol.messages import TrainStep
from sleap_rtc_worker import job_executor
from sleap_rtc_worker.job_executor import JobExecutor, RunningStep
from sleap_rtc_worker.limits import CLAIM_GRACE_S
from sleap_rtc_worker.process import is_same_process, start_time
from sleap_rtc_worker.step_records import (
    CLAIM_FILE,
    EVENTS_FILE,
    ORDER_FILE,
    RunnerEvent,
    StepLog,
    StepOrder,
    StepProgress,
    StepSignal,
    encode_record,
)
from sleap_rtc_worker.step_restart import Restart, verdict

STEP = TrainStep(config="c", labels="l.slp", run_name="r", head="centroid")
TRAINER = Path(__file__).parents[1] / "support" / "scripted_trainer.py"
WAIT_S = 60.0
MakeOrder = Callable[..., StepOrder]

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the scripted trainer uses POSIX signals"
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    return folder


@pytest.fixture
def step_dir(tmp_path: Path) -> Path:
    return tmp_path / "step"


@pytest.fixture
def make_order(package: Path) -> MakeOrder:
    def make(behaviour: str, *words: str, **fields: object) -> StepOrder:
        argv = [
            sys.executable,
            str(TRAINER),
            behaviour,
            "publish=@PUBLISH_PORT@",
            "controller=@CONTROLLER_PORT@",
            *words,
        ]
        settings = {"kind": "train", "argv": argv, "cwd": str(package)} | fields
        return StepOrder(**settings)  # type: ignore[arg-type]

    return make


@pytest.fixture(autouse=True)
async def no_process_is_left() -> AsyncIterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    for process in left:
        process.kill()
    assert not left


async def follow(step: RunningStep, since: int = 0) -> list[RunnerEvent]:
    async with asyncio.timeout(WAIT_S):
        return [event async for _, event in step.events(since)]


async def until(step: RunningStep, kind: str) -> None:
    """Wait for the trainer to have said something: the gate before a command."""
    async with asyncio.timeout(WAIT_S):
        async for _, event in step.events():
            if isinstance(event, StepProgress) and event.event == kind:
                return
    pytest.fail(f"the step ended before {kind}")


def said(events: list[RunnerEvent]) -> list[str]:
    return [event.event for event in events if isinstance(event, StepProgress)]


def lines(events: list[RunnerEvent]) -> list[str]:
    return [line for e in events if isinstance(e, StepLog) for line in e.lines]


def signals(events: list[RunnerEvent]) -> list[str]:
    return [event.how for event in events if isinstance(event, StepSignal)]


async def test_a_training_runs_to_its_end(
    make_order: MakeOrder, step_dir: Path, package: Path
) -> None:
    files = ["models/a/best.ckpt", "models/a/training_log.csv"]
    order = make_order("train", f"files={','.join(files)}", expected=files)
    step = await JobExecutor().start(order, step_dir)
    events = await follow(step)
    outcome = await step.outcome()
    # On a busy machine the second batch comes late enough to be told as well.
    assert list(dict.fromkeys(said(events))) == [
        "train_begin",
        "epoch_begin",
        "batch_end",
        "epoch_end",
        "train_end",
    ]
    assert lines(events) == ["100%", "starting now"]
    assert (outcome.exit_code, outcome.train_end, outcome.epochs) == (0, True, 1)
    assert outcome.missing == []
    assert outcome.began <= outcome.ended
    assert all(event.at > 0 for event in events)


async def test_a_missing_file_is_named(make_order: MakeOrder, step_dir: Path) -> None:
    order = make_order("train", "files=a.txt", expected=["a.txt", "b.txt"])
    step = await JobExecutor().start(order, step_dir)
    assert (await step.outcome()).missing == ["b.txt"]


async def test_stop_reaches_the_trainer_through_its_controller(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("until_stopped"), step_dir)
    await until(step, "epoch_begin")
    step.stop()
    step.stop()
    events = await follow(step)
    outcome = await step.outcome()
    assert (outcome.exit_code, outcome.train_end) == (0, True)
    assert (outcome.stopped, outcome.cancelled, outcome.forced) == (True, False, None)
    assert signals(events) == ["stop"]


async def test_a_stop_that_is_not_heard_ends_in_an_interrupt(
    make_order: MakeOrder, step_dir: Path
) -> None:
    order = make_order("obedient", stop_grace_s=0.3)
    step = await JobExecutor().start(order, step_dir)
    await until(step, "epoch_begin")
    step.stop()
    outcome = await step.outcome()
    assert (outcome.stopped, outcome.forced) == (True, "interrupt")
    assert outcome.exit_code == 1


async def test_cancel_kills_a_trainer_that_ignores_int_and_term(
    make_order: MakeOrder, step_dir: Path
) -> None:
    order = make_order("deaf", interrupt_grace_s=0.2, terminate_grace_s=0.2)
    step = await JobExecutor().start(order, step_dir)
    await until(step, "epoch_begin")
    step.cancel()
    step.stop()
    events = await follow(step)
    outcome = await step.outcome()
    assert signals(events) == ["interrupt", "terminate", "kill"]
    assert (outcome.signal, outcome.exit_code) == (signal.SIGKILL, None)
    assert (outcome.cancelled, outcome.stopped) == (True, False)


async def test_cancel_of_an_obedient_trainer_needs_one_interrupt(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("obedient"), step_dir)
    await until(step, "epoch_begin")
    step.cancel()
    outcome = await step.outcome()
    assert (outcome.exit_code, outcome.forced) == (1, "interrupt")
    assert outcome.cancelled


async def test_a_command_gets_through_on_a_full_disk(
    make_order: MakeOrder, step_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = await JobExecutor().start(make_order("obedient"), step_dir)
    await until(step, "epoch_begin")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(job_executor, "replace_file", full)
    step.stop()
    step.cancel()
    outcome = await step.outcome()
    assert (outcome.cancelled, outcome.forced) == (True, "interrupt")


async def test_a_crash_keeps_its_last_lines(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("crash"), step_dir)
    outcome = await step.outcome()
    assert outcome.exit_code == 3
    assert outcome.last_lines[-1] == "RuntimeError: CUDA out of memory"
    assert outcome.train_begin
    assert not outcome.train_end


async def test_exit_0_without_train_end_is_told_apart(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("no_end"), step_dir)
    outcome = await step.outcome()
    assert (outcome.exit_code, outcome.train_end) == (0, False)


async def test_a_flood_is_thinned_and_loses_no_epoch(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("flood"), step_dir)
    events = await follow(step)
    outcome = await step.outcome()
    counts = {kind: said(events).count(kind) for kind in set(said(events))}
    assert counts["epoch_end"] == 100
    assert counts["train_end"] == 1
    assert counts["batch_end"] + outcome.batches_thinned == 10_000
    seconds = outcome.ended - outcome.began
    assert counts["batch_end"] <= 20 * (seconds + 1)
    dropped = sum(event.dropped for event in events if isinstance(event, StepLog))
    assert dropped > 0
    assert dropped + len(lines(events)) == 5_000
    assert outcome.last_lines[-1] == "line 4999"


async def test_hostile_messages_are_dropped_and_run_nothing(
    make_order: MakeOrder, step_dir: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "owned"
    step = await JobExecutor().start(
        make_order("hostile", f"marker={marker}"), step_dir
    )
    events = await follow(step)
    outcome = await step.outcome()
    assert not marker.exists()
    assert outcome.train_end
    assert outcome.messages_dropped == 8
    ends = [e for e in events if isinstance(e, StepProgress) and e.event == "epoch_end"]
    assert [(e.epoch, e.losses) for e in ends] == [(0, {}), (1, {}), (None, {})]


async def test_the_trainer_sees_no_secrets_and_one_gpu(
    make_order: MakeOrder, step_dir: Path
) -> None:
    inherited = {
        **os.environ,
        "SLEAP_SESSION": "sleap-session:abc",
        "MY_SECRET_THING": "1",
        "GITHUB_TOKEN": "1",
        "AWS_ACCESS_KEY_ID": "1",
        "WANDB_API_KEY": "1",
        "KEPT": "yes",
    }
    executor = JobExecutor(3, environment=inherited)
    step = await executor.start(make_order("environment"), step_dir)
    found = dict(line.split("=", 1) for line in lines(await follow(step)))
    await step.outcome()
    assert found["KEPT"] == "yes"
    assert found["CUDA_VISIBLE_DEVICES"] == "3"
    assert found["WANDB_MODE"] == "disabled"
    assert found["PYTHONUNBUFFERED"] == "1"
    assert not {"SLEAP_SESSION", "MY_SECRET_THING", "GITHUB_TOKEN"} & set(found)
    assert not {"AWS_ACCESS_KEY_ID", "WANDB_API_KEY"} & set(found)


async def test_nothing_is_imported_from_the_package_folder(
    make_order: MakeOrder, step_dir: Path, package: Path
) -> None:
    # `python -m` would put the client's folder first on the import path.
    package.joinpath("platform.py").write_text("open('owned', 'w').close()\n")
    order = make_order("train", argv=[sys.executable, "-m", "platform"])
    step = await JobExecutor().start(order, step_dir)
    assert (await step.outcome()).exit_code == 0
    assert not package.joinpath("owned").exists()


async def test_what_the_trainer_left_behind_is_killed(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("children"), step_dir)
    events = await follow(step)
    await step.outcome()
    (pid,) = (int(line.split()[1]) for line in lines(events) if "child" in line)
    with pytest.raises(psutil.NoSuchProcess):
        psutil.Process(pid).wait(WAIT_S)
        psutil.Process(pid)


async def test_predictions_report_frames_and_not_lines(
    make_order: MakeOrder, step_dir: Path
) -> None:
    order = make_order("predict", "files=out.slp", kind="predict", expected=["out.slp"])
    step = await JobExecutor().start(order, step_dir)
    events = await follow(step)
    outcome = await step.outcome()
    reports = [event for event in events if isinstance(event, StepProgress)]
    assert (reports[-1].done, reports[-1].total, reports[-1].rate) == (40, 40, 8.5)
    assert len(reports) < 40
    assert lines(events) == ["Predictions saved"]
    assert (outcome.exit_code, outcome.missing) == (0, [])


async def test_a_failed_prediction_says_why(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(
        make_order("predict_fails", kind="predict"), step_dir
    )
    outcome = await step.outcome()
    assert (outcome.exit_code, outcome.error) == (1, "ValueError: no such model")


async def test_a_stopped_prediction_is_reported_as_stopped(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(
        make_order("predict_waits", kind="predict"), step_dir
    )
    await until(step, "predict")
    step.stop()
    outcome = await step.outcome()
    assert (outcome.stopped, outcome.cancelled) == (True, False)


async def test_a_command_that_does_not_exist(
    make_order: MakeOrder, step_dir: Path
) -> None:
    order = make_order("train", argv=[str(step_dir / "no-such-program")])
    step = await JobExecutor().start(order, step_dir)
    outcome = await step.outcome()
    assert outcome.not_started
    assert outcome.error


SHORT_LIVED_WORKER = """
import asyncio, os, signal, sys
from pathlib import Path
from sleap_rtc_worker.job_executor import JobExecutor
from sleap_rtc_worker.step_records import decode_order
folder = Path(sys.argv[1])
order = decode_order((folder / "step.json").read_bytes())
asyncio.run(JobExecutor().start(order, folder))
os.kill(os.getpid(), signal.SIGKILL)
"""


def start_and_die(order: StepOrder, step_dir: Path) -> int:
    """Be a worker that starts a runner and is killed at once; return its code."""
    step_dir.mkdir()
    (step_dir / ORDER_FILE).write_bytes(encode_record(order))
    argv = [sys.executable, "-c", SHORT_LIVED_WORKER, str(step_dir)]
    return subprocess.run(argv, check=False, timeout=WAIT_S).returncode


async def test_the_runner_survives_its_parent_and_is_adopted(
    make_order: MakeOrder, step_dir: Path
) -> None:
    code = await asyncio.to_thread(start_and_die, make_order("until_stopped"), step_dir)
    assert code == -signal.SIGKILL
    step = await JobExecutor().adopt(step_dir)
    assert step is not None
    state = step.state()
    assert state is not None
    assert is_same_process(state.pid, state.started)
    await until(step, "epoch_begin")
    step.stop()
    events = await follow(step)
    outcome = await step.outcome()
    assert outcome.train_end
    assert outcome.stopped
    assert said(events)[-1] == "train_end"
    await asyncio.to_thread(_wait_gone, state.pid)


def _wait_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(WAIT_S)
    except psutil.NoSuchProcess:
        return


async def test_events_go_on_from_an_offset(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("train"), step_dir)
    await step.outcome()
    everything = [pair async for pair in step.events()]
    middle = everything[2][0]
    rest = [pair async for pair in step.events(middle)]
    assert rest == everything[3:]
    adopted = await JobExecutor().adopt(step_dir)
    assert adopted is not None
    assert [pair async for pair in adopted.events()] == everything


async def test_a_torn_last_line_is_left_out(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("train"), step_dir)
    await step.outcome()
    whole = await follow(step)
    with (step_dir / EVENTS_FILE).open("ab") as file:
        file.write(b'{"kind":"log","li')
    assert await follow(step) == whole


async def test_a_runner_that_dies_is_lost_and_leaves_no_trainer(
    make_order: MakeOrder, step_dir: Path
) -> None:
    step = await JobExecutor().start(make_order("deaf"), step_dir)
    await until(step, "epoch_begin")
    state = step.state()
    assert state is not None
    assert state.trainer_pid is not None
    os.kill(state.pid, signal.SIGKILL)
    outcome = await step.outcome()
    assert outcome.lost
    assert await follow(step)
    await asyncio.to_thread(_wait_gone, state.trainer_pid)
    assert not is_same_process(state.trainer_pid, state.trainer_started)


async def test_a_trainer_that_is_stopped_still_for_long_is_not_lost(
    make_order: MakeOrder, step_dir: Path
) -> None:
    """As where a person presses Ctrl-Z on it, or a debugger holds it."""
    order = make_order("until_stopped", interrupt_grace_s=0.2, terminate_grace_s=0.2)
    step = await JobExecutor().start(order, step_dir)
    await until(step, "epoch_begin")
    state = step.state()
    assert state is not None
    assert state.trainer_pid is not None
    for pid in (state.trainer_pid, state.pid):
        os.kill(pid, signal.SIGSTOP)
    # Two hours pass for whoever looks.
    late = RunningStep(step_dir, clock=lambda: time.monotonic() + 7200.0)
    assert late.is_running()
    os.kill(state.pid, signal.SIGCONT)
    step.cancel()
    outcome = await step.outcome()
    assert (outcome.cancelled, outcome.signal) == (True, signal.SIGKILL)
    assert not late.is_running()


async def test_a_runner_that_was_killed_before_it_said_a_word_is_seen_at_once(
    step_dir: Path,
) -> None:
    """The clock that its claim was written by may have been any."""
    step_dir.mkdir()
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    started = start_time(gone.pid) or "long ago"
    await gone.wait()
    (step_dir / CLAIM_FILE).write_text(f"{gone.pid} {started}\n")
    os.utime(step_dir / CLAIM_FILE, (2e9, 2e9))
    adopted = await JobExecutor().adopt(step_dir)
    assert adopted is not None
    assert not adopted.is_running()
    # An older runner's claim names no time: it has a moment, on a clock of its own.
    (step_dir / CLAIM_FILE).write_text(f"{gone.pid}\n")
    now = 100.0
    older = RunningStep(step_dir, clock=lambda: now)
    assert older.is_running()
    now += CLAIM_GRACE_S
    assert not older.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux promises it")
async def test_a_killed_runner_takes_the_trainer_with_it(
    make_order: MakeOrder, step_dir: Path
) -> None:
    """Nobody looks after them: the worker may be dead as well."""
    step = await JobExecutor().start(make_order("deaf"), step_dir)
    await until(step, "epoch_begin")
    state = step.state()
    assert state is not None
    assert state.trainer_pid is not None
    os.kill(state.pid, signal.SIGKILL)
    await asyncio.to_thread(_wait_gone, state.trainer_pid)
    assert (await step.outcome()).lost


@pytest.mark.skipif(sys.platform != "linux", reason="found in /proc")
async def test_what_a_dead_trainer_left_behind_is_found(
    make_order: MakeOrder, step_dir: Path
) -> None:
    order = make_order("children", "lingers=yes")
    step = await JobExecutor().start(order, step_dir)
    (pid,) = (int(line.split()[1]) for line in await said_before_end(step))
    state = step.state()
    assert state is not None
    assert state.trainer_pid is not None
    os.kill(state.pid, signal.SIGKILL)
    await asyncio.to_thread(_wait_gone, state.trainer_pid)
    assert psutil.pid_exists(pid)
    assert (await step.outcome()).lost
    await asyncio.to_thread(_wait_gone, pid)


async def said_before_end(step: RunningStep) -> list[str]:
    """Return the lines that name a child, as soon as there are any."""
    async with asyncio.timeout(WAIT_S):
        async for _, event in step.events():
            found = [line for line in lines([event]) if line.startswith("child ")]
            if found:
                return found
    return []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_runner_that_is_told_to_end_says_that_it_was_interrupted(
    make_order: MakeOrder, step_dir: Path, how: signal.Signals
) -> None:
    """An interrupt would make sleap-nn delete its checkpoints."""
    step = await JobExecutor().start(make_order("obedient"), step_dir)
    await until(step, "epoch_begin")
    state = step.state()
    assert state is not None
    os.kill(state.pid, signal.SIGHUP)
    os.kill(state.pid, how)
    os.kill(state.pid, how)
    outcome = await step.outcome()
    assert (outcome.lost, outcome.cancelled, outcome.interrupted) == (
        False,
        False,
        True,
    )
    assert (outcome.exit_code, outcome.signal) == (None, signal.SIGKILL)


async def test_a_trainer_that_hears_of_the_end_first_is_interrupted_too(
    make_order: MakeOrder, step_dir: Path
) -> None:
    """A system that goes down tells every process; sleap-nn then ends with code 0."""
    step = await JobExecutor().start(make_order("ends_on_term"), step_dir)
    await until(step, "epoch_begin")
    state = step.state()
    assert state is not None
    assert state.trainer_pid is not None
    os.kill(state.trainer_pid, signal.SIGTERM)
    outcome = await step.outcome()
    assert (outcome.exit_code, outcome.train_end) == (0, False)
    decided = verdict(STEP, outcome, 0)
    assert isinstance(decided, Restart)


async def test_a_folder_is_used_once(make_order: MakeOrder, step_dir: Path) -> None:
    step = await JobExecutor().start(make_order("train"), step_dir)
    with pytest.raises(LocalProtocolError):
        await JobExecutor().start(make_order("train"), step_dir)
    await step.outcome()


async def test_nothing_is_adopted_where_nothing_was_started(tmp_path: Path) -> None:
    assert await JobExecutor().adopt(tmp_path) is None


async def test_a_runner_that_cannot_start_says_so(
    make_order: MakeOrder, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    said = f"no {tmp_path}/zmq.so in '/usr/lib/x y.so'"
    broken.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    broken.chmod(0o755)
    executor = JobExecutor(python=str(broken))
    with pytest.raises(RunnerNotStarted, match=r"no zmq\.so in") as caught:
        await executor.start(make_order("train"), tmp_path / "step")
    # Where the worker keeps its things is nobody's business.
    assert "/" not in caught.value.reason


async def test_two_steps_have_ports_of_their_own(
    make_order: MakeOrder, tmp_path: Path
) -> None:
    executor = JobExecutor()
    began = time.time()
    steps = [
        await executor.start(make_order("until_stopped"), tmp_path / name)
        for name in ("one", "two")
    ]
    for step in steps:
        await until(step, "epoch_begin")
    steps[0].stop()
    assert (await steps[0].outcome()).train_end
    assert steps[1].is_running()
    steps[1].stop()
    outcome = await steps[1].outcome()
    assert outcome.train_end
    assert outcome.began >= began

"""Starts step runners, finds them again, and follows what they write.

A runner belongs to its step's folder, not to the worker: a worker that restarts
adopts what still runs there. This executor runs steps on this machine; another (a
cluster's scheduler) only has to start `step_runner` and share the folder.
"""

import asyncio
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, RunnerNotStarted
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_LAST_LINES, RUNNER_START_TIMEOUT_S
from sleap_rtc_plugin.transport.effects import monotonic, storage_error
from sleap_rtc_worker.limits import (
    CLAIM_GRACE_S,
    EVENT_POLL_S,
    LEFT_OVER_DEADLINE_S,
    LEFT_OVER_POLL_S,
    MAX_CLAIM_BYTES,
    MAX_EVENT_LINE_BYTES,
    MAX_EVENTS_READ_BYTES,
    MAX_STEP_STATE_BYTES,
)
from sleap_rtc_worker.process import is_same_process, kill_group, kill_marked, spawn
from sleap_rtc_worker.step_files import read_bounded, replace_file
from sleap_rtc_worker.step_records import (
    CLAIM_FILE,
    COMMAND_FILE,
    EVENTS_FILE,
    ORDER_FILE,
    OUTCOME_FILE,
    RUNNER_FILE,
    RUNNER_LOG_FILE,
    Command,
    RunnerEvent,
    RunnerState,
    StepLog,
    StepOrder,
    StepOutcome,
    StepProgress,
    decode_event,
    decode_outcome,
    decode_state,
    encode_record,
    lost_outcome,
    parse_command,
)
from sleap_rtc_worker.trainer_environment import STEP_MARK, without_secrets

__all__ = ["Executor", "JobExecutor", "RunningStep", "gpu_environment"]

logger = logging.getLogger(__name__)

_RUNNER_MODULE: Final = "sleap_rtc_worker.step_runner"
_PLACE: Final = "the worker's data folder"
# Clients need not know where on its disk a worker lives.
_PATH: Final = re.compile(r"(?:[A-Za-z]:)?[/\\](?:[^\s/\\:'\"]+[/\\])*([^\s/\\:'\"]*)")
_MAX_REASON_CHARS: Final = 300
_COMMAND_BYTES: Final = 16


class Executor(Protocol):
    """Where steps run."""

    async def start(self, order: StepOrder, step_dir: Path) -> "RunningStep":
        """Start a step in a folder of its own."""
        ...

    async def adopt(self, step_dir: Path) -> "RunningStep | None":
        """Find the step that an earlier worker started there."""
        ...


def gpu_environment(gpu_id: int | str | None) -> dict[str, str]:
    """Return the variables that show sleap-nn one GPU only; None shows them all."""
    if gpu_id is None:
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(gpu_id)}


class RunningStep:
    """A step that was started, here or by an earlier worker.

    Args:
        step_dir: its folder.
        child: the runner's process, where this worker started it.
        clock: seconds that never jump.
    """

    def __init__(
        self,
        step_dir: Path,
        child: subprocess.Popen[bytes] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.step_dir = step_dir
        self._child = child
        self._clock = clock
        self._known_since = clock()
        self._outcome: StepOutcome | None = None

    async def events(
        self, since_offset: int = 0
    ) -> AsyncIterator[tuple[int, RunnerEvent]]:
        """Yield every event from a byte offset on, until the step has ended.

        Yields:
            The offset to go on from after this event, and the event. Store the
            offset with what was made of the event, and none is lost or told twice.
        """
        offset = since_offset
        while True:
            ended = self._look_for_end()
            async for after, event in self._whole_lines(offset):
                offset = after
                yield offset, event
            if ended:
                return
            await asyncio.sleep(EVENT_POLL_S)

    async def _whole_lines(self, offset: int) -> AsyncIterator[tuple[int, RunnerEvent]]:
        path = self.step_dir / EVENTS_FILE
        while data := await asyncio.to_thread(_read_from, path, offset):
            end = data.rfind(b"\n") + 1
            if end == 0:
                if len(data) <= MAX_EVENT_LINE_BYTES:
                    return
                end = len(data)
            for line in data[:end].splitlines(keepends=True):
                offset += len(line)
                event = decode_event(line.strip())
                if event is not None:
                    yield offset, event

    def stop(self) -> None:
        """Ask for the step to end with its model kept; again is harmless.

        Raises:
            StorageFailed: the folder cannot be written.
        """
        self._ask("stop")

    def cancel(self) -> None:
        """Ask for the step to end now; this wins over a stop.

        Raises:
            StorageFailed: the folder cannot be written.
        """
        self._ask("cancel")

    def _ask(self, command: Command) -> None:
        path = self.step_dir / COMMAND_FILE
        given = parse_command(read_bounded(path, 64) or b"")
        if given in (command, "cancel"):
            return
        word = f"{command}\n".encode()
        try:
            try:
                replace_file(path, word)
            except OSError:
                # A full disk still takes what replaces bytes that are there.
                with path.open("r+b") as file:
                    file.write(word.ljust(_COMMAND_BYTES))
        except OSError as error:
            raise storage_error(error, path, place=_PLACE) from None

    async def outcome(self) -> StepOutcome:
        """Wait for the end; where the runner died, say that it is lost.

        A trainer that a dead runner left behind is killed first, so that nothing
        holds the GPU or writes to the folder any more.
        """
        # ASYNC110: what is waited for is a file of another process, no event.
        while not self._look_for_end():  # noqa: ASYNC110
            await asyncio.sleep(EVENT_POLL_S)
        if self._outcome is None:
            self._outcome = await asyncio.to_thread(self._lost)
        if self._child is not None:
            # The runner has written its outcome and is leaving; do not keep a zombie.
            await asyncio.to_thread(self._child.wait)
        return self._outcome

    def state(self) -> RunnerState | None:
        """Return what the runner last said of itself, or None."""
        data = read_bounded(self.step_dir / RUNNER_FILE, MAX_STEP_STATE_BYTES)
        return decode_state(data) if data else None

    def is_running(self) -> bool:
        """Tell whether the runner lives."""
        if self._child is not None:
            return self._child.poll() is None
        state = self.state()
        if state is not None:
            return is_same_process(state.pid, state.started)
        # Claimed but not yet introduced: it may be importing.
        claim = read_bounded(self.step_dir / CLAIM_FILE, MAX_CLAIM_BYTES)
        if claim is None:
            return False
        pid, _, started = claim.decode("ascii", "replace").strip().partition(" ")
        if started and pid.isdigit():
            return is_same_process(int(pid), started)
        return self._clock() - self._known_since < CLAIM_GRACE_S

    def _look_for_end(self) -> bool:
        if self._outcome is not None:
            return True
        # Asked before the file is read: a runner writes its outcome, then ends.
        running = self.is_running()
        data = read_bounded(self.step_dir / OUTCOME_FILE, MAX_STEP_STATE_BYTES)
        self._outcome = decode_outcome(data) if data else None
        return self._outcome is not None or not running

    def _end_left_over(self) -> None:
        """Kill what a dead runner left, and wait until it is gone.

        Most of it ended with the runner (`leash`); this is for the rest, such as the
        processes of a data loader.
        """
        until = self._clock() + LEFT_OVER_DEADLINE_S
        mark = str(self.step_dir.absolute())
        while self._clock() < until:
            state, is_left = self.state(), False
            if (
                state is not None
                and state.trainer_pid is not None
                and is_same_process(state.trainer_pid, state.trainer_started)
            ):
                kill_group(state.trainer_pid)
                is_left = True
            if not kill_marked(STEP_MARK, mark) and not is_left:
                return
            time.sleep(LEFT_OVER_POLL_S)

    def _lost(self) -> StepOutcome:
        self._end_left_over()
        lines: list[str] = []
        epochs, train_end, offset = 0, False, 0
        path = self.step_dir / EVENTS_FILE
        while data := _read_from(path, offset):
            end = data.rfind(b"\n") + 1 or len(data)
            offset += end
            for line in data[:end].splitlines():
                match decode_event(line):
                    case StepLog(lines=said):
                        lines = [*lines, *said][-MAX_LAST_LINES:]
                    case StepProgress(event="epoch_end"):
                        epochs += 1
                    case StepProgress(event="train_end"):
                        train_end = True
                    case _:
                        pass
        return lost_outcome(lines, epochs, train_end)


class JobExecutor:
    """Runs steps on this machine.

    Args:
        gpu_id: the GPU that sleap-nn may see, as nvidia-smi numbers or names it;
            None for all.
        python: the interpreter that runs the step runner.
        environment: what the runner inherits; credentials are left out.
        start_timeout_s: how long a runner may take to introduce itself.
    """

    def __init__(
        self,
        gpu_id: int | str | None = None,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        start_timeout_s: float = RUNNER_START_TIMEOUT_S,
    ) -> None:
        self._gpu = gpu_environment(gpu_id)
        self._python = python
        self._environment = os.environ if environment is None else environment
        self._start_timeout_s = start_timeout_s

    async def start(self, order: StepOrder, step_dir: Path) -> RunningStep:
        """Start a step; it goes on when this worker ends.

        Args:
            order: what to run; the GPU's variables are added to it.
            step_dir: a folder for this one attempt; it is made where it is missing.

        Raises:
            LocalProtocolError: a step was already started in this folder.
            DiskFull, StorageFailed: the folder cannot be written.
            RunnerNotStarted: no runner came up.
        """
        order = msgspec.structs.replace(
            order, environment={**self._gpu, **order.environment}
        )
        try:
            child = await asyncio.to_thread(self._spawn, order, step_dir)
        except OSError as error:
            raise storage_error(error, step_dir, place=_PLACE) from None
        step = RunningStep(step_dir, child)
        try:
            async with asyncio.timeout(self._start_timeout_s):
                # ASYNC110: what is waited for is a file of another process.
                while step.state() is None and step.is_running():  # noqa: ASYNC110
                    await asyncio.sleep(EVENT_POLL_S)
        except TimeoutError:
            kill_group(child.pid)
            await asyncio.to_thread(child.wait)
            seconds = f"{self._start_timeout_s:.0f} s"
            raise RunnerNotStarted(reason=f"it said nothing for {seconds}") from None
        if step.state() is None:
            said = read_bounded(step_dir / RUNNER_LOG_FILE, MAX_STEP_STATE_BYTES) or b""
            logger.warning("The runner in %s did not start: %r", step_dir, said[-2000:])
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
            reason = clean_text(_PATH.sub(r"\1", last), _MAX_REASON_CHARS)
            raise RunnerNotStarted(reason=reason or "it said nothing")
        return step

    async def adopt(self, step_dir: Path) -> RunningStep | None:
        """Find a step that was started in this folder.

        Returns:
            The step, running or ended, or None where none was ever started there.
        """
        found = await asyncio.to_thread((step_dir / CLAIM_FILE).exists)
        return RunningStep(step_dir) if found else None

    def _spawn(self, order: StepOrder, step_dir: Path) -> subprocess.Popen[bytes]:
        step_dir.mkdir(parents=True, exist_ok=True)
        if (step_dir / CLAIM_FILE).exists():
            raise LocalProtocolError(detail=f"a step was started twice in {step_dir}")
        # A command of an earlier try that never started is not for this one; the blanks
        # have their place on a disk that may be full when something is to be asked.
        replace_file(step_dir / COMMAND_FILE, b" " * _COMMAND_BYTES)
        replace_file(step_dir / ORDER_FILE, encode_record(order), durable=True)
        with (step_dir / RUNNER_LOG_FILE).open("ab") as log:
            return spawn(
                [self._python, "-m", _RUNNER_MODULE, str(step_dir.absolute())],
                cwd=step_dir,
                environment={
                    **without_secrets(self._environment, allow_wandb=order.allow_wandb),
                    "PYTHONSAFEPATH": "1",
                },
                stdout=log,
                stderr=log,
                own_console=True,
            )


def _read_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(MAX_EVENTS_READ_BYTES)
    except OSError:
        return b""

"""The process that owns sleap-nn for one step.

Started as `python -m sleap_rtc_worker.step_runner STEP_DIR`. It lives beside the GPU,
in a session of its own, and talks through files in its step's folder only, so the
worker may end, restart and find it again. A thin driver: the decisions are the step
machine's, and one loop carries them out.
"""

import contextlib
import json
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Final, Literal

import msgspec
import zmq

from sleap_rtc_plugin.protocol.limits import MAX_CONFIG_BYTES
from sleap_rtc_worker.limits import (
    COMMAND_POLL_S,
    FINAL_DRAIN_QUIET_S,
    FINAL_DRAIN_S,
    HEARTBEAT_INTERVAL_S,
    MAX_MESSAGES_PER_TURN,
    MAX_OUTPUT_BLOCKS_PER_TURN,
    MAX_OUTPUT_BLOCKS_QUEUED,
    MAX_SAVED_CONFIG_BYTES,
    MAX_STEP_ORDER_BYTES,
    MAX_TRAINER_MESSAGE_BYTES,
    OUTCOME_RESERVE_BYTES,
    OUTCOME_RETRIES_FOR_S,
    OUTCOME_RETRY_S,
    OUTPUT_BLOCK_BYTES,
    PIPE_CLOSE_GRACE_S,
    RUNNER_POLL_S,
    ZMQ_RECEIVE_HIGH_WATER,
)
from sleap_rtc_worker.process import (
    has_exited,
    kill_group,
    leashed,
    signal_group,
    spawn,
    start_time,
)
from sleap_rtc_worker.sleap_nn_command import (
    restore_settings,
    resumed_from,
    saves_last,
    with_ports,
)
from sleap_rtc_worker.step_checkpoint import drop_last, join_log, put_best_back
from sleap_rtc_worker.step_files import append_line, read_bounded, replace_file
from sleap_rtc_worker.step_machine import (
    Asked,
    Emit,
    Exited,
    Finish,
    GoingDown,
    Happening,
    Message,
    NotStarted,
    Output,
    PublishStop,
    SignalTrainer,
    Started,
    StepMachine,
)
from sleap_rtc_worker.step_records import (
    CLAIM_FILE,
    COMMAND_FILE,
    EVENTS_FILE,
    ORDER_FILE,
    OUTCOME_FILE,
    OUTCOME_RESERVE_FILE,
    RUNNER_FILE,
    RunnerState,
    StepOrder,
    StepOutcome,
    decode_order,
    encode_event,
    encode_record,
    parse_command,
)
from sleap_rtc_worker.trainer_environment import STEP_MARK, trainer_environment

__all__ = ["StepRunner", "main"]

EXIT_DONE: Final = 0
EXIT_USAGE: Final = 2
EXIT_CLAIMED: Final = 3
_LOOPBACK: Final = "tcp://127.0.0.1"
_STOP: Final = json.dumps({"command": "stop"})
_SAVED_CONFIGS: Final = ("initial_config.yaml", "training_config.yaml")

Stream = Literal["out", "err"]


class _Pipes:
    """Reads sleap-nn's two pipes in threads, since Windows cannot poll pipes.

    The queue is bounded: a trainer that writes faster than we read waits.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._blocks: queue.Queue[tuple[Stream, bytes]] = queue.Queue(
            MAX_OUTPUT_BLOCKS_QUEUED
        )
        self._threads = []
        for stream, pipe in (("out", child.stdout), ("err", child.stderr)):
            thread = threading.Thread(
                target=self._read, args=(stream, pipe), name=stream, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def _read(self, stream: Stream, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while block := os.read(pipe.fileno(), OUTPUT_BLOCK_BYTES):
                self._blocks.put((stream, block))

    def take(self, most: int = MAX_OUTPUT_BLOCKS_PER_TURN) -> Iterable[Output]:
        """Yield what has arrived, at most `most` blocks."""
        for _ in range(most):
            try:
                yield Output(*self._blocks.get_nowait())
            except queue.Empty:
                return

    def is_closed(self) -> bool:
        """Tell whether both pipes have ended and all of it was taken."""
        alive = any(thread.is_alive() for thread in self._threads)
        return not alive and self._blocks.empty()


class StepRunner:
    """Runs one order in one folder to its outcome.

    Args:
        step_dir: the step's folder, holding `step.json`.
        order: what it says.
        clock: monotonic seconds.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        step_dir: Path,
        order: StepOrder,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._dir = step_dir
        self._order = order
        self._clock = clock
        self._wall_clock = wall_clock
        self._machine = StepMachine(order)
        self._outcome: StepOutcome | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._trainer_started: str | None = None
        self._pipes: _Pipes | None = None
        self._torn_line = False
        self._events_lost = 0
        self._told_to_end = False
        self._has_best = False
        # What was kept is of no use to a try that begins from the beginning.
        is_resumed = order.kept_dir is not None and resumed_from(order.argv) is not None
        self._kept_dir = Path(str(order.kept_dir)) if is_resumed else None
        self._next_command_check = 0.0
        self._next_heartbeat = 0.0
        self._started = start_time(os.getpid()) or ""
        self._zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._progress = self._zmq.socket(zmq.SUB)
        self._controller = self._zmq.socket(zmq.PUB)

    def run(self) -> StepOutcome:
        """Start sleap-nn, see it through, and write the outcome."""
        try:
            self._beat()
            self._reserve_outcome()
            self._start(*self._bind())
            while self._outcome is None:
                self._turn()
            return self._outcome
        finally:
            self._close()

    def end_early(self, *_: object) -> None:
        """Hear from a signal handler that the machine is going down."""
        self._told_to_end = True

    # -- start and end ---------------------------------------------------------

    def _bind(self) -> tuple[int, int]:
        for socket in (self._progress, self._controller):
            socket.setsockopt(zmq.LINGER, 0)
        self._progress.setsockopt(zmq.MAXMSGSIZE, MAX_TRAINER_MESSAGE_BYTES)
        self._progress.setsockopt(zmq.RCVHWM, ZMQ_RECEIVE_HIGH_WATER)
        self._progress.setsockopt(zmq.SUBSCRIBE, b"")
        # The system picks the ports, so jobs on one machine never meet.
        ports = []
        for socket in (self._progress, self._controller):
            socket.bind(f"{_LOOPBACK}:*")
            endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
            ports.append(int(bytes(endpoint).rstrip(b"\0").rpartition(b":")[2]))
        return ports[0], ports[1]

    def _start(self, publish: int, controller: int) -> None:
        order = self._order
        environment = trainer_environment(
            os.environ,
            {**order.environment, STEP_MARK: str(self._dir)},
            allow_wandb=order.allow_wandb,
            allow_downloads=order.allow_downloads,
        )
        argv = with_ports(order.argv, publish=publish, controller=controller)
        try:
            self._child = spawn(
                leashed(argv, Path(order.cwd)),
                cwd=Path(order.cwd),
                environment=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._happen(NotStarted(reason, self._wall_clock()))
            return
        self._trainer_started = start_time(self._child.pid)
        self._pipes = _Pipes(self._child)
        self._beat()
        self._happen(Started(self._child.pid, self._wall_clock()))

    def _close(self) -> None:
        if self._child is not None:
            if self._child.returncode is None:
                kill_group(self._child.pid)
                self._child.wait()
            for pipe in (self._child.stdout, self._child.stderr):
                if pipe is not None and self._pipes and self._pipes.is_closed():
                    pipe.close()
        self._progress.close()
        self._controller.close()
        self._zmq.term()

    # -- the loop --------------------------------------------------------------

    def _turn(self) -> None:
        now = self._clock()
        deadline = self._machine.deadline()
        wait_s = RUNNER_POLL_S
        if deadline is not None:
            wait_s = max(0.0, min(wait_s, deadline - now))
        if self._progress.poll(int(wait_s * 1000)):
            self._receive()
        self._read_output()
        now = self._clock()
        deadline = self._machine.deadline()
        if deadline is not None and now >= deadline:
            self._happen(None)
        if now >= self._next_command_check:
            self._next_command_check = now + COMMAND_POLL_S
            self._check_command()
            self._put_best_back()
        if now >= self._next_heartbeat:
            self._beat()
        child = self._child
        if self._outcome is None and child is not None and has_exited(child):
            self._on_exit(child)

    def _receive(self) -> bool:
        heard = False
        for _ in range(MAX_MESSAGES_PER_TURN):
            try:
                parts = self._progress.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            heard = True
            # sleap-nn sends single parts; anything else is not understood.
            self._happen(Message(parts[0] if len(parts) == 1 else b""))
        return heard

    def _read_output(self) -> None:
        if self._pipes is not None:
            for output in self._pipes.take():
                self._happen(output)

    def _check_command(self) -> None:
        self._check_end()
        data = read_bounded(self._dir / COMMAND_FILE, 64)
        command = parse_command(data) if data else None
        if command is not None and self._outcome is None:
            self._happen(Asked(command))

    def _check_end(self) -> None:
        if self._told_to_end and self._outcome is None:
            self._told_to_end = False
            self._happen(GoingDown())

    def _on_exit(self, child: subprocess.Popen[bytes]) -> None:
        # The leader is not reaped yet, so the group is still surely ours: whatever
        # it left behind (loader processes) ends here.
        if sys.platform != "win32":
            kill_group(child.pid)
        code = child.wait()
        self._drain()
        # The whole machine may have been told, and sleap-nn was quicker.
        self._check_end()
        self._tidy_run(is_done=code == 0 and self._machine.has_trained)
        missing = tuple(
            name
            for name in self._order.expected
            if not Path(self._order.cwd, name).is_file()
        )
        self._happen(
            Exited(
                exit_code=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                missing=missing,
                at=self._wall_clock(),
            )
        )

    def _drain(self) -> None:
        """Take what was on its way when sleap-nn ended, within bounds."""
        end = self._clock() + FINAL_DRAIN_S
        while self._clock() < end and self._progress.poll(
            int(FINAL_DRAIN_QUIET_S * 1000)
        ):
            self._receive()
        end = self._clock() + PIPE_CLOSE_GRACE_S
        while self._pipes and not self._pipes.is_closed() and self._clock() < end:
            self._read_output()
            self._progress.poll(int(RUNNER_POLL_S * 100))
        self._read_output()

    # -- effects ---------------------------------------------------------------

    def _happen(self, happening: Happening | None) -> None:
        for instruction in self._machine.handle(happening, self._clock()):
            match instruction:
                case Emit(event):
                    stamped = msgspec.structs.replace(event, at=self._wall_clock())
                    self._append(encode_event(stamped))
                case PublishStop():
                    with contextlib.suppress(zmq.Again):
                        self._controller.send_string(_STOP, zmq.NOBLOCK)
                case SignalTrainer(how):
                    if self._child is not None and self._child.returncode is None:
                        signal_group(self._child.pid, how)
                case Finish(outcome):
                    self._finish(outcome)

    def _append(self, line: bytes) -> None:
        try:
            append_line(self._dir / EVENTS_FILE, line, after_torn=self._torn_line)
            self._torn_line = False
        except OSError:
            # A full disk must not end a training that may still save its model.
            self._torn_line = True
            self._events_lost += 1

    def _finish(self, outcome: StepOutcome) -> None:
        outcome = msgspec.structs.replace(outcome, events_lost=self._events_lost)
        self._write_outcome(encode_record(outcome))
        self._outcome = outcome

    def _write_outcome(self, data: bytes) -> None:
        """Write it also where the disk is full: hours of training depend on it."""
        until = self._clock() + OUTCOME_RETRIES_FOR_S
        while True:
            # What was set aside for it, or is not needed any more.
            with contextlib.suppress(OSError):
                (self._dir / OUTCOME_RESERVE_FILE).unlink()
            try:
                replace_file(self._dir / OUTCOME_FILE, data, durable=True)
            except OSError:
                if self._clock() >= until:
                    raise
                time.sleep(OUTCOME_RETRY_S)
            else:
                return

    def _reserve_outcome(self) -> None:
        with contextlib.suppress(OSError):
            # Bytes that no file system makes smaller.
            reserve = os.urandom(OUTCOME_RESERVE_BYTES)
            replace_file(self._dir / OUTCOME_RESERVE_FILE, reserve)

    def _beat(self) -> None:
        self._next_heartbeat = self._clock() + HEARTBEAT_INTERVAL_S
        state = RunnerState(
            pid=os.getpid(),
            started=self._started,
            heartbeat=self._wall_clock(),
            trainer_pid=self._child.pid if self._child else None,
            trainer_started=self._trainer_started,
        )
        with contextlib.suppress(OSError):
            replace_file(self._dir / RUNNER_FILE, encode_record(state))

    # -- the run's folder ------------------------------------------------------

    def _put_best_back(self) -> None:
        """Give a training that goes on its best checkpoint, once it has begun."""
        run_dir, kept_dir = self._order.run_dir, self._kept_dir
        if self._has_best or run_dir is None or kept_dir is None:
            return
        with contextlib.suppress(OSError):
            run = Path(self._order.cwd, run_dir)
            self._has_best = put_best_back(run, kept_dir)

    def _tidy_run(self, *, is_done: bool) -> None:
        """Leave the run's folder as a training at home would have left it."""
        argv, run_dir = self._order.argv, self._order.run_dir
        if run_dir is None or "--config-dir" not in argv or "--config-name" not in argv:
            return
        folder = argv[argv.index("--config-dir") + 1]
        name = argv[argv.index("--config-name") + 1]
        data = read_bounded(Path(self._order.cwd, folder, name), MAX_CONFIG_BYTES)
        try:
            given = data.decode() if data is not None else None
        except UnicodeDecodeError:
            given = None
        if given is not None:
            self._restore_configs(Path(self._order.cwd, run_dir), given)
        if is_done:
            if self._kept_dir is not None:
                self._put_best_back()
                with contextlib.suppress(OSError):
                    join_log(Path(self._order.cwd, run_dir), self._kept_dir)
            if given is not None and not saves_last(given):
                drop_last(Path(self._order.cwd, run_dir))

    def _restore_configs(self, run_dir: Path, given: str) -> None:
        """Put the configuration's own values back into what sleap-nn saved."""
        resume = resumed_from(self._order.argv)
        for saved_name in _SAVED_CONFIGS:
            path = run_dir / saved_name
            saved = read_bounded(path, MAX_SAVED_CONFIG_BYTES)
            if saved is None:
                continue
            with contextlib.suppress(OSError, UnicodeDecodeError):
                text = restore_settings(saved.decode(), given, resume)
                mode = stat.S_IMODE(path.stat().st_mode)
                replace_file(path, text.encode(), mode=mode)


def _claim(step_dir: Path) -> bool:
    """Take the folder; a step is run once, whoever else tries."""
    try:
        with (step_dir / CLAIM_FILE).open("x") as claim:
            claim.write(f"{os.getpid()} {start_time(os.getpid()) or ''}\n")
    except FileExistsError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Run the step in the folder named on the command line."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 1:
        sys.stderr.write("usage: python -m sleap_rtc_worker.step_runner STEP_DIR\n")
        return EXIT_USAGE
    step_dir = Path(words[0]).absolute()
    data = read_bounded(step_dir / ORDER_FILE, MAX_STEP_ORDER_BYTES)
    if data is None:
        sys.stderr.write(f"{step_dir / ORDER_FILE} cannot be read\n")
        return EXIT_USAGE
    try:
        order = decode_order(data)
    except msgspec.MsgspecError as error:
        sys.stderr.write(f"{step_dir / ORDER_FILE} is not a step order: {error}\n")
        return EXIT_USAGE
    if not _claim(step_dir):
        sys.stderr.write(f"{step_dir} already has a runner\n")
        return EXIT_CLAIMED
    runner = StepRunner(step_dir, order)
    if hasattr(signal, "SIGHUP"):
        # The terminal or login that started the worker may go; the training stays.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, runner.end_early)
    signal.signal(signal.SIGTERM, runner.end_early)
    runner.run()
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())

"""What a step's folder holds, as typed values and their bytes.

The worker writes `step.json` and `command`; the step runner writes the rest. Both
sides, and a worker that was restarted in between, meet only in these files. Pure:
the files themselves are opened by the runner and the executor.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.limits import (
    INTERRUPT_GRACE_S,
    MAX_LOG_LINE_CHARS,
    MAX_LOG_LINES_PER_EVENT,
    MAX_LOSSES_PER_EVENT,
    STOP_GRACE_S,
    TERMINATE_GRACE_S,
)
from sleap_rtc_worker.limits import MAX_COUNT, MAX_EVENT_LINE_BYTES

__all__ = [
    "CLAIM_FILE",
    "COMMANDS",
    "COMMAND_FILE",
    "EVENTS_FILE",
    "ORDER_FILE",
    "OUTCOME_FILE",
    "OUTCOME_RESERVE_FILE",
    "RUNNER_FILE",
    "RUNNER_LOG_FILE",
    "Command",
    "EventKind",
    "RunnerEvent",
    "RunnerState",
    "StepLog",
    "StepOrder",
    "StepOutcome",
    "StepProgress",
    "StepSignal",
    "StepStarted",
    "decode_event",
    "decode_order",
    "decode_outcome",
    "decode_state",
    "encode_event",
    "encode_record",
    "lost_outcome",
    "parse_command",
]

ORDER_FILE: Final = "step.json"
CLAIM_FILE: Final = "runner.claim"
RUNNER_FILE: Final = "runner.json"
RUNNER_LOG_FILE: Final = "runner.log"
EVENTS_FILE: Final = "events.jsonl"
COMMAND_FILE: Final = "command"
OUTCOME_FILE: Final = "outcome.json"
# Given up when the outcome is written, on a disk that may be full by then.
OUTCOME_RESERVE_FILE: Final = "outcome.reserve"

Command = Literal["stop", "cancel"]
COMMANDS: Final[tuple[Command, ...]] = ("stop", "cancel")
EventKind = Literal[
    "train_begin", "epoch_begin", "batch_end", "epoch_end", "train_end", "predict"
]
Ending = Literal["stop", "interrupt", "terminate", "kill"]
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Grace = Annotated[float, Meta(ge=0, le=24 * 3600.0)]


class StepOrder(Struct, frozen=True, kw_only=True):
    """What the runner shall do: one sleap-nn, once.

    Attributes:
        kind: whether it trains or predicts.
        argv: the command; `@PUBLISH_PORT@` and `@CONTROLLER_PORT@` are put in by
            the runner.
        cwd: the job's package folder, absolute.
        expected: files that a good run leaves, relative to `cwd`.
        run_dir: the folder below `cwd` that a training writes to, or None.
        kept_dir: the folder, absolute, that holds what earlier tries of the step
            left, or None for the first.
        environment: variables to set for sleap-nn, such as CUDA_VISIBLE_DEVICES.
        allow_wandb: whether sleap-nn may see the Weights & Biases variables.
        allow_downloads: whether sleap-nn may ask the Hugging Face hub for weights.
        stop_grace_s: how long a stop through the controller may take.
        interrupt_grace_s: how long an interrupt may take.
        terminate_grace_s: how long a termination may take before the kill.
    """

    kind: Literal["train", "predict"]
    argv: Annotated[list[str], Meta(min_length=1)]
    cwd: str
    expected: list[str] = []
    run_dir: str | None = None
    kept_dir: str | None = None
    environment: dict[str, str] = {}
    allow_wandb: bool = False
    allow_downloads: bool = False
    stop_grace_s: Grace = STOP_GRACE_S
    interrupt_grace_s: Grace = INTERRUPT_GRACE_S
    terminate_grace_s: Grace = TERMINATE_GRACE_S


class RunnerState(Struct, frozen=True, kw_only=True):
    """Who runs the step; start times tell a process from a later one of its pid.

    Attributes:
        heartbeat: Unix seconds, renewed while the runner lives (for an executor
            that cannot see its process).
    """

    pid: int
    started: str
    heartbeat: float
    trainer_pid: int | None = None
    trainer_started: str | None = None


class _Event(Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """One line of `events.jsonl`; `at` is Unix seconds."""

    at: float = 0.0


class StepStarted(_Event, frozen=True, tag="started"):
    """sleap-nn was started."""

    pid: int


class StepProgress(_Event, frozen=True, tag="progress"):
    """What `ProgressReport` says, before it has a job and a number."""

    event: EventKind
    epoch: Count | None = None
    batch: Count | None = None
    losses: Annotated[dict[str, float], Meta(max_length=MAX_LOSSES_PER_EVENT)] = {}
    done: Count | None = None
    total: Count | None = None
    rate: float | None = None


class StepLog(_Event, frozen=True, tag="log"):
    """What `TrainLog` says, before it has a job and a number."""

    lines: Annotated[
        list[Annotated[str, Meta(max_length=MAX_LOG_LINE_CHARS)]],
        Meta(max_length=MAX_LOG_LINES_PER_EVENT),
    ] = []
    dropped: Count = 0


class StepSignal(_Event, frozen=True, tag="signal"):
    """The runner asked sleap-nn to end, in this way."""

    how: Ending


RunnerEvent = StepStarted | StepProgress | StepLog | StepSignal


class StepOutcome(Struct, frozen=True, kw_only=True):
    """How the step ended, whatever became of the worker meanwhile.

    Attributes:
        exit_code: sleap-nn's, or None where a signal ended it or it never started.
        signal: the signal that ended it (POSIX), or None.
        stopped: a stop was asked for, and no cancel.
        cancelled: a cancel was asked for.
        forced: how far the runner had to go, or None where it sent nothing.
        began: Unix seconds.
        ended: Unix seconds.
        epochs: epochs that ended.
        missing: expected files that are not there, relative to the package folder.
        error: what sleap-nn said went wrong, where it said so.
        not_started: the command could not be started at all.
        interrupted: the runner itself was told to end, as by a machine that is shut
            down, and nobody asked for a cancel.
        lost: the runner itself died, so nobody saw the end.
        messages_dropped: trainer messages that were not understood or not allowed.
        batches_thinned: batch events left out to keep within the rate.
        events_lost: events that could not be written.
    """

    exit_code: int | None = None
    signal: int | None = None
    train_begin: bool = False
    train_end: bool = False
    stopped: bool = False
    cancelled: bool = False
    forced: Ending | None = None
    began: float = 0.0
    ended: float = 0.0
    epochs: int = 0
    last_lines: list[str] = []
    missing: list[str] = []
    error: str | None = None
    not_started: bool = False
    interrupted: bool = False
    lost: bool = False
    messages_dropped: int = 0
    batches_thinned: int = 0
    events_lost: int = 0


_ENCODER: Final = msgspec.json.Encoder()
_ORDER: Final = msgspec.json.Decoder(StepOrder)
_STATE: Final = msgspec.json.Decoder(RunnerState)
_EVENT: Final[msgspec.json.Decoder[RunnerEvent]] = msgspec.json.Decoder(RunnerEvent)
_OUTCOME: Final = msgspec.json.Decoder(StepOutcome)


def encode_record(record: StepOrder | RunnerState | StepOutcome) -> bytes:
    """Return a record as the bytes of its file."""
    return _ENCODER.encode(record)


def encode_event(event: RunnerEvent) -> bytes:
    """Return an event as one line, its newline included."""
    return _ENCODER.encode(event) + b"\n"


def decode_order(data: bytes) -> StepOrder:
    """Read `step.json`.

    Raises:
        msgspec.MsgspecError: it is not one.
    """
    return _ORDER.decode(data)


def decode_state(data: bytes) -> RunnerState | None:
    """Read `runner.json`, or None where it is not one."""
    try:
        return _STATE.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def decode_outcome(data: bytes) -> StepOutcome | None:
    """Read `outcome.json`, or None where it is not one."""
    try:
        outcome = _OUTCOME.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    # The one thing that every outcome says.
    return outcome if outcome.ended > 0 else None


def decode_event(line: bytes) -> RunnerEvent | None:
    """Read a line of `events.jsonl`, or None where it was torn by a full disk."""
    if len(line) > MAX_EVENT_LINE_BYTES:
        return None
    try:
        return _EVENT.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def parse_command(data: bytes) -> Command | None:
    """Read the `command` file, or None where it says nothing known."""
    word = data[:16].decode("ascii", "replace").strip()
    for command in COMMANDS:
        if word == command:
            return command
    return None


def lost_outcome(last_lines: list[str], epochs: int, train_end: bool) -> StepOutcome:
    """Say that nobody saw the end, with what the events still tell."""
    return StepOutcome(
        lost=True, last_lines=last_lines, epochs=epochs, train_end=train_end
    )

"""What the step runner does next, decided without a clock, a file or a process.

The runner hands in what happened and the time, and carries out the instructions
that come back: which event to write, when to ask sleap-nn to stop, which signal is
next and how long it is given. Every race of a step is a unit test of this class.

A runner that is told to end itself goes to KILLED at once.

    RUNNING ──stop──► STOPPING ──grace──► INTERRUPTED ──grace──► TERMINATED ──grace──►
       │                 │                    ▲                                  KILLED
       └─────cancel──────┴────────────────────┘         any ──exited──► ENDED
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from sleap_rtc_plugin.protocol.errors import LocalProtocolError
from sleap_rtc_plugin.protocol.limits import (
    MAX_LAST_LINES,
    MAX_LOG_LINES_PER_EVENT,
)
from sleap_rtc_worker.event_budget import BatchPace, LogBudget
from sleap_rtc_worker.limits import (
    KILL_CONFIRM_S,
    LOG_DROPPED_INTERVAL_S,
    LOG_FLUSH_INTERVAL_S,
    MAX_EVENTS_PER_STEP,
    MAX_PREDICT_REPORTS_PER_S,
    STOP_RESEND_INTERVAL_S,
)
from sleap_rtc_worker.log_lines import LineSplitter, clean_line
from sleap_rtc_worker.step_records import (
    Command,
    Ending,
    RunnerEvent,
    StepLog,
    StepOrder,
    StepOutcome,
    StepProgress,
    StepSignal,
    StepStarted,
)
from sleap_rtc_worker.trainer_messages import (
    TrainerError,
    parse_predict_line,
    parse_trainer_message,
)

__all__ = [
    "Asked",
    "Emit",
    "Exited",
    "Finish",
    "GoingDown",
    "Happening",
    "Instruction",
    "Message",
    "NotStarted",
    "Output",
    "Phase",
    "PublishStop",
    "SignalTrainer",
    "Started",
    "StepMachine",
]


# -- events in -----------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """sleap-nn runs; `at` is Unix seconds."""

    pid: int
    at: float


@dataclass(frozen=True)
class NotStarted:
    """The command could not be started; `at` is Unix seconds."""

    reason: str
    at: float


@dataclass(frozen=True)
class Message:
    """Bytes from sleap-nn's progress socket."""

    data: bytes


@dataclass(frozen=True)
class Output:
    """Bytes from sleap-nn's stdout or stderr."""

    stream: Literal["out", "err"]
    data: bytes


@dataclass(frozen=True)
class Asked:
    """The worker asked for this."""

    command: Command


@dataclass(frozen=True)
class GoingDown:
    """The runner itself is told to end: the machine goes down."""


@dataclass(frozen=True)
class Exited:
    """sleap-nn is gone and its pipes and sockets are drained.

    Attributes:
        exit_code: or None where a signal ended it.
        signal: or None.
        missing: expected files that are not there.
        at: Unix seconds.
    """

    exit_code: int | None
    signal: int | None
    missing: tuple[str, ...]
    at: float


Happening = Started | NotStarted | Message | Output | Asked | GoingDown | Exited


# -- instructions out ----------------------------------------------------------


@dataclass(frozen=True)
class Emit:
    """Append this event to `events.jsonl`, stamped with the time."""

    event: RunnerEvent


@dataclass(frozen=True)
class PublishStop:
    """Publish the stop command on the controller socket."""


@dataclass(frozen=True)
class SignalTrainer:
    """Send this to sleap-nn's whole process group."""

    how: Literal["interrupt", "terminate", "kill"]


@dataclass(frozen=True)
class Finish:
    """Write the outcome; the runner ends."""

    outcome: StepOutcome


Instruction = Emit | PublishStop | SignalTrainer | Finish


class Phase(StrEnum):
    """How far the end of sleap-nn has been asked for."""

    RUNNING = "running"
    STOPPING = "stopping"
    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"
    KILLED = "killed"
    ENDED = "ended"


# What follows when a phase's patience is over, and with which signal.
_NEXT: Final[dict[Phase, tuple[Phase, Literal["interrupt", "terminate", "kill"]]]] = {
    Phase.RUNNING: (Phase.INTERRUPTED, "interrupt"),
    Phase.STOPPING: (Phase.INTERRUPTED, "interrupt"),
    Phase.INTERRUPTED: (Phase.TERMINATED, "terminate"),
    Phase.TERMINATED: (Phase.KILLED, "kill"),
    Phase.KILLED: (Phase.KILLED, "kill"),
}
_PREDICT_INTERVAL_S: Final = 1.0 / MAX_PREDICT_REPORTS_PER_S


class StepMachine:
    """The decisions of one step.

    Call `handle` with what happened, or with None when `deadline` has come, and
    carry out what it returns, in order. `now` is a monotonic clock in seconds.
    """

    def __init__(self, order: StepOrder) -> None:
        self._order = order
        self._phase = Phase.RUNNING
        self._patience_ends: float | None = None
        self._resend_at: float | None = None
        self._stop_asked = False
        self._cancel_asked = False
        self._interrupted = False
        self._forced: Ending | None = None
        self._train_begin = False
        self._train_end = False
        self._epochs = 0
        self._began = 0.0
        self._error: str | None = None
        self._splitters = {"out": LineSplitter(), "err": LineSplitter()}
        self._lines: list[str] = []
        self._log = LogBudget()
        self._flush_at: float | None = None
        self._last_lines: deque[str] = deque(maxlen=MAX_LAST_LINES)
        self._pace = BatchPace()
        self._withheld: StepProgress | None = None
        self._last_report = float("-inf")
        self._emitted = 0
        self._dropped = 0
        self._thinned = 0

    @property
    def phase(self) -> Phase:
        """How far the end has been asked for."""
        return self._phase

    @property
    def has_trained(self) -> bool:
        """Whether sleap-nn said that the training is over."""
        return self._train_end

    def deadline(self) -> float | None:
        """When `handle(None, now)` wants to be called, or None for never."""
        times = (self._patience_ends, self._resend_at, self._flush_at)
        return min((time for time in times if time is not None), default=None)

    def handle(self, happening: Happening | None, now: float) -> list[Instruction]:
        """Take what happened, or None for the time alone; return what to do.

        Raises:
            LocalProtocolError: the step has already ended.
        """
        if self._phase is Phase.ENDED:
            raise LocalProtocolError(detail=f"a step that ended got {happening!r}")
        done = self._on_time(now)
        match happening:
            case None:
                pass
            case Started(pid, at):
                self._began = at
                done.append(Emit(StepStarted(pid=pid)))
            case NotStarted(reason, at):
                done += self._not_started(reason, at)
            case Message(data):
                done += self._on_message(data, now)
            case Output(stream, data):
                for line in self._splitters[stream].feed(data):
                    done += self._on_line(stream, line, now)
            case Asked(command):
                done += self._on_command(command, now)
            case GoingDown():
                done += self._on_going_down(now)
            case Exited():
                done += self._on_exit(happening, now)
        return done

    # -- commands and patience -------------------------------------------------

    def _on_command(self, command: Command, now: float) -> list[Instruction]:
        if command == "cancel":
            if self._cancel_asked:
                return []
            self._cancel_asked = True
            if self._phase in (Phase.RUNNING, Phase.STOPPING):
                return self._escalate(now)
            return []
        if self._stop_asked or self._cancel_asked or self._train_end:
            # After train_end the model is there; what runs is the evaluation of it.
            return []
        self._stop_asked = True
        if self._interrupted:
            # It is being killed already; the next try is told again.
            return []
        if self._order.kind == "predict":
            return self._escalate(now)
        self._phase = Phase.STOPPING
        self._patience_ends = now + self._order.stop_grace_s
        self._resend_at = now + STOP_RESEND_INTERVAL_S
        return [Emit(StepSignal(how="stop")), PublishStop()]

    def _on_going_down(self, now: float) -> list[Instruction]:
        """End sleap-nn at once; what its last epoch left is all that a restart needs.

        An interrupt would make it delete the run's folder, with the checkpoint.
        """
        if self._interrupted:
            return []
        self._interrupted = True
        self._phase, self._resend_at = Phase.KILLED, None
        self._patience_ends = now + KILL_CONFIRM_S
        return [SignalTrainer("kill")]

    def _escalate(self, now: float) -> list[Instruction]:
        again = self._phase is Phase.KILLED
        self._phase, how = _NEXT[self._phase]
        self._forced = how
        self._resend_at = None
        self._patience_ends = (
            now
            + {
                "interrupt": self._order.interrupt_grace_s,
                "terminate": self._order.terminate_grace_s,
                "kill": KILL_CONFIRM_S,
            }[how]
        )
        if again:
            return [SignalTrainer(how)]
        return [Emit(StepSignal(how=how)), SignalTrainer(how)]

    def _on_time(self, now: float) -> list[Instruction]:
        done: list[Instruction] = []
        if self._flush_at is not None and now >= self._flush_at:
            done += self._flush()
        if self._patience_ends is not None and now >= self._patience_ends:
            done += self._escalate(now)
        elif self._resend_at is not None and now >= self._resend_at:
            # sleap-nn subscribes late and a publisher does not keep what nobody
            # hears, so the stop is said again until it has worked.
            self._resend_at = now + STOP_RESEND_INTERVAL_S
            done.append(PublishStop())
        return done

    # -- what sleap-nn says ----------------------------------------------------

    def _on_message(self, data: bytes, now: float) -> list[Instruction]:
        event = parse_trainer_message(data)
        if event is None:
            self._dropped += 1
            return []
        if not isinstance(event, StepProgress):
            return []
        match event.event:
            case "train_begin":
                self._train_begin = True
                if self._phase is Phase.STOPPING:
                    # Loading may have used up the patience; the first batch, after
                    # which sleap-nn looks at the controller, comes only now.
                    self._patience_ends = now + self._order.stop_grace_s
            case "epoch_end":
                self._epochs += 1
                return [*self._release_batch(), *self._emit(event)]
            case "train_end":
                self._train_end = True
                if self._phase is Phase.STOPPING:
                    self._patience_ends = self._resend_at = None
            case "batch_end":
                if not self._pace.is_due(now) or self._is_full():
                    self._thinned += 1
                    self._withheld = event
                    return []
                self._pace.told(now)
                self._withheld = None
            case _:
                pass
        return self._emit(event)

    def _release_batch(self) -> list[Instruction]:
        """Say the last batch of an epoch: from it monitors know the epoch's length."""
        withheld, self._withheld = self._withheld, None
        if withheld is None or self._is_full():
            return []
        self._thinned -= 1
        return self._emit(withheld)

    def _on_line(self, stream: str, raw: str, now: float) -> list[Instruction]:
        if self._order.kind == "predict" and stream == "out":
            said = parse_predict_line(raw)
            if isinstance(said, StepProgress):
                return self._on_predicted(said, now)
            if isinstance(said, TrainerError):
                self._error = str(said)
                raw = str(said)
        line = clean_line(raw)
        if not line:
            return []
        self._last_lines.append(line)
        if not self._log.takes(line, now, is_full=self._is_full()):
            self._flush_within(LOG_DROPPED_INTERVAL_S, now)
            return []
        self._lines.append(line)
        self._flush_within(LOG_FLUSH_INTERVAL_S, now)
        return self._flush() if len(self._lines) >= MAX_LOG_LINES_PER_EVENT else []

    def _on_predicted(self, event: StepProgress, now: float) -> list[Instruction]:
        is_last = event.total is not None and event.done == event.total
        if not is_last and now - self._last_report < _PREDICT_INTERVAL_S:
            return []
        if self._is_full():
            return []
        self._last_report = now
        return self._emit(event)

    def _flush_within(self, seconds: float, now: float) -> None:
        # A full step writes no more lines; they only count for the outcome.
        if not self._is_full():
            self._flush_at = min(self._flush_at or now + seconds, now + seconds)

    def _flush(self) -> list[Instruction]:
        self._flush_at = None
        dropped = self._log.taken_dropped()
        if not self._lines and not dropped:
            return []
        event = StepLog(lines=self._lines, dropped=dropped)
        self._lines = []
        return self._emit(event)

    def _emit(self, event: RunnerEvent) -> list[Instruction]:
        self._emitted += 1
        return [Emit(event)]

    def _is_full(self) -> bool:
        return self._emitted >= MAX_EVENTS_PER_STEP

    # -- the end ---------------------------------------------------------------

    def _not_started(self, reason: str, at: float) -> list[Instruction]:
        self._began = at
        self._phase = Phase.ENDED
        outcome = StepOutcome(
            not_started=True,
            error=clean_line(reason),
            began=at,
            ended=at,
            stopped=self._stop_asked and not self._cancel_asked,
            cancelled=self._cancel_asked,
        )
        return [Finish(outcome)]

    def _on_exit(self, exited: Exited, now: float) -> list[Instruction]:
        done: list[Instruction] = []
        for stream, splitter in self._splitters.items():
            for line in splitter.close():
                done += self._on_line(stream, line, now)
        done += self._flush()
        self._lines = list(self._log.last_lines())
        done += self._flush()
        self._phase = Phase.ENDED
        self._patience_ends = self._resend_at = self._flush_at = None
        outcome = StepOutcome(
            exit_code=exited.exit_code,
            signal=exited.signal,
            train_begin=self._train_begin,
            train_end=self._train_end,
            stopped=self._stop_asked and not self._cancel_asked,
            cancelled=self._cancel_asked,
            forced=self._forced,
            began=self._began,
            ended=exited.at,
            epochs=self._epochs,
            last_lines=list(self._last_lines),
            missing=list(exited.missing),
            interrupted=self._interrupted and not self._cancel_asked,
            error=self._error,
            messages_dropped=self._dropped,
            batches_thinned=self._thinned,
        )
        return [*done, Finish(outcome)]

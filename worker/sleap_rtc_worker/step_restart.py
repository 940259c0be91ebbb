"""Whether a step that was cut off begins again, and what its clients then hear.

A training of hours must not be lost because its machine was restarted or somebody's
`kill` hit it. But what failed by its own fault would fail again, so it is not tried
again. Pure: values in, values out; asked by `job_run` with a step's outcome.
"""

from dataclasses import dataclass
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sleap_rtc_plugin.protocol.messages import PredictStep, Step
from sleap_rtc_worker.limits import (
    MAX_STEP_RESTARTS,
    RESTART_PAUSE_FIRST_S,
    RESTART_PAUSE_MAX_S,
)
from sleap_rtc_worker.step_records import StepOutcome, StepProgress

__all__ = [
    "GiveUp",
    "Reached",
    "Restart",
    "Verdict",
    "is_repeat",
    "reached_by",
    "restart_line",
    "verdict",
    "verdict_on_start",
    "why_cut_off",
]

# Sent to a process from outside; other signals are a program's own crash.
_FROM_OUTSIDE: Final = {
    1: "sleap-nn was ended by SIGHUP",
    9: "sleap-nn was ended by SIGKILL, as by a system that is short of memory",
    15: "sleap-nn was ended by SIGTERM",
}


@dataclass(frozen=True)
class Restart:
    """Begin the step again; `reason` says what cut it off.

    Attributes:
        pause_s: wait so long before: whatever ended it may not be over yet.
    """

    reason: str
    pause_s: float


@dataclass(frozen=True)
class GiveUp:
    """It was cut off too often; `reason` says by what, and how often."""

    reason: str


Verdict = Restart | GiveUp | None


def why_cut_off(step: Step, outcome: StepOutcome) -> str | None:
    """Say what ended a step from outside, or None where it ended by itself.

    A step that was asked to end, and one that failed, ended by itself.
    """
    if outcome.cancelled or outcome.not_started:
        return None
    if outcome.lost:
        return "the process that watches over it disappeared"
    is_whole = outcome.exit_code == 0 and not outcome.missing
    if isinstance(step, PredictStep):
        if is_whole or outcome.stopped:
            return None
    elif is_whole and outcome.train_end:
        return None
    if outcome.interrupted:
        return "the worker's machine ended it"
    if outcome.forced:
        return None
    if outcome.signal is not None:
        return _FROM_OUTSIDE.get(outcome.signal)
    # sleap-nn's reaction to a SIGTERM: it ends at once, as if nothing had happened.
    if (
        not isinstance(step, PredictStep)
        and outcome.exit_code == 0
        and outcome.train_begin
        and not outcome.train_end
    ):
        return "sleap-nn was told to end before the training was over"
    return None


def verdict(step: Step, outcome: StepOutcome, restarts: int) -> Verdict:
    """Decide about a step that ended, or return None where it ended by itself.

    Args:
        step: what the client asked for.
        outcome: how it ended.
        restarts: how often it was begun again before.
    """
    reason = why_cut_off(step, outcome)
    return None if reason is None else _again(reason, restarts)


def verdict_on_start(reason: str, restarts: int) -> Restart | GiveUp:
    """Decide about a step whose runner did not come up, for `reason`."""
    return _again(f"its runner did not start: {reason}", restarts)


def _again(reason: str, restarts: int) -> Restart | GiveUp:
    if restarts >= MAX_STEP_RESTARTS:
        return GiveUp(f"{reason}, and it was begun again {restarts} times before")
    pause_s = min(RESTART_PAUSE_FIRST_S * 2.0**restarts, RESTART_PAUSE_MAX_S)
    return Restart(reason, pause_s)


def restart_line(step: Step, reason: str, restarts: int, epochs: int | None) -> str:
    """Return what the log of the job says of a restart.

    Args:
        step: what begins again.
        reason: what cut it off.
        restarts: how many restarts there were, with this one.
        epochs: how many epochs its checkpoint holds; None without a checkpoint.
    """
    what = "inference" if isinstance(step, PredictStep) else "training"
    where = "from its beginning"
    if epochs is not None:
        where = f"after epoch {epochs}" if epochs else "from its checkpoint"
    return (
        f"[worker] the {what} was cut off ({reason}); it goes on {where} "
        f"(restart {restarts} of {MAX_STEP_RESTARTS})"
    )


# -- the curve goes on -------------------------------------------------------------


class Reached(Struct, frozen=True, kw_only=True):
    """How far the events of a training have come; each is told once.

    Attributes:
        begun: the training began.
        epoch: the last epoch that began.
        batch: the last batch of that epoch that was told.
        ended_epoch: the last epoch that ended.
        over: the training ended.
    """

    begun: bool = False
    epoch: int | None = None
    batch: int | None = None
    ended_epoch: int | None = None
    over: bool = False


def reached_by(reached: Reached, event: StepProgress) -> Reached:
    """Return how far the events have come with `event`."""
    match event.event:
        case "train_begin":
            return replace(reached, begun=True)
        case "epoch_begin" if event.epoch is not None:
            return replace(reached, epoch=event.epoch, batch=None)
        case "batch_end":
            epoch = reached.epoch if event.epoch is None else event.epoch
            return replace(reached, epoch=epoch, batch=event.batch)
        case "epoch_end":
            ended = reached.epoch if event.epoch is None else event.epoch
            return replace(reached, ended_epoch=ended)
        case "train_end":
            return replace(reached, over=True)
        case _:
            return reached


def is_repeat(reached: Reached, event: StepProgress) -> bool:
    """Tell whether a training that goes on says again what was told before.

    It begins again behind its checkpoint, so up to one epoch comes twice. Monitors
    would draw it twice and count its epochs twice.
    """
    match event.event:
        case "train_begin":
            return reached.begun
        case "epoch_begin":
            return _is_within(event.epoch, reached.epoch)
        case "batch_end":
            if event.epoch == reached.epoch:
                return _is_within(event.batch, reached.batch)
            return _is_within(event.epoch, reached.epoch)
        case "epoch_end":
            return _is_within(event.epoch, reached.ended_epoch)
        case "train_end":
            return reached.over
        case _:
            return False


def _is_within(number: int | None, last: int | None) -> bool:
    return number is not None and last is not None and number <= last

"""What sleap-nn says, taken apart and rebuilt from known fields only.

sleap-nn writes its messages with jsonpickle, whose decoder runs code; here they are
plain JSON, of which known names with finite numbers are copied and all else is
dropped. Pure; called by the step machine.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_LOSSES_PER_EVENT
from sleap_rtc_worker.limits import (
    MAX_COUNT,
    MAX_LOSS_NAME_CHARS,
    MAX_TRAINER_ERROR_CHARS,
    MAX_TRAINER_MESSAGE_BYTES,
)
from sleap_rtc_worker.step_records import EventKind, StepProgress

__all__ = ["IGNORED", "TrainerError", "parse_predict_line", "parse_trainer_message"]

_TRAIN_EVENTS: Final = frozenset(get_args(EventKind)) - {"predict"}
# Sent before every batch and shown by nobody.
_SILENT_EVENTS: Final = frozenset({"batch_start"})
_LOSS_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_/.@-]*\Z")
# Said again in a field of its own.
_NOT_A_LOSS: Final = frozenset({"epoch"})
# What a curve is drawn from comes first, so that the bound never cuts it off.
_FIRST: Final[tuple[str, ...]] = ("loss", "train/loss", "val/loss", "train/lr")
# Within an epoch sleap-nn repeats the last epoch's figures in every batch message.
_BATCH_LOSSES: Final = frozenset({"loss"})


class _Ignored:
    """A message that is known and of no interest."""


IGNORED: Final = _Ignored()


class TrainerError(str):
    """What inference said went wrong, cleaned for showing."""

    __slots__ = ()


def parse_trainer_message(data: bytes) -> StepProgress | _Ignored | None:
    """Read one message of sleap-nn's progress socket.

    Returns:
        The event, `IGNORED`, or None for what is not understood or not allowed.
    """
    message = _json_object(data)
    if message is None:
        return None
    event = message.get("event")
    if not isinstance(event, str):
        return None
    if event in _SILENT_EVENTS:
        return IGNORED
    if event not in _TRAIN_EVENTS:
        return None
    logs = message.get("logs")
    return StepProgress(
        event=event,  # type: ignore[arg-type]  # membership was just checked
        epoch=_count(message.get("epoch")),
        batch=_count(message.get("batch")),
        losses=_losses(logs, event) if isinstance(logs, dict) else {},
    )


def parse_predict_line(line: str) -> StepProgress | TrainerError | None:
    """Read one line that inference wrote to stdout, or None if it is plain text."""
    if not line.startswith("{"):
        return None
    message = _json_object(line.encode("utf-8", "replace"))
    if message is None:
        return None
    if message.get("error") is True:
        kind, text = message.get("type"), message.get("message")
        words = [part for part in (kind, text) if isinstance(part, str) and part]
        error = clean_text(": ".join(words), MAX_TRAINER_ERROR_CHARS)
        return TrainerError(error or "inference failed")
    done = _count(message.get("n_processed"))
    if done is None:
        return None
    return StepProgress(
        event="predict",
        done=done,
        total=_count(message.get("n_total")),
        rate=_finite(message.get("rate")),
    )


def _json_object(data: bytes) -> dict[str, Any] | None:
    if len(data) > MAX_TRAINER_MESSAGE_BYTES:
        return None
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MAX_COUNT else None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _losses(logs: Mapping[str, object], event: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in logs.items():
        number = _finite(value)
        if number is None or name in _NOT_A_LOSS:
            continue
        if len(name) > MAX_LOSS_NAME_CHARS or not _LOSS_NAME.match(name):
            continue
        if event == "batch_end" and name not in _BATCH_LOSSES:
            continue
        found[name] = number
    names = [name for name in _FIRST if name in found]
    names += [name for name in found if name not in _FIRST]
    return {name: found[name] for name in names[:MAX_LOSSES_PER_EVENT]}

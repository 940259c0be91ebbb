"""What SLEAP's LossViewer is told of a training, made from our own progress reports.

The viewer decodes with jsonpickle, which can run code, and draws whatever it is given;
so every message is built anew from known names and bounded numbers. Nothing here waits
or sends: `session.monitor_bridge` does, at the times that it passes in.
"""

import math
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.limits import MAX_BATCH_EVENTS_PER_S
from sleap_rtc_plugin.protocol.messages import ProgressReport

__all__ = ["MonitorHistory", "MonitorMessage", "Outbox", "Thinner", "to_message"]

# Beyond these a logarithmic axis overflows, or shows nothing but the one value.
LARGEST_LOSS: Final = 1e30
SMALLEST_LOSS: Final = 1e-30
MAX_EPOCH: Final = 10_000_000
MAX_BATCH: Final = 10_000_000

# The viewer draws all its points twice a second, 0.5 s of work at 200,000 of them. So
# each time this many more were shown, the rate is halved: 40,000 points after a day.
POINTS_BEFORE_HALF_RATE: Final = 5_000

MAX_RECENT_EPOCHS: Final = 200
MAX_OLDER_EPOCHS: Final = 200
MAX_BATCHES_REPLAYED: Final = 300
# The viewer draws batches, and moves its axes, at most twice a second and only when
# one arrives: the last one of a replay comes well after that time, even on a busy
# machine, or stays unseen.
REDRAW_REST_S: Final = 1.5

_LOSSES: Final = {
    "train_begin": (),
    "epoch_begin": (),
    "batch_end": ("loss",),
    "epoch_end": ("train/loss", "val/loss"),
    "train_end": (),
}
# How long the queue may be for one more message of its kind: batches give way to
# epochs, and both to the training's begin and end.
_QUEUE_ROOM: Final = {
    "batch_end": 1_000,
    "epoch_begin": 1_200,
    "epoch_end": 1_200,
    "train_begin": 1_300,
    "train_end": 1_300,
}


class MonitorMessage(Struct, frozen=True, kw_only=True):
    """One message to LossViewer.

    Attributes:
        event: sleap-nn's name for what happened.
        epoch: counted from 0.
        batch: counted from 0 within the epoch.
        losses: by sleap-nn's names, those that the viewer reads.
        rest_s: seconds without a message that the viewer needs before this one.
    """

    event: str
    epoch: int | None = None
    batch: int | None = None
    losses: dict[str, float] = {}
    rest_s: float = 0.0

    def encode(self, what: str) -> bytes:
        """Return the JSON that LossViewer reads.

        Args:
            what: the head name that the viewer was reset to; it ignores others.
        """
        fields: dict[str, Any] = {
            "what": what,
            "event": self.event,
            "logs": self.losses,
        }
        if self.epoch is not None:
            fields["epoch"] = self.epoch
        if self.batch is not None:
            fields["batch"] = self.batch
        return msgspec.json.encode(fields)


def to_message(report: ProgressReport) -> MonitorMessage | None:
    """Return what the viewer is told of a report, or None where that is nothing.

    Looks at every field as if it could be anything: this is the last place before
    a decoder that runs what it is told to.
    """
    event = report.kind
    if not isinstance(event, str) or event not in _LOSSES:
        return None
    epoch = _count(report.epoch, MAX_EPOCH)
    batch = _count(report.batch, MAX_BATCH)
    if event == "epoch_begin" and epoch is None:
        return None
    if event == "batch_end" and batch is None:
        return None
    return MonitorMessage(
        event=event,
        epoch=epoch if event in ("epoch_begin", "batch_end", "epoch_end") else None,
        batch=batch if event == "batch_end" else None,
        losses=_losses(report.losses, _LOSSES[event]),
    )


def _count(value: object, largest: int) -> int | None:
    return value if type(value) is int and 0 <= value <= largest else None


def _losses(losses: object, names: Iterable[str]) -> dict[str, float]:
    if not isinstance(losses, dict):
        return {}
    return {name: losses[name] for name in names if _is_drawable(losses.get(name))}


def _is_drawable(value: object) -> bool:
    if type(value) is not float or not math.isfinite(value):
        return False
    return value == 0.0 or SMALLEST_LOSS <= abs(value) <= LARGEST_LOSS


class Thinner:
    """Lets through as many batches as the viewer can draw, and everything else.

    The viewer learns the length of an epoch from the highest batch it has seen, so
    the last batch of an epoch is let through late if no earlier one told as much.
    """

    def __init__(self) -> None:
        """Start with a viewer that has seen nothing."""
        self.dropped = 0
        self._passed = 0
        self._next_at = -math.inf
        self._highest_batch = -1
        self._withheld: MonitorMessage | None = None

    def take(self, message: MonitorMessage, now: float) -> list[MonitorMessage]:
        """Return what to send now that `message` came.

        Args:
            message: the next one of the training.
            now: seconds of any clock that does not go back.
        """
        if message.event == "batch_end":
            if now >= self._next_at:
                self._drop_withheld()
                return [self._pass(message, now)]
            self._drop_withheld()
            self._withheld = message
            return []
        last, self._withheld = self._withheld, None
        if last is None:
            return [message]
        if message.event == "epoch_end" and (last.batch or 0) > self._highest_batch:
            return [self._pass(last, now), message]
        self.dropped += 1
        return [message]

    def _pass(self, message: MonitorMessage, now: float) -> MonitorMessage:
        halvings = self._passed // POINTS_BEFORE_HALF_RATE
        self._next_at = now + 2.0**halvings / MAX_BATCH_EVENTS_PER_S
        self._passed += 1
        self._highest_batch = max(self._highest_batch, message.batch or 0)
        return message

    def _drop_withheld(self) -> None:
        if self._withheld is not None:
            self._withheld = None
            self.dropped += 1


class _Sampled:
    """An even sample of a growing sequence, bounded by dropping every other one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._stride = 1
        self._seen = 0
        self.items: list[tuple[int, MonitorMessage]] = []

    def add(self, item: tuple[int, MonitorMessage]) -> None:
        if self._seen % self._stride == 0:
            self.items.append(item)
        self._seen += 1
        if len(self.items) > self._most:
            self._stride *= 2
            self.items = self.items[::2]


class MonitorHistory:
    """What a viewer that opens later needs to draw the whole curve of one step.

    The latest epochs are kept one by one, since the viewer counts those without
    progress; of the older ones an even sample and the best; of the batches an even
    sample and the last. So memory, and the time of a replay, have a bound.
    """

    def __init__(self) -> None:
        """Start before the training."""
        self._reset()

    def _reset(self) -> None:
        self._order = 0
        self._has_begun = False
        self._has_ended = False
        self._epoch: int | None = None
        self._recent: deque[tuple[int, MonitorMessage]] = deque()
        self._older = _Sampled(MAX_OLDER_EPOCHS)
        self._best: tuple[int, MonitorMessage] | None = None
        self._batches = _Sampled(MAX_BATCHES_REPLAYED)
        self._last_batch: tuple[int, MonitorMessage] | None = None
        self._highest_batch = 0

    def add(self, report: ProgressReport) -> None:
        """Remember a report of the step, in order; a new training begins anew."""
        message = to_message(report)
        if message is None:
            return
        match message.event:
            case "train_begin":
                self._reset()
                self._has_begun = True
            case "epoch_begin":
                self._epoch = message.epoch
            case "batch_end":
                self._add_batch(message)
            case "epoch_end":
                self._add_epoch(message)
            case _:
                self._has_ended = True

    def _placed(self, message: MonitorMessage) -> tuple[int, MonitorMessage]:
        """Return the message with its place in the order, and surely its epoch."""
        if message.epoch is None:
            message = msgspec.structs.replace(message, epoch=self._epoch)
        self._order += 1
        return self._order, message

    def _add_batch(self, message: MonitorMessage) -> None:
        item = self._placed(message)
        self._highest_batch = max(self._highest_batch, message.batch or 0)
        self._last_batch = item
        self._batches.add(item)

    def _add_epoch(self, message: MonitorMessage) -> None:
        item = self._placed(message)
        loss = message.losses.get("val/loss")
        if loss is not None:
            best = self._best
            if best is None or loss < best[1].losses["val/loss"]:
                self._best = item
        self._recent.append(item)
        if len(self._recent) > MAX_RECENT_EPOCHS:
            self._older.add(self._recent.popleft())

    def messages(self) -> list[MonitorMessage]:
        """Return what to replay, in order; an `Outbox` adds the `epoch_begin`s."""
        kept = dict(self._batches.items)
        kept.update(self._older.items)
        kept.update(self._recent)
        if self._best is not None:
            kept.update([self._best])
        if self._last_batch is not None:
            order, last = self._last_batch
            is_alone = len(self._batches.items) < 2
            rest_s = 0.0 if is_alone else REDRAW_REST_S
            kept[order] = msgspec.structs.replace(last, rest_s=rest_s)
        found = [kept[order] for order in sorted(kept)]
        self._insert_epoch_length(found)
        if self._has_begun:
            found.insert(0, MonitorMessage(event="train_begin"))
        if self._epoch is not None:
            found.append(MonitorMessage(event="epoch_begin", epoch=self._epoch))
        if self._has_ended:
            found.append(MonitorMessage(event="train_end"))
        return found

    def _insert_epoch_length(self, messages: list[MonitorMessage]) -> None:
        """Tell the length of an epoch, without a point, before the first one ends."""
        for place, message in enumerate(messages):
            if message.event == "epoch_end":
                length = MonitorMessage(
                    event="batch_end", epoch=message.epoch, batch=self._highest_batch
                )
                messages.insert(place, length)
                return


class Outbox:
    """A bounded queue to a viewer that may be slow, or not there yet.

    The viewer places what it hears in the epoch that began last, so an `epoch_begin`
    is added wherever one is missing: after a gap, points are still where they belong.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.dropped = 0
        self._queue: deque[MonitorMessage] = deque()
        self._epoch: int | None = None
        self._sent_at = -math.inf

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, message: MonitorMessage) -> None:
        """Queue a message, or drop it where there is no room for its kind."""
        if len(self._queue) < _QUEUE_ROOM[message.event]:
            self._queue.append(message)
        else:
            self.dropped += 1

    def put_all(self, messages: Iterable[MonitorMessage]) -> None:
        """Queue a replay, which has a bound of its own."""
        self._queue.extend(messages)

    def next(self, now: float) -> MonitorMessage | None:
        """Return the message to send now, or None; it stays until `sent`."""
        if not self._queue:
            return None
        message = self._queue[0]
        if now - self._sent_at < message.rest_s:
            return None
        is_placed = message.event in ("batch_end", "epoch_end")
        if is_placed and message.epoch not in (None, self._epoch):
            return MonitorMessage(event="epoch_begin", epoch=message.epoch)
        return message

    def sent(self, message: MonitorMessage, now: float) -> None:
        """What `next` returned is on its way."""
        if message is self._queue[0]:
            self._queue.popleft()
        if message.event == "epoch_begin":
            self._epoch = message.epoch
        self._sent_at = now

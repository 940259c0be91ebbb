"""What the viewer is told: whitelisted, thinned, bounded, and in its place."""

import json
import math
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.limits import MAX_BATCH_EVENTS_PER_S
from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_plugin.session.monitor_messages import (
    LARGEST_LOSS,
    MAX_BATCH,
    MAX_BATCHES_REPLAYED,
    MAX_EPOCH,
    MAX_OLDER_EPOCHS,
    MAX_RECENT_EPOCHS,
    POINTS_BEFORE_HALF_RATE,
    REDRAW_REST_S,
    MonitorHistory,
    MonitorMessage,
    Outbox,
    Thinner,
    to_message,
)

JOB = "job-00000000000000000001"
LOSSES = {"train/loss": 0.5, "val/loss": 0.25}


def report(kind: Any, **more: Any) -> ProgressReport:
    return ProgressReport(job_id=JOB, seq=1, at=0.0, step=0, kind=kind, **more)


def batch(number: int, epoch: int = 0, loss: float = 0.5) -> MonitorMessage:
    return MonitorMessage(
        event="batch_end", epoch=epoch, batch=number, losses={"loss": loss}
    )


def epoch_end(epoch: int, loss: float = 0.25) -> MonitorMessage:
    return MonitorMessage(event="epoch_end", epoch=epoch, losses={"val/loss": loss})


# -- one message ---------------------------------------------------------------------


def test_what_the_viewer_reads() -> None:
    message = to_message(report("epoch_end", epoch=3, losses=LOSSES))
    assert message is not None
    assert json.loads(message.encode("centroid")) == {
        "what": "centroid",
        "event": "epoch_end",
        "epoch": 3,
        "logs": LOSSES,
    }
    message = to_message(report("batch_end", epoch=1, batch=2, losses={"loss": 0.5}))
    assert message is not None
    assert json.loads(message.encode("")) == {
        "what": "",
        "event": "batch_end",
        "epoch": 1,
        "batch": 2,
        "logs": {"loss": 0.5},
    }


def test_an_epoch_without_a_training_loss() -> None:
    message = to_message(report("epoch_end", epoch=0, losses={"val/loss": 0.5}))
    assert message is not None
    assert message.losses == {"val/loss": 0.5}


@pytest.mark.parametrize("kind", ["train_begin", "epoch_end", "batch_end"])
def test_only_losses_that_the_viewer_reads(kind: str) -> None:
    losses = dict.fromkeys(("wandb_url", "py/object", "val/time", "train/lr"), 0.5)
    message = to_message(report(kind, epoch=0, batch=0, losses=losses))
    assert message is not None
    assert message.losses == {}


@pytest.mark.parametrize(
    "loss",
    [math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-308, 5e-324, True, "1", None, 1],
)
def test_losses_that_cannot_be_drawn(loss: Any) -> None:
    message = to_message(report("epoch_end", epoch=0, losses={"val/loss": loss}))
    assert message is not None
    assert message.losses == {}


@pytest.mark.parametrize("loss", [0.0, -0.5, LARGEST_LOSS, -LARGEST_LOSS, 1e-30])
def test_losses_that_can_be_drawn(loss: float) -> None:
    message = to_message(report("batch_end", batch=0, losses={"loss": loss}))
    assert message is not None
    assert message.losses == {"loss": loss}


@pytest.mark.parametrize(
    "wrong",
    [
        report("predict", done=1, total=2),
        report("batch_start", batch=0),
        report({"py/object": "os.system"}),
        report("epoch_begin"),
        report("epoch_begin", epoch=-1),
        report("epoch_begin", epoch=True),
        report("epoch_begin", epoch=MAX_EPOCH + 1),
        report("epoch_begin", epoch="0"),
        report("batch_end", epoch=0),
        report("batch_end", epoch=0, batch=MAX_BATCH + 1),
        report("batch_end", epoch=0, batch=0.0),
    ],
)
def test_reports_that_are_for_nobody(wrong: ProgressReport) -> None:
    assert to_message(wrong) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(kind=anything, epoch=anything, batch=anything, losses=anything)
def test_any_report_gives_plain_bounded_json(
    kind: Any, epoch: Any, batch: Any, losses: Any
) -> None:
    for event in (kind, "epoch_end", "batch_end", "train_begin"):
        for logs in (losses, {"loss": losses, "val/loss": losses, "py/reduce": losses}):
            made = to_message(report(event, epoch=epoch, batch=batch, losses=logs))
            if made is None:
                continue
            fields = json.loads(made.encode("what"))
            assert set(fields) <= {"what", "event", "logs", "epoch", "batch"}
            assert set(fields["logs"]) <= {"loss", "train/loss", "val/loss"}
            assert all(abs(x) <= LARGEST_LOSS for x in fields["logs"].values())


# -- thinning ------------------------------------------------------------------------


def test_batches_at_the_rate_that_is_shown() -> None:
    thinner = Thinner()
    interval = 1.0 / MAX_BATCH_EVENTS_PER_S
    for n in range(100):
        assert thinner.take(batch(n), n * interval * 1.001) == [batch(n)]
    assert thinner.dropped == 0


def test_faster_batches_are_thinned_and_counted() -> None:
    thinner = Thinner()
    passed = []
    for n in range(10_000):
        passed += thinner.take(batch(n), n / 10_000)
    assert len(passed) in (MAX_BATCH_EVENTS_PER_S - 1, MAX_BATCH_EVENTS_PER_S)
    passed += thinner.take(epoch_end(0), 1.0)
    assert passed[-2:] == [batch(9_999), epoch_end(0)]
    assert thinner.dropped == 10_000 - (len(passed) - 1)


@pytest.mark.parametrize(
    "event", ["epoch_begin", "epoch_end", "train_begin", "train_end"]
)
def test_all_else_is_never_thinned(event: str) -> None:
    thinner = Thinner()
    message = MonitorMessage(event=event, epoch=0)
    assert [thinner.take(message, 0.0) for _ in range(1_000)] == [[message]] * 1_000
    assert thinner.dropped == 0


def test_a_last_batch_that_tells_the_length_of_an_epoch() -> None:
    thinner = Thinner()
    thinner.take(batch(0), 0.0)
    thinner.take(batch(1), 0.001)
    thinner.take(batch(2), 0.002)
    assert thinner.take(epoch_end(0), 0.003) == [batch(2), epoch_end(0)]
    thinner.take(batch(1, epoch=1), 0.004)
    thinner.take(batch(2, epoch=1), 0.005)
    assert thinner.take(epoch_end(1), 0.006) == [epoch_end(1)]
    assert thinner.dropped == 3


def test_a_batch_of_an_epoch_that_never_ended_is_not_shown_in_the_next() -> None:
    thinner = Thinner()
    thinner.take(batch(0), 0.0)
    thinner.take(batch(9), 0.001)
    begin = MonitorMessage(event="epoch_begin", epoch=1)
    assert thinner.take(begin, 0.002) == [begin]
    assert thinner.take(epoch_end(1), 0.003) == [epoch_end(1)]


def test_a_day_of_batches_stays_drawable() -> None:
    """The viewer freezes SLEAP when it draws hundreds of thousands of points."""
    thinner = Thinner()
    passed, now = 0, 0.0
    while now < 24 * 3600.0:
        passed += len(thinner.take(batch(0), now))
        now += 1.0 / MAX_BATCH_EVENTS_PER_S
    assert POINTS_BEFORE_HALF_RATE < passed < 50_000


# -- history -------------------------------------------------------------------------


def feed(history: MonitorHistory, epochs: range, batches: int) -> None:
    for epoch in epochs:
        history.add(report("epoch_begin", epoch=epoch))
        for n in range(batches):
            history.add(
                report("batch_end", epoch=epoch, batch=n, losses={"loss": 1.0 + n})
            )
        loss = 1.0 + abs(epoch - 777)
        losses = {"train/loss": loss, "val/loss": loss}
        history.add(report("epoch_end", epoch=epoch, losses=losses))


def events(messages: list[MonitorMessage], event: str) -> list[MonitorMessage]:
    return [one for one in messages if one.event == event]


def test_a_short_history_is_whole() -> None:
    history = MonitorHistory()
    history.add(report("train_begin"))
    feed(history, range(3), 4)
    history.add(report("train_end"))
    messages = history.messages()
    assert messages[0].event == "train_begin"
    assert messages[-1].event == "train_end"
    assert [one.epoch for one in events(messages, "epoch_end")] == [0, 1, 2]
    drawn = [one for one in events(messages, "batch_end") if one.losses]
    assert [(one.epoch, one.batch) for one in drawn] == [
        (epoch, n) for epoch in range(3) for n in range(4)
    ]
    assert [one.rest_s for one in drawn] == [0.0] * 11 + [REDRAW_REST_S]
    # The length of an epoch is said before the first one ends, and draws nothing.
    (silent,) = [one for one in events(messages, "batch_end") if not one.losses]
    assert silent.batch == 3
    assert messages[messages.index(silent) + 1].event == "epoch_end"


def test_nothing_to_replay() -> None:
    assert MonitorHistory().messages() == []
    history = MonitorHistory()
    history.add(report("predict", done=1))
    assert history.messages() == []


def test_an_epoch_under_way_is_replayed_as_one() -> None:
    history = MonitorHistory()
    history.add(report("train_begin"))
    feed(history, range(2), 1)
    history.add(report("epoch_begin", epoch=2))
    assert history.messages()[-1] == MonitorMessage(event="epoch_begin", epoch=2)


def test_a_training_that_begins_again_begins_anew() -> None:
    history = MonitorHistory()
    history.add(report("train_begin"))
    feed(history, range(5), 2)
    history.add(report("train_end"))
    history.add(report("train_begin"))
    assert history.messages() == [MonitorMessage(event="train_begin")]


def test_a_hundred_thousand_epochs_have_a_bound() -> None:
    history = MonitorHistory()
    history.add(report("train_begin"))
    feed(history, range(2_000), 2)
    tracemalloc.start()
    feed(history, range(2_000, 3_000), 2)
    before, _ = tracemalloc.get_traced_memory()
    feed(history, range(3_000, 100_000), 2)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 500_000
    messages = history.messages()
    epochs = [one.epoch or 0 for one in events(messages, "epoch_end")]
    most = MAX_OLDER_EPOCHS + MAX_RECENT_EPOCHS
    assert most / 2 < len(epochs) <= most + 1
    assert epochs == sorted(epochs)
    assert (epochs[0], epochs[-1]) == (0, 99_999)
    assert epochs[-MAX_RECENT_EPOCHS:] == list(range(99_800, 100_000))
    assert 777 in epochs  # the best
    gaps = [b - a for a, b in pairwise(epochs)]
    assert max(gaps) <= 4 * 100_000 / MAX_OLDER_EPOCHS
    drawn = [one for one in events(messages, "batch_end") if one.losses]
    assert len(drawn) <= MAX_BATCHES_REPLAYED + 1
    assert (drawn[0].epoch, drawn[0].batch) == (0, 0)
    assert (drawn[-1].epoch, drawn[-1].batch) == (99_999, 1)


# -- the queue -----------------------------------------------------------------------


def drain(outbox: Outbox, now: float = 0.0) -> list[MonitorMessage]:
    sent = []
    while (message := outbox.next(now)) is not None:
        outbox.sent(message, now)
        sent.append(message)
    return sent


def test_an_epoch_that_was_not_heard_of_is_begun() -> None:
    outbox = Outbox()
    begin = [MonitorMessage(event="epoch_begin", epoch=n) for n in range(3)]
    for message in (begin[0], batch(0), epoch_end(0), epoch_end(1), batch(0, 2)):
        outbox.put(message)
    assert drain(outbox) == [
        *(begin[0], batch(0), epoch_end(0)),
        *(begin[1], epoch_end(1)),
        *(begin[2], batch(0, 2)),
    ]


def test_what_was_not_sent_stays() -> None:
    outbox = Outbox()
    outbox.put(epoch_end(5))
    first = outbox.next(0.0)
    assert first == outbox.next(0.0) == MonitorMessage(event="epoch_begin", epoch=5)
    assert first is not None
    outbox.sent(first, 0.0)
    assert outbox.next(0.0) == outbox.next(0.0) == epoch_end(5)
    assert len(outbox) == 1


def test_a_rest_holds_back_what_follows() -> None:
    outbox = Outbox()
    rested = MonitorMessage(event="batch_end", batch=1, rest_s=1.0)
    outbox.put_all([batch(0), rested, epoch_end(0)])
    assert [one.event for one in drain(outbox, 10.0)] == ["epoch_begin", "batch_end"]
    assert outbox.next(10.9) is None
    assert drain(outbox, 11.0) == [rested, epoch_end(0)]


def test_batches_give_way_to_epochs_and_both_to_the_end() -> None:
    outbox = Outbox()
    for n in range(10_000):
        outbox.put(batch(n))
    kept = len(outbox)
    for n in range(10_000):
        outbox.put(epoch_end(n))
    assert kept < len(outbox) < 1_500
    assert outbox.dropped == 20_000 - len(outbox)
    outbox.put(MonitorMessage(event="train_end"))
    assert drain(outbox)[-1].event == "train_end"
    for _ in range(10_000):
        outbox.put(MonitorMessage(event="train_end"))
    assert len(outbox) < 1_500


def test_a_replay_leaves_room_for_what_is_live() -> None:
    history = MonitorHistory()
    history.add(report("train_begin"))
    feed(history, range(5_000), 2)
    outbox = Outbox()
    outbox.put_all(history.messages())
    for n in range(200):
        outbox.put(batch(n, epoch=5_000))
    outbox.put(epoch_end(5_000))
    assert outbox.dropped == 0

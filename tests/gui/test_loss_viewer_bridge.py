"""SLEAP's real LossViewer, fed through the bridge: what it then holds and draws."""

import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from qtpy.QtWidgets import QApplication
from sleap.gui.widgets.monitor import LossViewer

from sleap_rtc_plugin.protocol.limits import MAX_BATCH_EVENTS_PER_S
from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_plugin.session.monitor_bridge import MonitorBridge
from sleap_rtc_plugin.session.monitor_messages import MonitorHistory
from sleap_rtc_worker.progress_reporter import to_message
from sleap_rtc_worker.step_records import StepProgress
from sleap_rtc_worker.trainer_messages import parse_trainer_message

JOB = "job-00000000000000000001"
WHAT = "centroid"
DEADLINE_S = 90.0


def free_ports() -> tuple[int, int]:
    """A pair that is free now, as the plugin's own choice is."""
    with zmq.Context() as context, context.socket(zmq.PUB) as one:
        publish = one.bind_to_random_port("tcp://127.0.0.1")
        with context.socket(zmq.PUB) as two:
            return publish, two.bind_to_random_port("tcp://127.0.0.1")


def open_viewer(ports: tuple[int, int]) -> Any:
    viewer = LossViewer(
        zmq_ports={"publish_port": ports[0], "controller_port": ports[1]}
    )
    assert tuple(viewer.zmq_ports[n] for n in ("publish_port", "controller_port")) == (
        ports
    )
    viewer.reset(what=WHAT, plateau_patience=10, plateau_min_delta=1e-6)
    viewer.show()
    return viewer


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_ports()


@pytest.fixture
def viewer(ports: tuple[int, int]) -> Iterator[Any]:
    viewer = open_viewer(ports)
    yield viewer
    viewer.close()
    viewer.timer.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Let Qt and asyncio turn until `condition` holds."""
    ends_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_at, "it did not happen in time"
        QApplication.processEvents()
        await asyncio.sleep(0)


async def let_run(seconds: float) -> float:
    """Let both loops turn for a while; return the longest that Qt was away."""
    ends_at = time.monotonic() + seconds
    longest = 0.0
    while (before := time.monotonic()) < ends_at:
        QApplication.processEvents()
        longest = max(longest, time.monotonic() - before)
        await asyncio.sleep(0)
    return longest


def report(kind: str, **more: Any) -> ProgressReport:
    return ProgressReport(job_id=JOB, seq=1, at=0.0, step=0, kind=kind, **more)  # type: ignore[arg-type]


def training(epochs: int, batches: int) -> list[ProgressReport]:
    """A training that went well."""
    found = [report("train_begin")]
    for epoch in range(epochs):
        found.append(report("epoch_begin", epoch=epoch))
        found += [
            report("batch_end", epoch=epoch, batch=n, losses={"loss": 1 / (epoch + 1)})
            for n in range(batches)
        ]
        losses = {"train/loss": 1 / (epoch + 1), "val/loss": 2 / (epoch + 1)}
        found.append(report("epoch_end", epoch=epoch, losses=losses))
    return [*found, report("train_end")]


def recorded(shared_data: Path, name: str) -> list[list[ProgressReport]]:
    """What sleap-nn really said, a list for each model, as it comes from a worker."""
    trainings: list[list[ProgressReport]] = []
    for line in (shared_data / name).read_text().splitlines():
        event = parse_trainer_message(json.loads(line)["raw"].encode())
        if isinstance(event, StepProgress):
            message = to_message(JOB, 0, 1, event)
            # Through the wire and back, so that it holds what arrives.
            data = msgspec.json.encode(message)
            if event.event == "train_begin":
                trainings.append([])
            trainings[-1].append(msgspec.json.decode(data, type=ProgressReport))
    return trainings


def of_kind(reports: list[ProgressReport], kind: str) -> list[ProgressReport]:
    return [one for one in reports if one.kind == kind]


def series(viewer: Any, name: str) -> list[tuple[float, float]]:
    xs, ys = viewer.canvas.series[name].get_data()
    return list(zip(map(float, xs), map(float, ys), strict=True))


def ends(
    reports: list[ProgressReport], loss: str, epoch_size: int
) -> list[tuple[float, float]]:
    """Where the viewer should have put the epochs."""
    return [
        (((one.epoch or 0) + 1) * epoch_size, one.losses[loss])
        for one in of_kind(reports, "epoch_end")
        if loss in one.losses
    ]


def size_of(reports: list[ProgressReport]) -> int:
    return 1 + max(one.batch or 0 for one in of_kind(reports, "batch_end"))


class Stops:
    """Counts the clicks on Stop Early that came through."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def stops() -> Stops:
    return Stops()


@pytest.fixture
async def bridge(ports: tuple[int, int], stops: Stops) -> AsyncIterator[MonitorBridge]:
    bridge = MonitorBridge(*ports, WHAT, stops)
    yield bridge
    await bridge.close()


def history_of(reports: list[ProgressReport]) -> MonitorHistory:
    history = MonitorHistory()
    for one in reports:
        history.add(one)
    return history


def has_ended(viewer: Any) -> bool:
    """Whether the viewer has read a whole training."""
    return viewer.t0 is not None and not viewer.is_running


# -- what really happens -------------------------------------------------------------


@pytest.mark.needs_shared_data
@pytest.mark.parametrize("model", [0, 1])
async def test_recorded_training_replayed(
    viewer: Any, bridge: MonitorBridge, shared_data: Path, model: int
) -> None:
    reports = recorded(shared_data, "sleap_nn_zmq_messages.jsonl")[model]
    batches, size = of_kind(reports, "batch_end"), size_of(reports)
    bridge.start()
    bridge.replay(history_of(reports))
    await until(lambda: has_ended(viewer))
    assert len(batches) >= 10
    assert series(viewer, "val_loss") == ends(reports, "val/loss", size)
    assert series(viewer, "train_loss") == ends(reports, "train/loss", size)
    places = [(one.epoch or 0) * size + (one.batch or 0) for one in batches]
    assert places == viewer.X
    assert [one.losses["loss"] for one in batches] == viewer.Y
    assert viewer.current_job_output_type == WHAT
    # All batches are drawn and in view, although they came within milliseconds.
    assert len(viewer.canvas.series["batch"].get_offsets()) == len(batches)
    assert viewer.canvas.axes.get_xlim() == (0, places[-1] + 0.5)
    assert bridge.dropped == 0


@pytest.mark.needs_shared_data
async def test_recorded_training_live(
    viewer: Any, bridge: MonitorBridge, shared_data: Path
) -> None:
    """In no time instead of seconds: batches are thinned, epochs are all there."""
    name = "sleap_nn_zmq_messages_stop_early.jsonl"
    (reports,) = recorded(shared_data, name)
    bridge.start()
    for one in reports:
        bridge.feed(one)
    await until(lambda: has_ended(viewer))
    size = size_of(reports)
    assert series(viewer, "val_loss") == ends(reports, "val/loss", size)
    assert series(viewer, "train_loss") == ends(reports, "train/loss", size)
    assert 2 <= len(viewer.X) < len(of_kind(reports, "batch_end"))


async def test_thinned_batches_keep_their_places(
    viewer: Any, bridge: MonitorBridge
) -> None:
    reports = training(epochs=4, batches=30)
    bridge.start()
    for one in reports:
        bridge.feed(one)
    await until(lambda: has_ended(viewer))
    assert viewer.epoch_size == 30
    assert series(viewer, "val_loss") == ends(reports, "val/loss", 30)
    assert viewer.X == [0, 29]
    assert bridge.dropped == 4 * 30 - 2


async def test_started_before_the_viewer(
    bridge: MonitorBridge, ports: tuple[int, int]
) -> None:
    reports = training(epochs=3, batches=2)
    bridge.start()
    bridge.replay(history_of(reports))
    await let_run(0.3)
    viewer = open_viewer(ports)
    try:
        await until(lambda: has_ended(viewer))
        assert series(viewer, "val_loss") == ends(reports, "val/loss", 2)
    finally:
        viewer.close()
        viewer.timer.stop()


async def test_a_long_training_is_drawn_whole(
    viewer: Any, bridge: MonitorBridge
) -> None:
    """Opened late: the first and the last epoch, the best one, and the live rest."""
    history = MonitorHistory()
    epochs, best = 20_000, 3_333
    history.add(report("train_begin"))
    for epoch in range(epochs):
        loss = 1e-3 if epoch == best else 1.0
        history.add(report("epoch_begin", epoch=epoch))
        for n in range(3):
            history.add(
                report("batch_end", epoch=epoch, batch=n, losses={"loss": loss})
            )
        losses = {"train/loss": loss, "val/loss": loss}
        history.add(report("epoch_end", epoch=epoch, losses=losses))
    bridge.start()
    bridge.replay(history)
    bridge.feed(report("epoch_begin", epoch=epochs))
    losses = {"train/loss": 0.5, "val/loss": 0.5}
    bridge.feed(report("epoch_end", epoch=epochs, losses=losses))
    await until(lambda: viewer.last_epoch_val_loss == 0.5)
    drawn = [x for x, _ in series(viewer, "val_loss")]
    assert drawn[0] == 3
    assert drawn[-1] == (epochs + 1) * 3
    assert drawn == sorted(drawn)
    assert 300 <= len(drawn) <= 402
    assert max(b - a for a, b in pairwise(drawn)) <= 3 * epochs / 100
    assert (viewer.best_val_x, viewer.best_val_y) == ((best + 1) * 3, 1e-3)
    assert viewer.epochs_in_plateau >= 200
    # The next batch moves the axes: all of the training is in view.
    await let_run(0.6)
    bridge.feed(report("batch_end", epoch=epochs, batch=0, losses={"loss": 0.5}))
    await until(lambda: viewer.X[-1] == epochs * 3)
    assert viewer.canvas.axes.get_xlim() == (0, epochs * 3 + 0.5)


# -- the buttons ---------------------------------------------------------------------


async def test_stop_early(viewer: Any, bridge: MonitorBridge, stops: Stops) -> None:
    bridge.start()
    bridge.feed(report("train_begin"))
    await until(lambda: viewer.is_running)
    viewer.stop_button.click()
    await until(lambda: stops.count > 0)
    viewer.stop_button.click()  # disabled by the first
    await let_run(0.3)
    assert stops.count == 1


async def test_other_words_on_the_controller(
    bridge: MonitorBridge, ports: tuple[int, int], stops: Stops
) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as controller:
        controller.setsockopt(zmq.LINGER, 0)
        controller.bind(f"tcp://127.0.0.1:{ports[1]}")

        bridge.start()
        await until(lambda: controller.poll(0) > 0)
        for word in (
            b"",
            b"\xff",
            b"[]",
            b'{"command": {"py/object": "os.system"}}',
            b'{"command": "cancel"}',
            b'{"command": "stop", "more": "' + b"x" * 10_000 + b'"}',
            b'{"command": "stop"}',
        ):
            controller.send(word)
        await until(lambda: stops.count > 0)
        assert stops.count == 1
        assert bridge.is_open


async def test_the_bridge_ends_with_its_viewer(
    ports: tuple[int, int], bridge: MonitorBridge, stops: Stops
) -> None:
    """The next viewer on these ports is of another training."""
    first = open_viewer(ports)
    bridge.start()
    bridge.feed(report("train_begin"))
    await until(lambda: first.is_running)
    first.close()
    first.timer.stop()
    second = open_viewer(ports)
    try:
        await until(lambda: not bridge.is_open)
        bridge.feed(report("train_begin"))
        second.stop_button.click()
        await let_run(0.5)
        assert not second.is_running
        assert stops.count == 0
    finally:
        second.close()
        second.timer.stop()


# -- a hostile worker ----------------------------------------------------------------


async def test_jsonpickle_runs_nothing(
    viewer: Any, bridge: MonitorBridge, tmp_path: Path
) -> None:
    """The attack that works on a viewer which is given a peer's messages."""
    proof = tmp_path / "ran"
    command = [{"py/tuple": [f"touch {proof}"]}]
    attack = {
        "py/reduce": [{"py/function": "os.system"}, *command],
        "py/object": "subprocess.Popen",
        "py/initargs": {"py/tuple": [["touch", str(proof)]]},
    }
    # The viewer itself falls for it, or this test would prove nothing.
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.connect(viewer.sub.LAST_ENDPOINT)
        await until(lambda: publisher.poll(0) > 0)
        what = {"py/reduce": attack["py/reduce"]}
        publisher.send_string(json.dumps({"event": "train_begin", "what": what}))
        await until(proof.exists)
    proof.unlink()

    bridge.start()
    bridge.feed(report("train_begin"))
    hostile: Any = attack
    for payload in (hostile, json.dumps(hostile)):
        for kind in ("train_begin", "epoch_begin", "batch_end", "epoch_end"):
            bridge.feed(report(kind, epoch=payload, batch=0, losses={"loss": 0.5}))
            bridge.feed(report(kind, epoch=0, batch=payload, losses={"loss": 0.5}))
            bridge.feed(report(kind, epoch=0, batch=0, losses=payload))
            bridge.feed(report(kind, epoch=0, batch=0, losses={"loss": payload}))
            bridge.feed(report(kind, epoch=0, batch=0, losses={"val/loss": payload}))
        bridge.feed(report(payload, epoch=0, batch=0))
    for name in attack:
        bridge.feed(report("batch_end", epoch=0, batch=0, losses={name: 0.5}))
        bridge.feed(report(name))
        bridge.feed(report("epoch_end", epoch=0, losses={name: attack[name]}))
    bridge.feed(report("train_end"))
    await until(lambda: has_ended(viewer))
    assert not proof.exists()
    assert bridge.dropped > 0


@pytest.mark.parametrize("is_log", [True, False])
async def test_numbers_that_cannot_be_drawn(
    viewer: Any, bridge: MonitorBridge, is_log: bool
) -> None:
    """Warnings are errors here, and an exception in a slot of Qt fails the test."""
    viewer.log_scale = is_log
    numbers = [
        *(math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e-300),
        *(1e30, -1e30, 1e-30, 0.0, -0.0, -1.0, 0.5),
    ]
    reports = [report("train_begin")]
    for epoch, number in enumerate(numbers):
        reports.append(report("epoch_begin", epoch=epoch))
        reports.append(
            report("batch_end", epoch=epoch, batch=0, losses={"loss": number})
        )
        losses = {"train/loss": number, "val/loss": number}
        reports.append(report("epoch_end", epoch=epoch, losses=losses))
    for count in (-1, 2**53, 10**400, True, 1.5):
        reports.append(report("epoch_begin", epoch=count))
        reports.append(report("batch_end", epoch=0, batch=count, losses={"loss": 0.5}))
    reports.append(report("epoch_begin", epoch=10_000_000))
    last = {"epoch": 10_000_000, "batch": 10_000_000}
    reports.append(report("batch_end", **last, losses={"loss": 0.5}))
    reports.append(report("epoch_end", epoch=10_000_000, losses={"val/loss": 0.25}))
    reports.append(report("train_end"))
    bridge.start()
    bridge.replay(history_of(reports))
    await until(lambda: has_ended(viewer))
    viewer.canvas.draw()
    values = [y for _, y in series(viewer, "val_loss")]
    assert values == [1e30, -1e30, 1e-30, 0.0, -0.0, -1.0, 0.5, 0.25]
    assert all(map(math.isfinite, viewer.canvas.axes.get_ylim()))


@pytest.mark.parametrize("kind", ["batch_end", "epoch_end"])
async def test_ten_thousand_messages_a_second(
    viewer: Any, bridge: MonitorBridge, kind: str
) -> None:
    bridge.start()
    bridge.feed(report("train_begin"))
    bridge.feed(report("epoch_begin", epoch=0))
    await until(lambda: viewer.is_running)
    began = time.monotonic()
    longest, sent = 0.0, 0
    losses = {"loss": 0.5, "train/loss": 0.5, "val/loss": 0.5}
    while (since := time.monotonic() - began) < 1.0:
        while sent < since * 10_000:
            bridge.feed(report(kind, epoch=sent, batch=sent, losses=losses))
            sent += 1
        longest = max(longest, await let_run(0.005))
    # Unthinned, the flood would keep the viewer busy for half a minute.
    assert longest < 1.5, "the viewer did not react"
    if kind == "batch_end":
        assert len(viewer.X) <= 1 + MAX_BATCH_EVENTS_PER_S
        assert bridge.dropped >= sent - 2 - MAX_BATCH_EVENTS_PER_S
    else:
        assert bridge.dropped > sent / 2
        assert bridge.waiting < 2_000
        drawn = series(viewer, "val_loss")
        assert drawn == [(n + 1, 0.5) for n in range(len(drawn))]


# -- in SLEAP's own process ----------------------------------------------------------

IN_PROCESS = """
import asyncio, sys
from qtpy.QtWidgets import QApplication
from qtpy.QtCore import QTimer

app = QApplication([])
from sleap.gui.widgets.monitor import LossViewer
from sleap_rtc_plugin.gui import event_loop
from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_plugin.session.monitor_bridge import MonitorBridge

def report(kind, **more):
    return ProgressReport(job_id="job-0", seq=1, at=0.0, step=0, kind=kind, **more)

async def work():
    viewer = LossViewer(zmq_ports={"publish_port": PUBLISH, "controller_port": CONTROL})
    viewer.reset(what="centroid")
    stopped = asyncio.Event()
    bridge = MonitorBridge(PUBLISH, CONTROL, "centroid", stopped.set)
    bridge.start()
    bridge.feed(report("train_begin"))
    for n in range(3):
        bridge.feed(report("epoch_begin", epoch=n))
        bridge.feed(report("epoch_end", epoch=n, losses={"val/loss": 0.5}))
    while len(viewer.canvas.series["val_loss"].get_data()[0]) < 3:
        await asyncio.sleep(0.01)
    viewer.stop_button.click()
    await stopped.wait()
    await bridge.close()
    viewer.close()
    viewer.timer.stop()
    print("all came through")
    event_loop.call_soon_in_qt(app.quit)

QTimer.singleShot(0, lambda: event_loop.spawn(work(), "work"))
sys.exit(app.exec())
"""


def test_on_the_loop_inside_sleap(ports: tuple[int, int]) -> None:
    program = IN_PROCESS.replace("PUBLISH", str(ports[0]))
    done = subprocess.run(
        [sys.executable, "-c", program.replace("CONTROL", str(ports[1]))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all came through\n")

"""The bridge over real sockets, on every kind of loop, against a viewer without Qt."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import psutil
import pytest
import zmq

from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_plugin.session.monitor_bridge import MESSAGES_PER_TICK, MonitorBridge
from sleap_rtc_plugin.session.monitor_messages import MonitorHistory

JOB = "job-00000000000000000001"
DEADLINE_S = 20.0


def report(kind: Any, **more: Any) -> ProgressReport:
    return ProgressReport(job_id=JOB, seq=1, at=0.0, step=0, kind=kind, **more)


class Viewer:
    """Binds like LossViewer does, and reads when it is asked to."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self._context = zmq.Context()
        self._progress = self._context.socket(zmq.SUB)
        self._progress.subscribe("")
        self._controller = self._context.socket(zmq.XPUB)
        host = "tcp://127.0.0.1"
        self.ports = (
            self._progress.bind_to_random_port(host),
            self._controller.bind_to_random_port(host),
        )

    def read(self) -> int:
        while self._progress.poll(0):
            self.heard.append(json.loads(self._progress.recv()))
        return len(self.heard)

    def is_listened_to(self) -> bool:
        return bool(self._controller.poll(0))

    def stop(self) -> None:
        self._controller.send_string('{"command": "stop"}')

    def close(self) -> None:
        self._progress.close(linger=0)
        self._controller.close(linger=0)
        self._context.term()


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    viewer = Viewer()
    yield viewer
    viewer.close()


async def until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_at, "it did not happen in time"
        await asyncio.sleep(0.005)


async def converse(viewer: Viewer) -> None:
    """Everything once: replay, live, stop, close."""
    stops: list[float] = []
    bridge = MonitorBridge(
        *viewer.ports, "centroid", lambda: stops.append(time.monotonic())
    )
    history = MonitorHistory()
    history.add(report("train_begin"))
    for epoch in range(20):
        history.add(report("epoch_begin", epoch=epoch))
        history.add(report("batch_end", epoch=epoch, batch=0, losses={"loss": 0.5}))
        history.add(report("epoch_end", epoch=epoch, losses={"val/loss": 0.5}))
    bridge.start()
    bridge.start()  # once more changes nothing
    bridge.replay(history)
    bridge.feed(report("epoch_begin", epoch=20))
    bridge.feed(report("train_end"))
    await until(lambda: viewer.read() and viewer.heard[-1]["event"] == "train_end")
    assert viewer.heard[0]["event"] == "train_begin"
    ends = [one["epoch"] for one in viewer.heard if one["event"] == "epoch_end"]
    assert ends == list(range(20))
    begins = [one["epoch"] for one in viewer.heard if one["event"] == "epoch_begin"]
    assert sorted(set(begins)) == list(range(21))
    assert {one["what"] for one in viewer.heard} == {"centroid"}

    await until(viewer.is_listened_to)
    viewer.stop()
    await until(lambda: stops)
    viewer.stop()
    await until(lambda: len(stops) == 2)

    began = time.monotonic()
    await bridge.close()
    assert time.monotonic() - began < 0.5
    assert not bridge.is_open
    await bridge.close()


async def test_on_the_usual_loop(viewer: Viewer) -> None:
    await converse(viewer)


def test_on_a_loop_without_readers(viewer: Viewer) -> None:
    """A proactor loop, which Windows has, cannot watch a ZMQ socket."""

    class Proactor(asyncio.SelectorEventLoop):
        def add_reader(self, *args: object) -> None:  # type: ignore[override]
            raise NotImplementedError  # the loop's own wake-up goes another way

        add_writer = add_reader  # type: ignore[assignment]

    with asyncio.Runner(loop_factory=Proactor) as runner:
        runner.run(converse(viewer))


async def test_no_thread_is_left(viewer: Viewer) -> None:
    before = threading.active_count(), psutil.Process().num_threads()
    for _ in range(3):
        bridge = MonitorBridge(*viewer.ports, "centroid", lambda: None)
        bridge.start()
        bridge.feed(report("train_begin"))
        await bridge.close()
    assert (threading.active_count(), psutil.Process().num_threads()) == before


async def test_closed_without_a_viewer() -> None:
    viewer = Viewer()
    ports = viewer.ports
    viewer.close()
    bridge = MonitorBridge(*ports, "centroid", lambda: None)
    await bridge.close()
    bridge.start()
    for n in range(5_000):
        bridge.feed(report("epoch_end", epoch=n, losses={"val/loss": 0.5}))
    assert bridge.waiting < 1_500
    assert bridge.dropped == 5_000 - bridge.waiting
    began = time.monotonic()
    await bridge.close()
    assert time.monotonic() - began < 0.5


async def test_a_viewer_that_hangs_loses_nothing(viewer: Viewer) -> None:
    """SLEAP was busy for a while; what came meanwhile is there afterwards."""
    bridge = MonitorBridge(*viewer.ports, "centroid", lambda: None)
    bridge.start()
    bridge.feed(report("train_begin"))
    await until(viewer.read)
    for n in range(500):
        bridge.feed(report("epoch_begin", epoch=n))
        bridge.feed(report("epoch_end", epoch=n, losses={"val/loss": 0.5}))
    await until(lambda: bridge.waiting == 0)  # the viewer reads nothing meanwhile
    await until(lambda: viewer.read() == 1_001)
    assert bridge.dropped == 0
    await bridge.close()


async def test_sent_in_bursts_of_a_bound(viewer: Viewer) -> None:
    bridge = MonitorBridge(*viewer.ports, "centroid", lambda: None)
    bridge.start()
    bridge.feed(report("train_begin"))
    await until(viewer.read)
    for n in range(100):
        bridge.feed(report("epoch_begin", epoch=n))
    waiting = {bridge.waiting}
    while bridge.waiting:
        await asyncio.sleep(0)
        waiting.add(bridge.waiting)
    steps = sorted(waiting, reverse=True)
    assert all(a - b <= MESSAGES_PER_TICK for a, b in pairwise(steps))
    await bridge.close()


async def test_idle_costs_next_to_nothing(viewer: Viewer) -> None:
    bridge = MonitorBridge(*viewer.ports, "centroid", lambda: None)
    bridge.start()
    bridge.feed(report("train_begin"))
    await until(viewer.read)
    before = time.process_time()
    await asyncio.sleep(2.0)  # idling is what is measured
    assert (time.process_time() - before) / 2.0 < 0.02
    await bridge.close()

"""The monitor launcher with SLEAP's real LossViewer and image window."""

import asyncio
import contextlib
import gc
import json
import logging
import socket
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from qtpy.QtWidgets import QApplication, QMainWindow, QPushButton
from support.pumped_loop import PumpedLoop

from sleap_rtc_plugin.companion.messages import (
    CancelJob,
    CloseMonitor,
    Command,
    Done,
    ImagesArrived,
    JobChanged,
    JobRow,
    LinkBack,
    LinkLost,
    OpenMonitor,
    Result,
    StepBegan,
    StepEnded,
)
from sleap_rtc_plugin.gui.messages import worker_back, worker_gone
from sleap_rtc_plugin.gui.monitor_launcher import MonitorLauncher
from sleap_rtc_plugin.gui.monitor_ports import SLEAP_PORTS, PortPair, choose_ports
from sleap_rtc_plugin.protocol.errors import (
    ErrorInfo,
    JobUnknown,
    LinkFailed,
    RemoteProtocolError,
    RtcError,
    RuntimeExceeded,
)

JOB = "job-00000000000000000001"
OTHER = "job-00000000000000000002"


class ScriptedAsk:
    """Answers commands with Done, or as told; remembers them all."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.errors: dict[type, list[RtcError]] = {}
        self.gates: dict[type, asyncio.Event] = {}

    async def __call__(self, command: Command) -> Result:
        self.commands.append(command)
        gate = self.gates.get(type(command))
        if gate is not None:
            await gate.wait()
        errors = self.errors.get(type(command))
        if errors:
            raise errors.pop(0)
        return Done()

    def of(self, kind: type) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]


@pytest.fixture
def compat(qapp: QApplication) -> Any:
    pytest.importorskip("sleap")
    from sleap_rtc_plugin.gui import sleap_compat

    return sleap_compat


@pytest.fixture
def pumped(qapp: QApplication) -> Iterator[PumpedLoop]:
    pumped = PumpedLoop()
    yield pumped
    pumped.close()


@pytest.fixture
def window(qtbot: Any) -> QMainWindow:
    window = QMainWindow()
    window.setGeometry(40, 40, 500, 300)
    qtbot.addWidget(window)
    window.show()
    return window


@pytest.fixture
def ask() -> ScriptedAsk:
    return ScriptedAsk()


@pytest.fixture
def launcher(
    window: QMainWindow, ask: ScriptedAsk, pumped: PumpedLoop, compat: Any, qtbot: Any
) -> Iterator[MonitorLauncher]:
    launcher = MonitorLauncher(
        window, ask, pumped.spawn, compat=compat, cancel_retry_s=0.01
    )
    yield launcher
    launcher.close_all()
    qtbot.waitUntil(lambda: not launcher.views)
    # What was closed is deleted while this test can be blamed for it.
    QApplication.processEvents()
    gc.collect()


def began(step: int = 0, head: str = "centroid", **options: Any) -> StepBegan:
    facts: dict[str, Any] = {"job_id": JOB, "worker": "gpu-box", "run_name": "a"}
    return StepBegan(step=step, head=head, **{**facts, **options})


def changed(state: str, job_id: str = JOB, **options: Any) -> JobChanged:
    row = JobRow(
        job_id=job_id,
        worker_id="worker-1",
        worker="gpu-box",
        name="flies",
        owner="ada",
        state=state,
        **{k: v for k, v in options.items() if k != "failure"},
    )
    return JobChanged(job=row, error=options.get("failure"))


def buttons(viewer: QMainWindow) -> dict[str, QPushButton]:
    found = viewer.centralWidget().findChildren(QPushButton)
    return {button.text(): button for button in found}


def opened(qtbot: Any, launcher: MonitorLauncher, job_id: str = JOB) -> Any:
    qtbot.waitUntil(lambda: job_id in launcher.views)
    return launcher.views[job_id].viewer


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# -- opening ---------------------------------------------------------------------------


def test_a_step_opens_a_monitor_and_has_it_fed(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk
) -> None:
    launcher.handle(began(patience=7, min_delta=1e-6))
    assert not launcher.views, "windows are made in a slot, not where an event arrives"
    viewer = opened(qtbot, launcher)
    qtbot.waitUntil(lambda: bool(ask.of(OpenMonitor)))
    assert viewer.isVisible()
    assert viewer.windowTitle() == "Training Model - centroid - on gpu-box"
    assert viewer.canvas.axes.get_title() == "Waiting for the first batch..."
    assert (viewer.plateau_patience, viewer.plateau_min_delta) == (7, 1e-6)
    assert viewer.current_job_output_type == "centroid"
    (command,) = ask.of(OpenMonitor)
    assert command.what == "centroid"
    assert command.publish_port == viewer.zmq_ports["publish_port"]
    assert command.controller_port == viewer.zmq_ports["controller_port"]
    assert listens(command.publish_port)


def test_what_is_published_on_its_port_is_drawn(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk
) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    qtbot.waitUntil(lambda: bool(ask.of(OpenMonitor)))
    (command,) = ask.of(OpenMonitor)
    with zmq.Context() as context, context.socket(zmq.XPUB) as bridge:
        bridge.linger = 0
        bridge.connect(f"tcp://127.0.0.1:{command.publish_port}")
        qtbot.waitUntil(lambda: bool(bridge.poll(0)))
        for event in (
            {"event": "train_begin"},
            {"event": "epoch_begin", "epoch": 0},
            {"event": "batch_end", "batch": 0, "logs": {"loss": 0.5}},
        ):
            bridge.send_string(json.dumps({"what": command.what, **event}))
        qtbot.waitUntil(lambda: viewer.Y == [0.5])


def test_several_jobs_have_a_monitor_each(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk
) -> None:
    launcher.handle(began())
    launcher.handle(began(job_id=OTHER))
    first, second = opened(qtbot, launcher), opened(qtbot, launcher, OTHER)
    ports = [view.ports for view in launcher.views.values()]
    assert len({port for pair in ports for port in pair}) == 4
    assert first.pos() != second.pos(), "one must not hide the other"
    qtbot.waitUntil(lambda: len(ask.of(OpenMonitor)) == 2)


def test_the_next_models_window_takes_the_place_of_the_last(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk
) -> None:
    launcher.handle(began())
    first = opened(qtbot, launcher)
    first.move(123, 77)
    launcher.handle(StepEnded(job_id=JOB, step=0))
    launcher.handle(began(1, "centered_instance"))
    qtbot.waitUntil(lambda: len(ask.of(OpenMonitor)) == 2)
    second = launcher.views[JOB].viewer
    assert second.windowTitle() == "Training Model - centered_instance - on gpu-box"
    assert (second.x(), second.y()) == (123, 77)
    assert first.sub is None
    assert [type(c) for c in ask.commands] == [OpenMonitor, CloseMonitor, OpenMonitor]
    assert ask.of(CloseMonitor) == [CloseMonitor(job_id=JOB, step=0)]


def test_ports_that_a_bridge_may_still_feed_are_not_given_away(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk, pumped: PumpedLoop
) -> None:
    gate = ask.gates[CloseMonitor] = asyncio.Event()
    launcher.handle(began())
    opened(qtbot, launcher)
    old = set(launcher.views[JOB].ports)
    launcher.handle(began(1, "centered_instance"))
    qtbot.waitUntil(lambda: bool(ask.of(CloseMonitor)))
    new = set(launcher.views[JOB].ports)
    assert not old & new
    assert len(ask.of(OpenMonitor)) == 1, "the old bridge is let go of first"
    gate.set()
    qtbot.waitUntil(lambda: len(ask.of(OpenMonitor)) == 2)
    assert not launcher._leaving


def test_the_last_monitor_stays_with_its_buttons_disabled(
    qtbot: Any, launcher: MonitorLauncher
) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    assert all(button.isEnabled() for button in buttons(viewer).values())
    launcher.handle(StepEnded(job_id=JOB, step=0))
    qtbot.waitUntil(lambda: "has ended" in viewer.statusBar().currentMessage())
    assert set(buttons(viewer)) == {"Stop Early", "Cancel Training"}
    assert not any(button.isEnabled() for button in buttons(viewer).values())
    launcher.handle(changed("succeeded"))
    launcher.restart()
    qtbot.waitUntil(lambda: not launcher._events)
    assert not any(button.isEnabled() for button in buttons(viewer).values())
    assert viewer.isVisible()


def test_of_a_replayed_job_only_the_last_model_is_shown(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk
) -> None:
    launcher.handle(began(0, is_replay=True))
    launcher.handle(StepEnded(job_id=JOB, step=0))
    launcher.handle(began(1, "centered_instance", is_replay=True))
    launcher.handle(StepEnded(job_id=JOB, step=1))
    viewer = opened(qtbot, launcher)
    qtbot.waitUntil(lambda: bool(ask.of(OpenMonitor)))
    assert [command.step for command in ask.of(OpenMonitor)] == [1]
    assert "has ended" in viewer.statusBar().currentMessage()
    assert launcher.reopen(JOB, 0), "the first model's curve is there for the asking"
    qtbot.waitUntil(lambda: len(ask.of(OpenMonitor)) == 2)
    assert ask.of(OpenMonitor)[-1].what == "centroid"


def test_no_peers_text_reaches_matplotlib_or_breaks_the_title(
    qtbot: Any, launcher: MonitorLauncher
) -> None:
    evil = "$\\frac{<b>x</b>\u202e$" + "y" * 500
    launcher.handle(began(head=evil, worker=evil))
    viewer = opened(qtbot, launcher)
    viewer.canvas.fig.canvas.draw()
    assert viewer.canvas.axes.get_title() == "Waiting for the first batch..."
    assert "\u202e" not in viewer.windowTitle()
    assert len(viewer.windowTitle()) < 250


# -- the user acts ---------------------------------------------------------------------


def test_closing_the_window_closes_only_the_view(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk, window: QMainWindow
) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    ports = launcher.views[JOB].ports
    qtbot.waitUntil(lambda: bool(ask.of(OpenMonitor)))
    viewer.windowHandle().close()
    qtbot.waitUntil(lambda: bool(ask.of(CloseMonitor)))
    assert not any(listens(port) for port in ports)
    assert not ask.of(CancelJob)
    said = window.statusBar().currentMessage()
    assert "goes on at gpu-box" in said
    assert "Remote Jobs" in said
    launcher.handle(began(1, "centered_instance"))
    qtbot.waitUntil(lambda: "centered" in window.statusBar().currentMessage())
    assert not launcher.views, "a view that was closed does not come back by itself"
    assert launcher.reopen(JOB)
    assert (
        opened(qtbot, launcher)
        .windowTitle()
        .startswith("Training Model - centered_instance")
    )


def test_an_unknown_job_is_shown_when_its_training_begins(
    qtbot: Any, launcher: MonitorLauncher
) -> None:
    assert not launcher.reopen(JOB)
    launcher.handle(began())
    opened(qtbot, launcher)


def test_cancel_training_is_sent_once(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk, window: QMainWindow
) -> None:
    launcher.handle(changed("running"))
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    buttons(viewer)["Cancel Training"].click()
    qtbot.waitUntil(lambda: bool(ask.of(CancelJob)))
    assert ask.of(CancelJob) == [CancelJob(worker_id="worker-1", job_id=JOB)]
    launcher.handle(changed("cancelled"))
    qtbot.waitUntil(lambda: not launcher.views)
    assert "was cancelled" in window.statusBar().currentMessage()
    assert len(ask.of(CancelJob)) == 1


def test_cancel_is_tried_again_until_the_worker_is_there(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk
) -> None:
    failure = LinkFailed(worker="gpu-box", reason="it is away")
    assert failure.retryable
    ask.errors[CancelJob] = [failure, failure]
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    buttons(viewer)["Cancel Training"].click()
    qtbot.waitUntil(lambda: len(ask.of(CancelJob)) == 3)
    assert "not cancelled yet" in viewer.statusBar().currentMessage()


def test_a_refused_cancel_is_said_and_not_repeated(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk, pumped: PumpedLoop
) -> None:
    ask.errors[CancelJob] = [JobUnknown(job_id=JOB)]
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    buttons(viewer)["Cancel Training"].click()
    qtbot.waitUntil(
        lambda: "does not know the job" in viewer.statusBar().currentMessage()
    )
    qtbot.waitUntil(lambda: not pumped.tasks)
    assert len(ask.of(CancelJob)) == 1


# -- the worker, the companion ---------------------------------------------------------


def test_a_lost_worker_is_said_and_taken_back(
    qtbot: Any, launcher: MonitorLauncher
) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    launcher.handle(LinkLost(job_id=JOB, reason="silence"))
    qtbot.waitUntil(lambda: "cannot be reached" in viewer.windowTitle())
    assert viewer.statusBar().currentMessage() == worker_gone("gpu-box")
    launcher.handle(LinkBack(job_id=JOB))
    qtbot.waitUntil(lambda: "cannot be reached" not in viewer.windowTitle())
    assert viewer.statusBar().currentMessage() == worker_back("gpu-box")


def test_a_failed_job_says_why(qtbot: Any, launcher: MonitorLauncher) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    failure = ErrorInfo(
        code="step_failed",
        fields={"step": "centroid", "reason": "out of memory", "last_lines": ""},
    )
    launcher.handle(changed("failed", failure=failure))
    qtbot.waitUntil(lambda: "out of memory" in viewer.statusBar().currentMessage())
    assert not any(button.isEnabled() for button in buttons(viewer).values())


def test_a_job_that_is_not_followed_any_more_says_why(
    qtbot: Any, launcher: MonitorLauncher
) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    why = RemoteProtocolError(detail="nonsense")
    launcher.handle(changed("running", failure=why.to_wire()))
    said = viewer.statusBar().currentMessage
    qtbot.waitUntil(lambda: "broke the protocol" in said())
    assert not any(button.isEnabled() for button in buttons(viewer).values())


def test_a_job_that_is_stopped_says_why_and_may_still_be_cancelled(
    qtbot: Any, launcher: MonitorLauncher
) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    why = RuntimeExceeded(job_id=JOB, limit="12 hours")
    launcher.handle(changed("stopping", failure=why.to_wire()))
    qtbot.waitUntil(lambda: "12 hours" in viewer.statusBar().currentMessage())
    assert any(button.isEnabled() for button in buttons(viewer).values())


def test_after_the_companion_was_restarted_the_whole_curve_is_drawn_anew(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk
) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    qtbot.waitUntil(lambda: bool(ask.of(OpenMonitor)))
    viewer._add_datapoint(0, 1.0, "batch")
    ask.errors[OpenMonitor] = [JobUnknown(job_id=JOB)]
    launcher.restart()
    qtbot.waitUntil(lambda: "cannot be drawn" in viewer.statusBar().currentMessage())
    assert viewer.Y == []
    # The job is attached a moment later, and its step is announced again.
    launcher.handle(began())
    qtbot.waitUntil(lambda: len(ask.of(OpenMonitor)) == 3)
    launcher.handle(began())
    qtbot.waitUntil(lambda: not launcher._events)
    assert len(ask.of(OpenMonitor)) == 3, "a monitor that is fed is left alone"
    assert launcher.views[JOB].viewer is viewer


def test_a_dead_companion_is_said(qtbot: Any, launcher: MonitorLauncher) -> None:
    launcher.handle(began())
    viewer = opened(qtbot, launcher)
    launcher.companion_died("The helper process ended; start again.")
    assert viewer.statusBar().currentMessage().startswith("The helper process")


# -- images ----------------------------------------------------------------------------


def write_png(path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(8) for _ in range(8)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def test_images_are_shown_as_they_come(
    qtbot: Any, launcher: MonitorLauncher, tmp_path: Path
) -> None:
    launcher.handle(began(shows_images=True))
    opened(qtbot, launcher)
    launcher.handle(ImagesArrived(job_id=JOB, step=0, folder=str(tmp_path)))
    qtbot.waitUntil(lambda: launcher.views[JOB].images is not None)
    images: Any = launcher.views[JOB].images
    assert not images.isVisible(), "there are none yet"
    write_png(tmp_path / "viz" / "validation.0000.png")
    launcher.handle(ImagesArrived(job_id=JOB, step=0, folder=str(tmp_path)))
    qtbot.waitUntil(images.isVisible)
    write_png(tmp_path / "viz" / "validation.0001.png")
    launcher.handle(ImagesArrived(job_id=JOB, step=0, folder=str(tmp_path)))
    qtbot.waitUntil(lambda: len(images.files) == 2)
    images.close()
    write_png(tmp_path / "viz" / "validation.0002.png")
    launcher.handle(ImagesArrived(job_id=JOB, step=0, folder=str(tmp_path)))
    qtbot.waitUntil(lambda: not launcher._events)
    assert not images.isVisible(), "the user closed it"
    thread = images.worker_thread
    launcher.close_all()
    assert thread.isFinished()


# -- the end ---------------------------------------------------------------------------


def test_close_all_leaves_nothing(
    qtbot: Any, launcher: MonitorLauncher, ask: ScriptedAsk
) -> None:
    launcher.handle(began())
    launcher.handle(began(job_id=OTHER))
    viewers = [opened(qtbot, launcher), opened(qtbot, launcher, OTHER)]
    ports = [port for view in launcher.views.values() for port in view.ports]
    launcher.handle(began(1, "centered_instance"))
    launcher.close_all()
    launcher.handle(began(2, "late"))
    assert not any(listens(port) for port in ports)
    assert not any(viewer.timer.isActive() for viewer in viewers)
    assert not any(viewer.isVisible() for viewer in viewers)
    launcher.close_all()
    QApplication.processEvents()
    assert not launcher.views


def test_a_viewer_that_cannot_be_made_is_said(
    qtbot: Any,
    launcher: MonitorLauncher,
    window: QMainWindow,
    compat: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attempts: list[PortPair] = []

    def refuse(publish: int, controller: int) -> None:
        attempts.append(PortPair(publish, controller))
        raise RuntimeError("no ports")

    monkeypatch.setattr(compat, "make_loss_viewer", refuse)
    with caplog.at_level(logging.ERROR):
        launcher.handle(began())
        said = window.statusBar().currentMessage
        qtbot.waitUntil(lambda: "could not be opened" in said())
    assert len(attempts) == 3
    assert not launcher.views


# -- ports -----------------------------------------------------------------------------


def hold(port: int, held: list[socket.socket]) -> None:
    taken = socket.socket()
    held.append(taken)
    if sys.platform != "win32":
        # A monitor that was just closed may have left connections behind.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.listen()


@pytest.fixture
def held() -> Iterator[list[socket.socket]]:
    held: list[socket.socket] = []
    yield held
    for taken in held:
        taken.close()


def test_sleaps_ports_are_chosen_where_they_are_free() -> None:
    chosen = choose_ports()
    if chosen != SLEAP_PORTS and any(map(listens, SLEAP_PORTS)):
        pytest.skip("something else listens on SLEAP's ports")
    assert chosen == SLEAP_PORTS == PortPair(publish=9001, controller=9000)


@pytest.mark.parametrize("busy", SLEAP_PORTS)
def test_another_pair_is_chosen_where_one_is_taken(
    busy: int, held: list[socket.socket]
) -> None:
    # Another test may have it already.
    with contextlib.suppress(OSError):
        hold(busy, held)
    pair = choose_ports()
    assert not set(pair) & set(SLEAP_PORTS)
    assert pair.publish != pair.controller
    assert not any(map(listens, pair))


def test_promised_ports_are_not_chosen_again() -> None:
    assert not set(choose_ports(SLEAP_PORTS)) & set(SLEAP_PORTS)


def test_a_machine_without_ports_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = PortPair(50_000, 50_001)
    monkeypatch.setattr("sleap_rtc_plugin.gui.monitor_ports._draw", lambda: pair)
    with pytest.raises(OSError, match="no two free ports"):
        choose_ports([*SLEAP_PORTS, 50_000])

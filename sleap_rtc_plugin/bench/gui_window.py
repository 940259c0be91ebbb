"""The process with the window in `bench gui`: what SLEAP's own process does in life.

SLEAP's LossViewer is open and fed, a companion is asked to send a package, and a timer
notes how late Qt lets it fire. One run per process; reads its task as one JSON line on
stdin and writes its notes to a file, since SLEAP may print what it likes.
"""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import psutil
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QApplication

from sleap_rtc_plugin.bench.gui_feeder import FeederFigures
from sleap_rtc_plugin.bench.gui_figures import (
    INTERVAL_MS,
    Notes,
    Sent,
    Tick,
    WindowTask,
)
from sleap_rtc_plugin.companion.host import ChildHost, InProcessHost
from sleap_rtc_plugin.companion.messages import (
    CancelJob,
    Connect,
    Event,
    JobChanged,
    StepBegan,
    SubmitPackage,
    TransferProgress,
    WorkersChanged,
)
from sleap_rtc_plugin.gui import event_loop, sleap_compat
from sleap_rtc_plugin.gui.monitor_ports import choose_ports
from sleap_rtc_plugin.gui.monitor_view import MonitorView
from sleap_rtc_plugin.protocol.errors import (
    EXIT_DONE,
    CompanionGone,
    NoReply,
    RtcError,
    from_wire,
)
from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.protocol.job import ENDED

__all__ = ["main"]

SETTLED_BATCHES: Final = 40
"""How many batches the viewer shows before anything is measured: two seconds' worth."""

READY_TIMEOUT_S: Final = 120.0
"""For the worker to be there, the viewer to settle, the package to be read."""

EXIT_UNEXPECTED: Final = 1
CANCEL_TIMEOUT_S: Final = 30.0
FEEDER_TIMEOUT_S: Final = 15.0
_HEAD: Final = "centroid"
_FEEDER: Final = "sleap_rtc_plugin.bench.gui_feeder"
_WORKER_READY: Final = "available"


class _Stopwatch:
    """The timer, and what it notes while it is told to.

    It calls `on_idle` whenever it fires and has nothing to note, so that who waits for
    the right moment to begin, or for the end, can look.
    """

    def __init__(self, drawn: Callable[[], int], on_idle: Callable[[], None]) -> None:
        self.ticks: list[Tick] = []
        self.seconds = 0.0
        self.is_over = False
        self._drawn = drawn
        self._on_idle = on_idle
        self._companion: psutil.Process | None = None
        self._began: float | None = None
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(INTERVAL_MS)
        self._timer.timeout.connect(self._fired)
        self._timer.start()

    def begin(self, seconds: float, companion_pid: int | None) -> None:
        """Measure from now on, so long, and to the end of the last wait in that time.

        Args:
            seconds: how long.
            companion_pid: whose CPU time is noted, too.
        """
        if companion_pid is not None:
            self._companion = psutil.Process(companion_pid)
        self.seconds = seconds
        self._began = time.perf_counter()

    def end(self) -> None:
        """Measure no longer than to now."""
        self.seconds = min(self.seconds, self.elapsed_s)

    @property
    def has_begun(self) -> bool:
        """Whether it measures, or has."""
        return self._began is not None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning, or 0 before it."""
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def _fired(self) -> None:
        now = time.perf_counter()
        gap_ms, self._last = (now - self._last) * 1000, now
        if self._began is None:
            self._on_idle()
            return
        tick = Tick(
            at_s=now - self._began,
            late_ms=max(0.0, gap_ms - INTERVAL_MS),
            drawn=self._drawn(),
            gui_cpu_s=time.process_time(),
            companion_cpu_s=self._companion_cpu_s(),
        )
        self.ticks.append(tick)
        if tick.at_s >= self.seconds:
            self._timer.stop()
            self.is_over = True
            self._on_idle()

    def _companion_cpu_s(self) -> float | None:
        if self._companion is None:
            return None
        try:
            times = self._companion.cpu_times()
        except psutil.Error:
            return None  # it has died, which its host tells
        return float(times.user + times.system)


class _Run:
    """One run: the viewer, its feeder, and a companion that sends or has nothing to."""

    def __init__(self, task: WindowTask) -> None:
        self.exit_code = EXIT_UNEXPECTED
        self._task = task
        self._job_id = new_job_id()
        self._worker_id = ""
        self._host: ChildHost | InProcessHost = (
            InProcessHost() if task.case == "in-process" else ChildHost()
        )
        self._host.on_event = self._heard
        self._host.on_restarted = lambda: self._failed(CompanionGone(reason="it died"))
        self._sent: list[Sent] = []
        self._is_sending = False
        self._has_all_arrived = False
        self._has_job_ended = False
        self._error: RtcError | None = None
        self._news = asyncio.Event()
        began = StepBegan(
            job_id=self._job_id, worker="bench", step=0, head=_HEAD, run_name=""
        )
        self._view = MonitorView(sleap_compat, began, choose_ports())
        self._view.show_at(QPoint(0, 0), activate=False)
        self._feeder: subprocess.Popen[bytes] | None = None
        self._watch = _Stopwatch(self._drawn, self._news.set)

    def start(self) -> None:
        """Begin; call from a slot of the running Qt loop."""
        event_loop.ensure_loop()
        event_loop.spawn(self._run(), "the run")

    def write_notes(self) -> None:
        """Wait for the feeder, which ends with the viewer, and write what was noted."""
        if self._feeder is None:
            return
        output, _ = self._feeder.communicate(timeout=FEEDER_TIMEOUT_S)
        if self.exit_code != EXIT_DONE:
            return
        fed = msgspec.json.decode(output, type=FeederFigures)
        notes = Notes(
            seconds=self._watch.seconds,
            ticks=self._watch.ticks,
            sent=self._sent,
            batches_per_s_in=fed.batches / fed.seconds,
            qt_platform=QGuiApplication.platformName(),
        )
        Path(self._task.notes).write_bytes(msgspec.json.encode(notes))

    # -- its way -------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._host.ask(Connect(session=self._task.session, remember=False))
            await self._until(
                lambda: bool(self._worker_id), READY_TIMEOUT_S, "the worker"
            )
            if self._task.case != "idle":
                await self._send()
            await self._feed()
            self._begin()
            patience_s = READY_TIMEOUT_S + self._task.seconds
            await self._until(lambda: self._watch.is_over, patience_s, "the transfer")
            if self._task.case != "idle":
                await self._cancel()
            self.exit_code = EXIT_DONE
        except RtcError as error:
            sys.stderr.write(f"{error}\n")
            self.exit_code = error.exit_code
        finally:
            await self._host.close()
            event_loop.call_soon_in_qt(self._leave)

    async def _send(self) -> None:
        """Have a package on its way."""
        await self._host.ask(
            SubmitPackage(
                job_id=self._job_id,
                worker_id=self._worker_id,
                package=self._task.package,
                output=self._task.folder,
            )
        )
        await self._until(lambda: self._is_sending, READY_TIMEOUT_S, "the worker")

    async def _feed(self) -> None:
        """Have the viewer draw, since as many batches in every case.

        The more it holds the longer it draws, and a package takes a while to be read.
        """
        self._feeder = _start_feeder(self._view.ports)
        await self._until(
            lambda: self._drawn() >= SETTLED_BATCHES, READY_TIMEOUT_S, "the viewer"
        )

    def _begin(self) -> None:
        pid = self._host.pid if isinstance(self._host, ChildHost) else None
        self._watch.begin(self._task.seconds, pid)
        if self._has_all_arrived:
            self._watch.end()

    async def _cancel(self) -> None:
        """Discard the job before it trains, so that nothing of it outlives the run."""
        await self._host.ask(CancelJob(worker_id=self._worker_id, job_id=self._job_id))
        self._error = None
        await self._until(lambda: self._has_job_ended, CANCEL_TIMEOUT_S, "the worker")

    def _leave(self) -> None:
        self._view.close()
        QApplication.exit(self.exit_code)

    # -- what is seen --------------------------------------------------------------

    def _drawn(self) -> int:
        return sleap_compat.loss_viewer_points(self._view.viewer)

    def _heard(self, event: Event) -> None:
        match event:
            case WorkersChanged(workers=[worker, *_]) if worker.status == _WORKER_READY:
                self._worker_id = worker.worker_id
            case TransferProgress(purpose="package", done=done, total=total) if done:
                self._progressed(done, total)
            case JobChanged(job=job, error=error):
                self._has_job_ended = job.state in ENDED
                if error is not None and not self._watch.is_over:
                    self._failed(from_wire(error))
        self._news.set()

    def _progressed(self, done: int, total: int) -> None:
        self._is_sending = True
        self._has_all_arrived = done >= total
        if self._watch.has_begun and not self._watch.is_over:
            self._sent.append(Sent(at_s=self._watch.elapsed_s, done_bytes=done))
            if self._has_all_arrived:
                self._watch.end()

    def _failed(self, error: RtcError) -> None:
        self._error = error
        self._news.set()

    async def _until(
        self, is_reached: Callable[[], bool], timeout_s: float, whom: str
    ) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not is_reached():
                    if self._error is not None:
                        raise self._error
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise NoReply(peer=whom, command="bench gui") from None


def _start_feeder(ports: tuple[int, int]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  # our own program, no shell
        [sys.executable, "-m", _FEEDER, *map(str, ports), _HEAD],
        stdout=subprocess.PIPE,
    )


def main() -> int:
    """Carry out the task on stdin; return the exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    task = msgspec.json.decode(sys.stdin.readline(), type=WindowTask)
    # Before SLEAP is imported: matplotlib then draws with Qt, without a display too.
    application = QApplication(sys.argv[:1])
    run = _Run(task)
    QTimer.singleShot(0, run.start)
    application.exec()
    run.write_notes()
    return run.exit_code


if __name__ == "__main__":
    sys.exit(main())

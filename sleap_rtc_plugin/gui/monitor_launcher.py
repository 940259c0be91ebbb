"""Opens SLEAP's training monitor for each model that trains remotely, and closes it.

Takes the companion's events, keeps one `MonitorView` per job, and tells the companion
which ports to feed. Windows are only made and closed in Qt slots of its own, never
where an event arrives. The plugin makes one and closes it at SLEAP's exit.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from qtpy.QtCore import QPoint, QTimer
from qtpy.QtWidgets import QMainWindow

from sleap_rtc_plugin.companion.messages import (
    CancelJob,
    CloseMonitor,
    Command,
    Event,
    ImagesArrived,
    JobChanged,
    LinkBack,
    LinkLost,
    OpenMonitor,
    Result,
    StepBegan,
    StepEnded,
)
from sleap_rtc_plugin.gui.messages import error_words
from sleap_rtc_plugin.gui.monitor_ports import choose_ports
from sleap_rtc_plugin.gui.monitor_view import VIEWER_SIZE, MonitorView
from sleap_rtc_plugin.protocol.errors import RtcError, from_wire
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import ENDED, JobState

__all__ = ["MonitorLauncher"]

MAX_OPEN_ATTEMPTS: Final = 3
MAX_REMEMBERED_JOBS: Final = 100
REPLAY_SETTLE_MS: Final = 250
"""How long a replayed step must be the newest one before its window opens."""
CANCEL_RETRY_S: Final = 5.0
MAX_CANCEL_ATTEMPTS: Final = 720
STATUS_MS: Final = 15_000
CASCADE_PX: Final = 36
_log = logging.getLogger(__name__)

_CLOSED: Final = (
    "The training goes on at {worker}; reopen its monitor in Remote Train > "
    "Remote Jobs."
)
_NEXT_STEP: Final = (
    "The training of {head} began at {worker}; Remote Train > Remote Jobs opens its "
    "monitor."
)
_NO_WINDOW: Final = (
    "SLEAP's training monitor could not be opened on this computer; the training goes "
    "on, and Remote Train > Remote Jobs shows how far it is."
)
_ENDED: Final = "The training of this model has ended."
_CANCELLING: Final = "Cancelling; the worker discards this job."
_CANCELLED: Final = "The job at {worker} was cancelled; nothing of it was kept."


@dataclass(eq=False)
class _Job:
    """What is known of one followed job, and its window."""

    worker_id: str = ""
    worker: str = "the worker"
    steps: dict[int, StepBegan] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    images: dict[int, str] = field(default_factory=dict)
    is_unreachable: bool = False
    is_dismissed: bool = False
    view: MonitorView | None = None
    view_step: int = 0
    slot: int = 0
    is_fed: bool = False
    settling: QTimer | None = None
    # Commands about a job's monitor go out one after the other.
    order: asyncio.Lock = field(default_factory=asyncio.Lock)


class MonitorLauncher:
    """A monitor for each job that trains, several jobs at once."""

    def __init__(
        self,
        window: QMainWindow,
        ask: Callable[[Command], Awaitable[Result]],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
        *,
        compat: Any,
        cancel_retry_s: float = CANCEL_RETRY_S,
    ) -> None:
        """Begin without windows.

        Args:
            window: SLEAP's main window.
            ask: puts a command to the companion.
            spawn: runs a coroutine as a named task.
            compat: the module `gui.sleap_compat`.
            cancel_retry_s: seconds between two tries to reach the worker with a
                cancel.
        """
        self._window = window
        self._ask = ask
        self._spawn = spawn
        self._compat = compat
        self._cancel_retry_s = cancel_retry_s
        self._jobs: dict[str, _Job] = {}
        self._events: deque[Event] = deque()
        # Ports that a bridge of the companion may still be connected to.
        self._leaving: list[int] = []
        self._is_closed = False

    # -- for the plugin --------------------------------------------------------------

    @property
    def views(self) -> dict[str, MonitorView]:
        """The open monitors by job id."""
        return {
            job_id: job.view
            for job_id, job in self._jobs.items()
            if job.view is not None
        }

    def handle(self, event: Event) -> None:
        """Take an event of the companion; windows follow in a slot of their own."""
        if self._is_closed:
            return
        if not self._events:
            QTimer.singleShot(0, self._drain)
        self._events.append(event)

    def reopen(self, job_id: str, step: int | None = None) -> bool:
        """Show the monitor of a followed job again; call from a Qt slot.

        Args:
            job_id: the job.
            step: which of its models, by default the newest.

        Returns:
            Whether there is something to show; if not, the monitor opens by itself
            when the training begins.
        """
        job = self._job(job_id)
        job.is_dismissed = False
        if not job.steps:
            return False
        wanted = max(job.steps) if step is None else step
        if wanted not in job.steps:
            return False
        if job.view is not None and job.view_step == wanted:
            job.view.bring_to_front()
        else:
            self._open(job_id, job, wanted, activate=True)
        return True

    def restart(self) -> None:
        """A new companion runs and follows the jobs: have the open monitors fed."""
        for job_id, job in self._jobs.items():
            if job.view is not None:
                job.is_fed = False
                self._feed_again(job_id, job)

    def companion_died(self, sentence: str) -> None:
        """Say in each open monitor why nothing moves any more."""
        for view in self.views.values():
            view.say(sentence)

    def close_all(self) -> None:
        """Close every window and socket, for good; the jobs go on."""
        self._is_closed = True
        self._events.clear()
        for job in self._jobs.values():
            if job.settling is not None:
                job.settling.stop()
            if job.view is not None:
                job.view.close()
                job.view = None

    # -- events ----------------------------------------------------------------------

    def _drain(self) -> None:
        while self._events:
            event = self._events.popleft()
            try:
                self._take(event)
            except Exception:
                # The next events are not to suffer from a fault with this one.
                _log.exception("the training monitor did not take an event")

    def _take(self, event: Event) -> None:
        match event:
            case StepBegan():
                self._step_began(event, self._job(event.job_id))
            case StepEnded():
                self._step_ended(event, self._job(event.job_id))
            case ImagesArrived():
                self._images_arrived(event, self._job(event.job_id))
            case JobChanged():
                self._job_changed(event, self._job(event.job.job_id))
            case LinkLost() | LinkBack():
                job = self._job(event.job_id)
                job.is_unreachable = isinstance(event, LinkLost)
                if job.view is not None:
                    job.view.set_unreachable(job.is_unreachable)
            case _:
                pass

    def _step_began(self, event: StepBegan, job: _Job) -> None:
        job.steps[event.step] = event
        job.worker = clean_text(event.worker)
        if event.is_replay:
            job.ended.add(event.step)
        if event.step != max(job.steps):
            return
        if job.view is not None and job.view_step == event.step:
            if not job.is_fed:
                self._feed_again(event.job_id, job)
        elif job.is_dismissed:
            if not event.is_replay:
                head = clean_text(event.head)
                self._say(_NEXT_STEP.format(head=head, worker=job.worker))
        elif event.is_replay:
            self._open_when_settled(event.job_id, job)
        else:
            self._open(event.job_id, job, event.step)

    def _step_ended(self, event: StepEnded, job: _Job) -> None:
        job.ended.add(event.step)
        if job.view is not None and job.view_step == event.step:
            job.view.end(_ENDED)

    def _images_arrived(self, event: ImagesArrived, job: _Job) -> None:
        job.images[event.step] = event.folder
        if job.view is not None and job.view_step == event.step:
            job.view.show_images(event.folder)

    def _job_changed(self, event: JobChanged, job: _Job) -> None:
        job.worker_id = event.job.worker_id
        if job.view is None:
            return
        if event.job.state not in ENDED:
            self._job_troubled(event, job.view)
            return
        if event.job.state == JobState.CANCELLED:
            self._close(event.job.job_id, job)
            self._say(_CANCELLED.format(worker=job.worker))
        elif event.error is not None:
            job.view.end(error_words(from_wire(event.error)))
        elif job.view_step not in job.ended:
            job.view.end(clean_text(event.job.error) or _ENDED)

    # -- windows ---------------------------------------------------------------------

    def _open_when_settled(self, job_id: str, job: _Job) -> None:
        """Open the newest of several steps that are replayed in a row, not each."""
        if job.settling is None:
            job.settling = QTimer(self._window)
            job.settling.setSingleShot(True)
            job.settling.setInterval(REPLAY_SETTLE_MS)
            job.settling.timeout.connect(lambda: self._open_settled(job_id, job))
        job.settling.start()

    def _open_settled(self, job_id: str, job: _Job) -> None:
        newest = max(job.steps)
        if job.view is None or job.view_step != newest:
            self._open(job_id, job, newest)

    def _open(
        self, job_id: str, job: _Job, step: int, *, activate: bool = False
    ) -> None:
        if job.settling is not None:
            job.settling.stop()
        began = job.steps[step]
        position = None
        if job.view is not None:
            position = job.view.viewer.pos()
            self._close(job_id, job)
        else:
            job.slot = self._free_slot()
        view = self._make_view(began)
        if view is None:
            self._say(_NO_WINDOW)
            return
        job.view, job.view_step, job.is_fed = view, step, False
        view.cancelled.connect(lambda: self._cancel(job_id, job))
        view.closed.connect(lambda: self._dismissed(job_id, job))
        view.set_unreachable(job.is_unreachable)
        if step in job.ended:
            view.end(_ENDED)
        if position is None:
            position = self._place(job.slot)
        view.show_at(position, activate=activate)
        if step in job.images:
            view.show_images(job.images[step])
        self._spawn(self._feed(job_id, job, view), f"feed the monitor of {job_id}")

    def _make_view(self, began: StepBegan) -> MonitorView | None:
        taken = [port for view in self.views.values() for port in view.ports]
        taken += self._leaving
        for _ in range(MAX_OPEN_ATTEMPTS):
            try:
                view = MonitorView(self._compat, began, choose_ports(taken))
            except Exception:
                _log.warning("SLEAP's training monitor did not open", exc_info=True)
                continue
            if not set(view.ports) & set(taken):
                return view
            # SLEAP lost a race and looked for other ports itself.
            view.close()
        return None

    def _job_troubled(self, event: JobChanged, view: MonitorView) -> None:
        """Show why a job stops, or is not followed any more."""
        if event.error is None:
            return
        words = error_words(from_wire(event.error))
        if event.job.state in (JobState.STOPPING, JobState.COLLECTING):
            view.say(words)
        else:
            view.end(words)

    def _close(self, job_id: str, job: _Job) -> None:
        """Close the job's window and have the companion let go of it."""
        view, job.view = job.view, None
        if view is None:
            return
        view.close()
        self._leaving += view.ports
        command = CloseMonitor(job_id=job_id, step=job.view_step)
        self._spawn(
            self._release(command, job, view), f"release the monitor of {job_id}"
        )

    def _dismissed(self, job_id: str, job: _Job) -> None:
        is_over = job.view_step in job.ended
        self._close(job_id, job)
        if not is_over:
            job.is_dismissed = True
            self._say(_CLOSED.format(worker=job.worker))

    def _free_slot(self) -> int:
        used = {job.slot for job in self._jobs.values() if job.view is not None}
        return next(slot for slot in range(len(used) + 1) if slot not in used)

    def _place(self, slot: int) -> QPoint:
        """Return where the window of this slot stands: on the main one, cascaded."""
        corner = self._window.frameGeometry().topLeft()
        offset = CASCADE_PX * (slot + 1)
        place = corner + QPoint(offset, offset)
        screen = self._window.screen().availableGeometry()
        room = screen.bottomRight() - QPoint(*VIEWER_SIZE)
        return QPoint(
            max(screen.left(), min(place.x(), room.x())),
            max(screen.top(), min(place.y(), room.y())),
        )

    # -- the companion ---------------------------------------------------------------

    def _feed_again(self, job_id: str, job: _Job) -> None:
        view = job.view
        if view is not None:
            view.begin_again()
            self._spawn(self._feed(job_id, job, view), f"feed the monitor of {job_id}")

    async def _feed(self, job_id: str, job: _Job, view: MonitorView) -> None:
        async with job.order:
            if job.view is not view or job.is_fed:
                return
            publish_port, controller_port = view.ports
            command = OpenMonitor(
                job_id=job_id,
                step=job.view_step,
                publish_port=publish_port,
                controller_port=controller_port,
                what=view.what,
            )
            try:
                await self._ask(command)
            except RtcError as error:
                if job.view is view:
                    view.say(f"The curve cannot be drawn now. {error_words(error)}")
            else:
                job.is_fed = job.view is view

    async def _release(
        self, command: CloseMonitor, job: _Job, view: MonitorView
    ) -> None:
        # Until the companion has let go, its bridge would feed whoever binds them.
        async with job.order:
            try:
                await self._ask(command)
            except RtcError as error:
                _log.info("the companion could not close a monitor: %s", error)
            finally:
                for port in view.ports:
                    self._leaving.remove(port)

    def _cancel(self, job_id: str, job: _Job) -> None:
        if job.view is not None:
            job.view.say(_CANCELLING)
        self._spawn(self._cancel_until_heard(job_id, job), f"cancel {job_id}")

    async def _cancel_until_heard(self, job_id: str, job: _Job) -> None:
        command = CancelJob(worker_id=job.worker_id, job_id=job_id)
        for _ in range(MAX_CANCEL_ATTEMPTS):
            try:
                await self._ask(command)
            except RtcError as error:
                if job.view is not None:
                    job.view.say(f"The job is not cancelled yet. {error_words(error)}")
                if not error.retryable:
                    return
            else:
                return
            await asyncio.sleep(self._cancel_retry_s)
            if self._is_closed:
                return

    # -- the rest --------------------------------------------------------------------

    def _job(self, job_id: str) -> _Job:
        job = self._jobs.get(job_id)
        if job is None:
            if len(self._jobs) >= MAX_REMEMBERED_JOBS:
                self._forget_one()
            job = self._jobs[job_id] = _Job()
        return job

    def _forget_one(self) -> None:
        for job_id, job in self._jobs.items():
            if job.view is None:
                del self._jobs[job_id]
                return

    def _say(self, sentence: str) -> None:
        self._window.statusBar().showMessage(sentence, STATUS_MS)

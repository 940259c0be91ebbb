"""What the remote training dialog shows, as one frozen value, and how it changes.

Pure: the presenter keeps the newest `Snapshot`, changes it with the functions here, and
the views draw it. It holds no secret, and no text that a peer chose is in it before it
was cleaned and bounded.
"""

import dataclasses
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import msgspec

from sleap_rtc_plugin.companion.account_messages import SignInCode
from sleap_rtc_plugin.companion.messages import (
    Event,
    JobChanged,
    JobRow,
    LinkBack,
    LinkLost,
    PackageProgress,
    ResultsHome,
    RoomChanged,
    RoomRow,
    TransferProgress,
    VideosFound,
    WorkerRow,
    WorkersChanged,
)
from sleap_rtc_plugin.companion.model_messages import ModelAnnounced, ModelProgress
from sleap_rtc_plugin.gui.account_choices import AccountView
from sleap_rtc_plugin.gui.messages import error_words, published_words, takes_jobs
from sleap_rtc_plugin.gui.model_choice import ModelChoice
from sleap_rtc_plugin.gui.run_choices import (
    Mode,
    model_problem,
    planned_run,
    publish_hint,
    publish_problem,
)
from sleap_rtc_plugin.protocol.errors import from_wire
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.protocol.limits import MAX_PEERS_LISTED
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    PublishedModel,
    RunRequest,
)

__all__ = [
    "Lab",
    "Snapshot",
    "Submission",
    "after_event",
    "clean_room",
    "clean_rooms",
    "entering",
    "inside",
    "left",
    "preselected",
]

MAX_ROOMS_SHOWN: Final = 50
MAX_SENTENCE_CHARS: Final = 600
_BEFORE_QUEUE: Final = ("packaging", "unsent", JobState.SUBMITTED, JobState.STAGING)
"""States of a job whose package is not all there; the first two are the companion's."""


class Lab(Enum):
    """How we stand to the room whose workers are shown."""

    OUTSIDE = auto()
    ENTERING = auto()
    INSIDE = auto()
    CUT_OFF = auto()
    """Inside, but the connection is lost; the companion keeps trying."""


@dataclass(frozen=True)
class Submission:
    """The run that was sent last, from the press of the button to its end.

    Attributes:
        job_id: the job; the same while the same run is tried again.
        worker_id: where it goes.
        worker: that worker's name.
        run: what was sent.
        package: how far the package is built, while it is.
        videos: which of its videos the worker has itself, once it was asked.
        transfer: how far it is sent, once it is being sent.
        job: the job as it was last told, once the worker knows it.
        was_queued: the worker has the whole package; no more is needed of us.
        is_cut_off: the link to the worker is lost; the companion keeps trying.
        is_cancelling: the user cancelled and the answer is awaited.
        was_cancelled: the user's cancelling came through.
        is_over: it will not go on by itself: it failed, was cancelled, or is done.
        are_results_home: its results are in place on this computer.
        problem: why it failed, in words.
        published: what its models were published as, or why not, in words.
    """

    job_id: str
    worker_id: str
    worker: str
    run: RunRequest
    package: PackageProgress | None = None
    videos: VideosFound | None = None
    transfer: TransferProgress | None = None
    job: JobRow | None = None
    was_queued: bool = False
    is_cut_off: bool = False
    is_cancelling: bool = False
    was_cancelled: bool = False
    is_over: bool = False
    are_results_home: bool = False
    problem: str = ""
    published: str = ""

    @property
    def is_sending(self) -> bool:
        """Whether its package is on its way, from the first byte read on."""
        return not (self.was_queued or self.is_over)

    @property
    def trains(self) -> bool:
        """Whether it trains a model, rather than only predicting."""
        return any(isinstance(model, ModelToTrain) for model in self.run.models)

    def can_resume(self, worker_id: str, run: RunRequest) -> bool:
        """Tell whether the same job goes on if this run is sent to this worker."""
        return (
            self.is_over
            and not self.was_queued
            and bool(self.problem)
            and (self.job is None or self.job.state in _BEFORE_QUEUE)
            and (self.worker_id, self.run) == (worker_id, run)
        )


@dataclass(frozen=True)
class Snapshot:
    """Everything the dialog shows.

    Attributes:
        lab: how we stand to the room.
        room: the room we are in or enter.
        rooms: the rooms that this computer remembers, the last used first.
        is_choosing: the form for another lab is shown although we are in one.
        has_new_session: a room was just opened; its session string waits to be copied.
        account: how the user stands to a server that knows its people, while that is
            shown in place of the form.
        remembers: whether the next room is to be remembered.
        uses_worker_videos: whether a worker may use its own copies of videos.
        is_relay_only: whether workers are told no address of this computer.
        is_relay_only_forced: the environment says so, and the user cannot change it.
        workers: who is in the room, or None until it was told.
        worker_id: the chosen worker, who may have left.
        worker_name: how that one is called.
        mode: what the window is for.
        run: what is configured in SLEAP's own dialog.
        model: the model of the lab to predict with, or None for SLEAP's.
        offered: the lab's models to choose from, or None until they were told.
        offer_problem: why they are not known, in words.
        taken: the aliases that models of the lab have.
        publishes: the trained models are to be published.
        alias: as what, as it is typed.
        submission: the run that was sent last.
        problem: what went wrong last, in words, until the user acts.
        note: something worth knowing that is no problem.
        dead: why the companion is dead for good, in words; nothing works until it is
            started again.
    """

    lab: Lab = Lab.OUTSIDE
    room: RoomRow | None = None
    rooms: tuple[RoomRow, ...] = ()
    is_choosing: bool = False
    has_new_session: bool = False
    account: AccountView | None = None
    remembers: bool = True
    uses_worker_videos: bool = True
    is_relay_only: bool = False
    is_relay_only_forced: bool = False
    workers: tuple[WorkerRow, ...] | None = None
    worker_id: str | None = None
    worker_name: str = ""
    mode: Mode = "training"
    run: RunRequest | None = None
    model: PublishedModel | None = None
    offered: tuple[ModelChoice, ...] | None = None
    offer_problem: str = ""
    taken: frozenset[str] = frozenset()
    publishes: bool = False
    alias: str = ""
    submission: Submission | None = None
    problem: str = ""
    note: str = ""
    dead: str = ""

    @property
    def worker(self) -> WorkerRow | None:
        """The chosen worker while it is in the room."""
        for worker in self.workers or ():
            if worker.worker_id == self.worker_id:
                return worker
        return None

    @property
    def is_inside(self) -> bool:
        """Whether we are in a room that can be asked something."""
        return self.lab is Lab.INSIDE and not self.dead

    @property
    def planned(self) -> RunRequest | None:
        """What is to be sent: what is configured, with the choices made here."""
        return planned_run(self.run, self.model, self._publish_as)

    @property
    def choice_problem(self) -> str:
        """Why the choices made here do not do for what is configured, or nothing."""
        return model_problem(
            self.run, self.model, self.offered or ()
        ) or publish_problem(self.run, self._publish_as)

    @property
    def publish_hint(self) -> str:
        """What is to be said below the alias, or nothing."""
        return publish_hint(self.run, self._publish_as, self.taken)

    @property
    def _publish_as(self) -> str | None:
        return self.alias if self.publishes else None

    @property
    def is_sending(self) -> bool:
        """Whether a package is on its way."""
        return self.submission is not None and self.submission.is_sending

    @property
    def can_enter(self) -> bool:
        """Whether another room may be entered now."""
        return not (self.dead or self.is_sending or self.lab is Lab.ENTERING)

    @property
    def can_run(self) -> bool:
        """Whether the configured run can be sent now."""
        return (
            not self.dead
            and self.lab is Lab.INSIDE
            and self.run is not None
            and not self.choice_problem
            and not self.is_sending
            and self.worker is not None
            and takes_jobs(self.worker)
        )

    @property
    def can_cancel(self) -> bool:
        """Whether there is something on its way that can still be called back."""
        sent = self.submission
        return (
            not self.dead
            and sent is not None
            and sent.is_sending
            and not sent.is_cancelling
        )


# -- the room --------------------------------------------------------------------------


def entering(snapshot: Snapshot, room: RoomRow | None = None) -> Snapshot:
    """Begin to enter a room; what was seen of another one is forgotten."""
    return dataclasses.replace(
        snapshot,
        lab=Lab.ENTERING,
        room=room,
        is_choosing=False,
        has_new_session=False,
        workers=None,
        worker_id=None,
        worker_name="",
        model=None,
        offered=None,
        taken=frozenset(),
        problem="",
        note="",
    )


def inside(snapshot: Snapshot, room: RoomRow, *, is_new: bool = False) -> Snapshot:
    """Be in a room; `is_new` where it was opened just now."""
    return dataclasses.replace(
        snapshot,
        lab=Lab.INSIDE,
        room=clean_room(room),
        is_choosing=False,
        account=None,
        has_new_session=is_new,
        problem="",
    )


def left(snapshot: Snapshot, problem: str = "") -> Snapshot:
    """Be in no room, because the user left or for the reason given."""
    return dataclasses.replace(
        snapshot,
        lab=Lab.OUTSIDE,
        room=None,
        is_choosing=False,
        has_new_session=False,
        workers=None,
        worker_id=None,
        worker_name="",
        model=None,
        offered=None,
        taken=frozenset(),
        problem=problem,
    )


def clean_rooms(rooms: list[RoomRow]) -> tuple[RoomRow, ...]:
    """Make remembered rooms fit to show."""
    return tuple(clean_room(room) for room in rooms[:MAX_ROOMS_SHOWN])


def clean_room(room: RoomRow) -> RoomRow:
    """Make a room fit to show."""
    return msgspec.structs.replace(room, server=clean_text(room.server))


def preselected(snapshot: Snapshot, last_worker: str) -> str | None:
    """Say which worker to choose for the user who has not chosen one.

    The one that was used last, or else the only one there is.
    """
    able = [worker for worker in snapshot.workers or () if takes_jobs(worker)]
    for worker in able:
        if worker.worker_id == last_worker:
            return worker.worker_id
    return able[0].worker_id if len(able) == 1 == len(snapshot.workers or ()) else None


# -- events ----------------------------------------------------------------------------


def after_event(snapshot: Snapshot, event: Event) -> Snapshot:
    """Return what is to be shown after an event of the companion."""
    match event:
        case RoomChanged():
            return _after_room_changed(snapshot, event)
        case WorkersChanged():
            return _after_workers_changed(snapshot, event)
    submission = snapshot.submission
    if submission is None or _job_of(event) != submission.job_id:
        return snapshot
    changed = _after_job_event(submission, event)
    if changed is submission:
        return snapshot
    if changed.was_queued and not submission.was_queued:
        # What was sent is not sent again by another press of the button.
        if snapshot.planned == submission.run:
            snapshot = dataclasses.replace(
                snapshot, run=None, publishes=False, alias=""
            )
        return dataclasses.replace(snapshot, submission=changed, note="")
    return dataclasses.replace(snapshot, submission=changed)


def _job_of(event: Event) -> str | None:
    match event:
        case RoomChanged() | WorkersChanged() | ModelAnnounced() | ModelProgress():
            return None
        case SignInCode():
            return None
        case JobChanged(job=job):
            return job.job_id
    return event.job_id


def _after_room_changed(snapshot: Snapshot, event: RoomChanged) -> Snapshot:
    if snapshot.lab not in (Lab.INSIDE, Lab.CUT_OFF):
        return snapshot
    if event.state == "online":
        room = clean_room(event.room) if event.room is not None else snapshot.room
        note = "" if snapshot.lab is Lab.CUT_OFF else snapshot.note
        return dataclasses.replace(snapshot, lab=Lab.INSIDE, room=room, note=note)
    reason = clean_text(event.reason, MAX_SENTENCE_CHARS)
    if event.room is None:  # left, or lost for good
        return left(snapshot, reason)
    return dataclasses.replace(snapshot, lab=Lab.CUT_OFF, note=reason)


def _after_workers_changed(snapshot: Snapshot, event: WorkersChanged) -> Snapshot:
    if snapshot.lab is Lab.OUTSIDE:
        return snapshot
    known: dict[str, WorkerRow] = {}
    for worker in event.workers[:MAX_PEERS_LISTED]:
        known[worker.worker_id] = _clean_worker(worker)
    workers = tuple(known.values())
    chosen = known.get(snapshot.worker_id or "")
    name = chosen.name if chosen else snapshot.worker_name
    if (workers, name) == (snapshot.workers, snapshot.worker_name):
        return snapshot
    return dataclasses.replace(snapshot, workers=workers, worker_name=name)


def _clean_worker(worker: WorkerRow) -> WorkerRow:
    model = worker.gpu_model
    return msgspec.structs.replace(
        worker,
        name=clean_text(worker.name) or clean_text(worker.worker_id) or "(no name)",
        status=clean_text(worker.status),
        device=clean_text(worker.device),
        gpu_model=None if model is None else clean_text(model) or None,
        refusal=clean_text(worker.refusal, MAX_SENTENCE_CHARS),
    )


def _after_job_event(submission: Submission, event: Event) -> Submission:
    if submission.was_cancelled:
        return submission
    match event:
        case PackageProgress():
            return dataclasses.replace(submission, package=event)
        case VideosFound():
            return dataclasses.replace(submission, videos=event)
        case TransferProgress(purpose="package"):
            return dataclasses.replace(submission, transfer=event, is_cut_off=False)
        case LinkLost():
            return dataclasses.replace(submission, is_cut_off=True)
        case LinkBack():
            return dataclasses.replace(submission, is_cut_off=False)
        case JobChanged():
            return _after_job_changed(submission, event)
        case ResultsHome():
            return dataclasses.replace(submission, are_results_home=True, is_over=True)
    return submission


def _after_job_changed(submission: Submission, event: JobChanged) -> Submission:
    job, error = event.job, event.error
    is_ended = job.state in ENDED
    was_cancelled = job.state == JobState.CANCELLED
    has_begun = not is_ended and job.state not in _BEFORE_QUEUE
    problem = ""
    if error is not None and not was_cancelled:
        problem = error_words(from_wire(error))
    published = published_words(job.model, job.alias) if job.model else ""
    if event.publish_error is not None:
        why_not = error_words(from_wire(event.publish_error))
        published = f"{published} {why_not}".strip()
    return dataclasses.replace(
        submission,
        job=_clean_job(job),
        was_queued=submission.was_queued or (has_begun and error is None),
        was_cancelled=was_cancelled,
        is_over=is_ended or error is not None,
        is_cancelling=submission.is_cancelling and not is_ended,
        is_cut_off=submission.is_cut_off and not is_ended,
        problem=problem,
        published=published or submission.published,
    )


def _clean_job(job: JobRow) -> JobRow:
    return msgspec.structs.replace(
        job,
        worker=clean_text(job.worker),
        name=clean_text(job.name),
        owner=clean_text(job.owner),
        error=clean_text(job.error, MAX_SENTENCE_CHARS),
    )

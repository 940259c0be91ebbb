"""What SLEAP's side and the companion say to each other: typed values over a pipe.

SLEAP's side sends a `Request` with a command and gets one `Response` to it; `Notice`s
with events come whenever something happens. Bulk data never crosses: files are named
by path. Times are Unix seconds, sizes bytes, durations seconds unless a name says
otherwise. Secrets cross here and nowhere else, so no value of this module is logged.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sleap_rtc_plugin.companion.account_messages import (
    AccountCommand,
    AccountEvent,
    AccountResult,
)
from sleap_rtc_plugin.companion.model_messages import (
    ModelCommand,
    ModelEvent,
    ModelResult,
)
from sleap_rtc_plugin.protocol.errors import ErrorInfo
from sleap_rtc_plugin.session.run_request import MergeChoice, ProjectFacts, RunRequest

__all__ = [
    "AttachJob",
    "Attached",
    "CancelJob",
    "CloseMonitor",
    "Command",
    "Connect",
    "ConnectRemembered",
    "Connected",
    "Disconnect",
    "Done",
    "Event",
    "FetchResults",
    "ForgetResults",
    "ForgetRoom",
    "FromCompanion",
    "ImagesArrived",
    "JobChanged",
    "JobLog",
    "JobRow",
    "Jobs",
    "LinkBack",
    "LinkLost",
    "ListJobs",
    "ListRooms",
    "Log",
    "Notice",
    "OpenMonitor",
    "PackageProgress",
    "Pair",
    "Paired",
    "Request",
    "Response",
    "Result",
    "ResultsHome",
    "RoomChanged",
    "RoomRow",
    "Rooms",
    "Shutdown",
    "SignIn",
    "SignedIn",
    "StepBegan",
    "StepEnded",
    "StopJob",
    "SubmitPackage",
    "SubmitRun",
    "Submitted",
    "ToCompanion",
    "TransferProgress",
    "VideosFound",
    "WaitingResults",
    "WorkerRow",
    "WorkersChanged",
]


class _Value(Struct, frozen=True, kw_only=True):
    """A part of a message."""


class _Tagged(Struct, frozen=True, kw_only=True, tag=True):
    """A message, told from the others by its class name."""


# -- parts -------------------------------------------------------------------------


class RoomRow(_Value, frozen=True):
    """A room this machine can enter; its secret stays with the companion."""

    room_id: str
    server: str
    last_used: float = 0.0


class WorkerRow(_Value, frozen=True):
    """A worker as the table shows it; memory in MiB, None where it did not say.

    `round_trip_ms` is the time of one question and answer through the room, None
    until it was measured. `refusal` is the sentence it refuses jobs with, or empty.
    `link_kind` is by which way it is linked with us, empty without a link.
    """

    worker_id: str
    name: str
    status: str = "unknown"
    device: str = "unknown"
    gpu_model: str | None = None
    gpu_memory_mb: int | None = None
    gpu_free_mb: int | None = None
    queue_length: int = 0
    running_jobs: int = 0
    round_trip_ms: float | None = None
    sleap_nn_version: str | None = None
    refusal: str = ""
    link_kind: str = ""


class JobRow(_Value, frozen=True):
    """A job as the jobs window shows it.

    `step` counts from 0; `epoch` from 0 within the step, `done` of `total` are the
    frames of an inference. Times are None until they are known. `position` in the
    worker's queue counts from 1; results may be removed there after `expires_at`.
    `model` is the id of what was published of it, `alias` the name that it got.
    """

    job_id: str
    worker_id: str
    worker: str
    name: str
    owner: str
    state: str
    step: int | None = None
    steps: int = 1
    epoch: int | None = None
    done: int = 0
    total: int = 0
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    is_followed: bool = False
    error: str = ""
    position: int | None = None
    starts_in_s: float | None = None
    restarts: int = 0
    expires_at: float | None = None
    are_results_removed: bool = False
    model: str = ""
    alias: str = ""


# -- commands ------------------------------------------------------------------------


class ListRooms(_Tagged, frozen=True):
    """Which rooms are remembered? Answered with `Rooms`."""


class Connect(_Tagged, frozen=True):
    """Enter the room of a session string. Answered with `Connected`."""

    session: str
    remember: bool = True


class ConnectRemembered(_Tagged, frozen=True):
    """Enter a remembered room. Answered with `Connected`."""

    room_id: str


class SignIn(_Tagged, frozen=True):
    """Open a new room at a server, and enter it. Answered with `SignedIn`.

    It belongs to the account that is signed in there, or to one without a name.
    """

    server: str
    remember: bool = True


class Pair(_Tagged, frozen=True):
    """Enter the room of the worker that shows this code. Answered with `Paired`."""

    server: str
    code: str
    remember: bool = True


class Disconnect(_Tagged, frozen=True):
    """Leave the room; followed jobs go on unwatched. Answered with `Done`."""


class ForgetRoom(_Tagged, frozen=True):
    """Remove a room from the keyring. Answered with `Done`."""

    room_id: str


class SubmitRun(_Tagged, frozen=True):
    """Build the package of a run, send it, follow the job, bring its results home.

    Answered with `Submitted` at once; the rest are events. The same `job_id` again
    goes on with the same job, and does not build a package that is built.
    """

    job_id: str
    worker_id: str
    run: RunRequest


class SubmitPackage(_Tagged, frozen=True):
    """The same with a package that exists; results go to the folder `output`."""

    job_id: str
    worker_id: str
    package: str
    output: str


class ListJobs(_Tagged, frozen=True):
    """Which jobs does a worker have? Answered with `Jobs`."""

    worker_id: str


class AttachJob(_Tagged, frozen=True):
    """Follow a job from its first event on. Answered with `Attached`.

    `output` is the folder its results are for when it ends; None follows only.
    """

    worker_id: str
    job_id: str
    output: str | None = None


class StopJob(_Tagged, frozen=True):
    """End the training and keep its model. Answered with `Done`."""

    worker_id: str
    job_id: str
    scope: Literal["step", "job"] = "step"


class CancelJob(_Tagged, frozen=True):
    """End the job and discard it; also while its package is built or sent.

    Answered with `Done`.
    """

    worker_id: str
    job_id: str


class FetchResults(_Tagged, frozen=True):
    """Bring the results of an ended job to a folder.

    Answered with `Done` at once; `TransferProgress`, then `ResultsHome` follow, or a
    `JobChanged` that says why not.
    """

    worker_id: str
    job_id: str
    output: str


class JobLog(_Tagged, frozen=True):
    """What has the trainer of a followed job written lately? Answered with `Log`."""

    job_id: str


class OpenMonitor(_Tagged, frozen=True):
    """Feed the LossViewer that has bound these ports, from the step's first event on.

    `what` is the head name that the viewer was reset to. Answered with `Done`.
    """

    job_id: str
    step: int
    publish_port: Annotated[int, Meta(ge=1, le=65535)]
    controller_port: Annotated[int, Meta(ge=1, le=65535)]
    what: str


class CloseMonitor(_Tagged, frozen=True):
    """Stop feeding a LossViewer. Answered with `Done`."""

    job_id: str
    step: int


class WaitingResults(_Tagged, frozen=True):
    """Say `ResultsHome` again for all that is home and not merged; then `Done`."""


class ForgetResults(_Tagged, frozen=True):
    """The results of a job were merged, or the user does not want them merged."""

    job_id: str


class Shutdown(_Tagged, frozen=True):
    """End; with `finish_sending` go on until packages that are on their way arrived."""

    finish_sending: bool = False


Command = (
    ListRooms
    | Connect
    | ConnectRemembered
    | SignIn
    | Pair
    | Disconnect
    | ForgetRoom
    | SubmitRun
    | SubmitPackage
    | ListJobs
    | AttachJob
    | StopJob
    | CancelJob
    | FetchResults
    | JobLog
    | OpenMonitor
    | CloseMonitor
    | WaitingResults
    | ForgetResults
    | Shutdown
    | ModelCommand
    | AccountCommand
)


# -- results -------------------------------------------------------------------------


class Done(_Tagged, frozen=True):
    """It was carried out, and there is nothing to say."""


class Rooms(_Tagged, frozen=True):
    """The remembered rooms, the last used first."""

    rooms: list[RoomRow]


class Connected(_Tagged, frozen=True):
    """The room was entered."""

    room: RoomRow


class SignedIn(_Tagged, frozen=True):
    """A new room was opened and entered.

    `session` is for the user to hand to workers and colleagues.
    """

    room: RoomRow
    session: str


class Paired(_Tagged, frozen=True):
    """The room of a code is entered; `session` is what the worker handed over."""

    room: RoomRow
    session: str


class Submitted(_Tagged, frozen=True):
    """The companion has taken the run; events say how it goes."""

    job_id: str


class Jobs(_Tagged, frozen=True):
    """A worker's jobs, the newest first."""

    jobs: list[JobRow]


class Attached(_Tagged, frozen=True):
    """The job is followed."""

    job: JobRow


class Log(_Tagged, frozen=True):
    """The last lines of a job's trainer, the oldest first."""

    lines: list[str]


Result = (
    Done
    | Rooms
    | Connected
    | SignedIn
    | Paired
    | Submitted
    | Jobs
    | Attached
    | Log
    | ModelResult
    | AccountResult
)


# -- events --------------------------------------------------------------------------


class RoomChanged(_Tagged, frozen=True):
    """The connection to the room changed; `reason` is a sentence, or empty."""

    state: Literal["online", "offline"]
    room: RoomRow | None = None
    reason: str = ""


class WorkersChanged(_Tagged, frozen=True):
    """Who is in the room now; sent every few seconds while connected."""

    workers: list[WorkerRow]


class PackageProgress(_Tagged, frozen=True):
    """The package is being built.

    `phase` says what is counted: frames being embedded, or bytes being read.
    """

    job_id: str
    phase: Literal["loading", "embedding", "reading"]
    done: int = 0
    total: int = 0


class VideosFound(_Tagged, frozen=True):
    """The worker has `found` of the `total` videos of a run itself.

    `is_complete` is false where it could not look everywhere in time.
    """

    job_id: str
    found: int
    total: int
    is_complete: bool = True


class TransferProgress(_Tagged, frozen=True):
    """Bytes are moving, a few times a second.

    `done` of `total` are in place, of which `reused` were there already; `rate` is in
    bytes per second, `seconds_left` None while it cannot be told.
    """

    job_id: str
    purpose: Literal["package", "results"]
    done: int
    total: int
    reused: int = 0
    rate: float = 0.0
    seconds_left: float | None = None


class JobChanged(_Tagged, frozen=True):
    """Something changed of a followed job; sent at most a few times a second.

    `error` is what went wrong, in words by its code, or None; `publish_error` why its
    models, or their alias, were not published.
    """

    job: JobRow
    losses: dict[str, float] = {}
    rate: float = 0.0
    error: ErrorInfo | None = None
    publish_error: ErrorInfo | None = None


class StepBegan(_Tagged, frozen=True):
    """A followed job's training of one model began: time for its monitor.

    `patience` and `min_delta` are those of early stopping, where they are known;
    `shows_images` says that validation images will come. `is_replay` marks a step
    that had ended before it was attached.
    """

    job_id: str
    worker: str
    step: int
    head: str
    run_name: str
    patience: int | None = None
    min_delta: float | None = None
    shows_images: bool = False
    is_replay: bool = False


class StepEnded(_Tagged, frozen=True):
    """The training of one model ended."""

    job_id: str
    step: int


class ImagesArrived(_Tagged, frozen=True):
    """New validation images are in `folder`/viz."""

    job_id: str
    step: int
    folder: str


class LinkLost(_Tagged, frozen=True):
    """The worker of a followed job cannot be reached; the companion keeps trying."""

    job_id: str
    reason: str


class LinkBack(_Tagged, frozen=True):
    """The worker of a followed job is there again, nothing was missed."""

    job_id: str


class ResultsHome(_Tagged, frozen=True):
    """A job's results are in place and verified.

    `project` and `merge` are None for a job that was not submitted from a project.
    """

    job_id: str
    worker: str
    models: list[str]
    predictions: list[str]
    project: ProjectFacts | None = None
    merge: MergeChoice | None = None


Event = (
    RoomChanged
    | WorkersChanged
    | PackageProgress
    | VideosFound
    | TransferProgress
    | JobChanged
    | StepBegan
    | StepEnded
    | ImagesArrived
    | LinkLost
    | LinkBack
    | ResultsHome
    | ModelEvent
    | AccountEvent
)


# -- envelopes -----------------------------------------------------------------------


class Request(_Tagged, frozen=True):
    """A command and the number of its answer."""

    id: int
    command: Command


class Response(_Tagged, frozen=True):
    """The answer to the request of this number: a result, or why there is none."""

    id: int
    result: Result | None = None
    error: ErrorInfo | None = None


class Notice(_Tagged, frozen=True):
    """Something happened."""

    event: Event


ToCompanion = Request
FromCompanion = Response | Notice

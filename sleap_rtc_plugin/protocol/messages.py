"""The messages of the control channel between a client and a worker.

Each class is one frame, `NAME::{json}`. Commands carry
an id and are acknowledged; job events are numbered per job, so that a client may
ask for whatever it missed. Others are in `mount_messages`, `queue_messages`,
`model_messages`, `live_messages`, `shared_storage_messages` and `link_test_messages`.
"""

from typing import Annotated, ClassVar, Final, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, field

from sleap_rtc_plugin.protocol.errors import ErrorInfo
from sleap_rtc_plugin.protocol.frames import (
    CommandId,
    Count,
    Frame,
    Hex32,
    JobId,
    Name,
    OwnerId,
    Path,
    UnixTime,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_FEATURES,
    MAX_JOBS_PER_PAGE,
    MAX_LOG_LINE_CHARS,
    MAX_LOG_LINES_PER_EVENT,
    MAX_LOSSES_PER_EVENT,
    MAX_NEED_RANGES,
    MAX_OPTION_CHARS,
    MAX_STEP_OPTIONS,
    MAX_STEPS,
)
from sleap_rtc_plugin.protocol.link_test_messages import LinkTestMessage
from sleap_rtc_plugin.protocol.live_messages import LiveMessage
from sleap_rtc_plugin.protocol.model_messages import ModelMessage
from sleap_rtc_plugin.protocol.model_records import Alias, ModelId, Publication
from sleap_rtc_plugin.protocol.mount_messages import (
    MountList,
    MountListing,
    MountResolve,
    MountResolved,
)
from sleap_rtc_plugin.protocol.queue_messages import JobQueue, Position, StartsIn
from sleap_rtc_plugin.protocol.shared_storage_messages import (
    PathError,
    PathValidated,
    SharedInputPath,
    SharedJobComplete,
    SharedJobId,
    SharedOutputPath,
    SharedStorageJob,
)

__all__ = [
    "CONTROL_TYPES",
    "Acknowledged",
    "Auth",
    "CommandFailed",
    "ControlMessage",
    "FileDone",
    "FileMeta",
    "FileNeed",
    "FilePurpose",
    "Hello",
    "JobAccepted",
    "JobAttach",
    "JobCancel",
    "JobDescribe",
    "JobDescribed",
    "JobEvent",
    "JobFetch",
    "JobList",
    "JobListed",
    "JobPart",
    "JobRejected",
    "JobSpec",
    "JobSubmit",
    "JobSummary",
    "KeepAlive",
    "ModelPublished",
    "NumberedEvent",
    "PathError",
    "PathValidated",
    "PredictStep",
    "ProgressReport",
    "SharedInputPath",
    "SharedJobComplete",
    "SharedJobId",
    "SharedOutputPath",
    "SharedStorageJob",
    "Step",
    "StepEvent",
    "StopScope",
    "TrainLog",
    "TrainStep",
    "ZmqCtrl",
]

TransferId = Annotated[str, Meta(pattern=r"^transfer-[0-9a-f]{20}\Z")]
Stream = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Option = Annotated[str, Meta(max_length=MAX_OPTION_CHARS)]
Ranges = Annotated[list[tuple[Stream, Stream]], Meta(max_length=MAX_NEED_RANGES)]
LogLine = Annotated[str, Meta(max_length=MAX_LOG_LINE_CHARS)]
StopScope = Literal["step", "job"]
JobPart = Literal["results", "images"]
FilePurpose = Literal["package", "results", "images", "model"]


# -- opening the link ----------------------------------------------------------


class Hello(Frame, frozen=True):
    """The first frame each way: who speaks, which versions, which features.

    `engine` says what moves the sender's data channels, for a log: `fast` or `aiortc`.
    """

    NAME: ClassVar[str] = "HELLO"
    role: Literal["client", "worker"]
    protocol_min: Annotated[int, Meta(ge=1, le=1000)]
    protocol_max: Annotated[int, Meta(ge=1, le=1000)]
    nonce: Hex32
    software: Name = ""
    engine: Name = ""
    features: Annotated[list[Name], Meta(max_length=MAX_FEATURES)] = field(
        default_factory=list
    )


class Auth(Frame, frozen=True):
    """The second frame each way: proof of the secret, bound to this very link."""

    NAME: ClassVar[str] = "AUTH"
    mac: Hex32


class KeepAlive(Frame, frozen=True):
    """Sent every few seconds; `echo` asks for one in return."""

    NAME: ClassVar[str] = "KEEP_ALIVE"
    echo: bool = False


# -- what a job is ---------------------------------------------------------------


class TrainStep(Struct, frozen=True, kw_only=True, tag="train"):
    """Train one model.

    Attributes:
        config: the configuration's path inside the package.
        labels: the training labels' path inside the package.
        run_name: the folder below `models/` that the model is written to.
        head: the model type, as sleap-nn names its heads.
    """

    config: Path
    labels: Path
    run_name: Path
    head: Name


class PredictStep(Struct, frozen=True, kw_only=True, tag="predict"):
    """Predict on labels or a video of the package.

    The models are of this job, of the package, or of the room's registry; at least one
    is named.

    Attributes:
        data: the path of the labels or the video inside the package.
        models: folders, `models/<run name>` or a path inside the package.
        published: a model of the registry, or None; it is used with no others.
        output: the file name that the predictions get.
        options: inference options of sleap-nn by name, without the dashes; a flag
            has an empty value.
    """

    data: Path
    models: Annotated[list[Path], Meta(max_length=8)] = []
    published: ModelId | None = None
    output: Path
    options: Annotated[dict[Name, Option], Meta(max_length=MAX_STEP_OPTIONS)] = {}


Step = TrainStep | PredictStep


class JobSpec(Struct, frozen=True, kw_only=True):
    """A job: one package and the ordered steps to run on it.

    `allow_wandb` lets the training report to Weights & Biases with the key that the
    user chose to send; it is false unless the user asked for it. With `publish` the
    models that the job trained are published together, as one model, once all
    trainings ended well.
    """

    name: Name
    owner: Name = ""
    steps: Annotated[list[Step], Meta(min_length=1, max_length=MAX_STEPS)]
    allow_wandb: bool = False
    publish: Publication | None = None


class JobSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job in one row of a list. Times are the worker's clock (Unix seconds).

    Attributes:
        state: where it stands.
        steps: how many there are.
        step: the one that runs or ran last, by its index.
        epoch: of that step, counted from 0.
        done: frames that the step has predicted.
        total: frames that it is to predict.
        started_at: when its first step began.
        ended_at: when it reached its end.
        last_seq: the number of its newest event.
        error: why it did not end well.
        position: in the queue, 1 for the job that begins next.
        starts_in_s: the estimated time until it begins.
        restarts: how often its step was begun again after a fault of the machine.
        expires_at: when its results may be removed, or were.
        results_removed: whether they were.
        model: what was published of it.
    """

    job_id: JobId
    name: Name
    owner: Name = ""
    state: Name
    steps: Annotated[int, Meta(ge=1, le=MAX_STEPS)]
    step: Count | None = None
    epoch: Count | None = None
    done: Count = 0
    total: Count = 0
    created_at: UnixTime
    started_at: UnixTime | None = None
    ended_at: UnixTime | None = None
    last_seq: Count = 0
    error: ErrorInfo | None = None
    position: Position | None = None
    starts_in_s: StartsIn | None = None
    restarts: Count = 0
    expires_at: UnixTime | None = None
    results_removed: bool = False
    model: ModelId | None = None


# -- commands --------------------------------------------------------------------


class JobSubmit(Frame, frozen=True):
    """Submit a job. Submitting the same id and contents again is the same job.

    `package_digest` is the digest of the manifest that `FILE_META` then offers.
    """

    NAME: ClassVar[str] = "JOB_SUBMIT"
    command_id: CommandId
    job_id: JobId
    spec: JobSpec
    package_digest: Hex32
    package_bytes: Count


class JobAccepted(Frame, frozen=True):
    """The worker took the job (or already had it); `state` is where it stands."""

    NAME: ClassVar[str] = "JOB_ACCEPTED"
    command_id: CommandId
    job_id: JobId
    state: Name
    last_seq: Count = 0


class JobRejected(Frame, frozen=True):
    """The worker did not take the job."""

    NAME: ClassVar[str] = "JOB_REJECTED"
    command_id: CommandId
    job_id: JobId
    error: ErrorInfo


class JobAttach(Frame, frozen=True):
    """Send this job's events from number `since + 1` on, and go on sending."""

    NAME: ClassVar[str] = "JOB_ATTACH"
    command_id: CommandId
    job_id: JobId
    since: Count = 0


class ZmqCtrl(Frame, frozen=True):
    """Stop a training through sleap-nn's own controller and keep the model.

    With scope `step` the job goes on with its next step, as in SLEAP; with `job`
    the steps that have not begun are left out.
    """

    NAME: ClassVar[str] = "ZMQ_CTRL"
    command_id: CommandId
    job_id: JobId
    command: Literal["stop"]
    scope: StopScope = "step"


class JobCancel(Frame, frozen=True):
    """End the job now and discard it."""

    NAME: ClassVar[str] = "JOB_CANCEL"
    command_id: CommandId
    job_id: JobId


class JobFetch(Frame, frozen=True):
    """Offer files of a job; the worker answers with `FILE_META`.

    The results are there when the job has ended; the images are those that the
    training `step` has drawn so far.
    """

    NAME: ClassVar[str] = "JOB_FETCH"
    command_id: CommandId
    job_id: JobId
    part: JobPart = "results"
    step: Count | None = None


class JobList(Frame, frozen=True):
    """List the worker's jobs, the newest first, from the one after `after` on."""

    NAME: ClassVar[str] = "JOB_LIST"
    command_id: CommandId
    after: JobId | None = None


class JobListed(Frame, frozen=True):
    """A page of the worker's jobs; `more` says that older ones follow."""

    NAME: ClassVar[str] = "JOB_LISTED"
    command_id: CommandId
    jobs: Annotated[list[JobSummary], Meta(max_length=MAX_JOBS_PER_PAGE)]
    more: bool = False


class JobDescribe(Frame, frozen=True):
    """Tell what a job is, so that a client that did not submit it can follow it."""

    NAME: ClassVar[str] = "JOB_DESCRIBE"
    command_id: CommandId
    job_id: JobId


class JobDescribed(Frame, frozen=True):
    """What a job is and where it stands."""

    NAME: ClassVar[str] = "JOB_DESCRIBED"
    command_id: CommandId
    job: JobSummary
    spec: JobSpec


class Acknowledged(Frame, frozen=True):
    """The command was carried out; `last_seq` is the job's newest event number."""

    NAME: ClassVar[str] = "ACK"
    command_id: CommandId
    last_seq: Count = 0


class CommandFailed(Frame, frozen=True):
    """The command was not carried out."""

    NAME: ClassVar[str] = "NACK"
    command_id: CommandId
    error: ErrorInfo


# -- files -------------------------------------------------------------------------


class FileMeta(Frame, frozen=True):
    """Offer files: a manifest of this size and digest, to be asked for.

    `stream` marks this transfer's fragments on the transfer channel. `job_id` is the
    job that they belong to, or the model.
    """

    NAME: ClassVar[str] = "FILE_META"
    transfer_id: TransferId
    stream: Stream
    job_id: OwnerId
    purpose: FilePurpose
    manifest_bytes: Count
    manifest_digest: Hex32
    total_bytes: Count
    file_count: Count


class FileNeed(Frame, frozen=True):
    """Ask for the manifest, or for chunks by inclusive ranges of their numbers.

    What is asked for and not yet received is the receiver's credit: the sender
    sends nothing else.
    """

    NAME: ClassVar[str] = "FILE_NEED"
    transfer_id: TransferId
    manifest: bool = False
    chunks: Ranges = field(default_factory=list)
    reused_bytes: Count | UnsetType = UNSET


class FileDone(Frame, frozen=True):
    """The transfer has ended: from the receiver, all is verified and in place.

    With an `error`, from either side, it ended without that.
    """

    NAME: ClassVar[str] = "FILE_DONE"
    transfer_id: TransferId
    error: ErrorInfo | None = None


# -- numbered events of a job ----------------------------------------------------


class NumberedEvent(Frame, frozen=True):
    """What happened to a job, in order. `at` is the worker's clock (Unix seconds)."""

    job_id: JobId
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    at: float


class JobEvent(NumberedEvent, frozen=True):
    """The job's state changed; `error` says why where it went wrong."""

    NAME: ClassVar[str] = "JOB_EVENT"
    state: Name
    step: Count | None = None
    error: ErrorInfo | None = None


class ProgressReport(NumberedEvent, frozen=True):
    """A step's progress, rebuilt field by field from what the trainer said.

    Attributes:
        step: the step's index in the job.
        kind: the trainer's event, or `predict` for inference.
        epoch: counted from 0.
        batch: counted from 0 within the epoch.
        losses: finite numbers by the trainer's own names.
        done: frames predicted so far.
        total: frames to predict.
        rate: frames per second.
    """

    NAME: ClassVar[str] = "PROGRESS_REPORT"
    step: Count
    kind: Literal[
        "train_begin", "epoch_begin", "batch_end", "epoch_end", "train_end", "predict"
    ]
    epoch: Count | None = None
    batch: Count | None = None
    losses: Annotated[dict[Name, float], Meta(max_length=MAX_LOSSES_PER_EVENT)] = field(
        default_factory=dict
    )
    done: Count | None = None
    total: Count | None = None
    rate: float | None = None


class TrainLog(NumberedEvent, frozen=True):
    """Lines of the trainer's output, cleaned and bounded."""

    NAME: ClassVar[str] = "TRAIN_LOG"
    step: Count
    lines: Annotated[list[LogLine], Meta(max_length=MAX_LOG_LINES_PER_EVENT)]
    dropped: Count = 0


class ModelPublished(NumberedEvent, frozen=True):
    """The models of a job are in the registry, or `error` says why they are not.

    `alias` is the one that they got; another may have taken it meanwhile.
    """

    NAME: ClassVar[str] = "MODEL_PUBLISHED"
    model: ModelId | None = None
    alias: Alias | None = None
    error: ErrorInfo | None = None


StepEvent = JobEvent | ProgressReport | TrainLog | ModelPublished

ControlMessage = (
    Hello
    | Auth
    | KeepAlive
    | JobSubmit
    | JobAccepted
    | JobRejected
    | JobAttach
    | ZmqCtrl
    | JobCancel
    | JobFetch
    | JobList
    | JobListed
    | JobDescribe
    | JobDescribed
    | Acknowledged
    | CommandFailed
    | FileMeta
    | FileNeed
    | FileDone
    | SharedJobId
    | SharedInputPath
    | SharedOutputPath
    | PathValidated
    | PathError
    | SharedStorageJob
    | SharedJobComplete
    | MountList
    | MountListing
    | MountResolve
    | MountResolved
    | LinkTestMessage
    | ModelMessage
    | LiveMessage
    | JobEvent
    | ProgressReport
    | TrainLog
    | ModelPublished
    | JobQueue
)

CONTROL_TYPES: Final[tuple[type[ControlMessage], ...]] = get_args(ControlMessage)

"""The commands that a client sends over a link, their replies, and what they need.

Pure. `WorkerLink` asks before it sends: a worker of an older version would take a
frame that it does not know for a breach, and hang up.
"""

from sleap_rtc_plugin.protocol.features import (
    JOB_IMAGES,
    JOB_LIST,
    LINK_TEST,
    LIVE,
    MODELS,
    MOUNTS,
    SHARED_STORAGE,
)
from sleap_rtc_plugin.protocol.limits import (
    COMMAND_REPLY_TIMEOUT_S,
    LIVE_START_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.link_test_messages import (
    LinkTest,
    StorageTest,
    StorageTested,
)
from sleap_rtc_plugin.protocol.live_messages import (
    LiveReport,
    LiveStart,
    LiveStarted,
    LiveStop,
)
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    JobAccepted,
    JobAttach,
    JobCancel,
    JobDescribe,
    JobDescribed,
    JobFetch,
    JobList,
    JobListed,
    JobSubmit,
    PathValidated,
    PredictStep,
    SharedInputPath,
    SharedJobId,
    SharedOutputPath,
    SharedStorageJob,
    TrainStep,
    ZmqCtrl,
)
from sleap_rtc_plugin.protocol.model_messages import (
    ModelChange,
    ModelChanged,
    ModelCommit,
    ModelDescribe,
    ModelDescribed,
    ModelFetch,
    ModelList,
    ModelListed,
    ModelPush,
)
from sleap_rtc_plugin.protocol.mount_messages import (
    MountList,
    MountListing,
    MountResolve,
    MountResolved,
)

__all__ = [
    "Command",
    "FilesCommand",
    "Reply",
    "feature_of",
    "offer_of",
    "reply_timeout_s",
]

SharedCommand = SharedJobId | SharedInputPath | SharedOutputPath | SharedStorageJob
ModelCommand = (
    ModelList | ModelDescribe | ModelChange | ModelPush | ModelCommit | ModelFetch
)
# Those that are answered by an offer of files.
FilesCommand = JobFetch | ModelFetch
Command = (
    JobSubmit
    | JobAttach
    | ZmqCtrl
    | JobCancel
    | JobFetch
    | JobList
    | JobDescribe
    | SharedCommand
    | MountList
    | MountResolve
    | LinkTest
    | StorageTest
    | ModelCommand
    | LiveStart
    | LiveStop
)
# Those that settle a command by its id; a report that names none is news.
Reply = (
    JobAccepted
    | Acknowledged
    | JobListed
    | JobDescribed
    | PathValidated
    | MountListing
    | MountResolved
    | StorageTested
    | ModelListed
    | ModelDescribed
    | ModelChanged
    | LiveStarted
    | LiveReport
)


def feature_of(command: Command) -> tuple[str, str] | None:
    """Return the feature that a command needs and words for what it does.

    None for what every worker knows.
    """
    match command:
        case JobSubmit(spec=spec) if spec.publish is not None:
            return MODELS, "publishing models"
        case JobSubmit(spec=spec) if any(_uses_published(s) for s in spec.steps):
            return MODELS, "predicting with published models"
        case JobList() | JobDescribe():
            return JOB_LIST, "listing its jobs"
        case JobFetch(part="images"):
            return JOB_IMAGES, "sending validation images"
        case SharedJobId():
            # The first of these frames; the others follow its answer.
            return SHARED_STORAGE, "using shared storage"
        case MountList() | MountResolve():
            return MOUNTS, "looking into its mounts"
        case LinkTest() | StorageTest():
            return LINK_TEST, "testing the connection"
        case LiveStart() | LiveStop():
            return LIVE, "taking live frames"
    if isinstance(command, ModelCommand):
        return MODELS, "sharing models"
    return None


def _uses_published(step: TrainStep | PredictStep) -> bool:
    return isinstance(step, PredictStep) and step.published is not None


def offer_of(command: FilesCommand) -> tuple[str, str]:
    """Return by which owner and purpose the answer to a command is known."""
    if isinstance(command, ModelFetch):
        return command.model, "model"
    return command.job_id, command.part


def reply_timeout_s(command: Command) -> float:
    """Return how long a reply may take: a model is fetched and loaded before one."""
    if isinstance(command, LiveStart):
        return COMMAND_REPLY_TIMEOUT_S + LIVE_START_TIMEOUT_S
    return COMMAND_REPLY_TIMEOUT_S

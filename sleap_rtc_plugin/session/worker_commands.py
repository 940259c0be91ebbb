"""The commands that a client sends over a link, their replies, and what they need.

Pure. `WorkerLink` asks before it sends: a worker of an older version would take a
frame that it does not know for a breach, and hang up.
"""

from sleap_rtc_plugin.protocol.features import (
    JOB_IMAGES,
    JOB_LIST,
    LINK_TEST,
    MODELS,
    MOUNTS,
    SHARED_STORAGE,
)
from sleap_rtc_plugin.protocol.link_test_messages import (
    LinkTest,
    StorageTest,
    StorageTested,
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
    SharedInputPath,
    SharedJobId,
    SharedOutputPath,
    SharedStorageJob,
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

__all__ = ["Command", "FilesCommand", "Reply", "feature_of", "offer_of"]

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
)
# Those that settle a command by its id alone.
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
)


def feature_of(command: Command) -> tuple[str, str] | None:
    """Return the feature that a command needs and words for what it does.

    None for what every worker knows.
    """
    match command:
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
    if isinstance(command, ModelCommand):
        return MODELS, "sharing models"
    return None


def offer_of(command: FilesCommand) -> tuple[str, str]:
    """Return by which owner and purpose the answer to a command is known."""
    if isinstance(command, ModelFetch):
        return command.model, "model"
    return command.job_id, command.part

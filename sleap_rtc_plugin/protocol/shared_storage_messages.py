"""Frames about storage that the client and the worker both mount.

Part of `messages.ControlMessage`; where the files lie there is in `shared_storage`.
"""

from typing import ClassVar

from sleap_rtc_plugin.protocol.errors import ErrorInfo
from sleap_rtc_plugin.protocol.frames import CommandId, Frame, Hex32, JobId, Path

__all__ = [
    "PathError",
    "PathValidated",
    "SharedInputPath",
    "SharedJobComplete",
    "SharedJobId",
    "SharedOutputPath",
    "SharedStorageJob",
]


class SharedJobId(Frame, frozen=True):
    """Ask to move this job's files through a folder that both sides mount.

    `probe` names the file below `probes/` in which the client wrote a random nonce.
    """

    NAME: ClassVar[str] = "JOB_ID"
    command_id: CommandId
    job_id: JobId
    probe: Hex32


class SharedInputPath(Frame, frozen=True):
    """Name the folder, relative to the root, that the package will lie in."""

    NAME: ClassVar[str] = "SHARED_INPUT_PATH"
    command_id: CommandId
    job_id: JobId
    path: Path


class SharedOutputPath(Frame, frozen=True):
    """Name the folder, relative to the root, that the results are to lie in.

    Once it is validated they are copied there, which `JOB_COMPLETE` tells.
    """

    NAME: ClassVar[str] = "SHARED_OUTPUT_PATH"
    command_id: CommandId
    job_id: JobId
    path: Path


class PathValidated(Frame, frozen=True):
    """The worker can use what was named; `proof` answers a probe."""

    NAME: ClassVar[str] = "PATH_VALIDATED"
    command_id: CommandId
    job_id: JobId
    proof: Hex32 | None = None


class PathError(Frame, frozen=True):
    """The worker cannot use it; the files go over the link."""

    NAME: ClassVar[str] = "PATH_ERROR"
    command_id: CommandId
    job_id: JobId
    error: ErrorInfo


class SharedStorageJob(Frame, frozen=True):
    """The package lies in its folder; take stock there when it is offered."""

    NAME: ClassVar[str] = "SHARED_STORAGE_JOB"
    command_id: CommandId
    job_id: JobId


class SharedJobComplete(Frame, frozen=True):
    """The results lie in the folder that `SHARED_OUTPUT_PATH` named."""

    NAME: ClassVar[str] = "JOB_COMPLETE"
    command_id: CommandId
    job_id: JobId
    path: Path

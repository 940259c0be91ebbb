"""The frames about a worker's mounts: what lies there, and which of a client's files.

A mount is a folder that the worker's owner named (`--mount NAME=PATH`) and that is read
only. Sent on a link where both sides named the feature `mounts`; part of
`messages.ControlMessage`.
"""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct, field

from sleap_rtc_plugin.protocol.frames import (
    CommandId,
    Count,
    Frame,
    Hex32,
    JobId,
    Path,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_CLIENT_PATH_CHARS,
    MAX_MOUNT_ENTRIES_PER_PAGE,
    MAX_MOUNT_ENTRY_CHARS,
    MAX_MOUNT_NAME_CHARS,
    MAX_MOUNT_PATH_CHARS,
    MAX_WANTED_FILES,
)

__all__ = [
    "EntryKind",
    "FoundFile",
    "MountEntry",
    "MountList",
    "MountListing",
    "MountPlace",
    "MountResolve",
    "MountResolved",
    "WantedFile",
]

MountName = Annotated[
    str, Meta(max_length=MAX_MOUNT_NAME_CHARS, pattern=r"^[A-Za-z0-9._-]+\Z")
]
MountPath = Annotated[str, Meta(max_length=MAX_MOUNT_PATH_CHARS)]
EntryName = Annotated[str, Meta(min_length=1, max_length=MAX_MOUNT_ENTRY_CHARS)]
ClientPath = Annotated[str, Meta(min_length=1, max_length=MAX_CLIENT_PATH_CHARS)]
EntryKind = Literal["mount", "folder", "file"]


class MountPlace(Struct, frozen=True, kw_only=True):
    """A place on a mount: its path is relative, with `/`, and empty for the mount."""

    mount: MountName
    path: MountPath = ""


class MountEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies in a folder. `size_bytes` is a file's."""

    name: EntryName
    kind: EntryKind
    size_bytes: Count = 0


class WantedFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of the client's, to be looked for.

    Attributes:
        path: where the client has it, as its system writes it.
        size_bytes: its size.
        sample: the digest of its samples (`protocol.mounts`).
        hint: where it probably is.
        member: the file of the job's package that it is, where it is one.
    """

    path: ClientPath
    size_bytes: Count
    sample: Hex32
    hint: MountPlace | None = None
    member: Path | None = None


class FoundFile(Struct, frozen=True, kw_only=True):
    """Where the worker has the wanted file number `index`."""

    index: Count
    place: MountPlace


class MountList(Frame, frozen=True):
    """List a folder of a mount, or the mounts, from the entry after `after` on."""

    NAME: ClassVar[str] = "MOUNT_LIST"
    command_id: CommandId
    place: MountPlace | None = None
    after: Annotated[str, Meta(max_length=MAX_MOUNT_ENTRY_CHARS)] = ""


class MountListing(Frame, frozen=True):
    """A page of a folder, by name; `more` says that it goes on.

    `is_complete` is false where the folder holds more than the worker looks at.
    """

    NAME: ClassVar[str] = "MOUNT_LISTING"
    command_id: CommandId
    entries: Annotated[list[MountEntry], Meta(max_length=MAX_MOUNT_ENTRIES_PER_PAGE)]
    more: bool = False
    is_complete: bool = True


class MountResolve(Frame, frozen=True):
    """Look for files of the client's on the mounts.

    With a `job_id`, what is found of the job's package need not be sent: the worker
    takes stock there as well when the package is offered.
    """

    NAME: ClassVar[str] = "MOUNT_RESOLVE"
    command_id: CommandId
    files: Annotated[list[WantedFile], Meta(max_length=MAX_WANTED_FILES)]
    job_id: JobId | None = None


class MountResolved(Frame, frozen=True):
    """Which of the wanted files are on the mounts.

    Attributes:
        found: those, each at one place.
        roots: the absolute paths on the worker of the mounts that `found` names.
        is_complete: whether all was searched within the bounds; if not, a file that
            was not found may be there.
    """

    NAME: ClassVar[str] = "MOUNT_RESOLVED"
    command_id: CommandId
    found: Annotated[list[FoundFile], Meta(max_length=MAX_WANTED_FILES)] = field(
        default_factory=list
    )
    roots: Annotated[
        dict[MountName, Annotated[str, Meta(max_length=MAX_MOUNT_PATH_CHARS)]],
        Meta(max_length=MAX_WANTED_FILES),
    ] = field(default_factory=dict)
    is_complete: bool = True

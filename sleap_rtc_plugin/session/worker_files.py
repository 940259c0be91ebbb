"""Looks into a worker's mounts: what lies there, and which of the user's files.

Asks only workers that know the question, and takes no answer on trust that it did not
ask for. That a file was found spares its bytes; whoever uses it has them checked again.
Used by the command line, by submissions, and for the videos of a project.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError, RtcError
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.limits import (
    MAX_CLIENT_PATH_CHARS,
    MAX_MOUNT_FOLDER_ENTRIES,
    MAX_WANTED_FILES,
    MIB,
)
from sleap_rtc_plugin.protocol.mount_messages import (
    MountEntry,
    MountList,
    MountListing,
    MountPlace,
    MountResolve,
    MountResolved,
    WantedFile,
)
from sleap_rtc_plugin.protocol.mounts import client_parts, entry_fault, place_fault
from sleap_rtc_plugin.session.mount_memory import MountMemory, corrected, hint_for
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.file_samples import sample_file
from sleap_rtc_plugin.transport.file_source import FileSource

__all__ = [
    "FoundFiles",
    "LocalFile",
    "WorkerFile",
    "find_files",
    "find_package_files",
    "list_place",
]

logger = logging.getLogger(__name__)

# Smaller files are sent sooner than they are looked for.
MIN_LOOKED_FOR_BYTES: Final = 1 * MIB


@dataclass(frozen=True)
class LocalFile:
    """A file of the user's that a worker may have.

    Attributes:
        path: where the user has it.
        size_bytes: its size.
        sample: the digest of its samples, in hex.
        member: which file of the package it is, if any.
    """

    path: str
    size_bytes: int
    sample: str
    member: str | None = None

    @classmethod
    def read(
        cls, path: Path, *, known_as: Path | None = None, member: str | None = None
    ) -> "LocalFile":
        """Read the samples of a file; `known_as` is its path where it was first.

        Raises:
            OSError: it cannot be read.
        """
        size_bytes, sample = sample_file(path)
        return cls(str(known_as or path.absolute()), size_bytes, sample, member)


@dataclass(frozen=True)
class WorkerFile:
    """Where a worker has a file.

    Attributes:
        file: the user's.
        place: on which mount.
        location: its absolute path on the worker.
    """

    file: LocalFile
    place: MountPlace
    location: str


@dataclass
class FoundFiles:
    """What a worker has of some files, and whether it looked everywhere."""

    files: list[WorkerFile] = field(default_factory=list)
    is_complete: bool = True


async def list_place(
    link: WorkerLink, place: MountPlace | None
) -> tuple[list[MountEntry], bool]:
    """Return what lies in a folder of a mount, or the mounts, and whether it is all.

    Raises:
        MountUnusable: there is no such folder, or it does not answer.
        RtcError: the worker does not tell, or breaks the protocol.
    """
    entries: list[MountEntry] = []
    after = ""
    is_complete = True
    while True:
        page = await link.ask(
            MountList(command_id=new_command_id(), place=place, after=after)
        )
        if not isinstance(page, MountListing):
            raise RemoteProtocolError(detail="an answer that lists no folder")
        names = [after, *(entry.name for entry in page.entries)]
        if names != sorted(set(names)) or any(map(entry_fault, names[1:])):
            raise RemoteProtocolError(detail="a folder that is not in order")
        entries += page.entries
        is_complete &= page.is_complete
        if not page.more:
            return entries, is_complete
        if not page.entries or len(entries) > MAX_MOUNT_FOLDER_ENTRIES:
            return entries, False
        after = page.entries[-1].name


async def find_files(
    link: WorkerLink,
    files: Sequence[LocalFile],
    *,
    job_id: str | None = None,
    memory: MountMemory | None = None,
) -> FoundFiles:
    """Ask which of the user's files a worker has.

    A worker without mounts is told nothing of them.

    Args:
        link: to the worker.
        files: those that are wanted.
        job_id: the job whose package they are files of, if any.
        memory: what is known of workers' mounts, the user's own by default.

    Raises:
        RtcError: the worker does not tell, or breaks the protocol.
    """
    asked = [file for file in files if _can_be_asked(file)]
    if not asked or not (await list_place(link, None))[0]:
        return FoundFiles()
    memory = memory or MountMemory()
    worker_id = link.link.peer_id
    known = await in_thread(None, memory.of, worker_id)
    found = FoundFiles()
    for start in range(0, len(asked), MAX_WANTED_FILES):
        batch = asked[start : start + MAX_WANTED_FILES]
        reply = await link.ask(
            MountResolve(
                command_id=new_command_id(),
                files=[
                    WantedFile(
                        path=file.path,
                        size_bytes=file.size_bytes,
                        sample=file.sample,
                        hint=hint_for(known, file.path),
                        member=file.member,
                    )
                    for file in batch
                ],
                job_id=job_id,
            )
        )
        if not isinstance(reply, MountResolved):
            raise RemoteProtocolError(detail="an answer that finds no files")
        found.files += _read(reply, batch)
        found.is_complete &= reply.is_complete
    places = dict.fromkeys((file.path for file in asked), None) | {
        found_file.file.path: found_file.place for found_file in found.files
    }
    await in_thread(None, memory.remember, worker_id, corrected(known, places))
    return found


async def find_package_files(
    link: WorkerLink, job_id: str, source: FileSource, home: Path
) -> FoundFiles:
    """Let a worker find large files of a package on its mounts; nothing may fail.

    Args:
        link: to the worker, over which the package is sent next.
        job_id: the job, which waits for its package.
        source: the package.
        home: the folder in which the user has its files.

    Raises:
        RtcError: the link was lost.
    """
    entries = sorted(source.manifest.files, key=lambda entry: -entry.size_bytes)
    large = [e.path for e in entries if e.size_bytes >= MIN_LOOKED_FOR_BYTES]

    def read() -> list[LocalFile]:
        return [
            LocalFile.read(
                source.root / path,
                known_as=_known_as(source.root / path, home / path),
                member=path,
            )
            for path in large[:MAX_WANTED_FILES]
        ]

    try:
        return await find_files(link, await in_thread(None, read), job_id=job_id)
    except (RtcError, OSError) as error:
        if link.link.closed.is_set():
            raise
        # It is sent then, and says itself what is wrong with it.
        logger.info("The worker's mounts are not used: %s", error)
        return FoundFiles()


def _known_as(path: Path, at_home: Path) -> Path:
    """Return where the user has a file: a member that is a link says it itself."""
    return path.resolve() if path.is_symlink() else at_home


def _can_be_asked(file: LocalFile) -> bool:
    path = file.path
    return (
        0 < len(path) <= MAX_CLIENT_PATH_CHARS
        and file.size_bytes > 0
        and bool(client_parts(path))
    )


def _read(reply: MountResolved, batch: Sequence[LocalFile]) -> list[WorkerFile]:
    """Check an answer and put it together.

    Raises:
        RemoteProtocolError: it does not answer what was asked.
    """
    files: dict[int, WorkerFile] = {}
    for found in reply.found:
        place = found.place
        root = reply.roots.get(place.mount)
        if (
            found.index >= len(batch)
            or found.index in files
            or not place.path
            or place_fault(place.path) is not None
            or not root
            or clean_text(root, len(root)) != root
        ):
            raise RemoteProtocolError(detail="a file of a mount that makes no sense")
        location = f"{root.rstrip('/')}/{place.path}"
        files[found.index] = WorkerFile(batch[found.index], place, location)
    return list(files.values())

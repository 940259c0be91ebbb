"""What one client may do with the mounts of this worker: list them, find its files.

What it found of a job's package is where the worker takes stock when that package
comes. Made by each link's service, which sends the answers.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from sleap_rtc_plugin.protocol.errors import BadRequest, TooMany
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.limits import (
    MAX_MOUNT_COMMANDS_WAITING,
    MAX_PACKAGE_FILES,
)
from sleap_rtc_plugin.protocol.mount_messages import (
    FoundFile,
    MountList,
    MountListing,
    MountPlace,
    MountResolve,
    MountResolved,
)
from sleap_rtc_plugin.transport.chunk_reader import ChunkSource, ReadChunk
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_worker.job_run import JobRun
from sleap_rtc_worker.mounts import MountTable

__all__ = ["MountedFiles"]


class MountedFiles:
    """One link's use of the mounts."""

    def __init__(self, table: MountTable) -> None:
        """Use the mounts of `table`, of which there may be none."""
        self._table = table
        self._members: dict[str, dict[str, MountPlace]] = {}
        self._waiting = 0
        self._turn = asyncio.Lock()

    async def listing(self, command: MountList) -> MountListing:
        """Return a page of a folder.

        Raises:
            MountUnusable: it cannot be looked into.
            TooMany: too many commands of this client wait.
        """
        async with self._in_turn():
            page = await in_thread(None, self._table.page, command.place, command.after)
        return MountListing(
            command_id=command.command_id,
            entries=page.entries,
            more=page.more,
            is_complete=page.is_complete,
        )

    async def resolve(
        self, command: MountResolve, run: JobRun | None = None
    ) -> MountResolved:
        """Find files of the client's, and keep in mind those of a package.

        Args:
            command: what is wanted.
            run: the job that the command names, if any.

        Raises:
            BadRequest: the job waits for no package.
            TooMany: too many commands of this client wait.
        """
        if run is not None and run.state is not JobState.STAGING:
            raise BadRequest(reason=f"the job {run.job_id} waits for no package")
        async with self._in_turn():
            resolution = await in_thread(None, self._table.resolve, command.files)
        if run is not None:
            members = self._members.setdefault(run.job_id, {})
            for index, place in resolution.found.items():
                member = command.files[index].member
                if member is not None and len(members) < MAX_PACKAGE_FILES:
                    members[member] = place
        named = {place.mount for place in resolution.found.values()}
        return MountResolved(
            command_id=command.command_id,
            found=[
                FoundFile(index=index, place=place)
                for index, place in sorted(resolution.found.items())
            ],
            roots={name: self._table.roots[name].as_posix() for name in sorted(named)},
            is_complete=resolution.is_complete,
        )

    def package_of(self, job_id: str) -> list[ChunkSource]:
        """Return where files of a job's package were found."""
        members = self._members.get(job_id)
        return [_Members(self._table, members)] if members else []

    @contextlib.asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        """Carry out one command at a time: a slow mount holds one thread per client."""
        if self._waiting >= MAX_MOUNT_COMMANDS_WAITING:
            raise TooMany(
                what="commands about mounts", limit=str(MAX_MOUNT_COMMANDS_WAITING)
            )
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1


class _Members:
    """Files of a package that lie on mounts, as a source of chunks."""

    def __init__(self, table: MountTable, places: Mapping[str, MountPlace]) -> None:
        self._table = table
        self._places = places

    def reading(self) -> contextlib.AbstractContextManager[ReadChunk]:
        return self._table.reading(self._places)

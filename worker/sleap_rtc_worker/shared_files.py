"""What one client may do with the storage that this worker shares with it.

The client proves first that both see the same folder, job by job; then the package is
taken from there and results are laid down there. Made by each link's service, which
sends the answers; the link brings whatever is not found.
"""

from pathlib import Path

from sleap_rtc_plugin.protocol.errors import BadRequest, SharedStorageUnusable
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.link_test_messages import StorageTest, StorageTested
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    PathValidated,
    SharedInputPath,
    SharedJobId,
    SharedOutputPath,
    SharedStorageJob,
)
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.shared_storage import (
    SharedFolder,
    SharedStorage,
    lay_in_thread,
)
from sleap_rtc_worker.job_run import JobRun

__all__ = ["SharedCommand", "SharedFiles", "storage_at"]

SharedCommand = SharedJobId | SharedInputPath | SharedOutputPath | SharedStorageJob


def storage_at(root: Path | None, worker: str) -> SharedStorage | None:
    """Return the storage that the worker of this name shares at `root`, if any."""
    if root is None:
        return None
    return SharedStorage(root, place=f"The shared storage of the worker {worker}")


class SharedFiles:
    """One link's jobs on the shared storage."""

    def __init__(self, storage: SharedStorage | None) -> None:
        """Use `storage`, if this worker was told of one."""
        self._storage = storage
        self._proven: set[str] = set()
        self._inputs: dict[str, str] = {}
        self._ready: set[str] = set()
        self._laid: dict[str, str] = {}

    async def answer(
        self, command: SharedCommand, run: JobRun
    ) -> PathValidated | Acknowledged:
        """Carry out a command and return the answer to it.

        Raises:
            SharedStorageUnusable: the storage cannot be used for this job.
            BadRequest: it is not the time for it.
        """
        storage, job_id = self._found(), command.job_id
        if isinstance(command, SharedJobId):
            proof = await in_thread(None, storage.answer_probe, command.probe, job_id)
            self._proven.add(job_id)
            return PathValidated(
                command_id=command.command_id, job_id=job_id, proof=proof
            )
        if job_id not in self._proven:
            raise storage.unusable("the client has not shown that it sees the same")
        is_output = isinstance(command, SharedOutputPath)
        if not (run.has_ended if is_output else run.state is JobState.STAGING):
            raise BadRequest(reason=f"the job {job_id} is not at that point")
        match command:
            case SharedInputPath(path=path):
                await in_thread(None, storage.check_folder, path, job_id)
                self._inputs[job_id] = path
            case SharedOutputPath(path=path):
                await in_thread(None, storage.check_folder, path, job_id)
            case SharedStorageJob():
                if job_id not in self._inputs:
                    raise BadRequest(reason="no folder was named for the package")
                self._ready.add(job_id)
                return Acknowledged(
                    command_id=command.command_id, last_seq=run.last_seq
                )
        return PathValidated(command_id=command.command_id, job_id=job_id)

    async def test(self, command: StorageTest) -> StorageTested:
        """Prove that a nonce of the client's can be read here.

        Raises:
            SharedStorageUnusable: it cannot, or there is no storage here.
        """
        command_id = command.command_id
        storage = self._found()
        proof = await in_thread(None, storage.answer_probe, command.probe, command_id)
        return StorageTested(command_id=command_id, proof=proof)

    def package_of(self, job_id: str) -> list[SharedFolder]:
        """Return where a job's package lies; nowhere if it only comes by link."""
        if self._storage is None or job_id not in self._ready:
            return []
        return [self._storage.folder(self._inputs[job_id])]

    async def lay_results(self, path: str, run: JobRun) -> None:
        """Copy a job's results to the path that `answer` validated.

        Raises:
            RtcError: they cannot be read, or not be written there.
        """
        storage = self._found()
        source = await run.results()
        self._laid[run.job_id] = path
        await lay_in_thread(storage, source, path)

    async def remove_results(self, job_id: str) -> None:
        """Remove what was laid down of a job: it is home, or its client is gone."""
        path = self._laid.pop(job_id, None)
        if path is not None:
            await in_thread(None, self._found().remove, path)

    async def close(self) -> None:
        """Remove everything that was laid down for this client."""
        for job_id in list(self._laid):
            await self.remove_results(job_id)

    def _found(self) -> SharedStorage:
        if self._storage is None:
            raise SharedStorageUnusable(
                place="Shared storage", reason="the worker was not told of any"
            )
        return self._storage

"""A job's files through storage that the worker mounts too, where there is such.

Finds that out, lays the package down and has the results laid down; the transfers
take stock there and bring the rest over the link. So whatever goes wrong here is
logged and costs time only. Used by `session.remote_job`.
"""

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    ConnectionFailure,
    JobCancelled,
    NoReply,
    SharedStorageUnusable,
    WorkerTooOld,
)
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.messages import (
    PathValidated,
    SharedInputPath,
    SharedJobId,
    SharedOutputPath,
    SharedStorageJob,
)
from sleap_rtc_plugin.protocol.shared_storage import (
    input_path,
    is_proof,
    job_folder,
    output_path,
    probe_path,
)
from sleap_rtc_plugin.session.settings import Settings
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.shared_storage import (
    CopyStopped,
    SharedFolder,
    SharedStorage,
    lay_in_thread,
)
from sleap_rtc_plugin.transport.transfer_pump import Progress, TransferTotals

__all__ = [
    "chosen_storage",
    "chosen_storage_root",
    "moved_too",
    "shared_package",
    "shared_results",
]

logger = logging.getLogger(__name__)

_VARIABLE: Final = "SHARED_STORAGE_ROOT"

WithLaid = Callable[[TransferTotals], TransferTotals]

# Where one of these is why, the files go over the link.
_UNUSED = (SharedStorageUnusable, NoReply, WorkerTooOld)


def chosen_storage_root() -> Path | None:
    """Return the folder that the environment or the user's settings name, or None."""
    root = os.environ.get(_VARIABLE) or Settings.load().shared_storage_root
    return Path(root) if root else None


def chosen_storage() -> SharedStorage | None:
    """Return the storage that the environment or the user's settings name, or None."""
    root = chosen_storage_root()
    return SharedStorage(root) if root is not None else None


@contextlib.asynccontextmanager
async def shared_package(
    link: WorkerLink,
    job_id: str,
    source: FileSource,
    on_progress: Progress,
    has_ended: Callable[[], bool],
) -> AsyncIterator[WithLaid]:
    """Lay a package down where its worker finds it, if both mount the same folder.

    Yields what makes a transfer's totals true: what was laid down counts as sent, not
    as reused. Afterwards nothing is left there, unless the link was lost
    and another attempt will need it.

    Args:
        link: to the worker.
        job_id: the job.
        source: its package.
        on_progress: told how it goes.
        has_ended: whether the job has, which ends the copying.

    Raises:
        JobCancelled: `has_ended` said so.
        RtcError: the link ended, or a file of the package changed.
    """
    storage = link.shared_storage
    if storage is None:
        yield lambda totals: totals
        return
    async with _tidied(storage, job_id, keeps_for=ConnectionFailure):
        laid_bytes = 0
        try:
            await _lay_package(link, storage, job_id, source, on_progress, has_ended)
            laid_bytes = source.manifest.total_bytes
        except _UNUSED as error:
            logger.warning("%s", error)
        except CopyStopped:
            logger.info("The copying for %s was called off", job_id)
        if has_ended():
            raise JobCancelled(job_id=job_id)
        yield lambda totals: moved_too(totals, laid_bytes)


@contextlib.asynccontextmanager
async def shared_results(
    link: WorkerLink, job_id: str
) -> AsyncIterator[list[SharedFolder]]:
    """Have a worker lay a job's results down; yield where, if it did.

    Raises:
        RtcError: the link ended.
    """
    storage = link.shared_storage
    folders: list[SharedFolder] = []
    if storage is None:
        yield folders
        return
    async with _tidied(storage, job_id):
        path = output_path(job_id)
        try:
            await _prove(link, storage, job_id)
            await in_thread(None, storage.make_folder, path, job_id)
            await link.laid_results(
                SharedOutputPath(command_id=new_command_id(), job_id=job_id, path=path)
            )
            folders.append(storage.folder(path))
        except _UNUSED as error:
            logger.warning("%s", error)
        yield folders


async def _lay_package(
    link: WorkerLink,
    storage: SharedStorage,
    job_id: str,
    source: FileSource,
    on_progress: Progress,
    has_ended: Callable[[], bool],
) -> None:
    path = input_path(job_id)
    await _prove(link, storage, job_id)
    await in_thread(None, storage.remove_left_overs, time.time())
    await in_thread(None, storage.make_folder, path, job_id)
    await link.ask(
        SharedInputPath(command_id=new_command_id(), job_id=job_id, path=path)
    )
    total_bytes = source.manifest.total_bytes
    await lay_in_thread(
        storage,
        source,
        path,
        on_laid=lambda laid: on_progress(TransferTotals(total_bytes, 0, laid, 0)),
        is_stopped=has_ended,
    )
    await link.ask(SharedStorageJob(command_id=new_command_id(), job_id=job_id))


async def _prove(link: WorkerLink, storage: SharedStorage, job_id: str) -> None:
    """Find out whether the worker reads what we write.

    Raises:
        SharedStorageUnusable: it does not.
    """
    probe = await in_thread(None, storage.lay_probe)
    try:
        reply = await link.ask(
            SharedJobId(command_id=new_command_id(), job_id=job_id, probe=probe.name)
        )
    finally:
        await in_thread(None, storage.remove, probe_path(probe.name))
    proof = reply.proof if isinstance(reply, PathValidated) else None
    if not is_proof(proof, probe.nonce, job_id):
        raise storage.unusable("the worker sees another folder")


@contextlib.asynccontextmanager
async def _tidied(
    storage: SharedStorage, job_id: str, keeps_for: type[Exception] | None = None
) -> AsyncIterator[None]:
    """Remove the job's folder in the end, unless that is an error of this kind."""
    keeps = False
    try:
        yield
    except Exception as error:
        keeps = keeps_for is not None and isinstance(error, keeps_for)
        raise
    finally:
        if not keeps:
            await in_thread(None, storage.remove, job_folder(job_id))


def moved_too(totals: TransferTotals, laid_bytes: int) -> TransferTotals:
    """Count what came by the storage as moved, not as reused."""
    taken_bytes = min(laid_bytes, totals.reused_bytes)
    return TransferTotals(
        total_bytes=totals.total_bytes,
        reused_bytes=totals.reused_bytes - taken_bytes,
        moved_bytes=totals.moved_bytes + taken_bytes,
        verified_bytes=totals.verified_bytes,
    )

"""Brings the images that a training draws while it runs into a folder for a viewer.

Asked again and again while a job is followed: what is there already is not sent
again. A worker may be anybody's, so what it offers is bounded before it is received
and looked at before it is put in place. Used by whoever follows a job.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from sleap_rtc_plugin.protocol.errors import ImagesRefused, RtcError, SourceChanged
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.images import (
    IMAGES_FOLDER,
    image_fault,
    is_image_name,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_IMAGE_BYTES,
    MAX_IMAGES_PER_FETCH,
    MAX_IMAGES_TOTAL_BYTES,
)
from sleap_rtc_plugin.protocol.messages import FileMeta, JobFetch
from sleap_rtc_plugin.session.incoming_folder import INCOMING_FOLDER
from sleap_rtc_plugin.session.package_archive import disk_errors
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals

__all__ = ["fetch_images"]

P = ParamSpec("P")
T = TypeVar("T")

# The offer's manifest: a name, sizes and digests for each image.
MAX_MANIFEST_BYTES_PER_IMAGE: Final = 2048


async def fetch_images(job: RemoteJob, step: int, folder: Path) -> list[Path]:
    """Bring a training's newest images to `folder`/viz, where SLEAP's viewer looks.

    One call at a time for a folder. A call that was cut off is made good by the next.

    Args:
        job: over a link that is up; it need not be attached.
        step: the training, by its index in the job.
        folder: made if it is missing.

    Returns:
        The images that are new or have changed, in the order of their names.

    Raises:
        ImagesRefused: the worker offers something else than such images.
        WorkerTooOld: the worker sends no images.
        RtcError: the job has no such training, or the link was lost.
    """
    worker = job.link.worker_name
    area = StagingArea(folder / INCOMING_FOLDER / f"{job.job_id}.images.{step}")
    command = JobFetch(
        command_id=new_command_id(), job_id=job.job_id, part="images", step=step
    )
    async with job.link.offered_files(command) as meta:
        fault = _offer_fault(meta)
        if fault is not None:
            raise ImagesRefused(worker=worker, reason=fault)
        await _on_disk(_lay_out, folder, area.files)
        # An image that vanished meanwhile is no fault: the training has ended, or
        # drawn another. What arrived before it is kept.
        with contextlib.suppress(SourceChanged):
            await job.link.receive(meta, area, _no_progress)
    try:
        news = await _on_disk(_put_in_place, area.files, folder, worker)
    except ImagesRefused:
        # What is refused is not left lying in a hidden folder either.
        await _on_disk(_remove, area.root)
        raise
    await _on_disk(_remove, area.root)
    return news


async def _on_disk(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call that is done when we are, also where we are cancelled."""
    work = asyncio.ensure_future(in_thread(None, function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with contextlib.suppress(RtcError):
            await work
        raise


def _no_progress(totals: TransferTotals) -> None:
    """A few images are there before anybody could look at a bar."""


def _offer_fault(meta: FileMeta) -> str | None:
    """Say why an offer is not taken, or None where it is."""
    if meta.file_count > MAX_IMAGES_PER_FETCH:
        return f"{meta.file_count} at once"
    if meta.total_bytes > MAX_IMAGES_TOTAL_BYTES:
        return f"{meta.total_bytes} bytes at once"
    if meta.manifest_bytes > MAX_MANIFEST_BYTES_PER_IMAGE * (meta.file_count + 1):
        return "a list longer than its images"
    return None


# -- on the disk -------------------------------------------------------------------


def _lay_out(folder: Path, files: Path) -> None:
    """Put what is there where the transfer takes stock, so that it is not sent."""
    with disk_errors(folder, 0):
        files.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / IMAGES_FOLDER).mkdir(exist_ok=True)
        for image in (folder / IMAGES_FOLDER).iterdir():
            target = files / image.name
            if not is_image_name(image.name) or not _is_plain_file(image):
                continue
            try:
                os.link(image, target)
            except FileExistsError:
                continue
            except OSError:
                # This disk has no hard links.
                shutil.copyfile(image, target)


def _put_in_place(files: Path, folder: Path, worker: str) -> list[Path]:
    """Check everything that arrived, then move what is new."""
    with disk_errors(folder, 0):
        arrived = sorted(path for path in files.rglob("*") if not path.is_dir())
        news = [path for path in arrived if not _is_there(path, folder)]
        for path in news:
            name = path.relative_to(files).as_posix()
            fault = _file_fault(path, name)
            if fault is not None:
                reason = f"{clean_text(name)} {fault}"
                raise ImagesRefused(worker=worker, reason=reason)
        for path in news:
            path.replace(folder / IMAGES_FOLDER / path.name)
    return [folder / IMAGES_FOLDER / path.name for path in news]


def _file_fault(path: Path, name: str) -> str | None:
    if not is_image_name(name) or not _is_plain_file(path):
        return "is not the name of such an image"
    if path.stat().st_size > MAX_IMAGE_BYTES:
        return f"has more than {MAX_IMAGE_BYTES} bytes"
    return image_fault(path.read_bytes())


def _is_there(path: Path, folder: Path) -> bool:
    present = folder / IMAGES_FOLDER / path.name
    return (
        _is_plain_file(present)
        and is_image_name(path.name)
        and (path.samefile(present) or path.read_bytes() == present.read_bytes())
    )


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _remove(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    # Another step's images, or results, may be arriving beside them.
    with contextlib.suppress(OSError):
        root.parent.rmdir()

"""Models that clients send to be published: where they arrive, what becomes of them.

Files arrive as a package's do, so that a later link goes on where an earlier one ended.
A client's word is good for names and notes only: the worker reads and scans the files
itself. Made by the worker's root; asked by `model_service`.

    model-pushes/<model id>/files/<folder>/    one folder for each part
"""

import asyncio
import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    DiskFull,
    NotAModel,
    RemoteProtocolError,
    StorageFailed,
    TooMany,
)
from sleap_rtc_plugin.protocol.limits import (
    GIB,
    MAX_MODEL_BYTES,
    MAX_MODEL_FILES,
    MAX_UNIX_TIME_S,
    STAGING_IDLE_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.messages import FileMeta
from sleap_rtc_plugin.protocol.model_messages import ModelOffer
from sleap_rtc_plugin.protocol.model_records import TrainingFacts, is_model_id
from sleap_rtc_plugin.protocol.paths import check_component
from sleap_rtc_plugin.registry.model_files import LocalModel, read_model
from sleap_rtc_plugin.registry.model_registry import ModelDetails
from sleap_rtc_plugin.transport.effects import in_thread, storage_error, wall_clock
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker.limits import MAX_MODEL_PUSHES
from sleap_rtc_worker.model_registry import WorkerModels

__all__ = ["ModelPushes", "completed", "read_trained"]

logger = logging.getLogger(__name__)


class ModelPushes:
    """What clients publish through one worker."""

    def __init__(
        self,
        folder: Path,
        models: WorkerModels,
        *,
        place: str = "the worker's disk",
        space_fault: Callable[[int], DiskFull | None] = lambda size_bytes: None,
    ) -> None:
        """Use `folder`, and remove what was left in it long ago.

        Args:
            folder: for nothing else.
            models: where they are published.
            place: what clients are told it is called.
            space_fault: says that so many bytes do not fit, or None.

        Raises:
            StorageFailed: the folder cannot be used.
        """
        self._folder = folder
        self._models = models
        self._place = place
        self._space_fault = space_fault
        self._offers: dict[str, ModelOffer] = {}
        self._sizes: dict[str, int] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise storage_error(error, folder, place=place) from None

    def _sweep(self) -> None:
        """Remove what nobody came back for."""
        oldest = wall_clock() - STAGING_IDLE_TIMEOUT_S
        for entry in list(self._folder.iterdir()):
            is_known = is_model_id(entry.name) and entry.is_dir()
            if entry.name in self._offers and self._turns[entry.name].locked():
                continue
            if not is_known or entry.stat().st_mtime < oldest:
                shutil.rmtree(entry, ignore_errors=True)
                self._forget(entry.name)

    def _forget(self, model_id: str) -> None:
        self._offers.pop(model_id, None)
        self._sizes.pop(model_id, None)

    # -- receiving -------------------------------------------------------------------

    def expect(self, offer: ModelOffer, total_bytes: int) -> None:
        """Make ready for a model; its files may come now, or a later try of them.

        Raises:
            BadRequest: it cannot be one.
            UnsafeMember: a folder's name is not safe.
            TooMany: too many wait to be published.
            DiskFull: it does not fit.
        """
        if total_bytes > MAX_MODEL_BYTES:
            raise BadRequest(
                reason=f"a model is no larger than {MAX_MODEL_BYTES / GIB:.0f} GiB"
            )
        for folder in offer.folders:
            check_component(folder)
        if len({folder.casefold() for folder in offer.folders}) < len(offer.folders):
            raise BadRequest(reason="two parts of the model have the same folder")
        at = offer.trained_at
        if at is not None and not 0 <= at <= MAX_UNIX_TIME_S:
            raise BadRequest(reason="the model was trained at no time that there is")
        if offer.id not in self._offers and len(self._offers) >= MAX_MODEL_PUSHES:
            self._sweep()
            if len(self._offers) >= MAX_MODEL_PUSHES:
                raise TooMany(
                    what="models that wait to be published", limit=str(MAX_MODEL_PUSHES)
                )
        fault = self._space_fault(total_bytes)
        if fault is not None:
            raise fault
        (self._folder / offer.id).mkdir(mode=0o700, exist_ok=True)
        self._offers[offer.id] = offer
        self._sizes[offer.id] = total_bytes

    async def receive(self, meta: FileMeta, pump: TransferPump) -> None:
        """Receive a model's files over a link.

        Raises:
            BadRequest: they are not those that were announced.
            RtcError: they did not arrive.
            LinkClosed: the link ended; what arrived is kept for a resume.
        """
        if meta.job_id not in self._offers or meta.file_count > MAX_MODEL_FILES:
            raise RemoteProtocolError(detail="files of a model that nobody waits for")
        if meta.total_bytes != self._sizes[meta.job_id]:
            raise BadRequest(
                reason="the files are not those that were announced, or another client "
                "sends the same model; try again"
            )
        # A link that broke and is not known to have does not share its folder.
        async with self._turns[meta.job_id]:
            await pump.receive(meta, self._area(meta.job_id))

    def _area(self, model_id: str) -> StagingArea:
        return StagingArea(self._folder / model_id, self._place)

    # -- publishing ------------------------------------------------------------------

    async def commit(self, model_id: str, by: str) -> ModelDetails:
        """Publish a model whose files have arrived.

        Its alias may belong to another model: then it is there without one.

        Raises:
            BadRequest: nothing was announced, or the files are another model's.
            NotAModel: they are no model's.
            UnsafeCheckpoint: loading it would run code.
            ModelError: it cannot be published now.
        """
        offer = self._offers.get(model_id)
        if offer is None:
            raise BadRequest(reason=f"the model {model_id} was not announced")
        async with self._turns[model_id]:
            files = self._area(model_id).files
            folders = [files / folder for folder in offer.folders]
            local = await in_thread(None, read_trained, folders, offer.name)
            if local.id != model_id:
                raise BadRequest(
                    reason=f"the files are those of {local.id}, not of {model_id}"
                )
            published = await self._models.registry.publish(
                local,
                publication=offer.publication,
                by=by,
                trained_at=offer.trained_at,
                trained_by=offer.trained_by,
                trained_on=offer.trained_on,
                training=completed(local.training, offer.training),
            )
            self._forget(model_id)
            place = self._folder / model_id
            await in_thread(None, shutil.rmtree, place, ignore_errors=True)
        logger.info("%s published the model %s", by, model_id)
        return published.details


def completed(told: TrainingFacts, more: TrainingFacts) -> TrainingFacts:
    """Complete what a model's files tell of its training with what else is known."""
    return msgspec.structs.replace(
        told,
        **{
            name: getattr(more, name)
            for name in TrainingFacts.__struct_fields__
            if not getattr(told, name) and getattr(more, name)
        },
    )


def read_trained(folders: Sequence[Path], name: str) -> LocalModel:
    """Read a model below the worker's own folders, of which clients hear no paths.

    Raises:
        NotAModel, UnsafeCheckpoint, StorageFailed: as `read_model`.
    """
    try:
        return read_model(folders, name)
    except NotAModel as error:
        raise NotAModel(path=Path(error.path).name, reason=error.reason) from None
    except StorageFailed as error:
        raise StorageFailed(place="the worker's disk", reason=error.reason) from None

"""One client's use of the room's models through this worker: the frames MODEL_*.

Every command gets one answer. Made by each link's service; what is asked for is done by
`model_registry` and `model_pushes`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

from sleap_rtc_plugin.protocol.errors import (
    NoStore,
    RemoteProtocolError,
    RtcError,
    StoreUnreachable,
    TooMany,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    CommandFailed,
    FileDone,
    FileMeta,
)
from sleap_rtc_plugin.protocol.model_messages import (
    CollectModels,
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
from sleap_rtc_plugin.protocol.model_records import ModelRecord
from sleap_rtc_plugin.registry.model_registry import ModelDetails
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link, LinkClosed
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker.limits import (
    MAX_MODEL_COMMANDS_WAITING,
    MODEL_COMMAND_S,
    MODEL_FRESH_S,
)
from sleap_rtc_worker.model_pushes import ModelPushes
from sleap_rtc_worker.model_registry import WorkerModels

__all__ = ["ModelCommand", "ModelService"]

logger = logging.getLogger(__name__)

ModelCommand = (
    ModelList | ModelDescribe | ModelChange | ModelPush | ModelCommit | ModelFetch
)


class ModelService:
    """The room's models for one link."""

    def __init__(
        self,
        link: Link,
        pump: TransferPump,
        models: WorkerModels | None,
        pushes: ModelPushes | None,
    ) -> None:
        """Answer on `link`; without `models` every command is refused."""
        self._link = link
        self._pump = pump
        self._models = models
        self._pushes = pushes
        self._waiting = 0

    async def answer(self, command: ModelCommand) -> None:
        """Carry out a command and answer it."""
        try:
            with self._one_more():
                await self._carry_out(command)
        except LinkClosed:
            return
        except RemoteProtocolError:
            raise
        except RtcError as error:
            self._link.send(
                CommandFailed(command_id=command.command_id, error=error.to_wire())
            )

    async def receive(self, meta: FileMeta) -> None:
        """Receive the files of a model that was announced."""
        try:
            _, pushes = self._open()
            await pushes.receive(meta, self._pump)
        except LinkClosed:
            logger.info("The model %s did not arrive in full", meta.job_id)
        except RemoteProtocolError:
            raise
        except RtcError as error:
            logger.warning("The model %s: %s", meta.job_id, error)
            self._link.send(
                FileDone(transfer_id=meta.transfer_id, error=error.to_wire())
            )

    @contextlib.contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._waiting >= MAX_MODEL_COMMANDS_WAITING:
            raise TooMany(
                what="commands about models", limit=str(MAX_MODEL_COMMANDS_WAITING)
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _open(self) -> tuple[WorkerModels, ModelPushes]:
        if self._models is None or self._pushes is None:
            raise NoStore(reason="this worker has no model store")
        return self._models, self._pushes

    # -- commands --------------------------------------------------------------------

    async def _carry_out(self, command: ModelCommand) -> None:
        models, pushes = self._open()
        command_id = command.command_id
        match command:
            case ModelList():
                await self._list(models, command)
            case ModelDescribe():
                await self._describe(models, command)
            case ModelChange(edit=CollectModels()):
                collected = await models.registry.collect()
                self._link.send(
                    ModelChanged(
                        command_id=command_id,
                        files=collected.files,
                        bytes=collected.bytes,
                    )
                )
            case ModelChange():
                by = self._name(command.by)
                details = await models.registry.change(command.edit, by)
                self._link.send(_changed(command_id, details))
            case ModelPush():
                pushes.expect(command.offer, command.total_bytes)
                self._link.send(Acknowledged(command_id=command_id))
            case ModelCommit():
                details = await pushes.commit(command.model, self._name(command.by))
                self._link.send(_changed(command_id, details))
            case ModelFetch():
                await self._send(models, command)

    def _name(self, by: str) -> str:
        """Return who asks, as written down; a name that nobody can read is none."""
        return clean_text(by) or self._link.peer_id

    async def _list(self, models: WorkerModels, command: ModelList) -> None:
        async with _soon(models):
            rows, more = await models.registry.rows(
                command.filter, command.after, max_age_s=MODEL_FRESH_S
            )
        self._link.send(
            ModelListed(command_id=command.command_id, models=rows, more=more)
        )

    async def _describe(self, models: WorkerModels, command: ModelDescribe) -> None:
        async with _soon(models):
            details = await models.registry.describe(
                command.model, max_age_s=MODEL_FRESH_S
            )
        described = ModelDescribed(
            command_id=command.command_id,
            record=details.record,
            aliases=details.aliases,
            curves=details.curves,
            held=models.holds(details.record),
        )
        self._link.send(described)

    async def _send(self, models: WorkerModels, command: ModelFetch) -> None:
        """Offer a model's files, and serve the client until it has them."""
        async with _soon(models, "the worker is still fetching the model"):
            record = await models.find(command.model)
            await models.fetch(record)
        async with models.using(record.id):
            source = await in_thread(None, _source, record, models)
            self._link.send(Acknowledged(command_id=command.command_id))
            try:
                await self._pump.send(source, job_id=record.id, purpose="model")
            except LinkClosed:
                raise
            except RtcError as error:
                # The other side knows it: a transfer ends once.
                logger.warning("The model %s: %s", record.id, error)


@contextlib.asynccontextmanager
async def _soon(
    models: WorkerModels, reason: str = "it did not answer in time"
) -> AsyncIterator[None]:
    """Answer in time that there is no answer; what is being fetched goes on."""
    try:
        async with asyncio.timeout(MODEL_COMMAND_S):
            yield
    except TimeoutError:
        store = models.registry.store_name
        raise StoreUnreachable(store=store, reason=reason) from None


def _source(record: ModelRecord, models: WorkerModels) -> FileSource:
    root = models.cache.files_of(record.id)
    return FileSource.scan(root, [file.path for file in record.files])


def _changed(command_id: str, details: ModelDetails | None) -> ModelChanged:
    if details is None:
        return ModelChanged(command_id=command_id)
    return ModelChanged(
        command_id=command_id,
        record=details.record,
        aliases=sorted(details.aliases),
    )

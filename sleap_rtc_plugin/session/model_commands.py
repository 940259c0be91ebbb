"""A worker's registry over a link: list, describe, change, push and fetch models.

What comes back is checked and cleaned before anyone sees it, since a worker may send
anything. Used by `room_models`, which knows which worker to ask.
"""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from msgspec import structs

from sleap_rtc_plugin.protocol.errors import (
    AliasMoved,
    AliasTaken,
    ModelDamaged,
    RemoteProtocolError,
    RtcError,
    UnsafeCheckpoint,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.limits import (
    MAX_MODELS_PER_ROOM,
    MAX_UNIX_TIME_S,
    MODEL_FILES_TIMEOUT_S,
    MODEL_REPLY_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.messages import Acknowledged
from sleap_rtc_plugin.protocol.model_messages import (
    CollectModels,
    ModelChange,
    ModelChanged,
    ModelCommit,
    ModelDescribe,
    ModelDescribed,
    ModelEdit,
    ModelFetch,
    ModelList,
    ModelListed,
    ModelOffer,
    ModelPush,
    ModelRow,
)
from sleap_rtc_plugin.protocol.model_records import (
    AliasRecord,
    ModelFile,
    ModelFilter,
    ModelRecord,
    Publication,
)
from sleap_rtc_plugin.registry.model_files import LocalModel
from sleap_rtc_plugin.registry.model_identity import model_id_of
from sleap_rtc_plugin.registry.model_registry import ModelDetails, Published
from sleap_rtc_plugin.registry.pulled_models import find_part
from sleap_rtc_plugin.registry.room_manifest import clean_notes, record_fault
from sleap_rtc_plugin.session.incoming_folder import incoming_folder, remove_incoming
from sleap_rtc_plugin.session.result_import import place_models
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread, storage_error
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals

__all__ = [
    "change_model",
    "describe_model",
    "fetch_model",
    "list_models",
    "push_model",
]

OnBytes = Callable[[int, int], None]


# -- asking ------------------------------------------------------------------------


async def list_models(link: WorkerLink, wanted: ModelFilter) -> list[ModelRow]:
    """Return the models of a worker's registry, the newest first.

    Raises:
        WorkerTooOld: it shares no models.
        RtcError: the worker does not tell, or breaks the protocol.
    """
    rows: dict[str, ModelRow] = {}
    after: str | None = None
    while len(rows) < MAX_MODELS_PER_ROOM:
        page = await link.ask(
            ModelList(command_id=new_command_id(), filter=wanted, after=after),
            MODEL_REPLY_TIMEOUT_S,
        )
        if not isinstance(page, ModelListed):
            raise RemoteProtocolError(detail="an answer that lists no models")
        # One that was published between two pages may push another into the second.
        new = [row for row in page.models if row.id not in rows]
        rows.update((row.id, _cleaned_row(row)) for row in new)
        if not page.more:
            break
        if not new:
            raise RemoteProtocolError(detail="a page of no new models, and more")
        after = page.models[-1].id
    return list(rows.values())


async def describe_model(link: WorkerLink, ref: str) -> ModelDetails:
    """Return everything of one model, by its alias or id.

    Raises:
        ModelNotFound: the worker's registry has no such model.
        RtcError: the worker does not tell, or breaks the protocol.
    """
    told = await link.ask(
        ModelDescribe(command_id=new_command_id(), model=ref), MODEL_REPLY_TIMEOUT_S
    )
    if not isinstance(told, ModelDescribed):
        raise RemoteProtocolError(detail="an answer that describes no model")
    record = _checked(told.record)
    if ref not in (record.id, *told.aliases):
        raise RemoteProtocolError(detail="an answer that describes another model")
    aliases = {name: _cleaned_alias(alias) for name, alias in told.aliases.items()}
    if any(alias.model != record.id for alias in aliases.values()):
        raise RemoteProtocolError(detail="an alias of another model")
    return ModelDetails(record=record, aliases=aliases, curves=told.curves)


# -- changing ----------------------------------------------------------------------


async def change_model(link: WorkerLink, edit: ModelEdit, by: str) -> ModelChanged:
    """Have a registry changed, for the person `by`.

    Raises:
        RtcError: why it was not.
    """
    timeout_s = (
        MODEL_FILES_TIMEOUT_S
        if isinstance(edit, CollectModels)
        else MODEL_REPLY_TIMEOUT_S
    )
    told = await link.ask(
        ModelChange(command_id=new_command_id(), edit=edit, by=by), timeout_s
    )
    if not isinstance(told, ModelChanged):
        raise RemoteProtocolError(detail="an answer that tells of no change")
    return told


# -- files -------------------------------------------------------------------------


async def push_model(
    link: WorkerLink,
    model: LocalModel,
    publication: Publication,
    by: str,
    on_bytes: OnBytes,
) -> Published:
    """Publish a model of this disk through a worker, which checks it itself.

    Pushing it again after a lost link goes on where that ended.

    Raises:
        RtcError: it was not published.
    """
    offer = ModelOffer(
        id=model.id,
        name=model.name,
        folders=[part.folder for part in model.parts],
        training=model.training,
        trained_at=model.trained_at,
        publication=publication,
    )
    async with _laid_out(model) as folder:
        paths = [file.path for file in model.files]
        source = await in_thread(None, FileSource.scan, folder, paths)
        total_bytes = source.manifest.total_bytes
        ready = await link.ask(
            ModelPush(
                command_id=new_command_id(), offer=offer, total_bytes=total_bytes
            ),
            MODEL_REPLY_TIMEOUT_S,
        )
        if not isinstance(ready, Acknowledged):
            raise RemoteProtocolError(detail="a model neither awaited nor refused")
        try:
            await link.pump.send(
                source,
                job_id=model.id,
                purpose="model",
                on_progress=lambda totals: on_bytes(*_done(totals)),
            )
        except LinkClosed:
            raise link.vanished("the model was on its way") from None
    alias_error: RtcError | None = None
    try:
        told = await link.ask(
            ModelCommit(command_id=new_command_id(), model=model.id, by=by),
            MODEL_FILES_TIMEOUT_S,
        )
        if not isinstance(told, ModelChanged):
            raise RemoteProtocolError(detail="an answer that tells of no change")
    except (AliasTaken, AliasMoved) as error:
        # The model is there; it only did not get its alias.
        alias_error = error
    details = await describe_model(link, model.id)
    if alias_error is None and publication.alias not in (None, *details.aliases):
        alias_error = await _alias_holder(link, publication.alias or "")
    return Published(details, alias_error)


async def _alias_holder(link: WorkerLink, alias: str) -> RtcError:
    """Say which model has an alias that another one was to get."""
    try:
        return AliasTaken(
            alias=alias, model=(await describe_model(link, alias)).record.id
        )
    except RtcError as error:
        return error


@contextlib.asynccontextmanager
async def _laid_out(model: LocalModel) -> AsyncIterator[Path]:
    """Lay a model out as it is to be sent, in a folder that goes afterwards."""
    with contextlib.ExitStack() as stack:
        try:
            name = await in_thread(None, tempfile.mkdtemp, prefix="sleap-remote-")
            stack.callback(remove_incoming, Path(name))
            await in_thread(None, _lay_out, model, Path(name))
        except OSError as error:
            raise storage_error(
                error, Path(tempfile.gettempdir()), model.size_bytes
            ) from error
        yield Path(name)


def _lay_out(model: LocalModel, folder: Path) -> None:
    for file in model.files:
        target = folder.joinpath(*file.path.split("/"))
        target.parent.mkdir(exist_ok=True)
        if file.content is not None:
            target.write_bytes(file.content)
            continue
        try:
            # Nothing needs to be copied: sending compares what it reads.
            target.symlink_to(file.source.absolute())
        except OSError:  # on Windows, where making links is a privilege
            shutil.copyfile(file.source, target)


async def fetch_model(
    link: WorkerLink, record: ModelRecord, folder: Path, on_bytes: OnBytes
) -> list[Path]:
    """Bring a model home: one folder a part below `folder`, whole and verified.

    Args:
        link: to a worker whose registry has it.
        record: as the registry lists it, checked by `describe_model`.
        folder: made where it is missing.
        on_bytes: hears how many bytes of how many are here.

    Returns:
        The folders of the parts, in the order in which they are used.

    Raises:
        ModelDamaged: what the worker has is not what the registry lists.
        UnsafeCheckpoint: it would run code when loaded.
        RtcError: it did not arrive; trying again goes on from there.
    """
    if (there := await in_thread(None, _find, record, folder)) is not None:
        on_bytes(record.size_bytes, record.size_bytes)
        return there
    command = ModelFetch(command_id=new_command_id(), model=record.id)
    async with incoming_folder(folder, record.id) as incoming:
        area = StagingArea(incoming)
        async with link.offered_files(command, MODEL_FILES_TIMEOUT_S) as meta:
            if meta.total_bytes != record.size_bytes:
                raise _damaged(record, "The model", "it has another size")
            await link.receive(meta, area, lambda totals: on_bytes(*_done(totals)))
        try:
            names = [part.folder for part in record.parts]
            await in_thread(None, _compare, record, area.files)
            placed = await in_thread(None, place_models, area.files, names, folder)
        except (ModelDamaged, UnsafeCheckpoint, UnsafeMember):
            # What is refused is not left lying in hidden folders either.
            await in_thread(None, remove_incoming, incoming)
            raise
        await in_thread(None, remove_incoming, incoming)
    return placed


def _find(record: ModelRecord, folder: Path) -> list[Path] | None:
    """Return where all parts lie already, or None."""
    found = []
    for part in record.parts:
        place = find_part(folder, part.folder, _files_of(record, part.folder))
        if place is None:
            return None
        found.append(place)
    return found


def _files_of(record: ModelRecord, folder: str) -> list[ModelFile]:
    return [
        structs.replace(file, path=file.path.partition("/")[2])
        for file in record.files
        if file.path.startswith(f"{folder}/")
    ]


def _compare(record: ModelRecord, received: Path) -> None:
    """Compare what arrived with what the registry lists.

    Raises:
        ModelDamaged: a file is missing, added or another one.
    """
    there = {
        path.relative_to(received).as_posix()
        for path in received.rglob("*")
        if not path.is_dir()
    }
    for extra in sorted(there - {file.path for file in record.files}):
        raise _damaged(record, clean_text(extra), "it is not listed")
    for part in record.parts:
        for file in _files_of(record, part.folder):
            if find_part(received, part.folder, [file]) is None:
                raise _damaged(
                    record, f"{part.folder}/{file.path}", "it is another one"
                )


def _damaged(record: ModelRecord, file: str, reason: str) -> ModelDamaged:
    return ModelDamaged(model=record.id, file=file, reason=reason)


def _done(totals: TransferTotals) -> tuple[int, int]:
    done = min(totals.reused_bytes + totals.moved_bytes, totals.total_bytes)
    return done, totals.total_bytes


# -- what a worker says --------------------------------------------------------------


def _checked(record: ModelRecord) -> ModelRecord:
    """Return a record whose files can be laid below a folder, and its text shown.

    Raises:
        RemoteProtocolError: it cannot be one of a registry.
    """
    fault = record_fault(record)
    if fault is None and model_id_of(record.parts, record.files) != record.id:
        fault = "has an id that belongs to other files"
    if fault is not None:
        raise RemoteProtocolError(detail=f"a model that {fault}")
    training = structs.replace(
        record.training,
        sleap_nn_version=clean_text(record.training.sleap_nn_version),
        skeleton=[clean_text(node) for node in record.training.skeleton],
    )
    return structs.replace(
        record,
        type=clean_text(record.type),
        name=clean_text(record.name),
        parts=[
            structs.replace(part, head=clean_text(part.head)) for part in record.parts
        ],
        trained_by=clean_text(record.trained_by),
        trained_on=clean_text(record.trained_on),
        published_by=clean_text(record.published_by),
        workers=[clean_text(worker) for worker in record.workers],
        notes=clean_notes(record.notes),
        training=training,
    )


def _cleaned_row(row: ModelRow) -> ModelRow:
    return structs.replace(
        row,
        type=clean_text(row.type),
        name=clean_text(row.name),
        trained_by=clean_text(row.trained_by),
        trained_on=clean_text(row.trained_on),
        trained_at=None if row.trained_at is None else _time(row.trained_at),
        published_at=_time(row.published_at),
        published_by=clean_text(row.published_by),
        workers=[clean_text(worker) for worker in row.workers],
        sleap_nn_version=clean_text(row.sleap_nn_version),
    )


def _cleaned_alias(alias: AliasRecord) -> AliasRecord:
    moves = [structs.replace(move, by=clean_text(move.by)) for move in alias.moves]
    return structs.replace(alias, moves=moves)


def _time(seconds: float) -> float:
    """Return a time that a calendar can show."""
    return min(max(seconds, 0.0), MAX_UNIX_TIME_S)

"""What may be asked of a room's models, and how each change makes the next manifest.

Pure: a manifest, a wish and the time in, a new manifest out. Doing anything twice is
doing it once, so a change whose answer was lost may simply be tried again. Called by
`model_registry`, which reads and writes.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import structs

from sleap_rtc_plugin.protocol.errors import (
    AliasMoved,
    AliasTaken,
    LocalProtocolError,
    ModelHasAlias,
    ModelNotFound,
    RegistryFull,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIAS_MOVES,
    MAX_ALIASES_PER_MODEL,
    MAX_FORMER_ALIASES,
    MAX_MODEL_FILES,
    MAX_MODEL_HOLDERS,
    MAX_MODEL_PAGE_BYTES,
    MAX_MODEL_TAGS,
    MAX_MODELS_PER_PAGE,
    MAX_MODELS_PER_ROOM,
    MAX_UNIX_TIME_S,
)
from sleap_rtc_plugin.protocol.model_messages import (
    DeleteModel,
    ModelEdit,
    ModelRow,
    PutAlias,
    RemoveAlias,
    SetNotes,
    SetTags,
)
from sleap_rtc_plugin.protocol.model_records import (
    AliasMove,
    AliasRecord,
    ModelFilter,
    ModelRecord,
    Publication,
    TrainingFacts,
    check_alias,
)
from sleap_rtc_plugin.registry.room_manifest import (
    RoomManifest,
    aliases_of,
    clean_notes,
)

__all__ = [
    "add_model",
    "aliases_of",
    "apply_edit",
    "find",
    "note_holder",
    "row_of",
    "rows",
]

_NOTHING: Final = "no model"


# -- asking ------------------------------------------------------------------------


def find(manifest: RoomManifest, ref: str) -> ModelRecord:
    """Return the model with this alias or id.

    Raises:
        ModelNotFound: there is none.
    """
    alias = manifest.aliases.get(ref)
    record = manifest.models.get(alias.model if alias else ref)
    if record is None:
        raise ModelNotFound(model=clean_text(ref) or "without a name")
    return record


def rows(
    manifest: RoomManifest,
    wanted: ModelFilter = ModelFilter(),  # noqa: B008 - frozen
    after: str | None = None,
    limit: int = MAX_MODELS_PER_PAGE,
) -> tuple[list[ModelRow], bool]:
    """List models, the newest first.

    Args:
        manifest: the room's.
        wanted: which models.
        after: the id of the last one of the page before; from the start where that is
            gone.
        limit: how many at most; fewer where they are large.

    Returns:
        The rows, and whether older ones follow.
    """
    names: dict[str, list[str]] = {model_id: [] for model_id in manifest.models}
    for alias in sorted(manifest.aliases):
        names[manifest.aliases[alias].model].append(alias)
    records = sorted(manifest.models.values(), key=lambda r: (-r.published_at, r.id))
    chosen = [r for r in records if _is_wanted(r, names[r.id], wanted)]
    ids = [record.id for record in chosen]
    start = ids.index(after) + 1 if after in ids else 0
    page: list[ModelRow] = []
    size = 0
    for record in chosen[start:]:
        row = row_of(record, names[record.id])
        size += len(msgspec.json.encode(row))
        if len(page) >= limit or (page and size > MAX_MODEL_PAGE_BYTES):
            return page, True
        page.append(row)
    return page, False


def row_of(record: ModelRecord, aliases: list[str]) -> ModelRow:
    """Return a model as one row of a list."""
    training = record.training
    return ModelRow(
        id=record.id,
        type=record.type,
        name=record.name,
        aliases=aliases,
        size_bytes=record.size_bytes,
        trained_at=record.trained_at,
        trained_by=record.trained_by,
        trained_on=record.trained_on,
        published_at=record.published_at,
        workers=record.workers,
        tags=record.tags,
        best_loss=training.best_loss,
        epochs=training.epochs,
        sleap_nn_version=training.sleap_nn_version,
    )


def _is_wanted(record: ModelRecord, aliases: list[str], wanted: ModelFilter) -> bool:
    if wanted.type and record.type != wanted.type:
        return False
    if wanted.tag and wanted.tag not in record.tags:
        return False
    if wanted.alias and not any(a.startswith(wanted.alias) for a in aliases):
        return False
    if wanted.worker and wanted.worker not in record.workers:
        return False
    text = wanted.text.casefold()
    places = (record.id, record.name, record.notes, *aliases, *record.tags)
    return any(text in place.casefold() for place in places)


# -- publishing --------------------------------------------------------------------


def add_model(
    manifest: RoomManifest,
    record: ModelRecord,
    publication: Publication,
    by: str,
    now: float,
    lost: frozenset[str] = frozenset(),
) -> RoomManifest:
    """List a model, or complete what is known of one that is listed.

    The alias of the publication is not looked at: whether a model goes without the
    one that it was to have is the caller's choice (`apply_edit` puts it).

    Args:
        manifest: the room's.
        record: the model; its files are in the store.
        publication: notes and tags for it.
        by: who publishes it.
        now: in Unix seconds.
        lost: digests of files that are listed and not in the store any more.

    Raises:
        RegistryFull: the room has as many models, or the model as many tags, as there
            may be.
    """
    at = _at(manifest, now)
    known = manifest.models.get(record.id)
    if known is None:
        if len(manifest.models) >= MAX_MODELS_PER_ROOM:
            raise RegistryFull(what="models", limit=str(MAX_MODELS_PER_ROOM))
        merged = structs.replace(
            record,
            published_at=at,
            published_by=clean_text(by),
            notes=clean_notes(publication.notes) or record.notes,
            tags=_tags([*record.tags, *publication.tags]),
        )
    else:
        merged = _completed(known, record, publication, lost)
    if merged == known:
        return manifest
    models = {**manifest.models, record.id: merged}
    return structs.replace(manifest, models=models, updated_at=at)


def _completed(
    known: ModelRecord,
    record: ModelRecord,
    publication: Publication,
    lost: frozenset[str],
) -> ModelRecord:
    """Add to a listed model what its new publication knows beside."""
    files = {file.path: file for file in known.files if file.digest not in lost}
    if [p.folder for p in known.parts] == [p.folder for p in record.parts]:
        for file in record.files:
            if len(files) < MAX_MODEL_FILES:
                files.setdefault(file.path, file)
    facts: dict[str, Any] = {
        name: getattr(known.training, name) or getattr(record.training, name)
        for name in TrainingFacts.__struct_fields__
    }
    kept = list(files.values())
    return structs.replace(
        known,
        files=kept,
        size_bytes=sum(file.size_bytes for file in kept),
        trained_at=known.trained_at or record.trained_at,
        trained_by=known.trained_by or record.trained_by,
        trained_on=known.trained_on or record.trained_on,
        workers=_holders([*record.workers, *known.workers]),
        notes=clean_notes(publication.notes) or known.notes,
        tags=_tags([*known.tags, *publication.tags]),
        training=structs.replace(known.training, **facts),
    )


def note_holder(
    manifest: RoomManifest, model_id: str, worker: str, holds: bool, now: float
) -> RoomManifest:
    """Note that a worker holds a verified copy of a model, or does not any more.

    A model that is not listed is left alone: it was deleted in the meantime.
    """
    record = manifest.models.get(model_id)
    worker = clean_text(worker)
    if record is None or (worker in record.workers) == holds:
        return manifest
    others = [name for name in record.workers if name != worker]
    workers = _holders([worker, *others]) if holds else others
    return _with_record(manifest, structs.replace(record, workers=workers), now)


def _holders(workers: Iterable[str]) -> list[str]:
    """Return them once each; where there are many, those that were noted last."""
    names = dict.fromkeys(clean_text(worker) for worker in workers if worker)
    return list(names)[:MAX_MODEL_HOLDERS]


def _tags(tags: Iterable[str]) -> list[str]:
    chosen = sorted(set(tags))
    if len(chosen) > MAX_MODEL_TAGS:
        raise RegistryFull(what="tags of one model", limit=str(MAX_MODEL_TAGS))
    return chosen


# -- editing -----------------------------------------------------------------------


def apply_edit(
    manifest: RoomManifest, edit: ModelEdit, by: str, now: float
) -> RoomManifest:
    """Return the manifest after a change; the same one where nothing is to change.

    Args:
        manifest: the room's.
        edit: any change but `CollectModels`, which is about the store.
        by: who asked for it.
        now: in Unix seconds; what is written never goes back behind what was.

    Raises:
        ModelNotFound: the model or alias is not there.
        BadRequest: the alias cannot be one.
        AliasTaken: it belongs to another model, and was not to be moved.
        AliasMoved: it does not point to where it was expected to.
        ModelHasAlias: a model that is used by name was to be deleted.
        RegistryFull: a bound would be passed.
    """
    match edit:
        case PutAlias():
            return _put_alias(manifest, edit, by, now)
        case RemoveAlias():
            if edit.alias not in manifest.aliases:
                raise ModelNotFound(model=clean_text(edit.alias))
            return _without_aliases(manifest, [edit.alias], by, now)
        case SetTags():
            record = find(manifest, edit.model)
            tags = _tags((set(record.tags) | set(edit.add)) - set(edit.remove))
            return _with_record(manifest, structs.replace(record, tags=tags), now)
        case SetNotes():
            record = find(manifest, edit.model)
            notes = clean_notes(edit.notes)
            return _with_record(manifest, structs.replace(record, notes=notes), now)
        case DeleteModel():
            return _delete(manifest, edit, by, now)
        case _:
            raise LocalProtocolError(detail="a change of the store, not of the list")


def _put_alias(
    manifest: RoomManifest, edit: PutAlias, by: str, now: float
) -> RoomManifest:
    alias = check_alias(edit.alias)
    model_id = find(manifest, edit.model).id
    current = manifest.aliases.get(alias)
    if current is not None and current.model == model_id:
        return manifest
    if edit.expected is not None and (
        current is None or current.model != edit.expected
    ):
        raise AliasMoved(alias=alias, model=current.model if current else _NOTHING)
    if current is not None and not edit.moves:
        raise AliasTaken(alias=alias, model=current.model)
    if len(aliases_of(manifest, model_id)) >= MAX_ALIASES_PER_MODEL:
        raise RegistryFull(
            what="aliases of one model", limit=str(MAX_ALIASES_PER_MODEL)
        )
    at = _at(manifest, now)
    former = dict(manifest.former_aliases)
    earlier = current.moves if current else former.pop(alias, [])
    move = AliasMove(model=model_id, by=clean_text(by), at=at)
    record = AliasRecord(model=model_id, moves=[move, *earlier][:MAX_ALIAS_MOVES])
    return structs.replace(
        manifest,
        aliases={**manifest.aliases, alias: record},
        former_aliases=former,
        updated_at=at,
    )


def _without_aliases(
    manifest: RoomManifest, names: list[str], by: str, now: float
) -> RoomManifest:
    """Take aliases away; who had them stays known, should they come back."""
    at = _at(manifest, now)
    gone = AliasMove(model=None, by=clean_text(by), at=at)
    former = {
        name: [gone, *manifest.aliases[name].moves][:MAX_ALIAS_MOVES] for name in names
    }
    former |= {k: v for k, v in manifest.former_aliases.items() if k not in former}
    kept = dict(list(former.items())[:MAX_FORMER_ALIASES])
    aliases = {k: v for k, v in manifest.aliases.items() if k not in set(names)}
    return structs.replace(
        manifest, aliases=aliases, former_aliases=kept, updated_at=at
    )


def _delete(
    manifest: RoomManifest, edit: DeleteModel, by: str, now: float
) -> RoomManifest:
    record = find(manifest, edit.model)
    names = aliases_of(manifest, record.id)
    if names and not edit.force:
        raise ModelHasAlias(model=record.id, aliases=", ".join(names))
    rest = _without_aliases(manifest, names, by, now)
    return structs.replace(
        rest,
        models={k: v for k, v in rest.models.items() if k != record.id},
        unknown_of_models={
            k: v for k, v in rest.unknown_of_models.items() if k != record.id
        },
    )


def _with_record(
    manifest: RoomManifest, record: ModelRecord, now: float
) -> RoomManifest:
    if manifest.models[record.id] == record:
        return manifest
    return structs.replace(
        manifest,
        models={**manifest.models, record.id: record},
        updated_at=_at(manifest, now),
    )


def _at(manifest: RoomManifest, now: float) -> float:
    """Return the time to write down: a clock that is behind turns nothing back."""
    return min(max(now, manifest.updated_at), MAX_UNIX_TIME_S)

"""`manifest.json` of a room: its models and aliases, from bytes and back.

Pure: bytes in, records out. The store is shared, and people edit its files by hand, so
whatever is read is checked as a whole: one part that cannot be right makes all of it
damaged, and nothing is written over it. Called by `model_registry`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct, ValidationError, convert, field, structs, to_builtins
from msgspec import json as fast_json

from sleap_rtc_plugin.protocol.errors import (
    RegistryDamaged,
    RegistryFull,
    RegistryTooNew,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.ids import clean_text, is_id
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIASES_PER_MODEL,
    MAX_MODEL_BYTES,
    MAX_MODELS_PER_ROOM,
    MAX_REGISTRY_BYTES,
    MAX_UNIX_TIME_S,
    MIB,
)
from sleap_rtc_plugin.protocol.model_records import (
    CHECKPOINT,
    MODEL_CONFIG,
    Alias,
    AliasMove,
    AliasRecord,
    ModelId,
    ModelRecord,
    alias_fault,
    is_model_id,
)
from sleap_rtc_plugin.protocol.paths import check_component, check_paths

__all__ = [
    "MANIFEST_VERSION",
    "RoomManifest",
    "aliases_of",
    "clean_notes",
    "decode_manifest",
    "empty_manifest",
    "encode_manifest",
    "record_fault",
]

MANIFEST_VERSION: Final = 1
_MAX_FAULT_CHARS: Final = 300

T = TypeVar("T")


class RoomManifest(Struct, frozen=True, kw_only=True):
    """What a room's registry says.

    Fields of the file that this program does not know are carried along: an older
    program must not take away what a newer one of the same version added.

    Attributes:
        version: of the file's format.
        room_id: whose models these are.
        updated_at: when it was last changed, in Unix seconds; never goes back.
        models: by id.
        aliases: by name.
        former_aliases: the moves of aliases that point nowhere now, the newest first.
        unknown: what the file holds beside these.
        unknown_of_models: what it holds beside the fields of a `ModelRecord`.
    """

    version: int = MANIFEST_VERSION
    room_id: str
    updated_at: float = 0.0
    models: dict[ModelId, ModelRecord] = field(default_factory=dict)
    aliases: dict[Alias, AliasRecord] = field(default_factory=dict)
    former_aliases: dict[Alias, list[AliasMove]] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)
    unknown_of_models: dict[ModelId, dict[str, Any]] = field(default_factory=dict)


_TABLES: Final = ("models", "aliases", "former_aliases")
_KNOWN: Final = frozenset({"version", "room_id", "updated_at", *_TABLES})
# `alias` is written for readers that know one alias a model, and never read.
_KNOWN_OF_MODELS: Final = frozenset({*ModelRecord.__struct_fields__, "alias"})


class _Fault(ValueError):
    """Why the manifest is damaged; completes "is damaged (…)"."""


def empty_manifest(room_id: str) -> RoomManifest:
    """Return the manifest of a room that has no models yet."""
    return RoomManifest(room_id=room_id)


def aliases_of(manifest: RoomManifest, model_id: str) -> list[str]:
    """Return the aliases of a model, in the order of the alphabet."""
    return sorted(a for a, r in manifest.aliases.items() if r.model == model_id)


# -- reading -----------------------------------------------------------------------


def decode_manifest(data: bytes, store: str) -> RoomManifest:
    """Read a manifest.

    Args:
        data: the file's bytes.
        store: what to call the store in an error.

    Raises:
        RegistryDamaged: it is not what a program of ours writes.
        RegistryTooNew: a later version of the program wrote it.
    """
    try:
        value = _parse(data)
        version = value.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise _Fault("it has no version")
        if version > MANIFEST_VERSION:
            raise RegistryTooNew(store=store, version=clean_text(str(version), 40))
        return _manifest(value)
    except (_Fault, ValidationError) as fault:
        reason = clean_text(str(fault), _MAX_FAULT_CHARS)
        raise RegistryDamaged(store=store, reason=reason) from None


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_REGISTRY_BYTES:
        raise _Fault(f"it is larger than {MAX_REGISTRY_BYTES // MIB} MiB")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except _Fault:
        raise
    except UnicodeDecodeError:
        raise _Fault("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise _Fault(f"it is not JSON from line {error.lineno} on") from None
    except (RecursionError, ValueError, OverflowError):
        raise _Fault("it is not JSON of any real size") from None
    if not isinstance(value, dict):
        raise _Fault("it is not a table of fields")
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; of two with one name, somebody would lose one unseen."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Fault(f"{clean_text(twice, 80)!r} stands there twice")
    return value


def _no_constant(name: str) -> float:
    raise _Fault(f"it holds the number {name}")


def _manifest(value: dict[str, Any]) -> RoomManifest:
    room_id = value.get("room_id")
    if not isinstance(room_id, str) or not is_id(room_id):
        raise _Fault("it names no room")
    updated_at = value.get("updated_at")
    if (
        not isinstance(updated_at, int | float)
        or isinstance(updated_at, bool)
        or not 0 <= updated_at <= MAX_UNIX_TIME_S
    ):
        raise _Fault("it does not say when it was changed")
    tables = {name: _table(value, name) for name in _TABLES}
    models = {
        model_id: _model(model_id, item) for model_id, item in tables["models"].items()
    }
    if len(models) > MAX_MODELS_PER_ROOM:
        raise _Fault(f"it lists more than {MAX_MODELS_PER_ROOM} models")
    aliases = {
        _alias(name): _converted(item, AliasRecord, f"the alias {name}")
        for name, item in tables["aliases"].items()
    }
    former = {
        _alias(name): _converted(item, list[AliasMove], f"the former alias {name}")
        for name, item in tables["former_aliases"].items()
    }
    _check_aliases(models, aliases)
    unknown_of_models = {
        model_id: extra
        for model_id, item in tables["models"].items()
        if (extra := {k: v for k, v in item.items() if k not in _KNOWN_OF_MODELS})
    }
    return RoomManifest(
        room_id=room_id,
        updated_at=float(updated_at),
        models=models,
        aliases={name: _clean_alias(record) for name, record in aliases.items()},
        former_aliases={name: _clean_moves(moves) for name, moves in former.items()},
        unknown={k: v for k, v in value.items() if k not in _KNOWN},
        unknown_of_models=unknown_of_models,
    )


def _table(value: dict[str, Any], name: str) -> dict[str, Any]:
    table = value.get(name, {})
    if not isinstance(table, dict):
        raise _Fault(f"its {name} are no table")
    return table


def _converted(value: Any, kind: type[T], what: str) -> T:
    try:
        return convert(value, kind)
    except ValidationError as error:
        raise _Fault(f"{clean_text(what, 80)}: {error}") from None


def _alias(name: str) -> str:
    fault = alias_fault(name)
    if fault:
        raise _Fault(f"the alias {clean_text(name, 80)!r} {fault}")
    return name


def _model(model_id: str, value: Any) -> ModelRecord:
    what = clean_text(model_id, 40)
    if not is_model_id(model_id):
        raise _Fault(f"{what!r} is not the id of a model")
    record = _clean_record(_converted(value, ModelRecord, what))
    if record.id != model_id:
        raise _Fault(f"{what} says that it is {record.id}")
    fault = record_fault(record)
    if fault:
        raise _Fault(f"{what} {fault}")
    return record


def _check_aliases(
    models: Mapping[str, ModelRecord], aliases: Mapping[str, AliasRecord]
) -> None:
    counts = dict.fromkeys(models, 0)
    for name, record in aliases.items():
        if record.model not in counts:
            raise _Fault(f"the alias {name} points to a model that is not listed")
        counts[record.model] += 1
    if any(count > MAX_ALIASES_PER_MODEL for count in counts.values()):
        raise _Fault(f"a model has more than {MAX_ALIASES_PER_MODEL} aliases")


def record_fault(record: ModelRecord) -> str | None:
    """Say what is wrong with the files of a record, or None where nothing is.

    A record without a fault can be laid below a folder: every path is safe, lies in
    the folder of one part, and every part has its configuration and weights.
    """
    paths = [file.path for file in record.files]
    folders = [part.folder for part in record.parts]
    try:
        check_paths(paths)
        for folder in folders:
            check_component(folder)
    except UnsafeMember as error:
        return f"lists {error.member}, which {error.reason}"
    if len({folder.casefold() for folder in folders}) != len(folders):
        return "has two parts in one folder"
    if any(path.partition("/")[0] not in folders for path in paths):
        return "lists a file outside of its parts"
    listed = set(paths)
    for folder in folders:
        for name in (MODEL_CONFIG, CHECKPOINT):
            if f"{folder}/{name}" not in listed:
                return f"lists no {name} of {clean_text(folder)}"
    if record.checkpoint_path != f"{folders[0]}/{CHECKPOINT}":
        return "names other weights than those of its first part"
    total = sum(file.size_bytes for file in record.files)
    if total != record.size_bytes:
        return "has another size than its files together"
    if total > MAX_MODEL_BYTES:
        return f"is larger than {MAX_MODEL_BYTES // MIB} MiB"
    return None


# -- text that somebody else wrote ---------------------------------------------------


def _clean_record(record: ModelRecord) -> ModelRecord:
    cleaned = {
        name: value
        for name in ("type", "name", "trained_by", "trained_on", "published_by")
        if (value := clean_text(old := getattr(record, name))) != old
    }
    notes = clean_notes(record.notes)
    if notes != record.notes:
        cleaned["notes"] = notes
    workers = [clean_text(worker) for worker in record.workers]
    return structs.replace(record, workers=workers, **cleaned)


def clean_notes(notes: str) -> str:
    """Make notes fit to show: their lines stay, characters without a shape go."""
    return "\n".join(clean_text(line, len(line)) for line in notes.splitlines())


def _clean_alias(record: AliasRecord) -> AliasRecord:
    return structs.replace(record, moves=_clean_moves(record.moves))


def _clean_moves(moves: list[AliasMove]) -> list[AliasMove]:
    return [structs.replace(move, by=clean_text(move.by)) for move in moves]


# -- writing -------------------------------------------------------------------------


def encode_manifest(manifest: RoomManifest) -> bytes:
    """Write a manifest: JSON with every field, indented for people who read it.

    Raises:
        RegistryFull: it would be larger than any reader takes.
    """
    first_alias: dict[str, str] = {}
    for name in sorted(manifest.aliases):
        first_alias.setdefault(manifest.aliases[name].model, name)
    value = {
        **manifest.unknown,
        "version": manifest.version,
        "room_id": manifest.room_id,
        "updated_at": manifest.updated_at,
        "models": {
            model_id: {
                **manifest.unknown_of_models.get(model_id, {}),
                **_all_fields(record),
                "alias": first_alias.get(model_id),
                "training": _all_fields(record.training),
            }
            for model_id, record in manifest.models.items()
        },
        "aliases": manifest.aliases,
        "former_aliases": manifest.former_aliases,
    }
    data = fast_json.format(fast_json.encode(value), indent=1)
    if len(data) > MAX_REGISTRY_BYTES:
        raise RegistryFull(
            what="text about its models", limit=f"{MAX_REGISTRY_BYTES // MIB} MiB"
        )
    return data


def _all_fields(struct: Struct) -> dict[str, Any]:
    return {
        name: to_builtins(getattr(struct, name)) for name in struct.__struct_fields__
    }

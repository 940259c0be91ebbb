"""The models of several registries as one list, and one of them by what it is called.

Pure. Workers with stores of their own each know some of a room's models; the same
model in two registries is one, since its id is made from its content. An alias may
mean a different model in each, which only a person can settle. Used by `room_models`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from msgspec import structs

from sleap_rtc_plugin.protocol.errors import ModelAmbiguous, ModelNotFound
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIASES_PER_MODEL,
    MAX_CANDIDATES_NAMED,
    MAX_MODEL_HOLDERS,
    MAX_MODEL_TAGS,
)
from sleap_rtc_plugin.protocol.model_messages import ModelRow

__all__ = [
    "RegistryRows",
    "disputed_aliases",
    "expand_id",
    "merge_rows",
    "the_one_meant",
]

ID_PREFIX: Final = "model-"
MIN_ID_DIGITS: Final = 4
_DIGITS: Final = frozenset("0123456789abcdef")

T = TypeVar("T")


@dataclass(frozen=True)
class RegistryRows:
    """What one registry lists.

    Attributes:
        workers: the names of those through which it is reached.
        rows: its models.
    """

    workers: Sequence[str]
    rows: Sequence[ModelRow]


def merge_rows(
    registries: Sequence[RegistryRows], worker: str = ""
) -> Sequence[ModelRow]:
    """Return the models of all registries, the newest first.

    Where there are several registries, a row also names the worker that is the only
    way to its registry: it has the model.

    Args:
        registries: what each lists.
        worker: only models that this worker has, if given.
    """
    merged: dict[str, ModelRow] = {}
    owned: dict[str, set[str]] = {}
    for registry in registries:
        own = list(registry.workers) if len(registry.workers) == 1 else []
        for row in registry.rows:
            owned.setdefault(row.id, set()).update(own)
            named = row
            if len(registries) > 1:
                named = structs.replace(row, workers=_bounded([*row.workers, *own]))
            known = merged.get(row.id)
            merged[row.id] = named if known is None else _together(known, named)
    rows = [
        row
        for row in merged.values()
        if not worker or worker in row.workers or worker in owned[row.id]
    ]
    return sorted(rows, key=lambda row: (-row.published_at, row.id))


def _together(first: ModelRow, second: ModelRow) -> ModelRow:
    """Return one row for a model that two registries list."""
    aliases = sorted({*first.aliases, *second.aliases})[:MAX_ALIASES_PER_MODEL]
    return structs.replace(
        first,
        aliases=aliases,
        workers=_bounded([*first.workers, *second.workers]),
        tags=sorted({*first.tags, *second.tags})[:MAX_MODEL_TAGS],
        published_at=min(first.published_at, second.published_at),
        trained_at=first.trained_at or second.trained_at,
        trained_by=first.trained_by or second.trained_by,
        trained_on=first.trained_on or second.trained_on,
    )


def _bounded(workers: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(workers))[:MAX_MODEL_HOLDERS]


def disputed_aliases(rows: Sequence[ModelRow]) -> list[str]:
    """Return the aliases that mean more than one of these models."""
    seen: set[str] = set()
    twice: set[str] = set()
    for row in rows:
        twice.update(seen.intersection(row.aliases))
        seen.update(row.aliases)
    return sorted(twice)


def expand_id(ref: str, rows: Sequence[ModelRow]) -> str:
    """Return the id that `ref` is the beginning of, with or without `model-`.

    Raises:
        ModelNotFound: no model's id begins so, or `ref` is too short to be one.
        ModelAmbiguous: several do.
    """
    digits = ref.removeprefix(ID_PREFIX)
    begins_one = len(digits) >= MIN_ID_DIGITS and _DIGITS.issuperset(digits)
    found = sorted(
        row.id
        for row in rows
        if begins_one and row.id.removeprefix(ID_PREFIX).startswith(digits)
    )
    if not found:
        raise ModelNotFound(model=clean_text(ref) or "without a name")
    if len(found) > 1:
        raise ModelAmbiguous(model=clean_text(ref), candidates=_named(found))
    return found[0]


def the_one_meant(ref: str, found: Sequence[tuple[str, str, T]]) -> list[T]:
    """Return what several registries have under one name, if it is one model.

    Args:
        ref: the alias or id that was asked for.
        found: for each that has it, the worker's name, the model's id and a value.

    Raises:
        ModelAmbiguous: they mean different models by it.
    """
    if len({model_id for _, model_id, _ in found}) > 1:
        candidates = [f"{model_id} on {worker}" for worker, model_id, _ in found]
        raise ModelAmbiguous(model=clean_text(ref), candidates=_named(candidates))
    return [value for _, _, value in found]


def _named(names: Sequence[str]) -> str:
    named = list(names[:MAX_CANDIDATES_NAMED])
    if len(names) > MAX_CANDIDATES_NAMED:
        named.append(f"{len(names) - MAX_CANDIDATES_NAMED} more")
    return ", ".join(named)

"""What the browser of models shows, as one frozen value, and how lists are narrowed.

Pure: the presenter keeps the newest `ModelsSnapshot`, and the window draws it. Names
that people chose are cleaned where they become words (`models_model`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sleap_rtc_plugin.companion.model_messages import LocalModelSet, ModelDescription
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.model_records import AliasRecord

__all__ = [
    "COLUMNS",
    "AliasQuestion",
    "ModelsSnapshot",
    "Order",
    "narrowed",
    "ordered",
    "parse_tags",
    "types_of",
]


@dataclass(frozen=True)
class AliasQuestion:
    """An alias is another model's: is it to move? Asked before it does.

    Attributes:
        alias: the alias.
        model: the model that is to get it.
        owner: the id of the model that has it.
        owner_name: how that one is called.
    """

    alias: str
    model: str
    owner: str
    owner_name: str


@dataclass(frozen=True)
class Order:
    """By which column the table is sorted."""

    column: int
    is_descending: bool = False


@dataclass(frozen=True)
class ModelsSnapshot:
    """Everything that the browser of models shows.

    Attributes:
        is_online: we are in a room.
        rows: the room's models, the newest first.
        is_listed: they were told at least once.
        is_listing: they are being asked for.
        text: what the list is narrowed to.
        type: the type that it is narrowed to, or empty.
        order: how it is sorted, or None for the newest first.
        chosen: the id of the chosen model, or None.
        details: everything of the chosen model, once it was told.
        local: the models of this computer to publish, or None while that is not known.
        working: what is being done, in words, or empty.
        progress: bytes done and in all, while a model moves.
        notice: what happened last, in words, or empty.
        is_problem: the notice is one.
        question: what has to be answered before an alias moves.
    """

    is_online: bool = False
    rows: tuple[ModelRow, ...] = ()
    is_listed: bool = False
    is_listing: bool = False
    text: str = ""
    type: str = ""
    order: Order | None = None
    chosen: str | None = None
    details: ModelDescription | None = None
    local: tuple[LocalModelSet, ...] | None = None
    working: str = ""
    progress: tuple[int, int] | None = None
    notice: str = ""
    is_problem: bool = False
    question: AliasQuestion | None = None

    @property
    def shown(self) -> tuple[ModelRow, ...]:
        """The models of the table, in its order."""
        return ordered(narrowed(self.rows, self.text, self.type), self.order)

    @property
    def chosen_row(self) -> ModelRow | None:
        """The chosen model's row."""
        return next((row for row in self.rows if row.id == self.chosen), None)

    @property
    def aliases(self) -> Mapping[str, AliasRecord]:
        """The aliases of the chosen model, with their moves."""
        return self.details.aliases if self.details is not None else {}


# -- lists -----------------------------------------------------------------------------


def narrowed(rows: Iterable[ModelRow], text: str, kind: str) -> tuple[ModelRow, ...]:
    """Return the models of a type that hold every word of `text` somewhere."""
    words = text.casefold().split()
    return tuple(
        row
        for row in rows
        if (not kind or row.type == kind)
        and all(word in _searched(row) for word in words)
    )


def _searched(row: ModelRow) -> str:
    parts = (*row.aliases, row.name, row.id, *row.tags, row.trained_by, row.trained_on)
    return "\n".join((*parts, *row.workers)).casefold()


def types_of(rows: Iterable[ModelRow]) -> tuple[str, ...]:
    """Return the types that there are."""
    return tuple(sorted({row.type for row in rows}))


# Header, and what a column sorts by. What is not known comes last.
COLUMNS: Final[tuple[tuple[str, Callable[[ModelRow], Any]], ...]] = (
    ("Alias", lambda row: (not row.aliases, [*row.aliases, row.name.casefold()])),
    ("Type", lambda row: row.type),
    ("Trained", lambda row: _number(row.trained_at)),
    ("By", lambda row: row.trained_by.casefold()),
    ("Best loss", lambda row: _number(row.best_loss)),
    ("Epochs", lambda row: _number(row.epochs)),
    ("Size", lambda row: row.size_bytes),
    ("Workers", lambda row: [name.casefold() for name in row.workers]),
    ("Tags", lambda row: list(row.tags)),
)


def _number(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.inf


def ordered(rows: Sequence[ModelRow], order: Order | None) -> tuple[ModelRow, ...]:
    """Return models sorted by a column; those that are equal keep their order."""
    if order is None:
        return tuple(rows)
    _, key = COLUMNS[order.column]
    return tuple(sorted(rows, key=key, reverse=order.is_descending))


def parse_tags(text: str) -> list[str]:
    """Read tags as a user types them, with commas or blanks between; each once."""
    return sorted(set(text.replace(",", " ").casefold().split()))

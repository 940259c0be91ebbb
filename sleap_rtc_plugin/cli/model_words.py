"""Models as rows of a table, as a page of details, and as JSON lines.

Pure: `now` is an argument. Used by `sleap-remote models`.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.filesize import decimal

from sleap_rtc_plugin.cli.job_words import span
from sleap_rtc_plugin.cli.loss_curve import LossCurve
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.model_records import (
    AliasMove,
    AliasRecord,
    CurvePoint,
    ModelRecord,
)
from sleap_rtc_plugin.registry.model_registry import ModelDetails

__all__ = [
    "COLUMNS",
    "NEVER_WRAPPED",
    "details_line",
    "details_rows",
    "fit_columns",
    "model_row",
    "moved_words",
    "row_line",
    "short_id",
]

COLUMNS: Final = (
    "Alias",
    "Type",
    "Id",
    "Age",
    "By",
    "Loss",
    "Size",
    "Workers",
    "Tags",
)
NEVER_WRAPPED: Final = ("Id", "Age", "Loss", "Size")
# The longest words of these columns that are not cut, in characters.
_WORDS: Final = {"Alias": 16, "Type": 16, "By": 8, "Workers": 10, "Tags": 8}
# Which columns go first where a terminal is narrow; `show` has everything.
_LEFT_OUT: Final = ("Tags", "By", "Size", "Workers", "Loss", "Type")
SHORT_ID_DIGITS: Final = 8
MAX_NODES_SHOWN: Final = 40


def short_id(model_id: str) -> str:
    """Return the beginning of an id, which every command takes for the whole."""
    return model_id.removeprefix("model-")[:SHORT_ID_DIGITS]


# -- lists -------------------------------------------------------------------------


def row_line(row: ModelRow) -> dict[str, Any]:
    """Return a model as `models list --json` prints it; times are Unix seconds."""
    return _all_fields(row)


def model_row(row: ModelRow, now: float) -> list[str]:
    """Return a model as a row of the table, by `COLUMNS`; `now` in Unix seconds."""
    return [
        # What has no alias is called by its name, which nobody can ask for.
        ", ".join(row.aliases) or f"({row.name})",
        row.type.replace("_", " "),
        short_id(row.id),
        # A clock somewhere else may be ahead of ours.
        span(now - (row.trained_at or row.published_at)),
        (row.trained_by or row.published_by).partition("@")[0],
        "" if row.best_loss is None else f"{row.best_loss:.2g}",
        decimal(row.size_bytes),
        ", ".join(row.workers),
        ", ".join(row.tags),
    ]


def fit_columns(
    cells: Sequence[Sequence[str]], width: int
) -> tuple[int, list[tuple[int, int]]]:
    """Choose the columns of a table that fit, without those that nothing stands in.

    Args:
        cells: the rows, by `COLUMNS`.
        width: of the terminal, in characters.

    Returns:
        How many spaces go between columns, and of each column its index and its width,
        such that few words are cut.
    """
    least = {
        index: max(_least(title, row[index]) for row in cells)
        for index, title in enumerate(COLUMNS)
        if any(row[index] for row in cells)
    }
    for title in ("", *_LEFT_OUT):
        if title:
            least.pop(COLUMNS.index(title), None)
        for gap in (2, 1):
            left = width - sum(least.values()) - gap * (len(least) - 1)
            if left >= 0:
                return gap, _widened(least, cells, left)
    return 1, list(least.items())


def _widened(
    least: dict[int, int], cells: Sequence[Sequence[str]], left: int
) -> list[tuple[int, int]]:
    """Give the columns what they lack for their texts to stand in one line."""
    widths = []
    for index, width in least.items():
        wanted = max(width, *(len(row[index]) for row in cells))
        more = min(wanted - width, left)
        left -= more
        widths.append((index, width + more))
    return widths


def _least(title: str, text: str) -> int:
    if title in NEVER_WRAPPED:
        return max(len(title), len(text))
    longest = max((len(word) for word in text.split()), default=0)
    return max(len(title), min(longest, _WORDS[title]))


# -- one model -----------------------------------------------------------------------


def details_line(details: ModelDetails) -> dict[str, Any]:
    """Return everything of a model as `models show --json` prints it."""
    line = _all_fields(details.record)
    line["training"] = _all_fields(details.record.training)
    line["aliases"] = msgspec.to_builtins(details.aliases)
    line["curves"] = [
        [{"epoch": p.epoch, "train": p.train, "val": p.val} for p in curve]
        for curve in details.curves
    ]
    return line


def details_rows(details: ModelDetails, now: float) -> list[tuple[str, str]]:
    """Return everything of a model as titles and texts, without those left empty.

    A text may have several lines; `now` is in Unix seconds.
    """
    record = details.record
    training = record.training
    nodes = training.skeleton[:MAX_NODES_SHOWN]
    more = len(training.skeleton) - len(nodes)
    rows = [
        ("Model", record.id),
        ("Name", record.name),
        ("Aliases", _alias_words(details.aliases, now)),
        ("Type", record.type.replace("_", " ")),
        ("Parts", _parts_words(record)),
        ("Trained", _trained_words(record, now)),
        ("Published", _at(record.published_at, record.published_by, now)),
        ("Loss", _loss_words(record)),
        ("Curve", _curve_words(record, details.curves)),
        ("sleap-nn", training.sleap_nn_version),
        (
            "Skeleton",
            f"{len(training.skeleton)} nodes: {', '.join(nodes)}"
            + (f" and {more} more" if more > 0 else "")
            if nodes
            else "",
        ),
        ("Labels", f"BLAKE3 {training.dataset_digest}" * bool(training.dataset_digest)),
        ("Files", f"{len(record.files)}, {decimal(record.size_bytes)}"),
        ("Held by", ", ".join(record.workers)),
        ("Tags", ", ".join(record.tags)),
        ("Notes", record.notes),
    ]
    return [(title, text) for title, text in rows if text]


def moved_words(alias: str, record: AliasRecord | None) -> str:
    """Say where an alias points since a change, and where it came from."""
    if record is None:
        return f"The alias {alias} is gone."
    earlier = record.moves[1].model if len(record.moves) > 1 else None
    words = f"{alias} is {record.model} now"
    return f"{words}; it was {earlier} before." if earlier else f"{words}."


def _alias_words(aliases: dict[str, AliasRecord], now: float) -> str:
    """Say of each alias who put it there and when, with its moves before that."""
    lines = []
    for alias in sorted(aliases):
        moves = aliases[alias].moves
        lines.append(f"{alias}{_move_words(moves[0], now)}" if moves else alias)
        lines += [
            f"  before: {short_id(move.model) if move.model else 'nothing'}"
            f"{_move_words(move, now)}"
            for move in moves[1:]
        ]
    return "\n".join(lines)


def _move_words(move: AliasMove, now: float) -> str:
    by = f" by {move.by}" if move.by else ""
    return f",{by} {span(now - move.at)} ago"


def _parts_words(record: ModelRecord) -> str:
    return "\n".join(f"{part.folder} ({part.head})" for part in record.parts)


def _trained_words(record: ModelRecord, now: float) -> str:
    if record.trained_at is None and not record.trained_by and not record.trained_on:
        return ""
    words = _at(record.trained_at, record.trained_by, now)
    if record.trained_on:
        words += f" on {record.trained_on}"
    duration_s = record.training.duration_s
    return words if duration_s is None else f"{words}, in {span(duration_s)}"


def _at(seconds: float | None, by: str, now: float) -> str:
    parts = []
    if seconds is not None:
        shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
        parts.append(f"{shown} ({span(now - seconds)} ago)")
    if by:
        parts.append(f"by {by}")
    return " ".join(parts)


def _loss_words(record: ModelRecord) -> str:
    training = record.training
    parts = []
    if training.best_loss is not None:
        where = "" if training.best_epoch is None else f" in epoch {_of(record)}"
        parts.append(f"best {training.best_loss:.3g}{where}")
    elif training.epochs is not None:
        parts.append(f"{training.epochs} epochs")
    if training.final_loss is not None:
        parts.append(f"last {training.final_loss:.3g}")
    return ", ".join(parts)


def _of(record: ModelRecord) -> str:
    training = record.training
    number = str((training.best_epoch or 0) + 1)
    return number if training.epochs is None else f"{number} of {training.epochs}"


def _curve_words(record: ModelRecord, curves: Sequence[Sequence[CurvePoint]]) -> str:
    lines = []
    for part, curve in zip(record.parts, curves, strict=False):
        drawn = LossCurve()
        for point in curve:
            losses = {"val/loss": point.val, "train/loss": point.train}
            drawn.add(point.epoch, {k: v for k, v in losses.items() if v is not None})
        if line := drawn.draw():
            # A curve may be thinned, so its points are not the epochs.
            losses_told = [p.train if p.val is None else p.val for p in curve]
            told = [loss for loss in losses_told if loss is not None]
            words = f"{line} {told[0]:.3g} → {min(told):.3g}"
            lines.append(f"{words} ({part.head})" if len(curves) > 1 else words)
    return "\n".join(lines)


def _all_fields(struct: msgspec.Struct) -> dict[str, Any]:
    """Return every field, also those that have their default."""
    return {
        name: msgspec.to_builtins(getattr(struct, name))
        for name in struct.__struct_fields__
    }

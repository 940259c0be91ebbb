"""What the browser of models says: a table row for each, and everything of one.

Pure functions but for the user's own way to write dates. Whatever a peer or a manifest
says is cleaned and bounded here; the window shows it as plain text. Called by the
browser of models.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from qtpy.QtCore import QDateTime, QLocale

from sleap_rtc_plugin.companion.model_messages import ModelDescription
from sleap_rtc_plugin.gui.model_choice import misfit, model_name, type_words
from sleap_rtc_plugin.gui.quantities import UNKNOWN, format_duration, format_size
from sleap_rtc_plugin.gui.tables import TableRow
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_UNIX_TIME_S
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.model_records import AliasMove, AliasRecord, ModelRecord

__all__ = [
    "alias_lines",
    "delete_words",
    "facts_of",
    "model_table_row",
    "move_words",
    "when",
]

MAX_LISTED: Final = 6
MAX_NODES_SHOWN: Final = 40
MAX_CELL_CHARS: Final = 120
_SECONDS_A_DAY: Final = 24 * 3600


# -- the table -------------------------------------------------------------------------


def model_table_row(row: ModelRow, now: float) -> TableRow:
    """Return a model as the table shows it.

    Args:
        row: the model.
        now: the time in Unix seconds.
    """
    name = model_name(row.id, row.aliases, row.name)
    cells = (
        ", ".join(row.aliases) or name,
        type_words(row.type),
        when(row.trained_at, now),
        clean_text(row.trained_by) or UNKNOWN,
        loss_words(row.best_loss),
        f"{row.epochs:,}" if row.epochs is not None else UNKNOWN,
        format_size(row.size_bytes),
        _listed(row.workers) or UNKNOWN,
        _listed(row.tags),
    )
    tip = [clean_text(row.name), row.id]
    if not row.aliases:
        tip.append("It has no alias.")
    if row.workers:
        tip.append(f"At hand on {_listed(row.workers)}.")
    return TableRow(row.id, cells, tip="\n".join(line for line in tip if line))


def _listed(names: Sequence[str]) -> str:
    shown = [clean_text(name) for name in names[:MAX_LISTED]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def loss_words(loss: float | None) -> str:
    """Say a loss, such as "1.23e-03"."""
    return UNKNOWN if loss is None or not math.isfinite(loss) else f"{loss:.2e}"


def when(seconds: float | None, now: float) -> str:
    """Say a time on this computer's clock: the hour today, the day before."""
    if seconds is None or not 0 < seconds < MAX_UNIX_TIME_S:
        return UNKNOWN
    moment = QDateTime.fromSecsSinceEpoch(int(seconds))
    locale, short = QLocale(), QLocale.FormatType.ShortFormat
    is_today = moment.date() == QDateTime.fromSecsSinceEpoch(int(now)).date()
    if is_today and abs(now - seconds) < _SECONDS_A_DAY:
        return locale.toString(moment.time(), short)
    return locale.toString(moment.date(), short)


# -- everything of one -----------------------------------------------------------------


def facts_of(
    details: ModelDescription, now: float, nodes: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Return what there is to know of a model, each with its name.

    Args:
        details: the model.
        now: the time in Unix seconds.
        nodes: the project's, to tell whether it fits.
    """
    record, training = details.record, details.record.training
    facts = [
        ("Name", clean_text(record.name)),
        ("Id", record.id),
        ("Type", _type(record)),
        ("Trained", _trained(record, now)),
        ("Published", _done(record.published_at, record.published_by, "", now)),
        ("Loss", _losses(record)),
        (
            "Duration",
            format_duration(training.duration_s) if training.duration_s else "",
        ),
        ("sleap-nn", clean_text(training.sleap_nn_version)),
        ("Nodes", _nodes(training.skeleton)),
        ("Labels", _digest(training.dataset_digest)),
        ("Size", f"{format_size(record.size_bytes)}, {_files(record)}"),
        ("At hand on", _listed(record.workers)),
        ("This project", misfit(record.type, training.skeleton, nodes)),
    ]
    return [(name, words) for name, words in facts if words]


def _type(record: ModelRecord) -> str:
    words = type_words(record.type)
    if len(record.parts) < 2:
        return words
    return f"{words}: {', '.join(clean_text(part.folder) for part in record.parts)}"


def _trained(record: ModelRecord, now: float) -> str:
    return _done(record.trained_at, record.trained_by, record.trained_on, now)


def _done(at: float | None, by: str, on: str, now: float) -> str:
    parts = [when(at, now)]
    if by:
        parts.append(f"by {clean_text(by)}")
    if on:
        parts.append(f"on {clean_text(on)}")
    return "" if parts == [UNKNOWN] else " ".join(parts)


def _losses(record: ModelRecord) -> str:
    training = record.training
    parts = []
    if training.best_loss is not None:
        best = f"best {loss_words(training.best_loss)}"
        if training.best_epoch is not None:
            best += f" in epoch {training.best_epoch + 1:,}"
        parts.append(best)
    if training.final_loss is not None:
        parts.append(f"last {loss_words(training.final_loss)}")
    if training.epochs is not None:
        epochs = "1 epoch" if training.epochs == 1 else f"{training.epochs:,} epochs"
        parts.append(epochs)
    return ", ".join(parts)


def _nodes(nodes: Sequence[str]) -> str:
    shown = [clean_text(node) for node in nodes[:MAX_NODES_SHOWN]]
    rest = len(nodes) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _digest(digest: str | None) -> str:
    return f"BLAKE3 {digest[:16]}…" if digest else ""


def _files(record: ModelRecord) -> str:
    return "1 file" if len(record.files) == 1 else f"{len(record.files)} files"


# -- aliases ---------------------------------------------------------------------------


def alias_lines(
    aliases: Mapping[str, AliasRecord],
    model: str,
    rows: Iterable[ModelRow],
    now: float,
) -> list[str]:
    """Return the history of a model's aliases, a line for each move, newest first.

    Args:
        aliases: those of the model.
        model: its id.
        rows: the room's models, for the names of the others.
        now: the time in Unix seconds.
    """
    names = {row.id: model_name(row.id, (), row.name) for row in rows}
    lines = []
    for alias in sorted(aliases):
        moves = aliases[alias].moves
        for place, move in enumerate(moves):
            before = moves[place + 1].model if place + 1 < len(moves) else None
            lines.append(_move_line(alias, move, before, model, names, now))
    return lines


def _move_line(
    alias: str,
    move: AliasMove,
    before: str | None,
    model: str,
    names: Mapping[str, str],
    now: float,
) -> str:
    def called(one: str) -> str:
        return "this model" if one == model else names.get(one, one)

    if move.model is None:
        what = "taken away"
    elif before is not None and before != move.model:
        what = f"moved from {called(before)} to {called(move.model)}"
    else:
        what = f"put on {called(move.model)}"
    by = f" by {clean_text(move.by)}" if move.by else ""
    return f"{clean_text(alias)}: {what}{by}, {when(move.at, now)}"


def move_words(alias: str, owner: str) -> str:
    """Ask whether an alias is to move."""
    return f"The alias {clean_text(alias)} belongs to {clean_text(owner)}. Move it?"


def delete_words(row: ModelRow) -> tuple[str, str]:
    """Ask whether a model is to be deleted, and say what that means."""
    name = model_name(row.id, row.aliases, row.name)
    if row.aliases:
        known = ", ".join(row.aliases)
        means = f"Everyone in the lab who uses it as {known} will miss it."
    else:
        means = "It is taken out of the lab's list of models."
    return f"Delete the model {name}?", f"{means} Copies on disks stay where they are."

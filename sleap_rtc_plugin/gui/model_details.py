"""The lower half of the browser of models: everything of the chosen one, to be changed.

A passive view: it draws what it is given and says by signals what the user wants. What
was typed and not saved is kept for each model as long as the window lives.
"""

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QPlainTextEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.companion.model_messages import ModelDescription
from sleap_rtc_plugin.gui.loss_curve import LossCurve
from sleap_rtc_plugin.gui.model_choice import alias_problem, type_words
from sleap_rtc_plugin.gui.models_model import alias_lines, facts_of
from sleap_rtc_plugin.gui.models_snapshot import ModelsSnapshot
from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button, text_edit
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIAS_CHARS,
    MAX_MODEL_NOTES_CHARS,
    MAX_MODEL_PARTS,
)

__all__ = ["ModelDetailsPanel"]

MAX_DRAFTS: Final = 50
_COLUMN_WIDTH: Final = 240
_HISTORY_LINES: Final = 3
# An id is one long word, which stands in the first.
_STRETCHES: Final = (5, 4, 4)


class ModelDetailsPanel(QWidget):
    """What there is to know of a model, and what people add to it."""

    notesSaved = Signal(str)
    tagsSaved = Signal(str)
    aliasPut = Signal(str)
    aliasRemoved = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        """Begin without a model."""
        super().__init__(parent)
        self.setObjectName("modelDetails")
        self._details: ModelDescription | None = None
        self._facts: list[tuple[str, str]] = []
        self._drafts: dict[str, tuple[str | None, str | None]] = {}
        self._saved = ("", "")
        columns = QGridLayout(self)
        columns.setContentsMargins(0, 0, 0, 0)
        for place, column in enumerate(
            (self._build_facts(), self._build_curves(), self._build_edits())
        ):
            columns.addWidget(column, 0, place)
            columns.setColumnStretch(place, _STRETCHES[place])
            columns.setColumnMinimumWidth(place, _COLUMN_WIDTH)
        self.setEnabled(False)

    # -- building ----------------------------------------------------------------------

    def _build_facts(self) -> QWidget:
        inside = QWidget()
        self._form = QFormLayout(inside)
        self._form.setContentsMargins(0, 0, 6, 0)
        self._form.setVerticalSpacing(3)
        self._form.setFieldGrowthPolicy(
            QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow
        )
        area = QScrollArea()
        area.setObjectName("modelFacts")
        area.setAccessibleName("Facts about the model")
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inside)
        return area

    def _build_curves(self) -> QWidget:
        column = QWidget()
        layout = QVBoxLayout(column)
        layout.setContentsMargins(0, 0, 0, 0)
        self.curves = [LossCurve(column) for _ in range(MAX_MODEL_PARTS)]
        for place, curve in enumerate(self.curves):
            curve.setObjectName("lossCurve" if place == 0 else f"lossCurve{place + 1}")
            curve.setVisible(place == 0)
            layout.addWidget(curve, 1)
        return column

    def _build_edits(self) -> QWidget:
        column = QWidget()
        layout = QGridLayout(column)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setColumnStretch(1, 1)
        self.alias_chooser = QComboBox(column)
        self.alias_chooser.setObjectName("modelAliasChooser")
        self.alias_chooser.setAccessibleName("Aliases of the model")
        self.remove_alias_button = push_button(
            column, "removeAliasButton", "Take A&way", "Take the alias away"
        )
        self.alias_edit = text_edit(
            column, "modelAliasEdit", "New alias of the model", "flies-v1"
        )
        self.alias_edit.setMaxLength(MAX_ALIAS_CHARS)
        self.put_alias_button = push_button(
            column, "putAliasButton", "&Give Alias", "Give the model this alias"
        )
        self.alias_label = plain_label(column, "modelAliasLabel", wraps=True)
        self.history_edit = QPlainTextEdit(column)
        self.history_edit.setObjectName("aliasHistory")
        self.history_edit.setAccessibleName("History of the aliases")
        self.history_edit.setReadOnly(True)
        self.history_edit.setTabChangesFocus(True)
        lines = self.history_edit.fontMetrics().lineSpacing() * _HISTORY_LINES
        self.history_edit.setFixedHeight(lines + 12)
        self.tags_edit = text_edit(column, "modelTagsEdit", "Tags of the model")
        self.save_tags_button = push_button(
            column, "saveTagsButton", "&Save Tags", "Save the tags"
        )
        self.notes_edit = QPlainTextEdit(column)
        self.notes_edit.setObjectName("modelNotesEdit")
        self.notes_edit.setAccessibleName("Notes about the model")
        self.notes_edit.setTabChangesFocus(True)
        self.notes_edit.setPlaceholderText("What others should know about it")
        self.save_notes_button = push_button(
            column, "saveNotesButton", "Save &Notes", "Save the notes"
        )
        rows: tuple[tuple[str, QWidget, QWidget], ...] = (
            ("A&liases:", self.alias_chooser, self.remove_alias_button),
            ("New:", self.alias_edit, self.put_alias_button),
        )
        for row, (text, field, button) in enumerate(rows):
            _add_row(column, row, text, field, button)
        layout.addWidget(self.alias_label, 2, 1, 1, 2)
        layout.addWidget(self.history_edit, 3, 1, 1, 2)
        _add_row(column, 4, "&Tags:", self.tags_edit, self.save_tags_button)
        notes = plain_label(column, "modelNotesLabel", "N&otes:")
        notes.setBuddy(self.notes_edit)
        layout.addWidget(notes, 5, 0, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self.notes_edit, 5, 1, 1, 2)
        foot = QHBoxLayout()
        foot.addStretch(1)
        foot.addWidget(self.save_notes_button)
        layout.addLayout(foot, 6, 1, 1, 2)
        layout.setRowStretch(5, 1)
        self._connect_signals()
        return column

    def _connect_signals(self) -> None:
        self.notes_edit.textChanged.connect(self._draw_buttons)
        self.tags_edit.textChanged.connect(self._draw_buttons)
        self.alias_edit.textChanged.connect(self._draw_buttons)
        self.save_notes_button.clicked.connect(
            lambda: self.notesSaved.emit(self.notes_edit.toPlainText())
        )
        self.save_tags_button.clicked.connect(self._save_tags)
        self.tags_edit.returnPressed.connect(self._save_tags)
        self.put_alias_button.clicked.connect(self._put_alias)
        self.alias_edit.returnPressed.connect(self._put_alias)
        self.remove_alias_button.clicked.connect(
            lambda: self.aliasRemoved.emit(self.alias_chooser.currentData() or "")
        )

    # -- drawing -----------------------------------------------------------------------

    def render_snapshot(
        self, snapshot: ModelsSnapshot, now: float, nodes: Sequence[str]
    ) -> None:
        """Draw the chosen model.

        Args:
            snapshot: what the browser shows.
            now: the time in Unix seconds.
            nodes: those of the open project.
        """
        details = snapshot.details
        self.setEnabled(details is not None)
        if details is None:
            self._keep_draft()
            self._details = None
            self._draw_nothing()
            return
        self._draw_facts(facts_of(details, now, nodes))
        if details != self._details:
            self._draw_model(details)
        record = details.record
        lines = alias_lines(details.aliases, record.id, snapshot.rows, now)
        history = "\n".join(lines)
        if self.history_edit.toPlainText() != history:
            self.history_edit.setPlainText(history)
        self._draw_buttons()

    def _draw_model(self, details: ModelDescription) -> None:
        before, record = self._details, details.record
        is_same = before is not None and before.record.id == record.id
        if not is_same:
            self._keep_draft()
        self._details = details
        self._draw_curves(details)
        aliases = sorted(details.aliases)
        if not is_same or self.alias_edit.text().strip() in aliases:
            self.alias_edit.clear()
        self.alias_chooser.clear()
        for alias in aliases:
            self.alias_chooser.addItem(clean_text(alias), alias)
        self._draw_notes_and_tags(details, is_same=is_same)

    def _draw_notes_and_tags(self, details: ModelDescription, *, is_same: bool) -> None:
        """Show what is saved, but for what the user typed and did not save."""
        record = details.record
        notes, tags = _notes(record.notes), " ".join(record.tags)
        typed = self._typed() if is_same else self._drafts.pop(record.id, (None, None))
        self._saved = (notes, tags)
        draft_notes, draft_tags = typed
        _set_plain(self.notes_edit, notes if draft_notes is None else draft_notes)
        shown = tags if draft_tags is None else draft_tags
        if self.tags_edit.text() != shown:
            self.tags_edit.setText(shown)

    def _typed(self) -> tuple[str | None, str | None]:
        """Return notes and tags as they were typed and not saved, or None each."""
        notes, tags = self.notes_edit.toPlainText(), self.tags_edit.text()
        return (
            notes if notes != self._saved[0] else None,
            tags if tags != self._saved[1] else None,
        )

    def _keep_draft(self) -> None:
        if self._details is None:
            return
        model = self._details.record.id
        typed = self._typed()
        self._drafts.pop(model, None)
        if typed != (None, None):
            if len(self._drafts) >= MAX_DRAFTS:
                self._drafts.pop(next(iter(self._drafts)))
            self._drafts[model] = typed

    def _draw_nothing(self) -> None:
        self._draw_facts([])
        self._saved = ("", "")
        self.alias_chooser.clear()
        self.alias_edit.clear()
        self.tags_edit.clear()
        self.history_edit.clear()
        _set_plain(self.notes_edit, "")
        for place, curve in enumerate(self.curves):
            curve.show_curve("", [])
            curve.setVisible(place == 0)

    def _draw_facts(self, facts: list[tuple[str, str]]) -> None:
        if facts == self._facts:
            return
        self._facts = facts
        while self._form.rowCount():
            self._form.removeRow(0)
        for name, words in facts:
            label = plain_label(self, f"fact{name.replace(' ', '')}", words, wraps=True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            label.setAccessibleName(name)
            self._form.addRow(plain_label(self, "", f"{name}:"), label)

    def _draw_curves(self, details: ModelDescription) -> None:
        parts = details.record.parts
        for place, curve in enumerate(self.curves):
            curve.setVisible(place == 0 or place < len(details.curves))
            points = details.curves[place] if place < len(details.curves) else []
            title = type_words(parts[place].head) if place < len(parts) else ""
            curve.show_curve(title.removesuffix(" only"), points)

    def _draw_buttons(self) -> None:
        notes, tags = self._typed()
        is_fit = len(self.notes_edit.toPlainText()) <= MAX_MODEL_NOTES_CHARS
        self.save_notes_button.setEnabled(notes is not None and is_fit)
        self.save_tags_button.setEnabled(tags is not None)
        self.remove_alias_button.setEnabled(self.alias_chooser.count() > 0)
        alias = self.alias_edit.text().strip()
        problem = alias_problem(alias) if alias else ""
        self.put_alias_button.setEnabled(bool(alias) and not problem)
        self.alias_label.setText(problem)
        self.alias_label.setVisible(bool(problem))

    # -- what the user does ------------------------------------------------------------

    def _save_tags(self) -> None:
        if self.save_tags_button.isEnabled():
            self.tagsSaved.emit(self.tags_edit.text())

    def _put_alias(self) -> None:
        if self.put_alias_button.isEnabled():
            self.aliasPut.emit(self.alias_edit.text().strip())


def _add_row(
    parent: QWidget, row: int, text: str, field: QWidget, button: QWidget
) -> None:
    layout = parent.layout()
    if not isinstance(layout, QGridLayout):
        raise TypeError("the rows of a column stand in a grid")
    label = plain_label(parent, f"{field.objectName()}Label", text)
    label.setBuddy(field)
    layout.addWidget(label, row, 0)
    layout.addWidget(field, row, 1)
    layout.addWidget(button, row, 2)


def _set_plain(edit: QPlainTextEdit, text: str) -> None:
    if edit.toPlainText() != text:
        edit.setPlainText(text)


def _notes(notes: str) -> str:
    """Return notes line by line, without what would not be text."""
    lines = notes.replace("\r\n", "\n").split("\n")
    return "\n".join(clean_text(line, MAX_MODEL_NOTES_CHARS) for line in lines)

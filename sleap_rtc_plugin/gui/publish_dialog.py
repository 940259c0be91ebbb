"""Asks which model of this computer to publish, and under which name.

A passive view: it shows the trained models that the companion found, checks an alias as
it is typed, and hands over what was chosen. Opened by the browser of models.
"""

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.companion.model_messages import LocalModelSet
from sleap_rtc_plugin.gui.model_choice import alias_problem, type_words
from sleap_rtc_plugin.gui.models_presenter import tags_problem
from sleap_rtc_plugin.gui.models_snapshot import parse_tags
from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button, text_edit
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_ALIAS_CHARS, MAX_MODEL_NOTES_CHARS
from sleap_rtc_plugin.protocol.model_records import Publication

__all__ = ["PublishModelDialog"]

_WIDTH: Final = 520
_NOTES_LINES: Final = 4
_LOOKING: Final = "Looking for trained models…"
_NONE: Final = (
    "There is no trained model in this folder. Choose the folder that holds the "
    "folders of your models, such as models/ beside a project."
)


class PublishModelDialog(QDialog):
    """Which model, and what to call it. Not blocking; Escape closes it."""

    folderChosen = Signal(str)
    publishRequested = Signal(object, object)

    def __init__(self, folder: str, parent: QWidget | None = None) -> None:
        """Begin before the models of `folder` are known."""
        super().__init__(parent)
        self.setObjectName("PublishModelDialog")
        self.setWindowTitle("Publish a Local Model")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._folder = folder
        self._models: tuple[LocalModelSet, ...] | None = None
        self._build()
        self.resize(_WIDTH, self.sizeHint().height())
        self._draw()

    def _build(self) -> None:
        self.model_chooser = QComboBox(self)
        self.model_chooser.setObjectName("localModelChooser")
        self.model_chooser.setAccessibleName("Model to publish")
        self.model_chooser.setMinimumContentsLength(20)
        self.model_chooser.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.folder_button = push_button(
            self, "otherFolderButton", "Other &Folder...", "Look in another folder"
        )
        self.folder_button.setAutoDefault(False)
        row = QHBoxLayout()
        row.addWidget(self.model_chooser, 1)
        row.addWidget(self.folder_button)
        self.alias_edit = text_edit(self, "publishAliasEdit", "Alias", "flies-v1")
        self.alias_edit.setMaxLength(MAX_ALIAS_CHARS)
        self.tags_edit = text_edit(self, "publishTagsEdit", "Tags", "fly top-view")
        self.notes_edit = QPlainTextEdit(self)
        self.notes_edit.setObjectName("publishNotesEdit")
        self.notes_edit.setAccessibleName("Notes")
        self.notes_edit.setTabChangesFocus(True)
        lines = self.notes_edit.fontMetrics().lineSpacing() * _NOTES_LINES
        self.notes_edit.setFixedHeight(lines + 12)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        label = plain_label(self, "localModelLabel", "&Model:")
        label.setBuddy(self.model_chooser)
        form.addRow(label, row)
        form.addRow("&Alias:", self.alias_edit)
        form.addRow("&Tags:", self.tags_edit)
        form.addRow("&Notes:", self.notes_edit)
        self.hint_label = plain_label(self, "publishHintLabel", wraps=True)
        self.hint_label.setMinimumHeight(2 * self.fontMetrics().lineSpacing())
        roles = QDialogButtonBox.ButtonRole
        buttons = QDialogButtonBox(self)
        self.publish_button = push_button(self, "publishButton", "&Publish")
        self.publish_button.setDefault(True)
        cancel = push_button(self, "cancelPublishButton", "Cancel")
        cancel.setAutoDefault(False)
        buttons.addButton(self.publish_button, roles.AcceptRole)
        buttons.addButton(cancel, roles.RejectRole)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.hint_label)
        layout.addStretch(1)
        layout.addWidget(buttons)
        buttons.accepted.connect(self._publish)
        buttons.rejected.connect(self.reject)
        self.folder_button.clicked.connect(self._choose_folder)
        for edit in (self.alias_edit, self.tags_edit):
            edit.textChanged.connect(self._draw)
        self.notes_edit.textChanged.connect(self._draw)

    # -- drawing -----------------------------------------------------------------------

    def show_models(self, models: Sequence[LocalModelSet] | None) -> None:
        """Offer these models; None while they are looked for."""
        found = None if models is None else tuple(models)
        if found == self._models:
            return
        self._models = found
        self.model_chooser.clear()
        for one in found or ():
            self.model_chooser.addItem(
                f"{clean_text(one.name)} ({type_words(one.type)})"
            )
        self._draw()

    def _draw(self) -> None:
        problem = self._problem()
        hint = problem or (
            "Everyone in the lab can find it by its alias and use it on any worker."
        )
        if self._models is None:
            hint = _LOOKING
        elif not self._models:
            hint = _NONE
        self.hint_label.setText(hint)
        self.model_chooser.setEnabled(bool(self._models))
        self.publish_button.setEnabled(bool(self._models) and not problem)

    def _problem(self) -> str:
        alias = self.alias_edit.text().strip()
        if alias and (problem := alias_problem(alias)):
            return problem
        if len(self.notes_edit.toPlainText()) > MAX_MODEL_NOTES_CHARS:
            return f"Notes have at most {MAX_MODEL_NOTES_CHARS:,} characters."
        return tags_problem(parse_tags(self.tags_edit.text()))

    # -- what the user does ------------------------------------------------------------

    def _choose_folder(self) -> None:
        dialog = QFileDialog(self, "Folder with Models", self._folder)
        dialog.setObjectName("modelsFolderDialog")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setOption(QFileDialog.Option.ShowDirsOnly, True)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self._folder_chosen)
        dialog.open()

    def _folder_chosen(self, folder: str) -> None:
        self._folder = folder
        self.folderChosen.emit(folder)

    def _publish(self) -> None:
        if not self.publish_button.isEnabled() or not self._models:
            return
        model = self._models[self.model_chooser.currentIndex()]
        publication = Publication(
            alias=self.alias_edit.text().strip() or None,
            notes=self.notes_edit.toPlainText(),
            tags=parse_tags(self.tags_edit.text()),
        )
        self.publishRequested.emit(model, publication)
        self.accept()

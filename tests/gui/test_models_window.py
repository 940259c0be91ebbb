"""The browser of models and its dialogs, over a scripted companion."""

from collections.abc import Iterator
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QMainWindow,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QTableView,
    QWidget,
)
from support.models_world import NOW, ModelsWorld, describe, make_model, model_id

from sleap_rtc_plugin.companion.messages import Done, RoomChanged
from sleap_rtc_plugin.companion.model_messages import (
    ChangeModel,
    ListLocalModels,
    ListModels,
    LocalModels,
    LocalModelSet,
    ModelProgress,
    PublishModel,
    Pulled,
    PullModel,
)
from sleap_rtc_plugin.gui.loss_curve import LossCurve, scale_of, segments
from sleap_rtc_plugin.gui.models_model import alias_lines, model_table_row
from sleap_rtc_plugin.gui.models_snapshot import COLUMNS
from sleap_rtc_plugin.gui.models_window import RemoteModelsWindow
from sleap_rtc_plugin.protocol.errors import NoStore
from sleap_rtc_plugin.protocol.model_messages import (
    DeleteModel,
    ModelRow,
    PutAlias,
    RemoveAlias,
    SetNotes,
    SetTags,
)
from sleap_rtc_plugin.protocol.model_records import (
    AliasMove,
    AliasRecord,
    CurvePoint,
    Publication,
)
from sleap_rtc_plugin.session.run_request import PublishedModel

Key = Qt.Key
FLIES = make_model(1, "flies", tags=["fly"], workers=["gpu-1", "gpu-2"])
MICE = make_model(2, "mice", type="bottomup", name="mice", best_loss=None)
NODES = ["head", "thorax"]
LOCAL = LocalModelSet(name="new", type="topdown", folders=["/m/a", "/m/b"])
HOSTILE = "<b>x</b><img src='file:///etc/passwd'>\u202e" + "y" * 3000


class World(ModelsWorld):
    """The window and everything around it."""

    def __init__(self, qtbot: Any, *models: ModelRow) -> None:
        super().__init__(*models)
        self.qtbot = qtbot
        self.used: list[PublishedModel] = []
        self.folder: str | None = "/project/models"
        self.nodes = NODES
        self.parent = QMainWindow()
        qtbot.addWidget(self.parent)
        self.window = RemoteModelsWindow(
            self.parent,
            self.presenter,
            on_use=self.used.append,
            models_folder=lambda: self.folder,
            project_nodes=lambda: self.nodes,
            clock=lambda: NOW,
        )
        self.window.show()
        qtbot.waitExposed(self.window)

    def open(self) -> "World":
        self.enter()
        self.draw()
        return self

    def draw(self) -> None:
        self.window._redraw()

    def find(self, kind: type, name: str) -> Any:
        (found,) = self.window.findChildren(kind, name)
        return found

    def press(self, name: str) -> None:
        button = self.find(QPushButton, name)
        assert button.isEnabled(), name
        button.click()
        self.draw()

    def choose(self, number: int = 1) -> "World":
        self.open()
        row = self.window._model.row_of(model_id(number))
        assert row is not None
        self.find(QTableView, "modelsTable").selectRow(row)
        self.draw()
        return self

    def cells(self, title: str) -> list[str]:
        model = self.find(QTableView, "modelsTable").model()
        column = [name for name, _ in COLUMNS].index(title)
        return [model.index(i, column).data() for i in range(model.rowCount())]

    def edits(self) -> list[Any]:
        return [command.edit for command in self.host.asked_for(ChangeModel)]

    def box(self, name: str) -> QMessageBox:
        return self.find(QMessageBox, name)

    def answer(self, name: str, words: str) -> None:
        for button in self.box(name).buttons():
            if button.text() == words:
                button.click()
        self.draw()


@pytest.fixture
def world(qtbot: Any) -> Iterator[World]:
    world = World(qtbot, FLIES, MICE)
    yield world
    world.window.close()


# -- what is shown ---------------------------------------------------------------------


def test_each_state_is_said_in_words(world: World) -> None:
    empty = world.window.empty_label
    world.draw()
    assert empty.isVisible() and "Not connected" in empty.text()
    assert not world.find(QPushButton, "modelsRefreshButton").isEnabled()
    world.host.hold(ListModels)
    world.enter()
    world.draw()
    assert "Asking" in empty.text()
    world.host.release(ListModels, NoStore(reason="no worker is online"))
    world.draw()
    assert "Refresh" in empty.text()
    assert "no worker is online" in world.window.notice_label.text()
    world.host.models = []
    world.press("modelsRefreshButton")
    assert "no models yet" in empty.text()
    world.host.models = [FLIES]
    world.press("modelsRefreshButton")
    assert not empty.isVisible()
    world.find(QLineEdit, "modelsFilterEdit").setText("nothing")
    world.draw()
    assert "No model matches" in empty.text()


def test_models_are_rows_and_one_of_them_is_told_in_full(world: World) -> None:
    world.choose()
    assert world.cells("Alias") == ["flies", "mice"]
    assert world.cells("Type") == ["Top-down", "Bottom-up"]
    assert world.cells("Best loss") == ["1.00e-03", "\N{EN DASH}"]
    assert world.cells("Workers") == ["gpu-1, gpu-2", "\N{EN DASH}"]
    labels = {
        label.objectName(): label.text() for label in world.window.findChildren(QLabel)
    }
    assert labels["factId"] == FLIES.id
    assert "best 1.25e-01 in epoch 2" in labels["factLoss"]
    assert labels["factNodes"] == "head, thorax"
    notes = world.find(QPlainTextEdit, "modelNotesEdit")
    assert notes.toPlainText() == "Trained on the first half."
    curves = world.window.findChildren(LossCurve)
    assert [curve.isVisible() for curve in curves] == [True, True]
    assert "from epoch 1 to 20" in curves[0].accessibleDescription()


def test_a_refresh_keeps_the_selection_and_what_was_typed(world: World) -> None:
    world.choose()
    notes = world.find(QPlainTextEdit, "modelNotesEdit")
    notes.setPlainText("half a thought")
    world.host.models.insert(0, make_model(9, "wasps"))
    world.press("modelsRefreshButton")
    assert world.cells("Alias") == ["wasps", "flies", "mice"]
    rows = world.find(QTableView, "modelsTable").selectionModel().selectedRows()
    assert [row.row() for row in rows] == [1]
    assert notes.toPlainText() == "half a thought"


def test_what_was_typed_for_a_model_comes_back_with_it(world: World) -> None:
    world.choose(1)
    notes = world.find(QPlainTextEdit, "modelNotesEdit")
    notes.setPlainText("half a thought")
    world.choose(2)
    assert notes.toPlainText() == "Trained on the first half."
    world.choose(1)
    assert notes.toPlainText() == "half a thought"
    assert world.find(QPushButton, "saveNotesButton").isEnabled()


def test_a_header_sorts(world: World) -> None:
    world.open()
    header = world.find(QTableView, "modelsTable").horizontalHeader()
    header.sectionClicked.emit(0)
    header.sectionClicked.emit(0)
    world.draw()
    assert world.cells("Alias") == ["mice", "flies"]
    assert header.isSortIndicatorShown()


def test_what_strangers_wrote_is_plain_and_bounded(qtbot: Any) -> None:
    hostile = make_model(
        1, name=HOSTILE, trained_by=HOSTILE, workers=[HOSTILE], type=HOSTILE
    )
    world = World(qtbot, hostile)
    world.host.describes = lambda row: describe(
        row, notes=HOSTILE, trained_by=HOSTILE, type="bottomup"
    )
    world.choose(1)
    index = world.find(QTableView, "modelsTable").model().index(0, 0)
    assert "<b>" not in index.data(Qt.ItemDataRole.ToolTipRole)
    world.presenter.handle(RoomChanged(state="offline", reason=HOSTILE))
    world.draw()
    for label in world.window.findChildren(QLabel):
        if label.text():
            assert label.textFormat() is Qt.TextFormat.PlainText, label.objectName()
            assert "\u202e" not in label.text()
    row = model_table_row(hostile, NOW)
    assert all("\u202e" not in cell and len(cell) < 2000 for cell in row.cells)
    world.window.close()


def test_everything_has_a_name_and_is_read_aloud(world: World) -> None:
    world.choose()
    kinds = (QPushButton, QLineEdit, QComboBox, QPlainTextEdit, QTableView)
    for widget in world.window.findChildren(QWidget):
        if not isinstance(widget, kinds) or widget.objectName().startswith("qt_"):
            continue
        if isinstance(widget.parent(), QComboBox):
            continue
        assert widget.objectName()
        text = widget.text() if isinstance(widget, QPushButton) else ""
        assert widget.accessibleName() or text, widget.objectName()


# -- the keyboard ----------------------------------------------------------------------


def test_from_the_filter_to_inference_by_keyboard(world: World) -> None:
    world.open()
    world.window.activateWindow()
    world.qtbot.waitUntil(world.window.isActiveWindow)
    edit = world.find(QLineEdit, "modelsFilterEdit")
    edit.setFocus()
    world.qtbot.keyClicks(edit, "fly")
    world.draw()
    assert world.cells("Alias") == ["flies"]
    world.qtbot.keyClick(edit, Key.Key_Return)
    table = world.find(QTableView, "modelsTable")
    assert table.hasFocus()
    assert world.now.chosen == FLIES.id
    world.qtbot.keyClick(table, Key.Key_Return)
    assert world.used == [PublishedModel(id=FLIES.id, head="topdown", name="flies")]


# -- what the user does ----------------------------------------------------------------


def test_tab_reaches_everything_from_the_filter_to_deleting(world: World) -> None:
    world.choose()
    world.window.activateWindow()
    world.qtbot.waitUntil(world.window.isActiveWindow)
    world.find(QLineEdit, "modelsFilterEdit").setFocus()
    seen: list[str] = []
    for _ in range(40):
        focused = QApplication.focusWidget()
        assert focused is not None
        seen.append(focused.objectName())
        if seen[-1] == "deleteModelButton":
            break
        world.qtbot.keyClick(focused, Key.Key_Tab)
    wanted = [
        "modelsFilterEdit",
        "modelsTypeChooser",
        "modelsRefreshButton",
        "modelsTable",
        "modelAliasChooser",
        "modelTagsEdit",
        "modelNotesEdit",
        "useForInferenceButton",
        "deleteModelButton",
    ]
    assert [name for name in seen if name in wanted] == wanted, seen


def test_a_model_that_does_not_fit_cannot_be_used(world: World) -> None:
    world.nodes = ["nose"]
    world.choose()
    use = world.find(QPushButton, "useForInferenceButton")
    assert not use.isEnabled()
    assert "another skeleton" in use.toolTip()
    assert world.find(QPushButton, "pullModelButton").isEnabled()


def test_without_a_project_nothing_is_pulled(world: World) -> None:
    world.folder = None
    world.choose()
    for name in ("useForInferenceButton", "pullModelButton"):
        button = world.find(QPushButton, name)
        assert not button.isEnabled() and "save a project" in button.toolTip()


def test_pulling_shows_how_far_it_is(world: World) -> None:
    world.choose()
    world.host.hold(PullModel)
    world.press("pullModelButton")
    (command,) = world.host.asked_for(PullModel)
    assert command.folder == "/project/models"
    bar = world.window.progress_bar
    assert bar.isVisible() and bar.maximum() == 0
    for done in (3 << 40, 6 << 40):
        event = ModelProgress(operation=command.operation, done=done, total=6 << 40)
        world.presenter.handle(event)
        world.draw()
    assert bar.value() == bar.maximum()
    world.host.release(PullModel, Pulled(folders=["/project/models/a"]))
    world.draw()
    assert not bar.isVisible()
    assert "is in /project/models: a" in world.window.notice_label.text()


def test_notes_tags_and_aliases_are_edited(world: World) -> None:
    world.choose()
    world.host.answer(ChangeModel, *[describe(FLIES)] * 4)
    world.find(QPlainTextEdit, "modelNotesEdit").setPlainText("Better.")
    world.press("saveNotesButton")
    world.find(QLineEdit, "modelTagsEdit").setText("fly new")
    world.press("saveTagsButton")
    alias = world.find(QLineEdit, "modelAliasEdit")
    alias.setText("Not an alias")
    assert not world.find(QPushButton, "putAliasButton").isEnabled()
    assert "An alias must be" in world.find(QLabel, "modelAliasLabel").text()
    alias.setText("best")
    world.press("putAliasButton")
    world.press("removeAliasButton")
    assert world.edits() == [
        SetNotes(model=FLIES.id, notes="Better."),
        SetTags(model=FLIES.id, add=["new"], remove=[]),
        PutAlias(alias="best", model=FLIES.id),
        RemoveAlias(alias="flies"),
    ]


@pytest.mark.parametrize("moves", [True, False])
def test_an_alias_moves_only_after_a_question(world: World, moves: bool) -> None:
    world.choose()
    world.host.answer(ChangeModel, describe(FLIES))
    world.find(QLineEdit, "modelAliasEdit").setText("mice")
    world.press("putAliasButton")
    box = world.box("moveAliasQuestion")
    assert box.text() == "The alias mice belongs to mice. Move it?"
    assert box.textFormat() is Qt.TextFormat.PlainText
    world.answer("moveAliasQuestion", "&Move It" if moves else "&Leave It")
    assert [type(edit) for edit in world.edits()] == ([PutAlias] if moves else [])
    assert world.now.question is None


def test_a_model_is_deleted_only_after_a_question(world: World) -> None:
    world.choose()
    world.press("deleteModelButton")
    assert "used" in world.box("deleteModelQuestion").informativeText() or (
        "uses it as flies" in world.box("deleteModelQuestion").informativeText()
    )
    world.host.answer(ChangeModel, Done())
    world.host.models = [MICE]
    world.answer("deleteModelQuestion", "&Delete It")
    assert world.edits() == [DeleteModel(model=FLIES.id, force=True)]
    assert world.cells("Alias") == ["mice"]


def test_a_local_model_is_published(world: World) -> None:
    world.open()
    world.host.hold(ListLocalModels, PublishModel)
    world.press("publishModelButton")
    hint = world.find(QLabel, "publishHintLabel")
    publish = world.find(QPushButton, "publishButton")
    assert "Looking" in hint.text() and not publish.isEnabled()
    world.host.release(ListLocalModels, LocalModels(models=[]))
    world.draw()
    assert "no trained model" in hint.text()
    dialog = world.window._publishing
    world.host.answer(ListLocalModels, LocalModels(models=[LOCAL]))
    dialog._folder_chosen("/elsewhere")
    world.draw()
    assert world.host.asked_for(ListLocalModels)[-1].folder == "/elsewhere"
    world.find(QLineEdit, "publishAliasEdit").setText("New")
    assert "An alias must be" in hint.text() and not publish.isEnabled()
    world.find(QLineEdit, "publishAliasEdit").setText("new-v1")
    world.find(QLineEdit, "publishTagsEdit").setText("a, b")
    world.find(QPlainTextEdit, "publishNotesEdit").setPlainText("Fine.")
    world.press("publishButton")
    (command,) = world.host.asked_for(PublishModel)
    assert command.folders == LOCAL.folders
    assert command.publication == Publication(
        alias="new-v1", tags=["a", "b"], notes="Fine."
    )
    assert "Publishing new" in world.window.notice_label.text()
    assert world.window._publishing is None


# -- drawing ---------------------------------------------------------------------------


def test_a_curve_is_drawn_in_both_colours(qtbot: Any) -> None:
    widget = LossCurve()
    qtbot.addWidget(widget)
    widget.resize(400, 200)
    blank = widget.grab().toImage()
    points = [CurvePoint(epoch=e, train=1.0 / (e + 1), val=2.0) for e in range(9)]
    widget.show_curve("Centroid", points)
    drawn = widget.grab().toImage()
    assert colours(drawn) > colours(blank)


def colours(image: QImage) -> int:
    pixels = (
        image.pixelColor(x, y)
        for x in range(0, image.width())
        for y in range(0, image.height(), 2)
    )
    return sum(1 for pixel in pixels if pixel.hsvSaturation() > 120)


def test_what_is_no_loss_is_left_out_of_a_curve() -> None:
    losses = [1.0, None, float("nan"), 0.0, -1.0, float("inf"), 0.1, 0.01]
    points = [
        CurvePoint(epoch=epoch, train=loss, val=None)
        for epoch, loss in enumerate(losses)
    ]
    scale = scale_of(points)
    assert scale is not None
    lines = segments(points, "train", scale)
    assert [len(line) for line in lines] == [1, 2]
    assert lines[0] == [(0.0, 0.0)]
    assert lines[1][-1] == (1.0, 1.0)
    assert segments(points, "val", scale) == []
    assert scale_of(points[1:6]) is None
    assert scale_of([]) is None


def test_the_history_of_an_alias() -> None:
    moves = [
        AliasMove(model=FLIES.id, by="bob", at=NOW - 60),
        AliasMove(model=MICE.id, by="", at=NOW - 120),
        AliasMove(model=None, by="ada", at=NOW - 180),
    ]
    record = AliasRecord(model=FLIES.id, moves=moves)
    lines = alias_lines({"best": record}, FLIES.id, [FLIES, MICE], NOW)
    assert lines[0].startswith("best: moved from mice to this model by bob, ")
    assert lines[1].startswith("best: put on mice, ")
    assert lines[2].startswith("best: taken away by ada, ")

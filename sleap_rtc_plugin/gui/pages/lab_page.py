"""The lab: a form while we are in none, one line once we are.

Three ways in, each with its button beside it: a lab that this computer remembers, a
session string or an invitation, or signing in to a server, where the account's labs are
listed and a new one is opened. A passive view.
"""

from typing import Final

from qtpy.QtCore import QDateTime, QLocale, QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.companion.messages import RoomRow
from sleap_rtc_plugin.gui.pages.account_panel import AccountPanel
from sleap_rtc_plugin.gui.pages.new_lab import NewLabPanel
from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button, text_edit
from sleap_rtc_plugin.gui.snapshot import Lab, Snapshot
from sleap_rtc_plugin.protocol.limits import MAX_SESSION_STRING_CHARS, MAX_URL_CHARS

__all__ = ["LabPage"]

REMEMBER: Final = "Re&member on this computer, in its keyring or a private file"
REMEMBERED_WHERE: Final = (
    "In the system's keyring, or, where there is none, in a file that only you can read"
)


class LabPage(QGroupBox):
    """Where to connect to."""

    connectRequested = Signal(str, str)
    enterRequested = Signal(str)
    forgetRequested = Signal(str)
    signInRequested = Signal(str)
    leaveRequested = Signal()
    choosingChanged = Signal(bool)
    remembersChanged = Signal(bool)
    newSessionHidden = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        """Make the form, the line, and the panel of a new lab."""
        super().__init__("Lab", parent)
        self.setObjectName("labPage")
        self._rooms: tuple[RoomRow, ...] = ()
        self.connected_row = self._make_connected_row()
        self.new_lab = NewLabPanel(self)
        self.account = AccountPanel(self)
        self.form = self._make_form()
        layout = QVBoxLayout(self)
        layout.addWidget(self.connected_row)
        layout.addWidget(self.new_lab)
        layout.addWidget(self.account)
        layout.addWidget(self.form)
        self._connect_signals()

    # -- making ------------------------------------------------------------------------

    def _make_connected_row(self) -> QWidget:
        row = QWidget(self)
        row.setObjectName("connectedRow")
        self.connected_label = plain_label(row, "connectedLabel", wraps=True)
        self.change_button = push_button(row, "changeButton", "C&hange...")
        self.change_button.setToolTip("Connect to another lab")
        self.keep_button = push_button(row, "keepButton", "&Keep this lab")
        self.leave_button = push_button(row, "leaveButton", "Disconn&ect")
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.connected_label, 1)
        layout.addWidget(self.change_button)
        layout.addWidget(self.keep_button)
        layout.addWidget(self.leave_button)
        return row

    def _make_form(self) -> QWidget:
        form = QWidget(self)
        form.setObjectName("labForm")
        grid = QGridLayout(form)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        self._add_known(form, grid)
        self._add_session(form, grid)
        self._add_server(form, grid)
        self.remember_box = QCheckBox(REMEMBER, form)
        self.remember_box.setObjectName("rememberBox")
        self.remember_box.setToolTip(REMEMBERED_WHERE)
        self.remember_box.setAccessibleDescription(REMEMBERED_WHERE)
        grid.addWidget(self.remember_box, 3, 1, 1, 3)
        return form

    def _add_known(self, form: QWidget, grid: QGridLayout) -> None:
        self.known_label = plain_label(form, "knownLabsLabel", "Known &labs:")
        self.known_combo = QComboBox(form)
        self.known_combo.setObjectName("knownLabsCombo")
        self.known_combo.setAccessibleName("Known labs")
        policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        self.known_combo.setSizeAdjustPolicy(policy)
        self.known_combo.setMinimumContentsLength(16)
        self.known_label.setBuddy(self.known_combo)
        self.forget_button = push_button(
            form, "forgetButton", "&Forget", "Forget the known lab"
        )
        self.enter_button = push_button(
            form, "enterButton", "C&onnect", "Connect to the known lab"
        )
        grid.addWidget(self.known_label, 0, 0)
        grid.addWidget(self.known_combo, 0, 1)
        grid.addWidget(self.forget_button, 0, 2)
        grid.addWidget(self.enter_button, 0, 3)

    def _add_session(self, form: QWidget, grid: QGridLayout) -> None:
        label = plain_label(form, "sessionLabel", "&Session string:")
        self.session_edit = text_edit(
            form,
            "sessionEdit",
            "Session string",
            "What the worker printed or shows, or an invitation",
        )
        self.session_edit.setMaxLength(2 * MAX_SESSION_STRING_CHARS)
        self.session_edit.setEchoMode(QLineEdit.EchoMode.Password)
        label.setBuddy(self.session_edit)
        self.reveal_button = push_button(
            form, "revealButton", "S&how", "Show the session string"
        )
        self.reveal_button.setCheckable(True)
        self.connect_button = push_button(
            form, "connectButton", "&Connect", "Connect with the session string"
        )
        grid.addWidget(label, 1, 0)
        grid.addWidget(self.session_edit, 1, 1)
        grid.addWidget(self.reveal_button, 1, 2)
        grid.addWidget(self.connect_button, 1, 3)

    def _add_server(self, form: QWidget, grid: QGridLayout) -> None:
        label = plain_label(form, "serverLabel", "Labs on ser&ver:")
        self.server_edit = text_edit(
            form, "serverEdit", "Server address", "http://gpu-server:8080"
        )
        self.server_edit.setMaxLength(MAX_URL_CHARS)
        label.setBuddy(self.server_edit)
        self.sign_in_button = push_button(
            form, "signInButton", "S&ign in", "Sign in at the server"
        )
        grid.addWidget(label, 2, 0)
        grid.addWidget(self.server_edit, 2, 1, 1, 2)
        grid.addWidget(self.sign_in_button, 2, 3)

    def _connect_signals(self) -> None:
        self.change_button.clicked.connect(lambda: self.choosingChanged.emit(True))
        self.keep_button.clicked.connect(lambda: self.choosingChanged.emit(False))
        self.leave_button.clicked.connect(self.leaveRequested)
        self.enter_button.clicked.connect(self._enter)
        self.forget_button.clicked.connect(self._forget)
        self.connect_button.clicked.connect(
            lambda: self.connectRequested.emit(
                self.session_edit.text(), self.server_edit.text()
            )
        )
        self.sign_in_button.clicked.connect(
            lambda: self.signInRequested.emit(self.server_edit.text())
        )
        self.remember_box.toggled.connect(self.remembersChanged)
        self.reveal_button.toggled.connect(self._reveal)
        self.session_edit.textChanged.connect(self._enable_by_text)
        self.server_edit.textChanged.connect(self._enable_by_text)
        self.new_lab.done.connect(self.newSessionHidden)

    # -- what the user does ------------------------------------------------------------

    def _enter(self) -> None:
        if (room_id := self._chosen_room()) is not None:
            self.enterRequested.emit(room_id)

    def _forget(self) -> None:
        if (room_id := self._chosen_room()) is not None:
            self.forgetRequested.emit(room_id)

    def _chosen_room(self) -> str | None:
        chosen = self.known_combo.currentIndex()
        return self._rooms[chosen].room_id if chosen >= 0 else None

    def _reveal(self, shows: bool) -> None:
        mode = QLineEdit.EchoMode
        self.session_edit.setEchoMode(mode.Normal if shows else mode.Password)

    def _enable_by_text(self) -> None:
        self.connect_button.setEnabled(bool(self.session_edit.text().strip()))
        self.sign_in_button.setEnabled(bool(self.server_edit.text().strip()))

    def first_field(self) -> QWidget:
        """Return where the user begins."""
        if self.account.isVisibleTo(self):
            return self.account.first_field()
        if not self.form.isVisibleTo(self):
            return self.change_button
        return self.known_combo if self._rooms else self.session_edit

    def obvious_button(self, focused: QWidget | None) -> QPushButton | None:
        """Return what Enter presses while a field of the form has the keyboard."""
        if focused is self.session_edit or focused is self.reveal_button:
            return self.connect_button
        if focused is self.server_edit:
            return self.sign_in_button
        if focused is self.known_combo:
            return self.enter_button
        return self.account.obvious_button(focused)

    # -- drawing -----------------------------------------------------------------------

    def render_snapshot(self, snapshot: Snapshot, new_session: str) -> None:
        """Draw; `new_session` is the string of a lab that was just opened, or empty."""
        shows_form = snapshot.lab is Lab.OUTSIDE or snapshot.is_choosing
        self.connected_row.setVisible(snapshot.lab is not Lab.OUTSIDE)
        self.connected_label.setText(_standing(snapshot))
        self.change_button.setVisible(not shows_form)
        self.change_button.setEnabled(snapshot.can_enter)
        self.account.show_account(snapshot.account if shows_form else None)
        self.account.setEnabled(snapshot.can_enter)
        self.form.setVisible(shows_form and snapshot.account is None)
        self.form.setEnabled(snapshot.can_enter)
        self.keep_button.setVisible(snapshot.is_choosing)
        self.leave_button.setVisible(snapshot.is_choosing)
        self.leave_button.setEnabled(snapshot.can_enter)
        with QSignalBlocker(self.remember_box):
            self.remember_box.setChecked(snapshot.remembers)
        self._show_rooms(snapshot.rooms)
        self.new_lab.show_session(new_session)
        is_used = not shows_form or snapshot.account is not None
        if is_used and self.session_edit.text():
            # The secret has done its work; it does not stay in a widget.
            self.session_edit.clear()
            self.reveal_button.setChecked(False)
        self._enable_by_text()

    def suggest_server(self, server: str) -> None:
        """Fill in the server that was signed in to last."""
        if not self.server_edit.text():
            self.server_edit.setText(server)

    def _show_rooms(self, rooms: tuple[RoomRow, ...]) -> None:
        for widget in (
            self.known_label,
            self.known_combo,
            self.forget_button,
            self.enter_button,
        ):
            widget.setVisible(bool(rooms))
        if rooms == self._rooms:
            return
        chosen = self._chosen_room()
        self._rooms = rooms
        self.known_combo.clear()
        for index, room in enumerate(rooms):
            self.known_combo.addItem(_room_words(room))
            self.known_combo.setItemData(index, room.room_id, Qt.ItemDataRole.UserRole)
            if room.room_id == chosen:
                self.known_combo.setCurrentIndex(index)


def _standing(snapshot: Snapshot) -> str:
    server = snapshot.room.server if snapshot.room is not None else "the lab"
    match snapshot.lab:
        case Lab.ENTERING:
            return f"Connecting to {server}..."
        case Lab.CUT_OFF:
            return f"The connection to {server} is lost; trying again..."
    return f"Connected to {server}"


def _room_words(room: RoomRow) -> str:
    if room.last_used <= 0:
        return room.server
    when = QDateTime.fromSecsSinceEpoch(int(room.last_used))
    text = QLocale().toString(when, QLocale.FormatType.ShortFormat)
    return f"{room.server} (last used {text})"

"""A server's door: ways to sign in, a code to enter elsewhere, the account's labs.

Shown in place of the lab form once a server was named that knows its people. A passive
view, part of the lab page.
"""

import time
from typing import Final

from qtpy.QtCore import Qt, QTimer, QUrl, Signal
from qtpy.QtGui import QDesktopServices, QFontDatabase, QGuiApplication
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from sleap_rtc_plugin.companion.account_messages import (
    AccountRoom,
    SignInCode,
    SignInWay,
)
from sleap_rtc_plugin.gui.account_choices import AccountView
from sleap_rtc_plugin.gui.pages.parts import plain_label, push_button, text_edit
from sleap_rtc_plugin.protocol.limits import MAX_SESSION_STRING_CHARS

__all__ = ["AccountPanel"]

TICK_MS: Final = 1000
CODE_FONT_SCALE: Final = 2.2
ENTER_CODE: Final = "To sign in, enter the code on this page, here or on a telephone:"
NEEDS_STRING: Final = (
    "The key of {room} is not on this computer yet. Paste a session string of this "
    "lab, from somebody who is in it. It is asked for only once."
)
NO_ROOMS: Final = (
    "You are in no lab of this server yet. Open one, or paste an invitation."
)


class AccountPanel(QWidget):
    """Who one is at a server, and where to go from there."""

    methodChosen = Signal(str)
    roomChosen = Signal(str)
    sessionGiven = Signal(str)
    newLabRequested = Signal()
    signOutRequested = Signal()
    backRequested = Signal()
    closeRequested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        """Begin hidden."""
        super().__init__(parent)
        self.setObjectName("accountPanel")
        self._view: AccountView | None = None
        self._shown_ways: tuple[SignInWay, ...] = ()
        self._shown_rooms: tuple[AccountRoom, ...] = ()
        self._begun_at = 0.0
        self._opens_page = QDesktopServices.openUrl
        self.way_buttons: list[QPushButton] = []
        self.title_label = plain_label(self, "accountLabel", wraps=True)
        self._ways_row = QHBoxLayout()
        self.code_box = self._make_code_box()
        self.rooms_row = self._make_rooms_row()
        self.session_box = self._make_session_box()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.title_label)
        layout.addWidget(self.code_box)
        layout.addWidget(self.rooms_row)
        layout.addWidget(self.session_box)
        layout.addLayout(self._make_foot())
        self._timer = QTimer(self)
        self._timer.setObjectName("codeTimer")
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._connect_signals()
        self.hide()

    # -- making ----------------------------------------------------------------------

    def _make_code_box(self) -> QWidget:
        box = QWidget(self)
        box.setObjectName("codeBox")
        flags = Qt.TextInteractionFlag
        selectable = flags.TextSelectableByMouse | flags.TextSelectableByKeyboard
        self.page_label = plain_label(box, "signInPageLabel", wraps=True)
        self.page_label.setAccessibleName("Page to enter it on")
        self.page_label.setTextInteractionFlags(selectable)
        self.code_label = plain_label(box, "signInCodeLabel")
        self.code_label.setAccessibleName("Code to enter")
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSizeF(font.pointSizeF() * CODE_FONT_SCALE)
        font.setBold(True)
        self.code_label.setFont(font)
        # By keyboard it is copied with the button, which also reads it aloud.
        self.code_label.setTextInteractionFlags(flags.TextSelectableByMouse)
        self.open_page_button = push_button(box, "openPageButton", "&Open page")
        self.copy_code_button = push_button(box, "copyCodeButton", "Cop&y code")
        row = QHBoxLayout()
        row.addWidget(self.code_label)
        row.addStretch(1)
        row.addWidget(self.open_page_button)
        row.addWidget(self.copy_code_button)
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.page_label)
        layout.addLayout(row)
        return box

    def _make_rooms_row(self) -> QWidget:
        row = QWidget(self)
        row.setObjectName("accountRooms")
        label = plain_label(row, "accountRoomsLabel", "Your &labs:")
        self.rooms_combo = QComboBox(row)
        self.rooms_combo.setObjectName("accountRoomsCombo")
        self.rooms_combo.setAccessibleName("Your labs")
        policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        self.rooms_combo.setSizeAdjustPolicy(policy)
        self.rooms_combo.setMinimumContentsLength(16)
        label.setBuddy(self.rooms_combo)
        self.enter_button = push_button(
            row, "enterRoomButton", "&Connect", "Connect to the chosen lab"
        )
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(label)
        layout.addWidget(self.rooms_combo, 1)
        layout.addWidget(self.enter_button)
        return row

    def _make_session_box(self) -> QWidget:
        box = QWidget(self)
        box.setObjectName("roomSessionBox")
        self.session_hint = plain_label(box, "roomSessionLabel", wraps=True)
        self.session_edit = text_edit(
            box, "roomSessionEdit", "Session string of this lab", "sleap-session:..."
        )
        self.session_edit.setMaxLength(2 * MAX_SESSION_STRING_CHARS)
        self.session_edit.setEchoMode(QLineEdit.EchoMode.Password)
        self.complete_button = push_button(
            box, "completeButton", "&Connect", "Connect with this session string"
        )
        row = QHBoxLayout()
        row.addWidget(self.session_edit, 1)
        row.addWidget(self.complete_button)
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.session_hint)
        layout.addLayout(row)
        return box

    def _make_foot(self) -> QHBoxLayout:
        self.time_bar = QProgressBar(self)
        self.time_bar.setObjectName("codeTimeBar")
        self.time_bar.setAccessibleName("Time left for the code")
        self.time_bar.setTextVisible(True)
        self.new_lab_button = push_button(self, "newLabButton", "&New lab")
        self.new_lab_button.setToolTip("Open a new lab that belongs to you")
        self.sign_out_button = push_button(self, "signOutButton", "Sign ou&t")
        self.back_button = push_button(self, "accountBackButton", "&Back")
        row = QHBoxLayout()
        row.addLayout(self._ways_row)
        row.addWidget(self.time_bar, 1)
        row.addStretch()
        row.addWidget(self.new_lab_button)
        row.addWidget(self.sign_out_button)
        row.addWidget(self.back_button)
        return row

    def _connect_signals(self) -> None:
        self.copy_code_button.clicked.connect(self._copy_code)
        self.open_page_button.clicked.connect(self._open_page)
        self.enter_button.clicked.connect(self._choose)
        self.complete_button.clicked.connect(
            lambda: self.sessionGiven.emit(self.session_edit.text())
        )
        self.session_edit.textChanged.connect(self._enable_by_text)
        self.new_lab_button.clicked.connect(self.newLabRequested)
        self.sign_out_button.clicked.connect(self.signOutRequested)
        self.back_button.clicked.connect(self._go_back)

    # -- what the user does ----------------------------------------------------------

    def _choose(self) -> None:
        index = self.rooms_combo.currentIndex()
        if 0 <= index < len(self._shown_rooms):
            self.roomChosen.emit(self._shown_rooms[index].room_id)

    def _go_back(self) -> None:
        is_asking = self._view is not None and self._view.wanted is not None
        (self.backRequested if is_asking else self.closeRequested).emit()

    def _copy_code(self) -> None:
        QGuiApplication.clipboard().setText(self.code_label.text())

    def _open_page(self) -> None:
        if self._view is not None and self._view.code is not None:
            code = self._view.code
            self._opens_page(QUrl(code.page_with_code or code.page))

    def _enable_by_text(self) -> None:
        self.complete_button.setEnabled(bool(self.session_edit.text().strip()))

    def first_field(self) -> QWidget:
        """Return where the user goes on."""
        view = self._view
        if view is not None and view.code is not None:
            return self.open_page_button
        if view is not None and view.wanted is not None:
            return self.session_edit
        if view is not None and view.rooms and not view.is_busy:
            return self.rooms_combo
        if self.way_buttons and self.way_buttons[0].isVisibleTo(self):
            return self.way_buttons[0]
        return self.back_button

    def obvious_button(self, focused: QWidget | None) -> QPushButton | None:
        """Return what Enter presses while a field of the panel has the keyboard."""
        if focused is self.session_edit:
            return self.complete_button
        return self.enter_button if focused is self.rooms_combo else None

    # -- drawing ---------------------------------------------------------------------

    def show_account(self, view: AccountView | None) -> None:
        """Draw how the user stands to a server; None hides the panel."""
        before, self._view = self._view, view
        self.setVisible(view is not None)
        if view is None:
            self.session_edit.clear()
            self._timer.stop()
            return
        is_asking = view.wanted is not None
        is_free = not view.is_busy
        self.title_label.setText(_title(view))
        self._show_ways(view.ways if is_free and not view.who else ())
        self._show_code(view.code, before)
        self._show_rooms(view)
        self.rooms_row.setVisible(bool(view.rooms) and is_free and not is_asking)
        self.session_box.setVisible(is_asking and is_free)
        if view.wanted is not None:
            name = view.wanted.name or view.wanted.room_id
            self.session_hint.setText(NEEDS_STRING.format(room=name))
        elif self.session_edit.text():
            self.session_edit.clear()
        self.new_lab_button.setVisible(bool(view.who) and is_free and not is_asking)
        self.sign_out_button.setVisible(bool(view.who) and is_free and not is_asking)
        self.back_button.setText("&Back" if is_free else "Ca&ncel")
        self._enable_by_text()

    def _show_ways(self, ways: tuple[SignInWay, ...]) -> None:
        if ways == self._shown_ways:
            return
        self._shown_ways = ways
        for button in self.way_buttons:
            self._ways_row.removeWidget(button)
            button.hide()
            button.deleteLater()
        self.way_buttons = []
        for way in ways:
            # A label is not to be taken for a shortcut.
            button = push_button(
                self, f"signInWay-{way.name}", way.label.replace("&", "&&")
            )
            button.setAccessibleName(f"Sign in: {way.label}")
            button.clicked.connect(
                lambda *_, name=way.name: self.methodChosen.emit(name)
            )
            self._ways_row.addWidget(button)
            before = self.way_buttons[-1] if self.way_buttons else self.complete_button
            QWidget.setTabOrder(before, button)
            button.show()
            self.way_buttons.append(button)

    def _show_code(self, code: SignInCode | None, before: AccountView | None) -> None:
        self.code_box.setVisible(code is not None)
        self.time_bar.setVisible(code is not None)
        if code is None:
            self._timer.stop()
            return
        if before is None or before.code != code:
            self._begun_at = time.time()
            self.code_label.setText(code.code)
            self.copy_code_button.setAccessibleName(f"Copy the code {code.code}")
            self.page_label.setText(code.page)
            self.time_bar.setRange(0, max(1, int(code.expires_at - self._begun_at)))
            self._timer.start()
            self._tick()

    def _tick(self) -> None:
        if self._view is None or self._view.code is None:
            return
        left_s = max(0, int(self._view.code.expires_at - time.time()))
        self.time_bar.setValue(min(left_s, self.time_bar.maximum()))
        minutes, seconds = divmod(left_s, 60)
        self.time_bar.setFormat(f"{minutes}:{seconds:02} left")

    def _show_rooms(self, view: AccountView) -> None:
        if view.rooms == self._shown_rooms:
            return
        self._shown_rooms = view.rooms
        self.rooms_combo.clear()
        for room in view.rooms:
            self.rooms_combo.addItem(_room_words(room))


def _title(view: AccountView) -> str:
    if view.code is not None:
        return ENTER_CODE
    if view.is_busy:
        return f"Asking {view.server}..."
    if not view.who:
        return f"Sign in at {view.server}:"
    said = f"Signed in at {view.server} as {view.who}."
    return said if view.rooms or view.wanted else f"{said} {NO_ROOMS}"


def _room_words(room: AccountRoom) -> str:
    words = f"{room.name or room.room_id} ({room.role})"
    return words if room.is_kept else f"{words}, asks for its session string"

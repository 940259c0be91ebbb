"""The remote training dialog on a screen, with a scripted companion behind it."""

from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QPushButton, QWidget
from support.scripted_host import (
    ScriptedChoices,
    ScriptedHost,
    drive,
    make_run,
    make_session,
    make_worker,
)

from sleap_rtc_plugin.companion.messages import RoomRow, TransferProgress
from sleap_rtc_plugin.gui.dialog import RemoteTrainingDialog
from sleap_rtc_plugin.gui.presenter import RemotePresenter

WORKERS = [
    make_worker("w-1", name="gpu-1", gpu_model="RTX A6000", gpu_memory_mb=49_140),
    make_worker("w-2", name="gpu-2", status="busy", running_jobs=1, queue_length=2),
    make_worker("w-3", name="gpu-3", refusal="gpu-3 takes no new jobs."),
]


class World:
    """A dialog on the screen, its presenter and its host."""

    def __init__(self, qtbot: QtBot, *rooms: RoomRow, **choices: object) -> None:
        self.qtbot = qtbot
        self.host = ScriptedHost(rooms=list(rooms))
        kept = ScriptedChoices(**choices)  # type: ignore[arg-type]
        self.presenter = RemotePresenter(self.host, drive, kept)
        self.pressed: list[str] = []
        self.dialog = RemoteTrainingDialog(
            self.presenter,
            on_configure=self.configure,
            on_jobs=lambda: self.pressed.append("jobs"),
            on_models=lambda: self.pressed.append("models"),
            on_start_again=lambda: self.pressed.append("start again"),
        )
        qtbot.addWidget(self.dialog)
        self.dialog.show()
        qtbot.waitExposed(self.dialog)
        self.dialog.activateWindow()
        qtbot.waitUntil(self.dialog.isActiveWindow)
        self.settle()

    def configure(self) -> None:
        self.pressed.append("configure")
        self.presenter.configure(make_run())

    def settle(self) -> None:
        """Let the dialog draw the newest snapshot."""
        self.qtbot.waitUntil(
            lambda: self.dialog._shown == self.presenter.snapshot, timeout=5000
        )

    def find(self, kind: type, name: str):  # type: ignore[no-untyped-def]
        (found,) = self.dialog.findChildren(kind, name)
        return found

    def click(self, name: str) -> None:
        self.qtbot.mouseClick(self.find(QPushButton, name), Qt.MouseButton.LeftButton)
        self.settle()

    def press(self, *keys: Qt.Key) -> None:
        for key in keys:
            focused = self.dialog.focusWidget() or self.dialog
            self.qtbot.keyClick(focused, key)
        self.settle()

    def is_seen(self, name: str) -> bool:
        return bool(self.find(QWidget, name).isVisibleTo(self.dialog))

    @property
    def status(self) -> str:
        return str(self.find(QLabel, "statusLabel").text())

    @property
    def table(self):  # type: ignore[no-untyped-def]
        return self.dialog.workers.table

    def selected(self) -> list[str]:
        rows = self.table.selectionModel().selectedRows()
        return [self.dialog.workers.proxy.worker_at(row).worker_id for row in rows]

    def connect(self) -> "World":
        self.presenter.connect(make_session())
        self.host.tell_workers(*WORKERS)
        self.settle()
        return self

    def sending(self) -> "World":
        self.connect()
        self.presenter.choose_worker("w-1")
        self.presenter.configure(make_run())
        self.presenter.submit()
        self.settle()
        return self

    @property
    def job_id(self) -> str:
        submission = self.presenter.snapshot.submission
        assert submission is not None
        return submission.job_id

    def transfer(self, done: int) -> None:
        self.host.on_event(
            TransferProgress(
                job_id=self.job_id,
                purpose="package",
                done=done,
                total=500_000_000,
                reused=30_000_000,
                rate=8_100_000.0,
                seconds_left=45.0,
            )
        )

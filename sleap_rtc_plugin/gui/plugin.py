"""The plugin of one SLEAP main window: makes its parts and joins them.

Made by the menu when the user first wants something remote. Holds the companion's host,
the presenter, and the windows; what they decide is theirs.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QDialog, QMainWindow

from sleap_rtc_plugin.companion.host import ChildHost, Host, InProcessHost
from sleap_rtc_plugin.companion.messages import WaitingResults
from sleap_rtc_plugin.gui import event_loop, sleap_compat
from sleap_rtc_plugin.gui.closing import Closing
from sleap_rtc_plugin.gui.dialog import RemoteTrainingDialog
from sleap_rtc_plugin.gui.home_coming import HomeComing
from sleap_rtc_plugin.gui.jobs_presenter import JobsPresenter
from sleap_rtc_plugin.gui.jobs_window import RemoteJobsWindow
from sleap_rtc_plugin.gui.models_presenter import ModelsPresenter
from sleap_rtc_plugin.gui.models_window import RemoteModelsWindow
from sleap_rtc_plugin.gui.monitor_launcher import MonitorLauncher
from sleap_rtc_plugin.gui.presenter import RemotePresenter
from sleap_rtc_plugin.gui.run_choices import Mode
from sleap_rtc_plugin.gui.snapshot import Snapshot
from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.session.run_request import PublishedModel
from sleap_rtc_plugin.session.settings import Settings

__all__ = ["RemotePlugin"]

logger = logging.getLogger(__name__)

STATUS_MS: Final = 20_000
MODELS_FOLDER: Final = "models"


class RemotePlugin(QObject):
    """Everything remote that belongs to one main window."""

    def __init__(
        self, window: QMainWindow, make_host: Callable[[Settings], Host] | None = None
    ) -> None:
        """Join the parts; `make_host` stands in for the setting, in tests."""
        super().__init__(window)
        event_loop.ensure_loop()
        self._window = window
        self._settings = Settings.load()
        self._make_host = make_host or host_of
        self.host = self._make_host(self._settings)
        self.presenter = RemotePresenter(self.host, event_loop.spawn, self._settings)
        ask, spawn = self.presenter.ask, event_loop.spawn
        self.monitors = MonitorLauncher(window, ask, spawn, compat=sleap_compat)
        self.home_coming = HomeComing(window, ask, spawn, compat=sleap_compat)
        self._jobs = JobsPresenter(ask, spawn, reopen_monitor=self.monitors.reopen)
        self._models = ModelsPresenter(ask, spawn)
        self._models.on_pulled = self._models_pulled
        self._models.on_news = self._say
        self.dialog: RemoteTrainingDialog | None = None
        self.jobs_window: RemoteJobsWindow | None = None
        self.models_window: RemoteModelsWindow | None = None
        self._mode: Mode = "training"
        for listener in (
            self.monitors.handle,
            self.home_coming.handle,
            self._jobs.handle,
            self._models.handle,
        ):
            self.presenter.listen(listener)
        self.presenter.when_resumed(self.monitors.restart)
        self.presenter.subscribe(self._snapshot_changed)
        self._closing = Closing(
            window, self.presenter, self._close_windows, self._shut_down
        )
        spawn(self._say_waiting(), "what waits to be merged")

    # -- the menu ----------------------------------------------------------------------

    def show_training(self) -> None:
        """Show the dialog for a training."""
        self._show_dialog("training")

    def show_inference(self) -> None:
        """Show the dialog for an inference."""
        self._show_dialog("inference")

    def show_jobs(self) -> None:
        """Show the remote jobs."""
        self.presenter.begin()
        if self.jobs_window is None:
            self.jobs_window = RemoteJobsWindow(
                self._window,
                self._jobs,
                self.home_coming,
                default_output=self._project_folder,
            )
        _bring_to_front(self.jobs_window)

    def show_models(self) -> None:
        """Show the models of the lab."""
        self.presenter.begin()
        if self.models_window is None:
            self.models_window = RemoteModelsWindow(
                self._window,
                self._models,
                on_use=self._use_model,
                models_folder=self._models_folder,
                project_nodes=self._project_nodes,
            )
        _bring_to_front(self.models_window)

    def learning_dialog_shown(self, dialog: QDialog, mode: str) -> None:
        """Put the button into one of SLEAP's own dialogs."""
        button = sleap_compat.add_run_remotely_button(dialog)
        chosen: Mode = "inference" if mode == "inference" else "training"
        button.clicked.connect(lambda: self._run_remotely(dialog, chosen))
        self._free_run_remotely(self.presenter.snapshot)

    # -- configuring and sending -------------------------------------------------------

    def _show_dialog(self, mode: Mode) -> None:
        self._mode = mode
        choices = self.presenter.run_choices
        choices.set_mode(mode)
        choices.offer(self._project_nodes())
        if self.dialog is None:
            self.dialog = RemoteTrainingDialog(
                self.presenter,
                on_configure=self._configure,
                on_jobs=self.show_jobs,
                on_models=self.show_models,
                on_start_again=self._start_again,
                parent=self._window,
            )
        _bring_to_front(self.dialog)

    def _configure(self) -> None:
        """Open SLEAP's own dialog; called from a Qt slot, since it may open a box."""
        try:
            sleap_compat.require_ready(self._window, self._mode)
        except sleap_compat.ProjectNotReady as error:
            self.presenter.say_problem(str(error))
            return
        sleap_compat.show_learning_dialog(self._window, self._mode)

    def _run_remotely(self, dialog: QDialog, mode: Mode) -> None:
        """Take what Run would take, and send it where a worker is chosen."""
        try:
            sleap_compat.require_ready(self._window, mode)
            has_model = mode == "inference" and self.presenter.snapshot.model
            run = sleap_compat.gather_run(dialog, has_model=bool(has_model))
        except sleap_compat.ProjectNotReady as error:
            self._show_dialog(mode)
            self.presenter.say_problem(str(error))
            return
        except Exception as error:
            # SLEAP's own dialog trips over some settings, as its Run button does.
            logger.exception("SLEAP's settings could not be gathered")
            self._show_dialog(mode)
            self.presenter.say_problem(
                f"SLEAP could not put these settings together ({error!r}); "
                "change them and press Run remotely again."
            )
            return
        dialog.accept()
        self.presenter.configure(run)
        self._show_dialog(mode)
        if self.presenter.snapshot.can_run:
            self.presenter.submit()

    def _project_folder(self) -> str:
        project = sleap_compat.open_project(self._window)
        folder = Path(project.facts.path).parent if project is not None else Path.home()
        return str(folder)

    # -- models ------------------------------------------------------------------------

    def _use_model(self, model: PublishedModel) -> None:
        self._show_dialog("inference")
        self.presenter.run_choices.use_model(model)

    def _models_folder(self) -> str | None:
        """Return where SLEAP looks for the open project's models."""
        project = sleap_compat.open_project(self._window)
        if project is None:
            return None
        return str(Path(project.facts.path).parent / MODELS_FOLDER)

    def _project_nodes(self) -> list[str]:
        project = sleap_compat.open_project(self._window)
        return list(project.facts.nodes) if project is not None else []

    def _models_pulled(self, folders: Sequence[str]) -> None:
        # SLEAP may open a box over an old configuration, so in a slot of its own.
        event_loop.call_soon_in_qt(self._refresh_model_lists)

    def _refresh_model_lists(self) -> None:
        try:
            sleap_compat.refresh_model_lists(self._window)
        except Exception:
            logger.exception("SLEAP's lists of models were not refreshed")

    def _say(self, sentence: str) -> None:
        self._window.statusBar().showMessage(sentence, STATUS_MS)

    def _free_run_remotely(self, snapshot: Snapshot) -> None:
        sleap_compat.free_run_remotely(self._window, snapshot.model is not None)

    # -- the companion -----------------------------------------------------------------

    def _start_again(self) -> None:
        """Try with a new companion after the last one was given up."""
        self.host = self._make_host(self._settings)
        self.presenter.replace_host(self.host)

    def _snapshot_changed(self, snapshot: Snapshot) -> None:
        if snapshot.dead:
            self.monitors.companion_died(snapshot.dead)
        self._free_run_remotely(snapshot)

    async def _say_waiting(self) -> None:
        try:
            await self.presenter.ask(WaitingResults())
        except RtcError as error:
            # Also where SLEAP is closed right after the menu was opened.
            logger.info("What waits to be merged is not known: %s", error)

    def _close_windows(self) -> None:
        self.monitors.close_all()
        for window in (self.dialog, self.jobs_window, self.models_window):
            if window is not None:
                window.close()

    async def _shut_down(self, finish_sending: bool) -> None:
        self._close_windows()
        self.home_coming.close()
        await self.host.close(finish_sending=finish_sending)


def host_of(settings: Settings) -> Host:
    """Return the host that the user's settings ask for."""
    return InProcessHost() if settings.host == "in-process" else ChildHost()


def _bring_to_front(widget: Any) -> None:
    widget.show()
    widget.raise_()
    widget.activateWindow()

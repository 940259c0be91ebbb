"""Takes a job's results into the open project, or lets them wait until they fit.

The rules are pure; `HomeComing` loads predictions in a thread and merges them through
SLEAP in a Qt slot, when nobody is in the middle of something. What may not be merged
waits, and the jobs window shows it. The plugin makes one and tells it `ResultsHome`.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path, PurePath
from typing import Any, Final

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QMainWindow

from sleap_rtc_plugin.companion.messages import (
    Command,
    Event,
    ForgetResults,
    Result,
    ResultsHome,
)
from sleap_rtc_plugin.gui.messages import (
    project_moved,
    project_replaced,
    results_without_project,
)
from sleap_rtc_plugin.gui.sleap_compat import OpenProject, PredictionsDoNotFit
from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.session.run_request import MergeChoice, ProjectFacts

__all__ = ["HomeComing", "Waiting", "may_merge", "merged_words"]

MAX_RESULTS: Final = 200
"""How many results are kept in mind; older ones that wait are in the companion's."""
QUIET_INTERVAL_MS: Final = 200
"""How often to look whether the user's hands are free."""
STATUS_MS: Final = 20_000
MAX_REASON_CHARS: Final = 600
_FITS_NOW: Final = "Their project is open; press Merge Now to merge them."
_HALF_MERGED: Final = (
    "SLEAP could not merge the predictions ({kind}) and may have merged a part of "
    "them; to undo that, open the project again without saving it."
)
_log = logging.getLogger(__name__)


# -- rules -----------------------------------------------------------------------------


def may_merge(
    project: OpenProject | None,
    wanted: ProjectFacts,
    *,
    is_there: bool = True,
    kept: str | None = None,
) -> str | None:
    """Tell whether predictions may be merged into the open project.

    The user may label on while a job runs, so frames and videos that were added do
    not matter; whatever the predictions refer to must still be there.

    Args:
        project: what is open.
        wanted: the project as the job was sent from it.
        is_there: whether the file of `wanted` exists.
        kept: where the results are, if the folder of `wanted` is gone.

    Returns:
        None if they may; otherwise a sentence that says why they wait.
    """
    if project is None or not _is_same_file(project.facts.path, wanted.path):
        if kept is not None:
            return results_without_project(wanted.path, kept)
        if not is_there:
            return project_moved(wanted.path)
        name = clean_text(PurePath(wanted.path).name)
        opened = "No project is open" if project is None else "Another project is open"
        return f"{opened}; open {name} to merge its predictions."
    gone = Counter(wanted.videos) - Counter(project.facts.videos)
    if project.facts.nodes != wanted.nodes or gone:
        return project_replaced(wanted.path)
    return None


def merged_words(frames: int, worker: str) -> str:
    """Say what was merged."""
    if not frames:
        return f"The predictions from {worker} are empty; nothing was merged."
    if frames == 1:
        what = "1 frame with predictions was"
    else:
        what = f"{frames:,} frames with predictions were"
    return f"{what} merged from {worker}; not saved yet."


def _is_same_file(one: str, other: str) -> bool:
    return _normal(one) == _normal(other)


def _normal(path: str) -> str:
    # By their text alone: what is on the disk may be on a share that hangs.
    return os.path.normcase(os.path.normpath(path))


# -- effects ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """Results that are home and not merged.

    Attributes:
        job_id: the job.
        worker: where it ran.
        project: the path of the project they are for.
        predictions: the files.
        reason: why they wait.
        can_merge: Merge now would work, as far as can be told.
    """

    job_id: str
    worker: str
    project: str
    predictions: tuple[str, ...]
    reason: str
    can_merge: bool = False


class _Stage(Enum):
    LOADING = auto()
    LOADED = auto()
    WAITING = auto()
    MERGED = auto()


@dataclass(frozen=True)
class _Home:
    """One job's results and how far they are."""

    results: ResultsHome
    project: ProjectFacts
    stage: _Stage
    loaded: tuple[Any, ...] = ()
    failure: str = ""


class HomeComing:
    """Merges results as they come, one after the other, or keeps them waiting."""

    def __init__(
        self,
        window: QMainWindow,
        ask: Callable[[Command], Awaitable[Result]],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
        *,
        compat: Any,
    ) -> None:
        """Begin with nothing.

        Args:
            window: SLEAP's main window.
            ask: puts a command to the companion.
            spawn: runs a coroutine as a named task.
            compat: the module `gui.sleap_compat`.
        """
        self.on_changed: Callable[[], None] = lambda: None
        """Called when `waiting` changed."""
        self._window = window
        self._ask = ask
        self._spawn = spawn
        self._compat = compat
        self._homes: dict[str, _Home] = {}
        self._news: list[ResultsHome] = []
        self._is_closed = False
        self._quiet = QTimer(window)
        self._quiet.setInterval(QUIET_INTERVAL_MS)
        self._quiet.timeout.connect(self._merge_when_quiet)

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """What waits, the newest last, and whether it fits what is open now."""
        homes = [h for h in self._homes.values() if h.stage is _Stage.WAITING]
        if not homes:
            return ()
        project = self._compat.open_project(self._window)
        return tuple(self._as_waiting(home, project) for home in homes)

    def handle(self, event: Event) -> None:
        """Take an event of the companion; the work is done in slots of its own."""
        if isinstance(event, ResultsHome) and not self._is_closed:
            if not self._news:
                QTimer.singleShot(0, self._welcome)
            self._news.append(event)

    def merge_now(self, job_id: str) -> None:
        """Merge waiting results, since the user asks for it."""
        home = self._homes.get(job_id)
        if home is not None and home.stage is _Stage.WAITING:
            self._begin(home)

    def dismiss(self, job_id: str) -> None:
        """Never merge these results; their files stay where they are."""
        home = self._homes.get(job_id)
        if home is not None and home.stage is _Stage.WAITING:
            del self._homes[job_id]
            self._forget(job_id)
            self.on_changed()

    def close(self) -> None:
        """Merge nothing any more; what was not merged waits for the next start."""
        self._is_closed = True
        self._quiet.stop()
        self._news.clear()

    # -- results arrive ----------------------------------------------------------------

    def _welcome(self) -> None:
        news, self._news = self._news, []
        if any(event.models for event in news):
            try:
                self._compat.refresh_model_lists(self._window)
            except Exception:
                _log.exception("SLEAP's lists of models were not refreshed")
        for event in news:
            self._take(event)

    def _take(self, event: ResultsHome) -> None:
        known = self._homes.get(event.job_id)
        if known is not None:
            # The companion says everything again after it was restarted.
            if known.stage is _Stage.MERGED:
                self._forget(event.job_id)
            return
        worker = clean_text(event.worker)
        if event.project is None or not event.predictions:
            self._forget(event.job_id)
            if event.models:
                folder = clean_text(str(Path(event.models[0]).parent))
                self._say(f"The models from {worker} are in {folder}.")
            elif event.predictions:
                folder = clean_text(str(Path(event.predictions[0]).parent))
                self._say(f"The predictions from {worker} are in {folder}.")
            return
        self._make_room()
        self._begin(_Home(event, event.project, _Stage.LOADING))

    def _begin(self, home: _Home) -> None:
        job_id = home.results.job_id
        reason = self._reason(home)
        if reason is not None:
            self._wait(home, reason)
            return
        self._set(replace(home, stage=_Stage.LOADING, failure=""))
        self._spawn(self._load(job_id), f"load the predictions of {job_id}")

    async def _load(self, job_id: str) -> None:
        home = self._homes[job_id]
        try:
            loaded = [
                await asyncio.to_thread(self._compat.load_predictions, path)
                for path in home.results.predictions
            ]
        except Exception as error:
            self._fail(home, _cannot_be_read(error))
            return
        if self._is_closed:
            return
        self._set(replace(home, stage=_Stage.LOADED, loaded=tuple(loaded)))
        # SLEAP's merge is for a slot of its own, never for a coroutine.
        QTimer.singleShot(0, self._merge_when_quiet)

    # -- merging -----------------------------------------------------------------------

    def _merge_when_quiet(self) -> None:
        loaded = [h for h in self._homes.values() if h.stage is _Stage.LOADED]
        if self._is_closed or not loaded:
            self._quiet.stop()
            return
        if _hands_are_full():
            self._quiet.start()
            return
        self._merge(loaded[0])
        if len(loaded) > 1:
            QTimer.singleShot(0, self._merge_when_quiet)

    def _merge(self, home: _Home) -> None:
        reason = self._reason(home)
        if reason is not None:
            self._wait(home, reason)
            return
        choice = home.results.merge or MergeChoice()
        try:
            count = self._compat.merge_predictions(
                self._window, list(home.loaded), choice
            )
        except PredictionsDoNotFit as error:
            self._fail(home, clean_text(str(error), MAX_REASON_CHARS))
            return
        except Exception as error:
            _log.exception("SLEAP could not merge predictions")
            self._fail(home, _HALF_MERGED.format(kind=type(error).__name__))
            return
        job_id = home.results.job_id
        self._set(replace(home, stage=_Stage.MERGED, loaded=()))
        self._forget(job_id)
        words = merged_words(count, clean_text(home.results.worker))
        if (kept := _kept_in(home.results)) is not None:
            words += f" {results_without_project(home.project.path, kept)}"
        self._say(words)

    # -- the rest ----------------------------------------------------------------------

    def _reason(self, home: _Home) -> str | None:
        project = self._compat.open_project(self._window)
        return self._why_not(home, project)

    def _why_not(self, home: _Home, project: OpenProject | None) -> str | None:
        is_open = project is not None and _is_same_file(
            project.facts.path, home.project.path
        )
        is_there = is_open or Path(home.project.path).exists()
        kept = None if is_there else _kept_in(home.results)
        return may_merge(project, home.project, is_there=is_there, kept=kept)

    def _as_waiting(self, home: _Home, project: OpenProject | None) -> Waiting:
        results = home.results
        reason = self._why_not(home, project)
        return Waiting(
            job_id=results.job_id,
            worker=clean_text(results.worker),
            project=home.project.path,
            predictions=tuple(results.predictions),
            reason=reason or home.failure or _FITS_NOW,
            can_merge=reason is None,
        )

    def _fail(self, home: _Home, failure: str) -> None:
        self._wait(replace(home, failure=failure), failure)

    def _wait(self, home: _Home, reason: str) -> None:
        self._set(replace(home, stage=_Stage.WAITING, loaded=()))
        self._say(reason)

    def _set(self, home: _Home) -> None:
        self._homes[home.results.job_id] = home
        self.on_changed()

    def _make_room(self) -> None:
        """Forget the oldest that needs nothing more, so that the list stays bounded."""
        if len(self._homes) < MAX_RESULTS:
            return
        for job_id, home in self._homes.items():
            if home.stage in (_Stage.MERGED, _Stage.WAITING):
                del self._homes[job_id]
                return

    def _forget(self, job_id: str) -> None:
        self._spawn(self._ask_to_forget(job_id), f"forget the results of {job_id}")

    async def _ask_to_forget(self, job_id: str) -> None:
        try:
            await self._ask(ForgetResults(job_id=job_id))
        except RtcError as error:
            # It says them again when it is back, and is asked again.
            _log.info("the companion could not forget results: %s", error)

    def _say(self, sentence: str) -> None:
        self._window.statusBar().showMessage(sentence, STATUS_MS)


def _kept_in(results: ResultsHome) -> str | None:
    """Return where results are whose project's folder is gone; None if it is not."""
    paths = [*results.models, *results.predictions]
    if results.project is None or not paths:
        return None
    if Path(results.project.path).parent.is_dir():
        return None
    return str(Path(paths[0]).parent.parent)


def _hands_are_full() -> bool:
    """Tell whether the user is in a dialog or a menu, or holds a mouse button."""
    return (
        QApplication.activeModalWidget() is not None
        or QApplication.activePopupWidget() is not None
        or QApplication.mouseButtons() != Qt.MouseButton.NoButton
    )


def _cannot_be_read(error: Exception) -> str:
    if isinstance(error, PredictionsDoNotFit):
        return clean_text(str(error), MAX_REASON_CHARS)
    return f"The predictions cannot be read ({type(error).__name__}); fetch them again."

"""Results come home into SLEAP's real main window with a real project."""

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtWidgets import QApplication, QDialog, QMainWindow
from support.pumped_loop import PumpedLoop

from sleap_rtc_plugin.companion.messages import (
    Command,
    Done,
    ForgetResults,
    Result,
    ResultsHome,
)
from sleap_rtc_plugin.gui import home_coming
from sleap_rtc_plugin.gui.home_coming import HomeComing
from sleap_rtc_plugin.protocol.errors import CompanionGone, RtcError
from sleap_rtc_plugin.session.run_request import MergeChoice, ProjectFacts

pytestmark = pytest.mark.needs_shared_data
PREDICTED_FRAMES = 12
FIRST_FRAME = 500
Make = Callable[..., Path]
JOB, OTHER = "job-00000000000000000001", "job-00000000000000000002"


class Gated:
    """The real `sleap_compat`, whose loading can be held and whose merge can fail."""

    def __init__(self, compat: Any) -> None:
        self._compat = compat
        self.gate = threading.Event()
        self.gate.set()
        self.threads: list[threading.Thread] = []
        self.refreshed = 0
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compat, name)

    def load_predictions(self, path: str) -> Any:
        self.threads.append(threading.current_thread())
        assert self.gate.wait(30)
        return self._compat.load_predictions(path)

    def refresh_model_lists(self, window: Any) -> None:
        self.refreshed += 1
        self._compat.refresh_model_lists(window)

    def merge_predictions(self, window: Any, loaded: list[Any], merge: Any) -> int:
        assert threading.current_thread() is threading.main_thread()
        if self.failure is not None:
            raise self.failure
        count: int = self._compat.merge_predictions(window, loaded, merge)
        return count


class World:
    """A window with a copy of the flies, and a companion that answers Done."""

    def __init__(self, window: QMainWindow, compat: Any, pumped: PumpedLoop) -> None:
        self.window: Any = window
        self.compat = Gated(compat)
        self.commands: list[Command] = []
        self.errors: list[RtcError] = []
        self.home = HomeComing(window, self.ask, pumped.spawn, compat=self.compat)
        self.changes = 0
        self.home.on_changed = self._changed

    def _changed(self) -> None:
        self.changes += 1

    async def ask(self, command: Command) -> Result:
        self.commands.append(command)
        if self.errors:
            raise self.errors.pop(0)
        return Done()

    @property
    def forgotten(self) -> list[str]:
        return [c.job_id for c in self.commands if isinstance(c, ForgetResults)]

    @property
    def said(self) -> str:
        said: str = self.window.statusBar().currentMessage()
        return said

    def project(self) -> ProjectFacts:
        facts: ProjectFacts = self.compat.open_project(self.window).facts
        return facts

    def predicted(self) -> int:
        frames = self.window.labels.labeled_frames
        return sum(bool(frame.predicted_instances) for frame in frames)

    def results(self, *paths: Path, job_id: str = JOB, **options: Any) -> ResultsHome:
        facts: dict[str, Any] = {
            "job_id": job_id,
            "worker": "gpu-box",
            "models": [],
            "predictions": [str(path) for path in paths],
            "merge": MergeChoice(mode="replace"),
        }
        if "project" not in options:
            facts["project"] = self.project()
        return ResultsHome(**{**facts, **options})


@pytest.fixture(scope="module")
def flies(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("flies.slp", "centered_pair_low_quality.mp4"):
        shutil.copy(shared_data / name, folder)
    return folder / "flies.slp"


@pytest.fixture
def pumped() -> Iterator[PumpedLoop]:
    pumped = PumpedLoop()
    yield pumped
    pumped.close()


@pytest.fixture(scope="module")
def main_window(qapp: QApplication, flies: Path) -> Iterator[Any]:
    """One for all, since it takes seconds; each test predicts on frames of its own."""
    pytest.importorskip("sleap")
    from sleap.gui.app import MainWindow

    window = MainWindow(labels_path=str(flies), no_usage_data=True)
    window.show()
    yield window
    window.state["has_changes"] = False
    window.close()
    window.deleteLater()


@pytest.fixture
def window(main_window: Any) -> Any:
    main_window.state["has_changes"] = False
    main_window.statusBar().clearMessage()
    return main_window


@pytest.fixture(scope="module")
def blocks() -> Iterator[int]:
    """Where frames begin that no test has predicted on."""
    return itertools.count(FIRST_FRAME, PREDICTED_FRAMES)


@pytest.fixture
def world(window: Any, pumped: PumpedLoop) -> Iterator[World]:
    from sleap_rtc_plugin.gui import sleap_compat

    world = World(window, sleap_compat, pumped)
    yield world
    world.compat.gate.set()
    world.home.close()


@pytest.fixture
def predictions(flies: Path, tmp_path: Path, blocks: Iterator[int]) -> Make:
    """Makes predictions on frames of the flies that nobody labeled."""

    def make(name: str = "a", *, skeleton: Any = None) -> Path:
        import sleap_io

        labels = sleap_io.load_slp(str(flies))
        shape = labels.skeletons[0] if skeleton is None else skeleton
        points = [[10.0 + n, 20.0 + n] for n in range(len(shape.nodes))]
        frames, first = [], next(blocks)
        for index in range(first, first + PREDICTED_FRAMES):
            instance = sleap_io.PredictedInstance.from_numpy(
                points, skeleton=shape, score=0.9
            )
            frames.append(
                sleap_io.LabeledFrame(
                    video=labels.videos[0], frame_idx=index, instances=[instance]
                )
            )
        path = tmp_path / f"{name}.predictions.slp"
        sleap_io.save_slp(
            sleap_io.Labels(frames, videos=labels.videos, skeletons=[shape]),
            str(path),
            embed=False,
            verbose=False,
        )
        return path

    return make


# -- merging ---------------------------------------------------------------------------


def test_predictions_are_merged_and_not_saved(
    qtbot: Any, world: World, predictions: Make, flies: Path
) -> None:
    before, saved = world.predicted(), flies.read_bytes()
    world.home.handle(world.results(predictions(), models=["/m/a.centroid"]))
    qtbot.waitUntil(lambda: world.forgotten == [JOB], timeout=20_000)
    assert world.predicted() == before + PREDICTED_FRAMES
    assert world.said == (
        "12 frames with predictions were merged from gpu-box; not saved yet."
    )
    assert world.window.state["has_changes"]
    assert flies.read_bytes() == saved
    assert len(world.window.labels.videos) == len(world.window.labels.skeletons) == 1
    assert world.compat.refreshed == 1
    assert threading.main_thread() not in world.compat.threads
    assert not world.home.waiting


def test_several_results_are_merged_one_after_the_other(
    qtbot: Any, world: World, predictions: Make
) -> None:
    before = world.predicted()
    world.home.handle(world.results(predictions("a")))
    world.home.handle(world.results(predictions("b"), job_id=OTHER))
    qtbot.waitUntil(lambda: len(world.forgotten) == 2, timeout=20_000)
    assert world.predicted() == before + 2 * PREDICTED_FRAMES


def test_the_user_labels_on_while_the_job_runs(
    qtbot: Any, world: World, predictions: Make
) -> None:
    import sleap_io

    results = world.results(predictions())
    video = sleap_io.Video.from_filename("new.mp4", open_backend=False)
    world.window.labels.videos.append(video)
    world.home.handle(results)
    qtbot.waitUntil(lambda: world.forgotten == [JOB], timeout=20_000)
    world.window.labels.videos.remove(video)


def test_nothing_is_merged_while_a_dialog_is_open(
    qtbot: Any, world: World, predictions: Make
) -> None:
    before = world.predicted()
    dialog = QDialog(world.window)
    dialog.open()
    world.home.handle(world.results(predictions()))
    qtbot.waitUntil(world.home._quiet.isActive, timeout=20_000)
    assert world.predicted() == before
    dialog.accept()
    qtbot.waitUntil(lambda: world.forgotten == [JOB], timeout=20_000)
    assert world.predicted() == before + PREDICTED_FRAMES
    qtbot.waitUntil(lambda: not world.home._quiet.isActive())


def test_the_project_is_looked_at_again_right_before_the_merge(
    qtbot: Any, world: World, predictions: Make
) -> None:
    world.compat.gate.clear()
    world.home.handle(world.results(predictions()))
    qtbot.waitUntil(lambda: bool(world.compat.threads))
    before = world.predicted()
    path, world.window.state["filename"] = world.window.state["filename"], "/other.slp"
    world.compat.gate.set()
    qtbot.waitUntil(lambda: bool(world.home.waiting), timeout=20_000)
    (waiting,) = world.home.waiting
    assert waiting.reason.startswith("Another project is open; open flies.slp")
    assert not waiting.can_merge
    assert (world.predicted(), world.forgotten) == (before, [])
    world.window.state["filename"] = path
    (waiting,) = world.home.waiting
    assert waiting.can_merge
    assert "Merge Now" in waiting.reason
    world.home.merge_now(JOB)
    qtbot.waitUntil(lambda: world.forgotten == [JOB], timeout=20_000)
    assert world.predicted() == before + PREDICTED_FRAMES


# -- waiting ---------------------------------------------------------------------------


def test_results_for_a_project_that_is_gone_wait_and_can_be_dismissed(
    qtbot: Any, world: World, predictions: Make, tmp_path: Path
) -> None:
    path = predictions()
    gone = ProjectFacts(path=str(tmp_path / "gone.slp"))
    world.home.handle(world.results(path, project=gone))
    qtbot.waitUntil(lambda: bool(world.home.waiting))
    assert "moved or deleted" in world.said
    assert world.changes
    world.home.dismiss(JOB)
    qtbot.waitUntil(lambda: world.forgotten == [JOB])
    assert not world.home.waiting
    assert path.exists(), "only what we remember is dismissed"


@pytest.mark.parametrize("content", [b"", b"not hdf5" * 100, None])
def test_predictions_that_cannot_be_read_wait(
    qtbot: Any, world: World, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "broken.slp"
    if content is not None:
        path.write_bytes(content)
    before = world.predicted()
    world.home.handle(world.results(path))
    qtbot.waitUntil(lambda: bool(world.home.waiting), timeout=20_000)
    assert "cannot be read" in world.home.waiting[0].reason
    assert world.home.waiting[0].can_merge, "the file may be put right"
    assert (world.predicted(), world.forgotten) == (before, [])


def test_one_unreadable_file_of_two_merges_neither(
    qtbot: Any, world: World, predictions: Make, tmp_path: Path
) -> None:
    before = world.predicted()
    world.home.handle(world.results(predictions(), tmp_path / "missing.slp"))
    qtbot.waitUntil(lambda: bool(world.home.waiting), timeout=20_000)
    assert world.predicted() == before


def test_predictions_of_another_skeleton_wait(
    qtbot: Any, world: World, predictions: Make
) -> None:
    import sleap_io

    before = world.predicted()
    other = sleap_io.Skeleton(nodes=["snout", "tail"])
    world.home.handle(world.results(predictions(skeleton=other)))
    qtbot.waitUntil(lambda: bool(world.home.waiting), timeout=20_000)
    assert "another skeleton" in world.home.waiting[0].reason
    assert world.predicted() == before
    assert not world.window.state["has_changes"]


def test_a_merge_that_fails_in_sleap_is_said(
    qtbot: Any, world: World, predictions: Make
) -> None:
    world.compat.failure = KeyError("surprise")
    world.home.handle(world.results(predictions()))
    qtbot.waitUntil(lambda: bool(world.home.waiting), timeout=20_000)
    assert "KeyError" in world.home.waiting[0].reason
    assert "without saving" in world.home.waiting[0].reason
    assert not world.forgotten


# -- the companion ---------------------------------------------------------------------


def test_results_said_again_are_not_merged_again(
    qtbot: Any, world: World, predictions: Make
) -> None:
    import sleap_io

    before = world.predicted()
    world.errors.append(CompanionGone(reason="killed"))
    path = predictions()
    results = world.results(path, merge=MergeChoice(mode="add"))
    world.home.handle(results)
    world.home.handle(results)
    qtbot.waitUntil(lambda: world.forgotten == [JOB], timeout=20_000)
    world.home.handle(results)
    qtbot.waitUntil(lambda: world.forgotten == [JOB, JOB])
    assert world.predicted() == before + PREDICTED_FRAMES
    wanted = {frame.frame_idx for frame in sleap_io.load_slp(str(path)).labeled_frames}
    frames = world.window.labels.labeled_frames
    counts = [len(f.predicted_instances) for f in frames if f.frame_idx in wanted]
    assert counts == [1] * PREDICTED_FRAMES


@pytest.mark.parametrize(
    ("models", "predictions", "words"),
    [
        (
            ["/d/models/a", "/d/models/b"],
            [],
            "The models from gpu-box are in /d/models.",
        ),
        ([], ["/d/p/a.slp"], "The predictions from gpu-box are in /d/p."),
    ],
)
def test_what_needs_no_merge_is_told_and_forgotten(
    qtbot: Any, world: World, models: list[str], predictions: list[str], words: str
) -> None:
    results = world.results(project=None, models=models, predictions=predictions)
    world.home.handle(results)
    qtbot.waitUntil(lambda: world.forgotten == [JOB])
    assert world.said == words
    assert world.compat.refreshed == bool(models)
    assert not world.home.waiting


def test_after_the_close_nothing_is_merged(
    qtbot: Any, world: World, predictions: Make, pumped: PumpedLoop
) -> None:
    before = world.predicted()
    world.compat.gate.clear()
    world.home.handle(world.results(predictions()))
    qtbot.waitUntil(lambda: bool(world.compat.threads))
    world.home.close()
    world.compat.gate.set()
    world.home.handle(world.results(predictions("b"), job_id=OTHER))
    qtbot.waitUntil(lambda: not pumped.tasks, timeout=20_000)
    assert (world.predicted(), world.forgotten) == (before, [])


def test_what_is_kept_in_mind_is_bounded(
    qtbot: Any, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(home_coming, "MAX_RESULTS", 3)
    gone = ProjectFacts(path=str(tmp_path / "gone.slp"))
    for number in range(5):
        job_id = f"job-{number:020x}"
        results = world.results(tmp_path / "a.slp", project=gone, job_id=job_id)
        world.home.handle(results)
    qtbot.waitUntil(lambda: len(world.home.waiting) == 3)
    assert world.home.waiting[-1].job_id == "job-00000000000000000004"

"""When predictions may be merged into what is open."""

import pytest

pytest.importorskip("qtpy")

from sleap_rtc_plugin.gui.home_coming import may_merge, merged_words
from sleap_rtc_plugin.gui.sleap_compat import OpenProject
from sleap_rtc_plugin.session.run_request import ProjectFacts

WANTED = ProjectFacts(
    path="/data/flies.slp", nodes=["head", "thorax"], videos=["a.mp4", "b.mp4"]
)


def opened(
    path: str = WANTED.path,
    nodes: list[str] = WANTED.nodes,
    videos: list[str] = WANTED.videos,
) -> OpenProject:
    facts = ProjectFacts(path=path, nodes=nodes, videos=videos)
    return OpenProject(facts=facts, has_changes=True, user_frames=99)


@pytest.mark.parametrize(
    "project",
    [
        opened(),
        opened(path="/data/./x/../flies.slp"),
        opened(videos=["new.mp4", "b.mp4", "a.mp4"]),
    ],
    ids=["unchanged", "another spelling", "a video added, order changed"],
)
def test_the_same_project_takes_its_predictions(project: OpenProject) -> None:
    assert may_merge(project, WANTED) is None


@pytest.mark.parametrize(
    ("project", "is_there", "words"),
    [
        (None, True, "No project is open; open flies.slp"),
        (None, False, "moved or deleted"),
        (opened(path="/data/mice.slp"), True, "Another project is open; open flies"),
        (opened(path="/other/flies.slp"), False, "moved or deleted"),
        (opened(nodes=["head"]), True, "no longer the one"),
        (opened(nodes=["thorax", "head"]), True, "no longer the one"),
        (opened(nodes=[]), True, "no longer the one"),
        (opened(videos=["a.mp4"]), True, "no longer the one"),
        (opened(videos=[]), True, "no longer the one"),
    ],
)
def test_predictions_wait_with_a_reason(
    project: OpenProject | None, is_there: bool, words: str
) -> None:
    reason = may_merge(project, WANTED, is_there=is_there)
    assert reason is not None
    assert words in reason
    assert reason.endswith(".")


def test_two_videos_of_one_name_are_two_videos() -> None:
    wanted = ProjectFacts(path=WANTED.path, nodes=WANTED.nodes, videos=["a.mp4"] * 2)
    assert may_merge(opened(videos=["a.mp4"]), wanted) is not None
    assert may_merge(opened(videos=["a.mp4", "a.mp4"]), wanted) is None


def test_a_hostile_name_is_shown_on_one_line() -> None:
    wanted = ProjectFacts(path="/data/x\u202e\n<b>y</b>.slp")
    reason = may_merge(None, wanted)
    assert reason is not None
    assert "\n" not in reason
    assert "\u202e" not in reason


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (0, "The predictions from gpu are empty; nothing was merged."),
        (1, "1 frame with predictions was merged from gpu; not saved yet."),
        (12, "12 frames with predictions were merged from gpu; not saved yet."),
        (1200, "1,200 frames with predictions were merged from gpu; not saved yet."),
    ],
)
def test_what_was_merged(frames: int, words: str) -> None:
    assert merged_words(frames, "gpu") == words

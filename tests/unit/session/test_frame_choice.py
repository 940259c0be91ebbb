"""Which frames of a video are predicted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import OptionRefused
from sleap_rtc_plugin.protocol.inference_options import frame_numbers
from sleap_rtc_plugin.protocol.limits import MAX_OPTION_CHARS
from sleap_rtc_plugin.session.frame_choice import (
    choose_by_chance,
    frames_of_video,
    frames_option,
)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("7-99", [7, 8, 9]),
        ("3,8", [3, 8]),
        ("4", [4]),
    ],
)
def test_frames_that_the_video_has(value: str, wanted: list[int]) -> None:
    frames = frames_of_video({"frames": value}, 10, video="fly.mp4")
    assert frames is not None
    assert list(frames) == wanted


@pytest.mark.parametrize("value", ["10-12", "3,10"])
def test_frames_that_it_has_not(value: str) -> None:
    with pytest.raises(OptionRefused, match=r"fly\.mp4 has the frames 0 to 9"):
        frames_of_video({"frames": value}, 10, video="fly.mp4")


@pytest.mark.parametrize(
    "name", ["only_suggested_frames", "video_index", "exclude_user_labeled"]
)
def test_options_for_labels_mean_nothing_for_a_video(name: str) -> None:
    with pytest.raises(OptionRefused, match=f"--{name}"):
        frames_of_video({name: ""}, 10, video="fly.mp4")


def test_all_frames_need_no_option() -> None:
    assert frames_of_video({}, 10, video="fly.mp4") is None


@given(
    frames=st.sets(st.integers(0, 10_000), min_size=1, max_size=50),
    count=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_chance_chooses_the_same_again(frames: set[int], count: int, seed: int) -> None:
    chosen = choose_by_chance(frames, count, seed)
    assert chosen == choose_by_chance(sorted(frames), count, seed)
    assert len(chosen) == len(set(chosen)) == min(count, len(frames))
    assert frames.issuperset(chosen)
    assert chosen == sorted(chosen)


def test_chance_chooses_what_it_chose_before() -> None:
    assert choose_by_chance(range(100), 3, 7) == [19, 41, 50]
    assert choose_by_chance(range(100), 3, 8) != [19, 41, 50]


@given(st.sets(st.integers(0, 10**9 - 1), min_size=1, max_size=30))
def test_an_option_means_its_frames(frames: set[int]) -> None:
    value = frames_option(sorted(frames), "fly.mp4")
    assert list(frame_numbers(value)) == sorted(frames)


def test_too_many_single_frames_are_refused() -> None:
    frames = list(range(0, 4 * MAX_OPTION_CHARS, 2))
    with pytest.raises(OptionRefused, match="choose fewer, or a range"):
        frames_option(frames, "fly.mp4")

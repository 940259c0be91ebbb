"""What is said of a job that waits."""

import pytest

from sleap_rtc_plugin.session.queue_words import about, ordinal, place_words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "first"),
        (3, "third"),
        (10, "tenth"),
        (11, "11th"),
        (12, "12th"),
        (21, "21st"),
        (22, "22nd"),
        (103, "103rd"),
        (111, "111th"),
    ],
)
def test_a_place_has_its_ending(number: int, words: str) -> None:
    assert ordinal(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "a minute"),
        (59.0, "a minute"),
        (61.0, "1 min"),
        (720.0, "12 min"),
        (5399.0, "90 min"),
        (7300.0, "2 h"),
        (3 * 24 * 3600.0, "3 d"),
    ],
)
def test_an_estimate_is_no_more_exact_than_it_can_be(
    seconds: float, words: str
) -> None:
    assert about(seconds) == words


def test_a_place_without_an_estimate_promises_none() -> None:
    assert place_words("gpu-box", 3, None) == "third in the queue of gpu-box"
    assert (
        place_words("gpu-box", 1, 720.0)
        == "first in the queue of gpu-box; starts in about 12 min"
    )

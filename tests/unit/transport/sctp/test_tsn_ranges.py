"""Ranges of TSNs: what is new of a range, and where the first gap begins."""

import pytest

from sleap_rtc_plugin.transport.sctp.tsn_ranges import TsnRanges


def ranges(*pairs: tuple[int, int]) -> TsnRanges:
    made = TsnRanges()
    for first, last in pairs:
        made.add(first, last)
    return made


@pytest.mark.parametrize(
    ("first", "last", "new", "result"),
    [
        (1, 2, [(1, 2)], [(1, 2), (10, 20), (30, 40)]),
        (1, 9, [(1, 9)], [(1, 20), (30, 40)]),
        (10, 20, [], [(10, 20), (30, 40)]),
        (12, 15, [], [(10, 20), (30, 40)]),
        (5, 12, [(5, 9)], [(5, 20), (30, 40)]),
        (18, 25, [(21, 25)], [(10, 25), (30, 40)]),
        (21, 29, [(21, 29)], [(10, 40)]),
        (23, 27, [(23, 27)], [(10, 20), (23, 27), (30, 40)]),
        (5, 45, [(5, 9), (21, 29), (41, 45)], [(5, 45)]),
        (41, 41, [(41, 41)], [(10, 20), (30, 41)]),
        (43, 50, [(43, 50)], [(10, 20), (30, 40), (43, 50)]),
    ],
)
def test_adding_tells_what_is_new(
    first: int, last: int, new: list[tuple[int, int]], result: list[tuple[int, int]]
) -> None:
    made = ranges((10, 20), (30, 40))
    assert made.add(first, last) == new
    assert list(made) == result
    assert len(made) == len(result)


@pytest.mark.parametrize(
    ("cumulative", "reached", "left"),
    [
        (5, 5, [(10, 20), (30, 40)]),
        (9, 20, [(30, 40)]),
        (15, 20, [(30, 40)]),
        (25, 25, [(30, 40)]),
        (29, 40, []),
        (50, 50, []),
    ],
)
def test_what_follows_without_a_gap_is_reached(
    cumulative: int, reached: int, left: list[tuple[int, int]]
) -> None:
    made = ranges((10, 20), (30, 40))
    assert made.advance(cumulative) == reached
    assert list(made) == left


def test_membership() -> None:
    made = ranges((10, 20), (30, 40))
    assert [tsn for tsn in range(8, 43) if tsn in made] == [
        *range(10, 21),
        *range(30, 41),
    ]
    assert made
    made.clear()
    assert not made

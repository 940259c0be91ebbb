"""Ranges of TSNs hold what a plain set holds, whatever is added in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.transport.sctp.tsn_ranges import TsnRanges

# Small and dense, so that ranges touch, overlap and swallow each other.
numbers = st.integers(0, 60)
spans = st.builds(
    lambda first, size: (first, first + size), numbers, st.integers(0, 12)
)


def ranges_of(numbers: set[int]) -> list[tuple[int, int]]:
    """The runs of consecutive numbers in a set."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def filled(added: list[tuple[int, int]]) -> tuple[TsnRanges, set[int]]:
    """Ranges and a set with the same in them."""
    ranges, model = TsnRanges(), set()
    for first, last in added:
        ranges.add(first, last)
        model.update(range(first, last + 1))
    return ranges, model


@given(st.lists(spans, max_size=20))
def test_what_is_added_is_in_and_its_new_parts_are_told(
    added: list[tuple[int, int]],
) -> None:
    ranges, model = TsnRanges(), set()
    for first, last in added:
        fresh = set(range(first, last + 1)) - model
        assert ranges.add(first, last) == ranges_of(fresh)
        model |= fresh
        assert list(ranges) == ranges_of(model)
        assert len(ranges) == len(ranges_of(model))
        assert bool(ranges) == bool(model)
    assert [number for number in range(-2, 80) if number in ranges] == sorted(model)


@given(st.lists(spans, max_size=20), st.lists(st.integers(-3, 80), max_size=5))
def test_advancing_drops_what_lies_below_and_goes_on_to_the_next_gap(
    added: list[tuple[int, int]], targets: list[int]
) -> None:
    ranges, model = filled(added)
    for target in targets:
        expected = target
        while expected + 1 in model:
            expected += 1
        assert ranges.advance(target) == expected
        model = {number for number in model if number > expected}
        assert list(ranges) == ranges_of(model)


@given(st.lists(spans, max_size=20))
def test_cleared_ranges_are_empty(added: list[tuple[int, int]]) -> None:
    ranges, _ = filled(added)
    ranges.clear()
    assert list(ranges) == []
    assert not ranges

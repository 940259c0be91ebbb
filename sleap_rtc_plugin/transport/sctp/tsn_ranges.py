"""Sets of TSNs as sorted ranges: what has arrived, or was acknowledged, beyond a gap.

Pure. TSNs are unwrapped here, plain integers that only grow; `transport.sctp.packet`
wraps them for the wire. Used by the receiver and the sender of `transport.sctp`.
"""

from bisect import bisect_right
from collections.abc import Iterator

__all__ = ["TsnRanges"]


class TsnRanges:
    """Ranges of integers, both ends included, disjoint and never adjacent."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        """Begin empty."""
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges, the lowest first."""
        return zip(self._starts, self._ends, strict=True)

    def __contains__(self, tsn: int) -> bool:
        position = bisect_right(self._starts, tsn) - 1
        return position >= 0 and tsn <= self._ends[position]

    def clear(self) -> None:
        """Forget everything."""
        self._starts.clear()
        self._ends.clear()

    def add(self, first: int, last: int) -> list[tuple[int, int]]:
        """Add a range; return the parts of it that are new, the lowest first."""
        starts, ends = self._starts, self._ends
        if not ends or first > ends[-1] + 1:
            starts.append(first)
            ends.append(last)
            return [(first, last)]
        if first == ends[-1] + 1:
            ends[-1] = last
            return [(first, last)]
        # Those that touch it: from the first that ends at `first - 1` or later ...
        low = bisect_right(starts, first) - 1
        if low < 0 or ends[low] < first - 1:
            low += 1
        # ... to the last that starts at `last + 1` or earlier.
        high = bisect_right(starts, last + 1)
        new: list[tuple[int, int]] = []
        begin = first
        for position in range(low, high):
            if begin < starts[position]:
                new.append((begin, starts[position] - 1))
            begin = max(begin, ends[position] + 1)
        if begin <= last:
            new.append((begin, last))
        if low < high:
            first = min(first, starts[low])
            last = max(last, ends[high - 1])
        starts[low:high] = [first]
        ends[low:high] = [last]
        return new

    def advance(self, cumulative: int) -> int:
        """Drop what lies at or below `cumulative`; return where the gap begins.

        That is `cumulative` itself, or the end of the range that follows it without a
        gap, which is dropped too.
        """
        starts, ends = self._starts, self._ends
        while starts and starts[0] <= cumulative + 1:
            cumulative = max(cumulative, ends[0])
            del starts[0], ends[0]
        return cumulative

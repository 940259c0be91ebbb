"""What is told of a training stays bounded, however long it runs."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.limits import MAX_BATCH_EVENTS_PER_S
from sleap_rtc_worker.event_budget import BatchPace, LogBudget
from sleap_rtc_worker.limits import (
    BATCHES_BEFORE_HALF_RATE,
    LOG_CHARS_AT_ONCE,
    LOG_CHARS_PER_S,
    MAX_BATCH_INTERVAL_S,
)

DAY_S = 24 * 3600.0


def test_a_day_of_batches_is_told_in_tens_of_thousands() -> None:
    pace, now, told = BatchPace(), 0.0, []
    while now < DAY_S:
        pace.told(now)
        told.append(now)
        assert not pace.is_due(now + 0.001)
        now += 1.0 / MAX_BATCH_EVENTS_PER_S
        if not pace.is_due(now):
            # Nothing is told before, so nothing is missed by not asking.
            now = told[-1] + _interval(len(told))
        assert pace.is_due(now + 1e-6)
        now += 1e-6
    assert 30_000 < len(told) < 60_000
    assert told[BATCHES_BEFORE_HALF_RATE - 1] < 300
    gaps = [after - before for before, after in itertools.pairwise(told)]
    assert max(gaps) < MAX_BATCH_INTERVAL_S + 0.1


def _interval(told: int) -> float:
    halvings = (told - 1) // BATCHES_BEFORE_HALF_RATE
    return min(2.0**halvings / MAX_BATCH_EVENTS_PER_S, MAX_BATCH_INTERVAL_S)


def test_a_flooded_log_keeps_its_first_and_its_last_lines() -> None:
    budget, line, told = LogBudget(), "x" * 499, []
    hours, per_s = 2, 5
    total = hours * 3600 * per_s
    for number in range(total):
        text = f"{number} {line}"
        if budget.takes(text, number / per_s):
            told.append(text)
    last = list(budget.last_lines())
    assert len(told) + len(last) + budget.taken_dropped() == total
    assert [text.split()[0] for text in told[:100]] == [str(n) for n in range(100)]
    assert last[-1].startswith(f"{total - 1} ")
    size = sum(map(len, told))
    assert size <= LOG_CHARS_AT_ONCE + hours * 3600 * LOG_CHARS_PER_S
    assert size > LOG_CHARS_AT_ONCE


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 5), st.booleans())))
def test_every_line_is_told_or_counted(lines: list[tuple[int, float, bool]]) -> None:
    budget, now, told, counted = LogBudget(), 0.0, 0, 0
    for size, wait_s, is_full in lines:
        now += wait_s
        told += budget.takes("x" * size, now, is_full=is_full)
        if size % 7 == 0:
            counted += budget.taken_dropped()
    told += len(list(budget.last_lines()))
    assert told + counted + budget.taken_dropped() == len(lines)

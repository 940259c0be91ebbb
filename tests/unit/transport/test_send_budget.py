"""What may wait in a channel, on channels whose time is simulated."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.fragments import HEADER_BYTES
from sleap_rtc_plugin.protocol.limits import (
    FRAGMENT_BYTES,
    SEND_BUFFER_FLOOR_BYTES,
    SEND_BUFFER_HIGH_BYTES,
    SEND_QUEUE_TIME_S,
)
from sleap_rtc_plugin.transport.send_budget import SendBudget

MBIT_BYTES = 125_000
STOP_WAITS_AT_MOST_S = 0.2
CONTROL_BYTES = 200


class Association:
    """Messages in one line, as aiortc sends them: the first one is counted no more."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.now = 0.0
        self.budget = SendBudget()
        self.waiting: deque[tuple[int, float]] = deque()
        self.on_wire: tuple[int, float] | None = None
        self.buffered_bytes = 0
        self.sent_bytes = 0
        self.worst_wait_s = 0.0

    def put(self, size_bytes: int, *, is_control: bool = False) -> None:
        """Give the channel a message."""
        if not is_control:
            self.budget.sent(size_bytes, self.buffered_bytes, self.now)
            self.buffered_bytes += size_bytes
        self.waiting.append((0 if is_control else size_bytes, self.now))
        self._take_next()

    @property
    def is_control_waiting(self) -> bool:
        """Whether a control message is on its way."""
        return any(size == 0 for size, _ in [*self.waiting, self.on_wire or (1, 0.0)])

    def fill(self) -> None:
        """Send as a transfer does that has always more to send."""
        while True:
            frame_bytes = HEADER_BYTES + self.budget.fragment_bytes
            if self.buffered_bytes > self.budget.room_at(frame_bytes):
                return
            limit_bytes = self.budget.limit_bytes
            self.put(frame_bytes)
            assert self.buffered_bytes <= limit_bytes

    def turn(self) -> None:
        """Let the message on the wire arrive, and the next one follow it."""
        assert self.on_wire is not None, "stalled"
        size_bytes, since = self.on_wire
        self.now += (size_bytes or CONTROL_BYTES) / self.bytes_per_s
        if size_bytes == 0:
            self.worst_wait_s = max(self.worst_wait_s, self.now - since)
        self.sent_bytes += size_bytes
        self.on_wire = None
        self._take_next()

    def _take_next(self) -> None:
        while self.on_wire is None and self.waiting:
            self.on_wire = self.waiting.popleft()
            self.buffered_bytes -= self.on_wire[0]
            if self.on_wire[0]:
                self.budget.drained(self.buffered_bytes, self.now)


@pytest.mark.parametrize("mbit_per_s", [5, 50, 1000])
def test_a_stop_command_is_never_far_behind(mbit_per_s: int) -> None:
    made = Association(mbit_per_s * MBIT_BYTES)
    while made.now < 3:
        made.fill()
        if not made.is_control_waiting:
            made.put(CONTROL_BYTES, is_control=True)
        made.turn()
    assert made.worst_wait_s <= STOP_WAITS_AT_MOST_S
    # The link is used, too: what is not bulk are the control messages.
    assert made.sent_bytes >= 0.98 * made.bytes_per_s * made.now


@pytest.mark.parametrize("mbit_per_s", [10, 50])
def test_what_waits_settles_at_what_drains_in_the_bound(mbit_per_s: int) -> None:
    made = Association(mbit_per_s * MBIT_BYTES)
    while made.now < 5:
        made.fill()
        made.turn()
    assert made.budget.rate_bytes_per_s == pytest.approx(made.bytes_per_s, rel=0.1)
    waiting_bytes = SEND_QUEUE_TIME_S * made.bytes_per_s
    assert made.budget.limit_bytes == pytest.approx(waiting_bytes, rel=0.1)


def test_a_fast_link_is_found_out_at_once() -> None:
    made = Association(1000 * MBIT_BYTES)
    while made.budget.limit_bytes < SEND_BUFFER_HIGH_BYTES:
        made.fill()
        made.turn()
        assert made.now < 0.05
    assert made.budget.fragment_bytes == FRAGMENT_BYTES


def test_a_link_that_becomes_slow_is_believed_soon() -> None:
    made = Association(1000 * MBIT_BYTES)
    for rate, until in ((1000, 1.0), (5, 4.0)):
        made.bytes_per_s = rate * MBIT_BYTES
        while made.now < until:
            made.fill()
            made.turn()
    made.put(CONTROL_BYTES, is_control=True)
    while made.worst_wait_s == 0:
        made.turn()
    assert made.worst_wait_s <= STOP_WAITS_AT_MOST_S


def test_time_in_which_nothing_waited_does_not_count() -> None:
    made = Association(50 * MBIT_BYTES)
    while made.now < 2:
        made.fill()
        made.turn()
    rate = made.budget.rate_bytes_per_s
    while made.on_wire:
        made.turn()
    made.now += 3600
    made.put(1000)
    made.put(1000)
    assert made.budget.rate_bytes_per_s == pytest.approx(rate, rel=0.1)


def test_a_machine_that_slept_is_itself_again_soon() -> None:
    made = Association(50 * MBIT_BYTES)
    made.fill()
    made.now += 3600
    for _ in range(400):
        made.fill()
        made.turn()
    assert made.budget.rate_bytes_per_s == pytest.approx(made.bytes_per_s, rel=0.2)


@given(
    st.integers(12_500, 12_500_000_000),
    st.lists(st.tuples(st.integers(1, 65_536), st.floats(0, 10)), max_size=50),
)
def test_what_the_user_allows_is_kept_whatever_was_not_sent_before(
    max_bytes_per_s: int, frames: list[tuple[int, float]]
) -> None:
    budget, now, sent_bytes = SendBudget(max_bytes_per_s), 100.0, 0
    for frame_bytes, pause_s in frames:
        wait_s = budget.wait_s(now)
        assert wait_s <= 65_536 / max_bytes_per_s
        now += wait_s + 1e-9
        assert budget.wait_s(now) == 0
        burst_bytes = SEND_QUEUE_TIME_S * max_bytes_per_s
        assert sent_bytes <= 1.001 * (now - 100.0) * max_bytes_per_s + burst_bytes
        budget.sent(frame_bytes, 0, now)
        sent_bytes += frame_bytes
        now += pause_s


def test_without_a_bound_nothing_waits() -> None:
    budget = SendBudget()
    for _ in range(100):
        budget.sent(FRAGMENT_BYTES, 0, 1.0)
        assert budget.wait_s(1.0) == 0


@given(
    st.lists(
        st.tuples(st.integers(1_000, 500_000_000), st.integers(1, 30), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_never_more_than_the_budget_and_never_stalled(
    stretches: list[tuple[int, int, bool]],
) -> None:
    made = Association(1.0)
    for bytes_per_s, turns, with_pause in stretches:
        made.bytes_per_s = bytes_per_s
        for _ in range(turns):
            made.fill()
            budget = made.budget
            assert budget.limit_bytes >= SEND_BUFFER_FLOOR_BYTES
            assert budget.limit_bytes <= SEND_BUFFER_HIGH_BYTES
            assert 0 < budget.fragment_bytes <= FRAGMENT_BYTES
            made.turn()
        if with_pause:
            while made.on_wire:
                made.turn()
    made.fill()
    assert made.on_wire

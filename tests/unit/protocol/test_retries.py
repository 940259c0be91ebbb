"""When to try again: waits that grow, a budget per outage, fatal errors at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import (
    FolderInUse,
    JobUnknown,
    LinkFailed,
    NoWorker,
    PeerIdTaken,
    PeerNotFound,
    RemoteProtocolError,
    RoomGone,
    RtcError,
    SignalingUnreachable,
    TokenRefused,
    TransferStalled,
    WorkerAway,
    WorkerVanished,
)
from sleap_rtc_plugin.protocol.limits import (
    RETRY_FIRST_S,
    RETRY_MAX_S,
    STEADY_LINK_S,
)
from sleap_rtc_plugin.protocol.retries import Retries, is_passing, may_enter_again


def waits(retries: Retries, count: int, *, jitter: float = 0.999999) -> list[float]:
    """Fail `count` times, each after the wait before."""
    now, found = 0.0, []
    for _ in range(count):
        wait = retries.failed(now, jitter)
        assert wait is not None
        found.append(wait)
        now += wait
    return found


def test_waits_double_up_to_their_bound() -> None:
    assert waits(Retries(), 7) == pytest.approx([0.5, 1, 2, 4, 8, 15, 15], rel=1e-4)


def test_half_of_a_wait_is_chance() -> None:
    assert Retries().failed(0.0, 0.0) == RETRY_FIRST_S / 2


def test_an_outage_has_a_budget() -> None:
    retries = Retries(90.0)
    assert retries.failed(1000.0, 0.5) is not None
    last = retries.failed(1089.9, 0.5)
    assert last is not None
    assert last == pytest.approx(0.1)
    assert retries.failed(1090.0, 0.5) is None


def test_no_budget_at_all_gives_up_at_once() -> None:
    assert Retries(0.0).failed(5.0, 0.5) is None


def test_a_link_that_held_begins_a_new_outage() -> None:
    retries = Retries(90.0)
    waits(retries, 5)
    retries.linked(80.0)
    assert retries.failed(80.0 + STEADY_LINK_S, 0.0) == RETRY_FIRST_S / 2
    assert retries.failed(169.0, 0.0) is not None


def test_a_link_that_is_lost_at_once_is_the_same_outage() -> None:
    retries = Retries(90.0)
    for now in range(0, 90, 5):
        assert retries.failed(float(now), 0.5) is not None
        retries.linked(now + 1.0)
    assert retries.failed(91.0, 0.5) is None


@given(
    st.lists(
        st.tuples(st.floats(0, 1000), st.booleans(), st.floats(0, 1, exclude_max=True)),
        max_size=60,
    ),
    st.one_of(st.none(), st.floats(0, 500)),
)
def test_waits_are_bounded_and_end(
    steps: list[tuple[float, bool, float]], budget_s: float | None
) -> None:
    retries, now = Retries(budget_s), 0.0
    for passed, links, jitter in steps:
        now += passed
        if links:
            retries.linked(now)
        wait = retries.failed(now, jitter)
        assert wait is not None or budget_s is not None
        if wait is not None:
            assert 0 <= wait <= RETRY_MAX_S
    if budget_s is not None:
        retries.failed(now, 0.5)
        assert retries.failed(now + budget_s + STEADY_LINK_S, 0.5) is None


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (WorkerVanished(worker="w", activity="x"), True),
        (LinkFailed(worker="w", reason="x"), True),
        (NoWorker(server="s"), True),
        (PeerNotFound(peer_id="p"), True),
        (SignalingUnreachable(server="s", reason="r"), True),
        (TransferStalled(activity="x", seconds="60"), True),
        (WorkerAway(worker="w", job_id="j", seconds="90"), False),
        (FolderInUse(place="/"), False),
        (JobUnknown(job_id="j"), False),
        (RemoteProtocolError(detail="x"), False),
        (RoomGone(server="s"), False),
        (TokenRefused(server="s", reason="r"), False),
    ],
)
def test_what_passes_and_what_does_not(error: RtcError, passes: bool) -> None:
    assert is_passing(error) is passes


def test_a_room_is_entered_again_unless_it_refuses() -> None:
    assert may_enter_again(SignalingUnreachable(server="s", reason="r"))
    assert may_enter_again(PeerIdTaken(peer_id="p"))
    assert not may_enter_again(RoomGone(server="s"))
    assert not may_enter_again(TokenRefused(server="s", reason="r"))

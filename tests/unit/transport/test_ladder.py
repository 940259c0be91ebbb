"""Which way to a worker is tried when, and which of them is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import NoWayToWorker
from sleap_rtc_plugin.protocol.limits import (
    BETTER_WAY_GRACE_S,
    LADDER_TIMEOUT_S,
    RUNG_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.relay_messages import IceServerList, RelayTerms
from sleap_rtc_plugin.protocol.signaling_messages import IceServer
from sleap_rtc_plugin.transport.ladder import (
    WAYS,
    Begun,
    Drop,
    Fail,
    Instruction,
    Ladder,
    LadderState,
    Take,
    Ticked,
    Try,
    Way,
    WayFailed,
    WayOpened,
    no_way,
    possible_ways,
)

TURN = IceServer(
    urls=["stun:s:1", "turn:t:2", "turn:t:2?transport=tcp", "turns:t:3?transport=tcp"],
    username="u",
    credential="c",
)
FULL = IceServerList(ice_servers=[TURN], relay=RelayTerms(path="/relay", max_mbit=8.0))


def until_the_end(ladder: Ladder, now: float = 0.0) -> list[tuple[float, Instruction]]:
    """Let nothing happen but time; return what is done when."""
    story = [(now, one) for one in ladder.handle(Begun(), now)]
    while (deadline := ladder.deadline()) is not None:
        assert deadline >= now
        now = deadline
        story += [(now, one) for one in ladder.handle(Ticked(), now)]
    return story


# -- which ways there are -------------------------------------------------------------


def test_every_way_that_a_server_offers() -> None:
    assert possible_ways(FULL, relay_only=False, takes_relay=True) == WAYS


def test_a_plain_server_leaves_the_direct_way() -> None:
    ways = possible_ways(
        IceServerList(ice_servers=[]), relay_only=False, takes_relay=True
    )
    assert ways == ("direct",)


def test_no_direct_way_where_no_address_may_be_told() -> None:
    ways = possible_ways(FULL, relay_only=True, takes_relay=True)
    assert ways == WAYS[1:]
    assert (
        possible_ways(IceServerList(ice_servers=[]), relay_only=True, takes_relay=True)
        == ()
    )


def test_an_older_worker_is_not_asked_to_the_relay() -> None:
    assert "relay" not in possible_ways(FULL, relay_only=False, takes_relay=False)


# -- when -----------------------------------------------------------------------------


def test_ways_begin_one_after_the_other_and_all_end_in_time() -> None:
    story = until_the_end(Ladder(WAYS))
    begun = {one.way: at for at, one in story if isinstance(one, Try)}
    dropped = {one.way: at for at, one in story if isinstance(one, Drop)}
    assert begun == {
        "direct": 0.0,
        "turn-udp": 1.5,
        "turn-tcp": 2.5,
        "turn-tls": 3.5,
        "relay": 5.0,
    }
    assert {way: dropped[way] - begun[way] for way in WAYS} == dict.fromkeys(
        WAYS, RUNG_TIMEOUT_S
    )
    ended_at, last = story[-1]
    assert isinstance(last, Fail)
    assert [way for way, _ in last.failures] == list(WAYS)
    assert ended_at <= LADDER_TIMEOUT_S


def test_a_lone_way_has_all_the_time() -> None:
    story = until_the_end(Ladder(["direct"]))
    assert story[-1] == (
        LADDER_TIMEOUT_S,
        Fail((("direct", f"no answer in {LADDER_TIMEOUT_S:.0f} s"),)),
    )


def test_no_way_at_all_fails_at_once() -> None:
    ladder = Ladder([])
    assert ladder.handle(Begun(), 0.0) == [Fail(())]
    assert ladder.deadline() is None


def test_the_next_way_begins_as_soon_as_the_newest_has_failed() -> None:
    ladder = Ladder(WAYS)
    ladder.handle(Begun(), 0.0)
    assert ladder.handle(WayFailed("direct", "no network"), 0.1) == [Try("turn-udp")]
    assert ladder.handle(Ticked(), 1.1) == [Try("turn-tcp")]
    # An older one that fails hurries nobody.
    assert ladder.handle(WayFailed("turn-udp", "refused"), 1.2) == []
    assert ladder.handle(WayFailed("turn-tcp", "refused"), 1.3) == [Try("turn-tls")]


# -- which is taken -------------------------------------------------------------------


def test_the_best_way_is_taken_at_once() -> None:
    ladder = Ladder(WAYS)
    ladder.handle(Begun(), 0.0)
    ladder.handle(Ticked(), 1.5)
    assert ladder.handle(WayOpened("direct"), 1.6) == [
        Take("direct"),
        Drop("turn-udp"),
    ]
    assert ladder.deadline() is None


def test_a_better_way_may_follow_within_a_moment() -> None:
    ladder = Ladder(WAYS)
    ladder.handle(Begun(), 0.0)
    ladder.handle(Ticked(), 1.5)
    assert ladder.handle(WayOpened("turn-udp"), 1.6) == []
    assert ladder.deadline() == 1.6 + BETTER_WAY_GRACE_S
    assert ladder.handle(WayOpened("direct"), 1.7) == [Drop("turn-udp"), Take("direct")]


def test_and_else_the_first_is_taken() -> None:
    ladder = Ladder(WAYS)
    ladder.handle(Begun(), 0.0)
    ladder.handle(Ticked(), 1.5)
    ladder.handle(WayOpened("turn-udp"), 1.6)
    assert ladder.handle(Ticked(), 1.6 + BETTER_WAY_GRACE_S) == [
        Take("turn-udp"),
        Drop("direct"),
    ]


def test_nobody_waits_for_a_better_way_that_has_failed() -> None:
    ladder = Ladder(WAYS)
    ladder.handle(Begun(), 0.0)
    ladder.handle(Ticked(), 1.5)
    ladder.handle(WayOpened("turn-udp"), 1.6)
    assert ladder.handle(WayFailed("direct", "gone"), 1.7) == [Take("turn-udp")]


def test_what_comes_about_too_late_is_dropped() -> None:
    ladder = Ladder(WAYS)
    ladder.handle(Begun(), 0.0)
    ladder.handle(WayOpened("direct"), 0.2)
    assert ladder.handle(WayOpened("turn-udp"), 0.3) == [Drop("turn-udp")]
    assert ladder.handle(WayFailed("turn-tcp", "late"), 0.3) == []
    assert ladder.handle(Ticked(), 0.3) == []


@given(
    ways=st.lists(st.sampled_from(WAYS), unique=True).map(
        lambda some: sorted(some, key=WAYS.index)
    ),
    draw=st.data(),
)
def test_whatever_happens_one_end_comes_in_time(ways: list[Way], draw) -> None:
    ladder, now = Ladder(ways), 0.0
    story = ladder.handle(Begun(), now)
    while (deadline := ladder.deadline()) is not None:
        open_ways = {one.way for one in story if isinstance(one, Try)}
        happening = draw.draw(st.sampled_from(["tick", "open", "fail"]))
        if happening == "tick" or not open_ways:
            now = deadline
            story += ladder.handle(Ticked(), now)
            continue
        now = draw.draw(st.floats(now, max(now, deadline)))
        way = draw.draw(st.sampled_from(sorted(open_ways)))
        kind = WayOpened(way) if happening == "open" else WayFailed(way, "because")
        if way not in {one.way for one in story if isinstance(one, Drop)}:
            story += ladder.handle(kind, now)
    assert ladder.state is LadderState.DONE
    ends = [one for one in story if isinstance(one, Take | Fail)]
    assert len(ends) == 1
    assert now <= LADDER_TIMEOUT_S + BETTER_WAY_GRACE_S


# -- in words -------------------------------------------------------------------------


def test_what_was_tried_is_one_sentence() -> None:
    error = no_way(
        "gpu-box",
        [
            ("direct", "no answer in 9 s"),
            ("turn-udp", "turn.lab:3478 refused the credentials"),
        ],
        IceServerList(ice_servers=[TURN]),
    )
    assert isinstance(error, NoWayToWorker)
    assert error.retryable
    assert str(error) == (
        "No connection to the worker gpu-box: direct failed (no answer in 9 s), TURN "
        "over UDP failed (turn.lab:3478 refused the credentials); ask whoever runs the "
        "signaling server to mend its TURN server, or to offer its relay."
    )


@pytest.mark.parametrize(
    ("failures", "config", "remedy"),
    [
        (
            [],
            IceServerList(ice_servers=[]),
            "ask whoever runs the signaling server for a TURN server",
        ),
        (
            [("direct", "x")],
            IceServerList(ice_servers=[]),
            "check that both machines allow UDP",
        ),
        ([("relay", "x")], FULL, "check that the worker is well"),
    ],
)
def test_every_end_names_a_remedy(failures, config: IceServerList, remedy: str) -> None:
    assert remedy in str(no_way("w", failures, config))

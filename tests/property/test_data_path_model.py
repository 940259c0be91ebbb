"""Two data paths and a network that does what it likes: each message arrives once."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from support.link_emulator import (
    Conditions,
    Fate,
    blackout,
    corruption,
    duplication,
    random_loss,
    reordering,
    scripted,
)
from support.path_pair import FixedWindow, PathPair, SentMessage

from sleap_rtc_plugin.transport.sctp.round_trip import RTO_MAX_S

ORDERED = (0, 1, 9)
UNORDERED = (2, 65534)
URGENT = (9, 65534)
LATENCY_S = 0.02
ROUND_TRIP_S = 2 * LATENCY_S
FULL = 1160
"""User data of a full packet of the base size."""
FULL_ETHERNET = 1400 - 28
LARGEST = 262_144

FAULTY_S = 3.0
"""How long a network that loses by chance does so."""

edges = st.sampled_from(
    [
        1,
        2,
        FULL - 1,
        FULL,
        FULL + 1,
        2 * FULL,
        2 * FULL + 1,
        FULL_ETHERNET,
        FULL_ETHERNET + 1,
        10 * FULL_ETHERNET,
    ]
)
sizes = edges | st.integers(1, 4 * FULL) | st.integers(1, LARGEST) | st.just(LARGEST)
fates = st.builds(
    Fate,
    lost=st.booleans(),
    copies=st.integers(1, 3),
    delay_s=st.sampled_from([0.0, 0.0, 0.001, 0.05, 0.7]),
    flipped_bit=st.none() | st.integers(0, 20_000),
)
scripts = st.tuples(st.lists(fates, max_size=40), st.lists(fates, max_size=40))
tsns = st.integers(1, 2**32 - 1) | st.integers(2**32 - 60, 2**32 - 1)
windows = st.sampled_from([FULL, 4 * FULL, 64 * 1024, 1 << 20])


def message_lists(
    sizes: st.SearchStrategy[int], most: int
) -> st.SearchStrategy[list[SentMessage]]:
    """Messages of both ends on several streams, each with its own bytes."""
    drawn = st.tuples(st.integers(0, 1), st.sampled_from(ORDERED + UNORDERED), sizes)
    return st.lists(drawn, max_size=most).map(
        lambda entries: [
            SentMessage(end, stream, number, size, stream in UNORDERED)
            for number, (end, stream, size) in enumerate(entries)
        ]
    )


def check_delivery(pair: PathPair, sent: Sequence[SentMessage]) -> None:
    """Each once, and in order on the streams that are ordered."""
    for end in (0, 1):
        got = defaultdict(list)
        for message in pair.delivered[1 - end]:
            got[message.stream_id].append(message.data)
        expected = defaultdict(list)
        for message in sent:
            if message.end == end:
                expected[message.stream_id].append(message.data)
        for stream in UNORDERED:
            got[stream].sort()
            expected[stream].sort()
        assert got == expected


def is_done(pair: PathPair, sent: Sequence[SentMessage]) -> bool:
    return pair.is_quiet() and sum(map(len, pair.delivered)) >= len(sent)


def bound_s(sent: Sequence[SentMessage], window_bytes: int) -> float:
    """How long it may take on a network without faults, from any state.

    The wait for an answer may just have been doubled: it is RTO_MAX_S at most. From
    then on every round trip brings a window through, of whole packets; three more are
    for what the last fault left: a loss that is found, sent again and acknowledged.
    """
    most = max(
        sum(message.size for message in sent if message.end == end) for end in (0, 1)
    )
    packets = ceil(most / FULL) + len(sent)
    rounds = ceil(packets / max(1, window_bytes // FULL)) + 3
    return RTO_MAX_S + rounds * ROUND_TRIP_S


def carry(
    pair: PathPair, sent: Sequence[SentMessage], *, faulty_s: float, window_bytes: int
) -> None:
    """Send everything; it is through in time once the faults have stopped."""
    pair.send(*sent)
    limit_s = faulty_s + bound_s(sent, window_bytes)
    pair.run_until(lambda: is_done(pair, sent), limit_s)
    check_delivery(pair, sent)
    for path in pair.paths:
        assert path.receiver.held_bytes == 0
        assert path.sender.in_flight_bytes == 0
        assert not path.sender.streams


@given(message_lists(sizes, 8), scripts, st.tuples(tsns, tsns), windows)
def test_any_script_of_faults(
    sent: list[SentMessage],
    script: tuple[list[Fate], list[Fate]],
    first_tsns: tuple[int, int],
    window_bytes: int,
) -> None:
    pair = PathPair(
        Conditions(LATENCY_S),
        congestion=lambda: FixedWindow(window_bytes),
        first_tsns=first_tsns,
        first_seq=65534,
        streams=ORDERED,
        urgent=URGENT,
    )
    for direction, faults in zip(pair.directions, script, strict=True):
        direction.conditions = Conditions(LATENCY_S, faults=[scripted(faults)])
    # Each fault of a script may cost the longest wait; they are few.
    faulty_s = (len(script[0]) + len(script[1])) * RTO_MAX_S
    carry(pair, sent, faulty_s=faulty_s, window_bytes=window_bytes)


@given(
    message_lists(sizes, 12),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.floats(0, 0.3),
    st.floats(0, 0.2),
    st.integers(0, 1000),
    windows,
)
def test_any_mixture_of_chance_ends_soon_after_the_faults(
    sent: list[SentMessage],
    loss: float,
    disorder: float,
    copies: float,
    damage: float,
    seed: int,
    window_bytes: int,
) -> None:
    pair = PathPair(
        Conditions(
            LATENCY_S,
            jitter_s=0.004,
            faults=[
                random_loss(loss),
                reordering(disorder, 0.1),
                duplication(copies),
                corruption(damage),
            ],
        ),
        seed=seed,
        congestion=lambda: FixedWindow(window_bytes),
        urgent=URGENT,
    )
    pair.send(*sent)
    end = pair.now + FAULTY_S
    pair.run_until(lambda: is_done(pair, sent) or pair.now >= end, FAULTY_S + 600)
    for direction in pair.directions:
        direction.conditions = Conditions(LATENCY_S)
    pair.run_until(lambda: is_done(pair, sent), 0.1 + bound_s(sent, window_bytes))
    check_delivery(pair, sent)


@given(
    message_lists(sizes, 8),
    st.floats(0, 2),
    st.floats(0.01, 90),
    st.integers(0, 1),
    windows,
)
def test_a_black_out_of_any_length_ends_soon_after(
    sent: list[SentMessage],
    begins_s: float,
    lasts_s: float,
    survivor: int,
    window_bytes: int,
) -> None:
    """Of one direction, or of both."""
    pair = PathPair(Conditions(LATENCY_S), congestion=lambda: FixedWindow(window_bytes))
    begin = pair.now + begins_s
    dark = Conditions(LATENCY_S, faults=[blackout(begin, begin + lasts_s)])
    pair.directions[0].conditions = dark
    if survivor:
        pair.directions[1].conditions = dark
    carry(pair, sent, faulty_s=begins_s + lasts_s, window_bytes=window_bytes)


@given(
    message_lists(sizes, 10),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.integers(0, 1000),
    windows,
    st.sampled_from([4 * LARGEST, LARGEST, 40 * FULL]),
)
def test_what_is_held_is_bounded(
    sent: list[SentMessage],
    loss: float,
    disorder: float,
    seed: int,
    window_bytes: int,
    held_bytes: int,
) -> None:
    """By either window, each overrun by one packet at most; `PathPair` looks too."""
    faults = [random_loss(loss), reordering(disorder, 0.1)]
    pair = PathPair(
        Conditions(LATENCY_S, faults=faults),
        seed=seed,
        congestion=lambda: FixedWindow(window_bytes),
        window_bytes=held_bytes,
        urgent=URGENT,
    )
    pair.send(*sent)
    most_bytes = min(window_bytes, held_bytes) + FULL_ETHERNET
    end = pair.now + FAULTY_S
    # The clock goes from event to event, and may step over the end.
    pair.run_until(
        lambda: is_done(pair, sent) or pair.now >= end, FAULTY_S + 2 * RTO_MAX_S
    )
    assert max(pair.most_in_flight_bytes) <= most_bytes
    assert max(pair.most_held_bytes) <= held_bytes + LARGEST + FULL_ETHERNET


partial = st.one_of(
    st.none(),
    st.integers(0, 2).map(lambda times: {"max_retransmits": times}),
    st.sampled_from([0.0, 0.03, 0.5]).map(lambda after: {"lifetime_s": after}),
)


@given(
    message_lists(st.integers(1, 30 * FULL), 16),
    st.lists(partial, min_size=16, max_size=16),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.integers(0, 1000),
    windows,
    st.tuples(tsns, tsns),
)
def test_what_is_given_up_never_blocks_the_rest(
    sent: list[SentMessage],
    limits: list[dict[str, float] | None],
    loss: float,
    disorder: float,
    seed: int,
    window_bytes: int,
    first_tsns: tuple[int, int],
) -> None:
    sent = [replace(one, **(limits[one.number] or {})) for one in sent]
    pair = PathPair(
        Conditions(LATENCY_S, faults=[random_loss(loss), reordering(disorder, 0.1)]),
        seed=seed,
        congestion=lambda: FixedWindow(window_bytes),
        first_tsns=first_tsns,
        first_seq=65530,
        streams=ORDERED,
        urgent=URGENT,
    )
    pair.send(*sent)
    end = pair.now + FAULTY_S
    pair.run_until(lambda: pair.is_quiet() or pair.now >= end, 3 * FAULTY_S)
    for direction in pair.directions:
        direction.conditions = Conditions(LATENCY_S)
    pair.run_until(pair.is_quiet, 0.1 + bound_s(sent, window_bytes))
    for end in (0, 1):
        got = [(one.stream_id, one.data) for one in pair.delivered[1 - end]]
        possible = [one for one in sent if one.end == end]
        assert len(got) == len(set(got))
        for stream in ORDERED:
            # What arrived, with what may be missing left out: the order is the same.
            arrived = [data for number, data in got if number == stream]
            order = [one.data for one in possible if one.stream_id == stream]
            assert arrived == [data for data in order if data in arrived]
        must = {(one.stream_id, one.data) for one in possible if not limits[one.number]}
        assert must <= set(got)
        assert set(got) <= {(one.stream_id, one.data) for one in possible}


def test_without_faults_nothing_is_given_up() -> None:
    sent = [
        SentMessage(number % 2, number % 3, number, 5000, max_retransmits=0)
        for number in range(40)
    ]
    pair = PathPair(Conditions(LATENCY_S))
    carry(pair, sent, faulty_s=0, window_bytes=1 << 20)

"""One direction of an emulated path, with time as an argument."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.bench.path_spec import PathSpec
from sleap_rtc_plugin.bench.wan_path import QUEUE_S, WanPath

# A packet of 1,250 bytes takes 1 ms.
MS_PER_PACKET = PathSpec("a path", rtt_ms=80, mbit_per_s=10)
PACKET = bytes(1_250)


def arrivals(path: WanPath, until_s: float, step_s: float = 0.0005) -> list[float]:
    """When each packet arrived, to the step."""
    times: list[float] = []
    for step in range(round(until_s / step_s) + 1):
        times += [step * step_s] * len(path.due(step * step_s))
    return times


def test_a_packet_takes_its_place_and_half_the_round_trip() -> None:
    path = WanPath(MS_PER_PACKET, seed=0)
    path.take([PACKET], now=5.0)
    assert path.next_due == pytest.approx(5.041)
    assert path.due(5.0409) == []
    assert path.due(5.0411) == [PACKET]
    assert path.next_due is None


def test_packets_of_one_batch_leave_at_the_rate() -> None:
    path = WanPath(MS_PER_PACKET, seed=0)
    path.take([PACKET] * 50, now=0.0)
    times = arrivals(path, 0.2)
    assert len(times) == 50
    assert times[0] == pytest.approx(0.041, abs=0.001)
    assert times[-1] == pytest.approx(0.090, abs=0.001)
    assert all(0.0005 <= b - a <= 0.0015 for a, b in pairwise(times))


def test_an_idle_path_saves_nothing_up() -> None:
    path = WanPath(MS_PER_PACKET, seed=0)
    path.take([PACKET], now=0.0)
    assert len(path.due(10.0)) == 1
    path.take([PACKET] * 2, now=10.0)
    assert path.due(10.0409) == []
    assert len(path.due(10.0411)) == 1


def test_the_queue_drops_its_tail_at_200_ms() -> None:
    path = WanPath(MS_PER_PACKET, seed=0)
    path.take([PACKET] * 1_000, now=0.0)
    held = round(QUEUE_S * 1_000)
    assert path.overflowed == pytest.approx(1_000 - held, abs=1)
    assert path.lost == 0
    # As soon as there is room again, packets are taken.
    path.take([PACKET] * 100, now=0.05)
    assert path.taken == 1_100
    assert len(path.due(99.0)) == pytest.approx(held + 50, abs=2)


def test_loss_is_as_asked_and_the_same_with_the_same_seed() -> None:
    spec = PathSpec("a path", loss_percent=2)
    packets = [number.to_bytes(4) for number in range(20_000)]

    def survivors(seed: int) -> list[bytes]:
        path = WanPath(spec, seed)
        path.take(packets, now=0.0)
        return path.due(99.0)

    assert survivors(1) == survivors(1) != survivors(2)
    assert len(survivors(1)) == pytest.approx(19_600, abs=100)


@given(
    st.lists(
        st.tuples(st.floats(0, 0.1), st.lists(st.binary(min_size=1, max_size=1500))),
        max_size=30,
    ),
    st.integers(0, 50),
)
def test_what_is_not_dropped_arrives_once_and_in_order(
    batches: list[tuple[float, list[bytes]]], loss_percent: int
) -> None:
    spec = PathSpec("a path", rtt_ms=20, loss_percent=loss_percent, mbit_per_s=1)
    path = WanPath(spec, seed=3)
    now, sent, got = 0.0, [], []
    for gap_s, packets in batches:
        now += gap_s
        got += path.due(now)
        path.take(packets, now)
        sent += packets
    got += path.due(now + QUEUE_S + 1)
    assert path.next_due is None
    assert path.taken == len(sent)
    assert len(got) == path.taken - path.lost - path.overflowed
    left = iter(sent)
    assert all(packet in left for packet in got)

"""The loss-based congestion control: its rules, and what they do on a path."""

from statistics import fmean

import pytest
from hypothesis import given
from support.congestion_samples import Acks, ack_samples, play
from support.narrow_path import (
    MBIT,
    PACKET_BYTES,
    Bottleneck,
    Flow,
    Path,
    jain,
    percentile,
)
from support.tcp_cubic import TcpCubic

from sleap_rtc_plugin.transport.sctp.congestion import MAX_WINDOW_BYTES
from sleap_rtc_plugin.transport.sctp.loss_based import LossBased

INITIAL_BYTES = 10 * PACKET_BYTES


def make() -> LossBased:
    return LossBased(PACKET_BYTES)


def grown(window_bytes: int) -> tuple[LossBased, Acks]:
    """A control in its first slow start, with a window of at least so much."""
    control, acks = make(), Acks()
    while control.window_bytes < window_bytes:
        acks.acknowledge(control, control.window_bytes)
    return control, acks


# -- the rules ---------------------------------------------------------------------


def test_it_starts_with_ten_packets_and_without_a_pace() -> None:
    control = make()
    assert control.window_bytes == INITIAL_BYTES
    assert control.pace_bytes_per_s is None


def test_a_window_is_spread_over_a_long_round_trip() -> None:
    control = make()
    Acks(rtt_s=0.02).acknowledge(control, PACKET_BYTES)
    assert control.pace_bytes_per_s == pytest.approx(2 * control.window_bytes / 0.02)
    Acks(rtt_s=0.02).acknowledge(control, PACKET_BYTES, lost_bytes=PACKET_BYTES)
    assert control.pace_bytes_per_s == pytest.approx(1.25 * control.window_bytes / 0.02)


def test_on_a_short_way_acknowledgements_alone_set_the_pace() -> None:
    control = make()
    Acks(rtt_s=0.001).acknowledge(control, PACKET_BYTES)
    assert control.pace_bytes_per_s is None


def test_slow_start_grows_by_what_is_acknowledged_in_one_sack_or_in_many() -> None:
    at_once, one_by_one = make(), make()
    Acks().acknowledge(at_once, INITIAL_BYTES)
    acks = Acks()
    for _ in range(10):
        acks.acknowledge(one_by_one, PACKET_BYTES)
    assert at_once.window_bytes == one_by_one.window_bytes == 2 * INITIAL_BYTES


def test_a_window_that_was_not_the_limit_does_not_grow() -> None:
    control, acks = make(), Acks()
    for _ in range(20):
        acks.acknowledge(control, PACKET_BYTES, is_window_limited=False)
    assert control.window_bytes == INITIAL_BYTES


def test_what_is_lost_of_one_round_trip_counts_once() -> None:
    control, acks = grown(500_000)
    window_bytes = control.window_bytes
    before = acks.now
    acks.acknowledge(control, PACKET_BYTES, lost_bytes=PACKET_BYTES)
    assert control.window_bytes == pytest.approx(0.7 * window_bytes, abs=1)
    reduced_bytes = control.window_bytes
    for _ in range(5):
        acks.acknowledge(
            control, PACKET_BYTES, lost_bytes=PACKET_BYTES, lost_sent_at=before
        )
        assert control.window_bytes >= reduced_bytes


def test_what_is_lost_of_the_next_round_trip_counts_again() -> None:
    control, acks = grown(500_000)
    acks.acknowledge(control, PACKET_BYTES, lost_bytes=PACKET_BYTES)
    reduced_bytes = control.window_bytes
    sent_at = acks.now
    acks.acknowledge(
        control, PACKET_BYTES, lost_bytes=PACKET_BYTES, lost_sent_at=sent_at
    )
    assert control.window_bytes == pytest.approx(0.7 * reduced_bytes, abs=1)


def test_a_timeout_leaves_one_packet_and_slow_start_up_to_where_it_was() -> None:
    control, acks = grown(500_000)
    window_bytes = control.window_bytes
    control.on_timeout(acks.now)
    control.on_timeout(acks.now + 1)
    assert control.window_bytes == PACKET_BYTES
    for _ in range(9):
        acks.acknowledge(control, control.window_bytes)
    assert control.window_bytes == pytest.approx(0.7 * window_bytes, rel=0.02)


def test_a_loss_while_little_is_sent_does_not_end_slow_start() -> None:
    control, acks = make(), Acks()
    acks.acknowledge(
        control, PACKET_BYTES, lost_bytes=PACKET_BYTES, is_window_limited=False
    )
    control.on_timeout(acks.now)
    for _ in range(10):
        acks.acknowledge(control, control.window_bytes)
    assert control.window_bytes > 100 * INITIAL_BYTES


def test_after_an_idle_time_it_begins_small_and_doubles_to_where_it_was() -> None:
    control, acks = grown(500_000)
    window_bytes = control.window_bytes
    control.on_idle(idle_s=0.5, rto_s=1.0)
    assert control.window_bytes == window_bytes
    control.on_idle(idle_s=2.5, rto_s=1.0)
    assert control.window_bytes == window_bytes // 4
    control.on_idle(idle_s=1e9, rto_s=1.0)
    assert control.window_bytes == INITIAL_BYTES
    for _ in range(6):
        acks.acknowledge(control, control.window_bytes)
    assert control.window_bytes >= window_bytes


def test_half_of_what_is_not_used_for_a_second_is_given_up() -> None:
    control, acks = grown(500_000)
    window_bytes = control.window_bytes
    for _ in range(30):
        acks.acknowledge(
            control,
            PACKET_BYTES,
            is_window_limited=False,
            in_flight_bytes=PACKET_BYTES,
        )
    assert INITIAL_BYTES < control.window_bytes <= window_bytes / 2 + INITIAL_BYTES


def test_a_new_path_is_begun_anew_and_the_old_ones_losses_do_not_count() -> None:
    control, acks = grown(500_000)
    sent_at = acks.now
    acks.now += 0.01
    control.on_new_path(acks.now)
    assert control.window_bytes == INITIAL_BYTES
    acks.acknowledge(
        control, PACKET_BYTES, lost_bytes=PACKET_BYTES, lost_sent_at=sent_at
    )
    assert control.window_bytes == INITIAL_BYTES + PACKET_BYTES


def test_a_larger_packet_always_fits() -> None:
    control = make()
    control.on_timeout(1.0)
    control.on_packet_size(8_000)
    assert control.window_bytes == 8_000


@given(ack_samples())
def test_the_window_stays_within_bounds_whatever_comes(calls: list[tuple]) -> None:
    control = make()
    for _ in play(control, calls):
        assert PACKET_BYTES <= control.window_bytes <= MAX_WINDOW_BYTES


# -- alone on a path ---------------------------------------------------------------


def run_alone(path: Path, until: float, total_bytes: int | None = None) -> Flow:
    net = Bottleneck(path)
    flow = Flow(net, make(), total_bytes=total_bytes)
    net.run(until)
    return flow


@pytest.mark.parametrize(
    ("mbit", "rtt_s", "queue_s"),
    [(10, 0.02, 0.2), (10, 0.02, 1.0), (1, 0.1, 2.0), (20, 0.08, 0.2)],
)
def test_alone_it_fills_the_path_and_leaves_the_queue_short(
    mbit: float, rtt_s: float, queue_s: float
) -> None:
    flow = run_alone(Path(mbit * MBIT, rtt_s, queue_s), 12)
    assert flow.rate_between(2, 12) > 0.98 * mbit * MBIT
    assert percentile(flow.rtts_between(2, 12), 0.99) <= 3 * rtt_s + 0.02


def test_slow_start_ends_before_the_queue_overflows() -> None:
    flow = run_alone(Path(100 * MBIT, 0.08), 2)
    assert flow.lost_packets == 0
    assert flow.rate_between(1, 2) > 0.98 * 100 * MBIT


@pytest.mark.parametrize(
    ("rtt_s", "queue_s", "least"),
    [(0.02, 0.02, 0.97), (0.08, 0.02, 0.85), (0.002, 0.005, 0.97)],
)
def test_a_path_that_can_queue_little_is_filled_all_the_same(
    rtt_s: float, queue_s: float, least: float
) -> None:
    flow = run_alone(Path(20 * MBIT, rtt_s, queue_s), 10)
    assert flow.rate_between(2, 10) > least * 20 * MBIT


def test_jitter_is_no_queue() -> None:
    paths = [Path(10 * MBIT, 0.02, jitter_s=0.01, seed=seed) for seed in range(8)]
    rates = [run_alone(path, 12).rate_between(2, 12) for path in paths]
    assert fmean(rates) > 0.95 * 10 * MBIT
    assert min(rates) > 0.9 * 10 * MBIT


@pytest.mark.parametrize("batch_s", [0.005, 0.01, 0.02])
def test_a_peer_that_reads_now_and_then_is_not_answered_in_bursts(
    batch_s: float,
) -> None:
    net = Bottleneck(Path(50 * MBIT, 0.02))
    flow = Flow(net, make(), batch_s=batch_s)
    net.run(12)
    assert flow.rate_between(4, 12) > 0.98 * 50 * MBIT
    assert percentile(flow.rtts_between(4, 12), 0.99) <= 0.06


def test_a_few_lost_packets_cost_little() -> None:
    net = Bottleneck(Path(20 * MBIT, 0.08))
    flow = Flow(net, make())
    net.run(6)
    lost_packets = flow.lost_packets
    net.path.loss = 1.0
    net.run(6.002)
    net.path.loss = 0.0
    net.run(10)
    assert 0 < flow.lost_packets - lost_packets < 10
    assert flow.timeouts == 0
    assert flow.rate_between(6, 10) > 0.95 * 20 * MBIT


def test_a_path_that_becomes_slower_is_not_flooded_for_long() -> None:
    net = Bottleneck(Path(20 * MBIT, 0.02))
    flow = Flow(net, make())
    net.at(4, lambda: net.set_rate(2 * MBIT))
    net.run(20)
    assert flow.rate_between(6, 20) > 0.95 * 2 * MBIT
    assert percentile(flow.rtts_between(14, 20), 0.99) <= 0.08


def test_a_path_that_becomes_faster_is_filled() -> None:
    net = Bottleneck(Path(2 * MBIT, 0.02))
    flow = Flow(net, make())
    net.at(4, lambda: net.set_rate(20 * MBIT))
    net.run(12)
    assert flow.rate_between(9, 12) > 0.95 * 20 * MBIT


def test_a_path_that_becomes_longer_is_learned() -> None:
    net = Bottleneck(Path(10 * MBIT, 0.02))
    flow = Flow(net, make())

    def lengthen() -> None:
        net.rtt_s = 0.1

    net.at(2, lengthen)
    net.run(40)
    assert flow.rate_between(20, 40) > 0.95 * 10 * MBIT
    assert percentile(flow.rtts_between(20, 40), 0.99) <= 3 * 0.1 + 0.02


# -- beside others -----------------------------------------------------------------

FAST_PATHS = [(12, 0.02, 0.2), (12, 0.08, 0.2), (12, 0.02, 0.02)]
FULL_PATHS = [(50, 0.02, 0.2), (100, 0.08, 0.2), (100, 0.02, 0.02)]


def run_two(
    path: Path, first: object, second: object, *, starts: tuple[float, float]
) -> tuple[Flow, Flow]:
    net = Bottleneck(path)
    flows = (
        Flow(net, first, starts_at=starts[0]),
        Flow(net, second, starts_at=starts[1]),
    )
    net.run(45)
    return flows


@pytest.mark.parametrize("starts", [(0.0, 2.0), (0.0, 0.0)])
@pytest.mark.parametrize(
    "path",
    [
        *FAST_PATHS,
        *(pytest.param(path, marks=pytest.mark.slow) for path in FULL_PATHS),
    ],
)
def test_it_shares_with_tcp(
    path: tuple[float, float, float], starts: tuple[float, float]
) -> None:
    mbit, rtt_s, queue_s = path
    ours, tcp = run_two(
        Path(mbit * MBIT, rtt_s, queue_s), make(), TcpCubic(), starts=starts
    )
    ratio = ours.rate_between(15, 45) / tcp.rate_between(15, 45)
    assert 0.5 <= ratio <= 2.0


@pytest.mark.parametrize(
    "path",
    [
        *FAST_PATHS,
        *(pytest.param(path, marks=pytest.mark.slow) for path in FULL_PATHS),
    ],
)
def test_where_tcp_was_first_it_gets_half_of_its_share_and_more_than_tcp_would(
    path: tuple[float, float, float],
) -> None:
    mbit, rtt_s, queue_s = path
    ratios = []
    for late in (make(), TcpCubic()):
        flow, first = run_two(
            Path(mbit * MBIT, rtt_s, queue_s), late, TcpCubic(), starts=(2, 0)
        )
        ratios.append(flow.rate_between(15, 45) / first.rate_between(15, 45))
    ours, tcps = ratios
    # A quarter of the whole, at least.
    assert ours >= 1 / 3
    assert tcps < ours


@pytest.mark.parametrize(
    "path",
    [
        *FAST_PATHS,
        *(pytest.param(path, marks=pytest.mark.slow) for path in FULL_PATHS),
    ],
)
def test_two_of_a_kind_share(path: tuple[float, float, float]) -> None:
    mbit, rtt_s, queue_s = path
    flows = run_two(Path(mbit * MBIT, rtt_s, queue_s), make(), make(), starts=(0, 2))
    rates = [flow.rate_between(15, 45) for flow in flows]
    assert jain(rates) > 0.8
    assert sum(rates) > 0.95 * mbit * MBIT


def test_when_the_other_is_gone_the_queue_becomes_short_again() -> None:
    net = Bottleneck(Path(10 * MBIT, 0.02))
    ours = Flow(net, make())
    tcp = Flow(net, TcpCubic(), total_bytes=5_000_000, starts_at=2)
    net.run(40)
    assert tcp.finished_at is not None
    assert percentile(ours.rtts_between(4, tcp.finished_at), 0.5) > 0.08
    late_rtts_s = ours.rtts_between(tcp.finished_at + 8, 40)
    assert percentile(late_rtts_s, 0.99) <= 0.08


@pytest.mark.slow
def test_the_goal_on_a_long_fast_path() -> None:
    total_bytes = 256_000_000
    flow = run_alone(Path(400 * MBIT, 0.08), 10, total_bytes)
    assert flow.finished_at is not None
    assert total_bytes / flow.finished_at > 0.88 * 400 * MBIT
    assert flow.rate_between(1, flow.finished_at - 0.1) > 0.99 * 400 * MBIT

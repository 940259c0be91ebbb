"""The rate-based congestion control: its rules, and what they do on a path."""

import logging

import pytest
from hypothesis import given
from support.congestion_samples import Acks, ack_samples, play
from support.narrow_path import MBIT, PACKET_BYTES, Bottleneck, Flow, Path, percentile
from support.tcp_cubic import TcpCubic

from sleap_rtc_plugin.transport.sctp.congestion import MAX_WINDOW_BYTES
from sleap_rtc_plugin.transport.sctp.rate_based import RateBased

logger = logging.getLogger(__name__)

INITIAL_BYTES = 32 * PACKET_BYTES


def make(max_bytes_per_s: float | None = None) -> RateBased:
    return RateBased(PACKET_BYTES, max_bytes_per_s)


def run(path: Path, until: float, **flow_options: float) -> Flow:
    net = Bottleneck(path)
    flow = Flow(net, make(), **flow_options)
    net.run(until)
    return flow


# -- the rules ---------------------------------------------------------------------


def test_it_has_no_pace_before_the_first_round_trip() -> None:
    control = make()
    assert control.window_bytes == INITIAL_BYTES
    assert control.pace_bytes_per_s is None
    Acks().acknowledge(control, INITIAL_BYTES)
    assert control.pace_bytes_per_s is not None


def test_the_users_bound_holds_from_the_beginning() -> None:
    control, acks = make(50_000.0), Acks()
    assert control.pace_bytes_per_s == 50_000.0
    for _ in range(10):
        acks.acknowledge(control, 100_000)
        assert control.pace_bytes_per_s == 50_000.0


def test_a_timeout_leaves_one_packet_and_doubles_from_there() -> None:
    control, acks = make(), Acks()
    for _ in range(5):
        acks.acknowledge(control, 200_000)
    window_bytes = control.window_bytes
    control.on_timeout(acks.now)
    assert control.window_bytes == PACKET_BYTES
    while control.window_bytes < window_bytes:
        before_bytes = control.window_bytes
        acks.acknowledge(control, before_bytes)
        assert control.window_bytes > before_bytes


def test_little_to_send_says_nothing_about_the_path_unless_it_went_faster() -> None:
    control, acks = make(), Acks()
    for _ in range(10):
        acks.acknowledge(control, 200_000)
    window_bytes = control.window_bytes
    for _ in range(50):
        acks.acknowledge(control, PACKET_BYTES, is_window_limited=False)
    assert control.window_bytes == window_bytes
    acks.acknowledge(control, 900_000, is_window_limited=False)
    assert control.window_bytes > window_bytes


def test_what_was_learned_is_forgotten_after_a_long_idle_time_or_on_a_new_path() -> (
    None
):
    control, acks = make(), Acks()
    acks.acknowledge(control, 200_000)
    control.on_idle(idle_s=5.0, rto_s=1.0)
    assert control.pace_bytes_per_s is not None
    control.on_idle(idle_s=100.0, rto_s=1.0)
    assert control.pace_bytes_per_s is None
    acks.acknowledge(control, 200_000)
    control.on_new_path(acks.now)
    assert control.pace_bytes_per_s is None
    assert control.window_bytes == INITIAL_BYTES


@given(ack_samples())
def test_window_and_pace_stay_within_bounds_whatever_comes(calls: list[tuple]) -> None:
    control = make(1e7)
    for _ in play(control, calls):
        assert PACKET_BYTES <= control.window_bytes <= MAX_WINDOW_BYTES
        assert control.pace_bytes_per_s is not None
        assert 0 < control.pace_bytes_per_s <= 1e7


# -- on a path ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mbit", "rtt_s", "loss", "least"),
    [
        (10, 0.02, 0.0, 0.97),
        (10, 0.02, 0.02, 0.92),
        (10, 0.08, 0.005, 0.95),
        (10, 0.08, 0.02, 0.92),
        (10, 0.02, 0.08, 0.8),
        (1, 0.1, 0.01, 0.92),
    ],
)
def test_it_fills_a_path_that_loses_packets_and_leaves_the_queue_short(
    mbit: float, rtt_s: float, loss: float, least: float
) -> None:
    flow = run(Path(mbit * MBIT, rtt_s, loss=loss), 12)
    assert flow.rate_between(2, 12) > least * mbit * MBIT
    assert percentile(flow.rtts_between(2, 12), 0.99) <= 3 * rtt_s + 0.02


@pytest.mark.parametrize("rtt_s", [0.02, 0.08])
def test_the_start_leaves_room_for_control_messages(rtt_s: float) -> None:
    flow = run(Path(50 * MBIT, rtt_s), 5)
    assert max(flow.rtts_between(0, 5)) <= 2 * rtt_s + 0.01
    assert flow.rate_between(1, 5) > 0.98 * 50 * MBIT


def test_a_path_that_can_queue_little_is_filled_without_losing_much() -> None:
    flow = run(Path(10 * MBIT, 0.08, 0.02), 12)
    assert flow.rate_between(2, 12) > 0.92 * 10 * MBIT
    assert flow.lost_packets < 0.05 * flow.sent_packets


def test_jitter_is_survived() -> None:
    flow = run(Path(10 * MBIT, 0.02, loss=0.01, jitter_s=0.01), 12)
    assert flow.rate_between(2, 12) > 0.85 * 10 * MBIT


def test_reordering_is_survived() -> None:
    path = Path(10 * MBIT, 0.04, jitter_s=0.01, is_reordering=True)
    flow = run(path, 12, reordering_s=0.02)
    assert flow.rate_between(2, 12) > 0.85 * 10 * MBIT


def test_a_path_that_becomes_slower_is_not_flooded_for_long() -> None:
    net = Bottleneck(Path(20 * MBIT, 0.02))
    flow = Flow(net, make())
    net.at(4, lambda: net.set_rate(2 * MBIT))
    net.run(16)
    assert flow.rate_between(8, 16) > 0.9 * 2 * MBIT
    assert percentile(flow.rtts_between(10, 16), 0.99) <= 0.08


def test_a_path_that_becomes_faster_is_filled() -> None:
    net = Bottleneck(Path(2 * MBIT, 0.02))
    flow = Flow(net, make())
    net.at(4, lambda: net.set_rate(20 * MBIT))
    net.run(8)
    assert flow.rate_between(6, 8) > 0.95 * 20 * MBIT


def test_a_path_that_becomes_longer_is_learned() -> None:
    net = Bottleneck(Path(10 * MBIT, 0.02))
    flow = Flow(net, make())

    def lengthen() -> None:
        net.rtt_s = 0.1

    net.at(3, lengthen)
    net.run(14)
    assert flow.rate_between(8, 14) > 0.95 * 10 * MBIT


def test_bulk_after_a_message_a_second_goes_at_full_speed() -> None:
    net = Bottleneck(Path(20 * MBIT, 0.08))
    flow = Flow(net, make(), total_bytes=5_000_000)
    net.run(6)
    assert flow.finished_at is not None
    for second in range(10, 30):
        net.at(second, lambda: flow.offer(PACKET_BYTES))
    net.at(30, lambda: flow.offer(5_000_000))
    net.run(35)
    assert flow.finished_at < 30 + 5_000_000 / (0.8 * 20 * MBIT)


def test_small_messages_first_do_not_keep_it_from_finding_the_rate() -> None:
    net = Bottleneck(Path(20 * MBIT, 0.08))
    flow = Flow(net, make(), total_bytes=PACKET_BYTES)
    for second in range(1, 10):
        net.at(second, lambda: flow.offer(PACKET_BYTES))
    net.at(10, lambda: flow.offer(1 << 40))
    net.run(15)
    assert flow.rate_between(12, 15) > 0.95 * 20 * MBIT


def test_the_users_bound_is_kept_and_used() -> None:
    net = Bottleneck(Path(20 * MBIT, 0.02))
    flow = Flow(net, make(5 * MBIT))
    net.run(8)
    assert 0.95 * 5 * MBIT < flow.rate_between(1, 8) <= 1.01 * 5 * MBIT


def test_it_backs_off_where_a_third_is_lost() -> None:
    flow = run(Path(10 * MBIT, 0.04, loss=0.35), 15)
    assert flow.rate_between(10, 15) < 0.3 * 10 * MBIT
    assert flow.rate_between(10, 15) > 0


# -- beside others -----------------------------------------------------------------


def test_two_of_a_kind_share() -> None:
    net = Bottleneck(Path(10 * MBIT, 0.02))
    flows = [Flow(net, make(), starts_at=at) for at in (0.0, 2.0)]
    net.run(30)
    one, other = (flow.rate_between(10, 30) for flow in flows)
    assert 0.5 <= one / other <= 2.0
    assert one + other > 0.95 * 10 * MBIT


@pytest.mark.parametrize(
    ("mbit", "rtt_s", "queue_s"),
    [
        (8, 0.02, 0.2),
        pytest.param(50, 0.02, 0.2, marks=pytest.mark.slow),
        pytest.param(100, 0.08, 0.2, marks=pytest.mark.slow),
        pytest.param(100, 0.02, 0.02, marks=pytest.mark.slow),
    ],
)
def test_what_it_leaves_to_tcp_is_measured(
    mbit: float, rtt_s: float, queue_s: float
) -> None:
    net = Bottleneck(Path(mbit * MBIT, rtt_s, queue_s))
    ours, tcp = Flow(net, make()), Flow(net, TcpCubic(), starts_at=2)
    net.run(45)
    share = tcp.rate_between(15, 45) / (mbit * MBIT)
    logger.info(
        "%s Mbit/s, %s s, queue %s s: TCP has %.2f", mbit, rtt_s, queue_s, share
    )
    assert ours.rate_between(15, 45) + tcp.rate_between(15, 45) > 0.9 * mbit * MBIT
    assert share > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0.005, 0.02])
def test_the_goal_on_a_long_fast_path_that_loses_packets(loss: float) -> None:
    total_bytes = 256_000_000
    flow = run(Path(400 * MBIT, 0.08, loss=loss), 10, total_bytes=total_bytes)
    assert flow.finished_at is not None
    assert total_bytes / flow.finished_at > 0.85 * 400 * MBIT

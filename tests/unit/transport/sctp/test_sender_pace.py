"""What the sender tells the congestion control, and the pace it keeps."""

import pytest
from support.sender_bench import (
    PAYLOAD,
    RTT_S,
    Bench,
)


def test_a_sample_tells_the_rate_of_delivery() -> None:
    bench = Bench(window=4 * PAYLOAD)
    bench.send(20)
    for upto in range(3, 20, 4):
        bench.ack(upto)
    sample = bench.congestion.samples[-1]
    assert sample.acked_bytes == 4 * PAYLOAD
    assert sample.rtt_s == pytest.approx(RTT_S)
    assert sample.delivered_bytes == 20 * PAYLOAD
    assert sample.rate_bytes_per_s == pytest.approx(4 * PAYLOAD / RTT_S)


def test_a_sample_says_whether_there_was_enough_to_send() -> None:
    bench = Bench(window=4 * PAYLOAD)
    bench.send(6)
    bench.ack(3)
    assert not bench.congestion.samples[-1].is_app_limited
    assert bench.congestion.samples[-1].is_window_limited
    bench.ack(5)
    bench.first += 6
    bench.send(1)
    bench.ack(0)
    assert bench.congestion.samples[-1].is_app_limited
    assert not bench.congestion.samples[-1].is_window_limited


def test_the_pace_is_kept() -> None:
    bench = Bench(pace=10 * PAYLOAD / 0.1)
    for _ in range(50):
        bench.push()
    sent = len(bench.poll())
    began_at = bench.now
    while bench.now < began_at + 0.2:
        sent += len(bench.wait())
    assert sent == pytest.approx(20, abs=6)


@pytest.mark.parametrize(("window", "is_limited"), [(8, True), (50, False)])
def test_where_the_pace_holds_back_the_window_may_grow_while_half_of_it_is_used(
    window: int, is_limited: bool
) -> None:
    bench = Bench(window=window * PAYLOAD, pace=10 * PAYLOAD / 0.1)
    for _ in range(50):
        bench.push()
    sent = len(bench.poll())
    while sent < 6:
        sent += len(bench.wait())
    bench.ack(0, after_s=0.001)
    assert bench.congestion.samples[-1].is_window_limited is is_limited


def test_the_limit_of_the_user_holds_whatever_the_congestion_control_says() -> None:
    bench = Bench()
    bench.sender.max_bytes_per_s = 100 * PAYLOAD
    for _ in range(50):
        bench.push()
    assert len(bench.poll()) < 10

"""A SACK waits in a stream of packets only, and never for long."""

from sleap_rtc_plugin.transport.sctp.ack_delay import (
    MAX_DELAY_S,
    MAX_PACKETS,
    STREAM_PACKETS,
    AckDelay,
)


def batch(delay: AckDelay, packets: int, now: float, is_urgent: bool = False) -> bool:
    """Take a batch; whether its SACK goes at once."""
    for _ in range(packets):
        delay.on_packet()
    goes = not delay.must_wait(is_urgent=is_urgent, now=now)
    if goes:
        delay.acknowledged()
    return goes


def test_a_few_packets_are_acknowledged_at_once() -> None:
    delay = AckDelay()
    for packets in range(STREAM_PACKETS):
        assert batch(delay, packets, now=1.0)
        assert delay.due_at is None


def test_a_stream_is_acknowledged_each_so_many_packets() -> None:
    delay = AckDelay()
    goes = [batch(delay, STREAM_PACKETS, now=1.0) for _ in range(8)]
    assert goes == [False, False, False, True] * 2
    assert MAX_PACKETS == 4 * STREAM_PACKETS


def test_its_end_is_acknowledged_after_a_moment() -> None:
    delay = AckDelay()
    assert not batch(delay, STREAM_PACKETS, now=1.0)
    assert delay.due_at == 1.0 + MAX_DELAY_S
    assert not batch(delay, 0, now=1.0 + MAX_DELAY_S / 2)
    assert batch(delay, 0, now=1.0 + MAX_DELAY_S)
    assert delay.due_at is None


def test_a_stream_that_runs_dry_is_acknowledged_with_its_last_packets() -> None:
    delay = AckDelay()
    assert not batch(delay, STREAM_PACKETS, now=1.0)
    assert batch(delay, 1, now=1.0)


def test_what_is_missing_is_told_at_once() -> None:
    delay = AckDelay()
    assert batch(delay, STREAM_PACKETS, now=1.0, is_urgent=True)
    assert not batch(delay, STREAM_PACKETS, now=1.0)
    assert batch(delay, STREAM_PACKETS, now=1.0, is_urgent=True)

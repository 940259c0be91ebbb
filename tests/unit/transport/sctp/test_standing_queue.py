"""Whose queue it is: told by what less sending does to the round trips."""

import random

from sleap_rtc_plugin.transport.sctp.congestion import AckSample
from sleap_rtc_plugin.transport.sctp.standing_queue import QueueStep, StandingQueue

RATE = 1_000_000.0
WINDOW = 100_000.0
ACK_S = 0.004


class Watched:
    """A queue's watcher that is told of one acknowledgement after the other."""

    def __init__(self) -> None:
        self.queue = StandingQueue()
        self.now = 10.0
        self.delivered_bytes = 0

    def acknowledge(self, rtt_s: float, count: int = 1) -> QueueStep | None:
        """Let acknowledgements come at the rate of the path, up to a step."""
        for _ in range(count):
            self.now += ACK_S
            acked_bytes = int(RATE * ACK_S)
            self.delivered_bytes += acked_bytes
            step = self.queue.on_ack(
                AckSample(
                    now=self.now,
                    acked_bytes=acked_bytes,
                    lost_bytes=0,
                    lost_sent_at=None,
                    in_flight_bytes=int(WINDOW),
                    is_window_limited=True,
                    rtt_s=rtt_s,
                    delivered_bytes=self.delivered_bytes,
                    delivered_at_send_bytes=self.delivered_bytes - int(RATE * rtt_s),
                    rate_bytes_per_s=RATE,
                    is_app_limited=False,
                ),
                WINDOW,
            )
            if step is not None:
                return step
        return None


def trying() -> Watched:
    """A path of 20 ms, with 80 ms of queue, about which something is tried."""
    watched = Watched()
    assert watched.acknowledge(0.02, 50) is None
    assert watched.acknowledge(0.10, 50) is QueueStep.TRY
    assert watched.queue.is_trying
    assert watched.queue.try_bytes <= 0.7 * WINDOW
    return watched


def test_a_short_queue_is_left_alone() -> None:
    watched = Watched()
    watched.acknowledge(0.02)
    assert watched.acknowledge(0.042, 500) is None


def test_what_follows_our_sending_is_our_own() -> None:
    watched = trying()
    assert watched.acknowledge(0.10, 20) is None
    assert watched.acknowledge(0.07, 20) is QueueStep.ALONE
    assert not watched.queue.is_trying
    # 20 ms of path and 23 ms of queue, at the rate that arrives.
    assert 0.041 * RATE < watched.queue.full_bytes < 0.045 * RATE
    assert watched.queue.restart_bytes < watched.queue.full_bytes


def test_what_does_not_is_anothers_and_is_looked_at_again_later() -> None:
    watched = trying()
    assert watched.acknowledge(0.09, 100) is QueueStep.SHARED
    shared_at = watched.now
    assert watched.acknowledge(0.10, 5_000) is QueueStep.TRY
    assert watched.now - shared_at >= 1.0
    assert watched.acknowledge(0.09, 100) is QueueStep.SHARED
    shared_at = watched.now
    assert watched.acknowledge(0.10, 5_000) is QueueStep.TRY
    assert watched.now - shared_at >= 5.0


def test_a_path_that_became_longer_is_not_taken_for_a_queue_for_ever() -> None:
    watched = trying()
    watched.acknowledge(0.10, 20)
    assert watched.acknowledge(0.07, 20) is QueueStep.ALONE
    # The queue is empty now, and still the round trips are long, whatever is sent.
    assert watched.acknowledge(0.09, 100) is QueueStep.TRY
    assert watched.acknowledge(0.09, 100) is QueueStep.ALONE
    assert watched.acknowledge(0.09, 500) is None


def test_a_try_that_is_called_off_is_not_repeated_at_once() -> None:
    watched = trying()
    watched.queue.call_off(watched.now)
    assert not watched.queue.is_trying
    assert watched.acknowledge(0.10, 200) is None


def test_several_acknowledgements_may_come_at_once() -> None:
    """In one batch of packets a round begins, and a look at the queue ends."""
    for seed in range(100):
        chance = random.Random(seed)  # noqa: S311 - not a secret
        watched = Watched()
        assert watched.acknowledge(0.02, 50) is None
        for _ in range(300):
            pause_s = chance.choice([0.0, 0.0, 0.0, ACK_S, 0.01, 0.02])
            watched.now += pause_s - ACK_S
            watched.acknowledge(0.10)

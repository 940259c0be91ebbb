"""Acknowledgements for congestion controls: made one by one, or anything at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from sleap_rtc_plugin.transport.sctp.congestion import AckSample, CongestionControl

__all__ = ["Acks", "ack_samples", "play"]


@dataclass
class Acks:
    """Acknowledgements of a path that has no queue, each a round trip of its own."""

    rtt_s: float = 0.05
    now: float = 100.0
    delivered_bytes: int = 0

    def acknowledge(
        self,
        control: CongestionControl,
        acked_bytes: int,
        *,
        lost_bytes: int = 0,
        lost_sent_at: float | None = None,
        is_window_limited: bool = True,
        in_flight_bytes: int | None = None,
    ) -> None:
        """Let a round trip pass, and tell the control what it acknowledged.

        What is lost was sent when it began, where nothing else is said.
        """
        sent_at, sent_bytes = self.now, self.delivered_bytes
        self.now += self.rtt_s
        self.delivered_bytes += acked_bytes
        if lost_bytes and lost_sent_at is None:
            lost_sent_at = sent_at
        if in_flight_bytes is None:
            in_flight_bytes = control.window_bytes
        control.on_ack(
            AckSample(
                now=self.now,
                acked_bytes=acked_bytes,
                lost_bytes=lost_bytes,
                lost_sent_at=lost_sent_at,
                in_flight_bytes=in_flight_bytes,
                is_window_limited=is_window_limited,
                rtt_s=self.rtt_s,
                delivered_bytes=self.delivered_bytes,
                delivered_at_send_bytes=sent_bytes,
                rate_bytes_per_s=acked_bytes / self.rtt_s,
                is_app_limited=not is_window_limited,
            )
        )


def ack_samples() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Return calls to a control in any order, for `play`."""
    size = st.one_of(st.just(0), st.integers(1, 100_000), st.integers(1, 1 << 40))
    seconds = st.one_of(st.floats(0, 1), st.floats(0, 1e7))
    ack = st.tuples(
        st.just("ack"),
        seconds,
        size,
        size,
        size,
        st.booleans(),
        st.none() | seconds,
        st.none() | st.floats(0, 1e12),
        st.booleans(),
    )
    other = st.one_of(
        st.tuples(st.just("timeout")),
        st.tuples(st.just("idle"), seconds, st.floats(0.001, 60)),
        st.tuples(st.just("size"), st.integers(1_200, 16_000)),
        st.tuples(st.just("path")),
    )
    # A long life of plain acknowledgements, now and then something else.
    return st.lists(st.one_of(ack, ack, ack, other), max_size=60)


def play(control: CongestionControl, calls: list[tuple[Any, ...]]) -> Iterator[None]:
    """Call the control, and stop after each call."""
    now, delivered_bytes = 1.0, 0
    for name, *values in calls:
        if name == "ack":
            passed_s, acked, lost, in_flight, limited, rtt_s, rate, idle = values
            now += passed_s
            before_bytes = delivered_bytes
            delivered_bytes += acked
            control.on_ack(
                AckSample(
                    now=now,
                    acked_bytes=acked,
                    lost_bytes=lost,
                    lost_sent_at=now - (rtt_s or 0.0) if lost else None,
                    in_flight_bytes=in_flight,
                    is_window_limited=limited,
                    rtt_s=rtt_s,
                    delivered_bytes=delivered_bytes,
                    delivered_at_send_bytes=before_bytes,
                    rate_bytes_per_s=rate,
                    is_app_limited=idle,
                )
            )
        elif name == "timeout":
            control.on_timeout(now)
        elif name == "idle":
            control.on_idle(*values)
        elif name == "size":
            control.on_packet_size(*values)
        else:
            control.on_new_path(now)
        yield

"""What a congestion control is told and what it decides: how much may be in flight.

The strategies are pure: they see samples of acknowledgements, with the time in them,
and answer with a window and a pace. Asked by `transport.sctp.sender`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["MAX_WINDOW_BYTES", "AckSample", "CongestionControl", "CongestionName"]

MAX_WINDOW_BYTES = 32 * 1024 * 1024
"""What may be in flight at most: 1 Gbit/s at 250 ms."""

CongestionName = Literal["loss", "rate"]


@dataclass(slots=True)
class AckSample:
    """What one SACK told, in bytes of user data and in seconds of one clock.

    The delivery rate is measured as in draft-cheng-iccrg-delivery-rate-estimation:
    over the time in which what was delivered meanwhile was sent or acknowledged,
    whichever is longer.

    Attributes:
        now: when it came.
        in_flight_bytes: in flight before it.
        delivered_bytes: acknowledged since the association began, this SACK included.
        delivered_at_send_bytes: as much of that as had been acknowledged when the last
            sent chunk it acknowledges was sent. A round trip has passed when this
            reaches what was delivered at the beginning of the round.
        acked_bytes: acknowledged by it for the first time.
        lost_bytes: found lost by it.
        lost_sent_at: when the last sent of what is lost was sent; None without loss.
        is_window_limited: the window was what held the sender back since the last one,
            or the pace was, while half of the window or more was used.
        rtt_s: round trip of the last sent chunk it acknowledges; None where that was
            sent more than once, or nothing is new.
        rate_bytes_per_s: the delivery rate; None where nothing can be said.
        is_app_limited: the sender had nothing to send while the rate was measured, so
            that the path may well be faster.
    """

    now: float
    in_flight_bytes: int
    delivered_bytes: int
    delivered_at_send_bytes: int
    acked_bytes: int = 0
    lost_bytes: int = 0
    lost_sent_at: float | None = None
    is_window_limited: bool = False
    rtt_s: float | None = None
    rate_bytes_per_s: float | None = None
    is_app_limited: bool = False


class CongestionControl(Protocol):
    """Decides how much user data may be in flight, and how fast it is sent."""

    @property
    def window_bytes(self) -> int:
        """How much may be in flight (RFC 9260 section 7.2, cwnd)."""

    @property
    def pace_bytes_per_s(self) -> float | None:
        """How fast to send at most; None where the window alone decides."""

    def on_ack(self, sample: AckSample) -> None:
        """Take what a SACK told."""

    def on_timeout(self, now: float) -> None:
        """T3-rtx expired: all that was in flight counts as lost (section 7.2.3)."""

    def on_idle(self, idle_s: float, rto_s: float) -> None:
        """Nothing was in flight for a while, and now something is sent."""

    def on_packet_size(self, payload_bytes: int) -> None:
        """A full packet carries this much user data from now on."""

    def on_new_path(self, now: float) -> None:
        """The packets take another path: what was learned of the old one is void."""

"""Round trips counted by what is delivered, not by a clock.

A round trip has passed when something is acknowledged that was sent after it began.
Used by the congestion controls.
"""

from sleap_rtc_plugin.transport.sctp.congestion import AckSample

__all__ = ["RoundClock"]


class RoundClock:
    """Tells which acknowledgement ends a round trip."""

    __slots__ = ("_ends_at_bytes",)

    def __init__(self) -> None:
        """Let the first acknowledgement begin a round."""
        self._ends_at_bytes = 0

    def has_passed(self, sample: AckSample) -> bool:
        """Tell whether a round trip ended with this, and begin the next one."""
        if not sample.acked_bytes:
            return False
        if sample.delivered_at_send_bytes < self._ends_at_bytes:
            return False
        self._ends_at_bytes = sample.delivered_bytes
        return True

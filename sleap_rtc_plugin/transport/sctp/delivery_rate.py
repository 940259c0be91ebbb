"""How fast the path delivers, measured over what is in flight.

Pure (draft-cheng-iccrg-delivery-rate-estimation). What was delivered while a chunk was
on its way, by the time that took to send or to acknowledge, whichever is longer. Asked
by `transport.sctp.sender`.
"""

from sleap_rtc_plugin.transport.sctp.sent_chunk import SentChunk

__all__ = ["DeliveryRate"]


class DeliveryRate:
    """What has been delivered, and when.

    Attributes:
        delivered_bytes: acknowledged since the association began.
    """

    def __init__(self) -> None:
        """Begin with nothing delivered."""
        self.delivered_bytes = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._app_limited_until = -1

    def on_sent(self, chunk: SentChunk, *, is_alone: bool, now: float) -> None:
        """Note in a chunk where the measurement stands as it is sent.

        `is_alone` says that nothing else is in flight: the measurement begins anew.
        """
        if is_alone:
            self._first_sent_at = self._delivered_at = now
        chunk.first_sent_at = self._first_sent_at
        chunk.delivered_bytes = self.delivered_bytes
        chunk.delivered_at = self._delivered_at
        # Also of what is sent after a pause, when all before it is acknowledged.
        chunk.is_app_limited = self._app_limited_until >= self.delivered_bytes

    def on_nothing_to_send(self, in_flight_bytes: int) -> None:
        """Until what is in flight is acknowledged, the path may well be faster."""
        self._app_limited_until = self.delivered_bytes + in_flight_bytes

    def on_acked(self, acked_bytes: int, now: float) -> None:
        """Count what was acknowledged for the first time."""
        self.delivered_bytes += acked_bytes
        self._delivered_at = now

    def measure(
        self, newest: SentChunk | None, shortest_s: float, now: float
    ) -> float | None:
        """Return bytes per second; None where the time is too short to tell.

        Args:
            newest: the last sent of the chunks that were just acknowledged.
            shortest_s: the shortest round trip; what took less measures nothing.
            now: in seconds.
        """
        if newest is None:
            return None
        self._first_sent_at = max(self._first_sent_at, newest.sent_at)
        interval_s = max(
            newest.sent_at - newest.first_sent_at, now - newest.delivered_at
        )
        if interval_s <= 0 or interval_s < shortest_s:
            return None
        return (self.delivered_bytes - newest.delivered_bytes) / interval_s

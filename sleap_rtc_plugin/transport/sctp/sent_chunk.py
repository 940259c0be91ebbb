"""A DATA chunk on its way: what is in it, and what is known of its last transmission.

Pure data; made and changed by `transport.sctp.sender`.
"""

from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

__all__ = ["SentChunk"]


class SentChunk:
    """A DATA chunk from its first transmission until everything before it arrived."""

    __slots__ = (
        "data",
        "delivered_at",
        "delivered_bytes",
        "first_sent_at",
        "flags",
        "is_abandoned",
        "is_acked",
        "is_app_limited",
        "is_copied",
        "is_lost",
        "message",
        "number",
        "protocol",
        "sent_at",
        "sent_count",
        "serial",
        "size",
        "stream_id",
        "stream_seq",
    )

    def __init__(
        self,
        serial: int,
        flags: int,
        message: OutboundMessage,
        stream_seq: int,
        data: bytes,
    ) -> None:
        """Take the next TSN, unwrapped, for a fragment of a message."""
        self.serial = serial
        self.flags = flags
        self.stream_id = message.stream_id
        self.stream_seq = stream_seq
        self.protocol = message.protocol
        self.data = data
        self.size = len(data)
        # Only who may be given up is asked about it.
        partial = message.expires_at is not None or message.max_retransmits is not None
        self.message = message if partial else None
        # Of the last transmission:
        self.number = 0
        self.sent_at = 0.0
        self.sent_count = 0
        self.first_sent_at = 0.0
        self.delivered_bytes = 0
        self.delivered_at = 0.0
        self.is_app_limited = False
        # It was to go twice, whatever happens to the first.
        self.is_copied = False
        self.is_acked = False
        self.is_lost = False
        self.is_abandoned = False

    @property
    def is_in_flight(self) -> bool:
        """Whether it counts in the flight size (section 1.3)."""
        return not (self.is_acked or self.is_lost or self.is_abandoned)

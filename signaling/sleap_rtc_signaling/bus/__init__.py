"""Several instances of one signaling service: what they tell each other, and how.

`records` is what goes between them, `redis_bus` carries it, and `exchange` is what an
instance does with it. Without a bus an instance is alone and none of this is loaded.
"""

from sleap_rtc_signaling.bus.protocol import Bus
from sleap_rtc_signaling.bus.records import (
    Answered,
    ClaimLimits,
    Event,
    Forwarded,
    Found,
    Message,
    Owner,
    PeerCame,
    Revoked,
    RoomClosed,
)

__all__ = [
    "Answered",
    "Bus",
    "ClaimLimits",
    "Event",
    "Forwarded",
    "Found",
    "Message",
    "Owner",
    "PeerCame",
    "Revoked",
    "RoomClosed",
]

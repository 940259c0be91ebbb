"""What a signaling server remembers: accounts, rooms, bytes of relays; no secret.

Live peers are not here but in the hub; of a worker there is a digest, by which it is
known when it comes back. Every server on the same store sees the same rooms.
"""

from sleap_rtc_signaling.stores.layout import Room
from sleap_rtc_signaling.stores.store import Store

__all__ = ["Room", "Store"]

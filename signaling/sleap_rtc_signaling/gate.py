"""PURE: how many sockets there may be, in all and from one address.

One gate for every WebSocket of a server, be it a peer's or a relay's, with time as an
argument. Called by those who serve them.
"""

from collections import Counter

from sleap_rtc_plugin.protocol.errors import RateLimited, RtcError, TooMany
from sleap_rtc_signaling.limits import (
    CONNECT_RATE,
    MAX_SOCKETS,
    MAX_SOCKETS_PER_ADDRESS,
)
from sleap_rtc_signaling.rate_limit import RateLimiter

__all__ = ["Gate"]


class Gate:
    """Counts who is inside."""

    def __init__(self) -> None:
        self._of_address: Counter[str] = Counter()
        self._inside = 0
        self._connects = RateLimiter(CONNECT_RATE)

    def enter(self, address: str, now: float) -> RtcError | None:
        """Let a socket in, or say why not.

        Args:
            address: where it comes from, as `rate_limit.address_key` has it.
            now: monotonic time, in seconds.
        """
        if self._inside >= MAX_SOCKETS:
            return TooMany(what="connections to this server", limit=str(MAX_SOCKETS))
        if self._of_address[address] >= MAX_SOCKETS_PER_ADDRESS:
            limit = str(MAX_SOCKETS_PER_ADDRESS)
            return TooMany(what="connections from your address", limit=limit)
        wait_s = self._connects.take(address, now)
        if wait_s:
            return RateLimited(retry_after_s=f"{wait_s:.1f}")
        self._inside += 1
        self._of_address[address] += 1
        return None

    def leave(self, address: str) -> None:
        """Take note that a socket that was let in is gone."""
        self._inside -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

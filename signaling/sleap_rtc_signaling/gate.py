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
    Rate,
)
from sleap_rtc_signaling.rate_limit import RateLimiter

__all__ = ["Gate"]


class Gate:
    """Counts who is inside.

    Args:
        max_sockets: of the whole server; None is as `limits` has it, here and below.
        max_sockets_per_address: from one address.
        connects_per_s: how often one address may connect.
    """

    def __init__(
        self,
        max_sockets: int | None = None,
        max_sockets_per_address: int | None = None,
        connects_per_s: float | None = None,
    ) -> None:
        self._max_sockets = max_sockets
        self._max_per_address = max_sockets_per_address
        self._of_address: Counter[str] = Counter()
        self._inside = 0
        self._connects = RateLimiter(CONNECT_RATE.scaled(connects_per_s))

    def enter(self, address: str, now: float) -> RtcError | None:
        """Let a socket in, or say why not.

        Args:
            address: where it comes from, as `rate_limit.address_key` has it.
            now: monotonic time, in seconds.
        """
        most = self._max_sockets or MAX_SOCKETS
        if self._inside >= most:
            return TooMany(what="connections to this server", limit=str(most))
        if self._of_address[address] >= self.max_per_address:
            return self.too_many_of_address()
        wait_s = self._connects.take(address, now)
        if wait_s:
            return RateLimited(retry_after_s=f"{wait_s:.1f}")
        self._inside += 1
        self._of_address[address] += 1
        return None

    @property
    def max_per_address(self) -> int:
        """How many sockets one address may have."""
        return self._max_per_address or MAX_SOCKETS_PER_ADDRESS

    @property
    def connect_rate(self) -> Rate:
        """How often one address may connect."""
        return self._connects.rate

    def too_many_of_address(self) -> TooMany:
        """Return why one address may have no more."""
        limit = str(self.max_per_address)
        return TooMany(what="connections from your address", limit=limit)

    def leave(self, address: str) -> None:
        """Take note that a socket that was let in is gone."""
        self._inside -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

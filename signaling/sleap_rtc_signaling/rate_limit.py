"""PURE: token buckets, one for each key, with time as an argument.

The number of keys is bounded: the bucket that was used longest ago makes room for a
new one. Called by the routes and by the sockets, each with limits of its own.
"""

import ipaddress
from collections import OrderedDict

from sleap_rtc_signaling.limits import MAX_RATE_KEYS, Rate

__all__ = ["RateLimiter", "address_key"]

_IPV6_SITE_BITS = 64


class RateLimiter:
    """Token buckets of one rate.

    Args:
        rate: how much at once, and how much each second after that.
        max_keys: how many buckets are kept.
        kind: what is counted, where several instances count together.
    """

    def __init__(
        self, rate: Rate, max_keys: int = MAX_RATE_KEYS, *, kind: str = ""
    ) -> None:
        self.rate = rate
        self.kind = kind
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many buckets are kept."""
        return len(self._buckets)

    def take(self, key: str, now: float, cost: float = 1.0) -> float:
        """Take `cost` tokens from the bucket of `key`.

        Args:
            key: whom the bucket belongs to.
            now: monotonic time, in seconds.
            cost: how many tokens.

        Returns:
            0.0 if they were there. Otherwise nothing was taken, and the result is
            after how many seconds they would be.
        """
        tokens, since = self._buckets.get(key, (float(self.rate.burst), now))
        # A clock that steps back must neither drain nor fill a bucket.
        elapsed = max(0.0, now - since)
        tokens = min(float(self.rate.burst), tokens + elapsed * self.rate.per_s)
        allowed = tokens >= cost
        self._buckets[key] = (tokens - cost if allowed else tokens, max(now, since))
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (cost - tokens) / self.rate.per_s

    def forget(self, key: str) -> None:
        """Drop the bucket of a key that will not come back."""
        self._buckets.pop(key, None)


def address_key(host: str) -> str:
    """Return the key under which a remote address is counted.

    One site owns a whole IPv6 /64, so all of it is one key; an IPv4 address that
    came through an IPv6 socket is the IPv4 address.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    network = ipaddress.IPv6Network((address, _IPV6_SITE_BITS), strict=False)
    return str(network)

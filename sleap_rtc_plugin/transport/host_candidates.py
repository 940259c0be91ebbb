"""Host candidates on a machine that has no address but its own loopback.

aioice never offers 127.0.0.1, so two programs on one offline machine would find no
way to each other. Where there is no other address, and only there, loopback is
offered; a peer elsewhere cannot use it, and no peer here is harmed by it.
"""

from collections.abc import Callable

import aioice.ice

__all__ = ["offer_loopback_when_alone", "with_loopback"]

GetAddresses = Callable[[bool, bool], list[str]]

LOOPBACK = "127.0.0.1"


def with_loopback(get_addresses: GetAddresses) -> GetAddresses:
    """Wrap `aioice.ice.get_host_addresses` so that it never finds nothing on IPv4."""

    def get_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        addresses = get_addresses(use_ipv4, use_ipv6)
        return addresses or ([LOOPBACK] if use_ipv4 else [])

    return get_host_addresses


def offer_loopback_when_alone() -> None:
    """Install the wrapper, once per process."""
    if not getattr(aioice.ice.get_host_addresses, "offers_loopback", False):
        wrapped = with_loopback(aioice.ice.get_host_addresses)
        wrapped.offers_loopback = True  # type: ignore[attr-defined]
        aioice.ice.get_host_addresses = wrapped  # type: ignore[assignment]

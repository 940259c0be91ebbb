"""Which way data channels go: ours, which is fast, or aiortc's, and how they share.

Makes aiortc's peer connection with the one or the other. The fast way is taken where
the installed aiortc is one that was verified. Used by `transport.peer`.
"""

import logging
from typing import TYPE_CHECKING, Literal

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection

from sleap_rtc_plugin.transport.sctp.congestion import CongestionControl
from sleap_rtc_plugin.transport.sctp.loss_based import LossBased
from sleap_rtc_plugin.transport.sctp.path_mtu import BASE_PAYLOAD_BYTES
from sleap_rtc_plugin.transport.sctp.rate_based import RateBased
from sleap_rtc_plugin.transport.sctp.self_check import fault_of_installation
from sleap_rtc_plugin.transport.transport_options import TransportOptions

if TYPE_CHECKING:
    from sleap_rtc_plugin.transport.sctp.fast_transport import FastSctpTransport

__all__ = [
    "allow_large_packets",
    "engine_of",
    "make_congestion",
    "make_peer_connection",
    "put_first",
]

logger = logging.getLogger(__name__)


class _FastPeerConnection(RTCPeerConnection):
    """A peer connection whose data channels go the fast way where they can."""

    def __init__(
        self, configuration: RTCConfiguration, options: TransportOptions
    ) -> None:
        self._options = options
        super().__init__(configuration)

    def _RTCPeerConnection__createSctpTransport(self) -> None:
        # aiortc names its transport's class in one place only, this private method.
        super()._RTCPeerConnection__createSctpTransport()  # type: ignore[misc]
        # Not before the check: it takes names from aiortc that another one may lack.
        from sleap_rtc_plugin.transport.sctp.fast_transport import FastSctpTransport

        if self.sctp is not None:
            FastSctpTransport.adopt(
                self.sctp,
                make_congestion=lambda: make_congestion(self._options),
                max_bytes_per_s=self._options.max_bytes_per_s,
            )


def make_congestion(options: TransportOptions) -> CongestionControl:
    """Return a new congestion control of the chosen kind."""
    if options.congestion == "rate":
        return RateBased(BASE_PAYLOAD_BYTES, max_bytes_per_s=options.max_bytes_per_s)
    return LossBased(BASE_PAYLOAD_BYTES)


def make_peer_connection(
    configuration: RTCConfiguration, options: TransportOptions
) -> RTCPeerConnection:
    """Return a peer connection, with fast data channels where wanted and possible."""
    if options.engine == "stock":
        return RTCPeerConnection(configuration)
    fault = fault_of_installation()
    if fault is not None:
        logger.warning("Data channels go the slow way: %s.", fault)
        return RTCPeerConnection(configuration)
    return _FastPeerConnection(configuration, options)


def _fast_transport(connection: RTCPeerConnection) -> "FastSctpTransport | None":
    if not isinstance(connection, _FastPeerConnection):
        return None
    from sleap_rtc_plugin.transport.sctp.fast_transport import FastSctpTransport

    sctp = connection.sctp
    return sctp if isinstance(sctp, FastSctpTransport) else None


def engine_of(connection: RTCPeerConnection) -> Literal["fast", "aiortc"]:
    """Say which way the data channels of an established connection go."""
    sctp = _fast_transport(connection)
    return "fast" if sctp is not None and sctp.is_fast else "aiortc"


def put_first(connection: RTCPeerConnection, channel: RTCDataChannel) -> None:
    """Let a channel's messages go before those of others, where that is possible."""
    sctp = _fast_transport(connection)
    if sctp is not None:
        sctp.set_urgent(channel)


def allow_large_packets(connection: RTCPeerConnection) -> None:
    """The peer reads packets larger than aiortc does; try what the path carries."""
    sctp = _fast_transport(connection)
    if sctp is not None:
        sctp.allow_large_packets()

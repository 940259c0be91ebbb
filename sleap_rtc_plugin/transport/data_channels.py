"""Which way data channels go: ours, which is fast, or aiortc's, and how they share.

Makes aiortc's peer connection with the one or the other. The fast way is taken where
the installed aiortc is one that was verified; the choice is the caller's, or that of
the environment. Used by `transport.peer`.
"""

import logging
import os
from dataclasses import dataclass
from typing import Final, Literal

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection

from sleap_rtc_plugin.transport.sctp.congestion import CongestionControl, CongestionName
from sleap_rtc_plugin.transport.sctp.fast_transport import FastSctpTransport
from sleap_rtc_plugin.transport.sctp.loss_based import LossBased
from sleap_rtc_plugin.transport.sctp.path_mtu import BASE_PAYLOAD_BYTES
from sleap_rtc_plugin.transport.sctp.self_check import fault_of_installation

__all__ = [
    "CONGESTION_VARIABLE",
    "ENGINE_VARIABLE",
    "DataChannelEngine",
    "TransportOptions",
    "allow_large_packets",
    "engine_of",
    "make_peer_connection",
    "put_first",
]

logger = logging.getLogger(__name__)

DataChannelEngine = Literal["fast", "stock"]
ENGINE_VARIABLE: Final = "SLEAP_REMOTE_DATA_CHANNELS"
CONGESTION_VARIABLE: Final = "SLEAP_REMOTE_CONGESTION"


@dataclass(frozen=True)
class TransportOptions:
    """How data channels go.

    Attributes:
        engine: `fast` where that is possible, or `stock`: aiortc alone.
        congestion: what sets the pace of sending: `loss`, which shares a path with
            others as TCP does, or `rate`, which keeps its pace on a path that loses
            packets at random.
        max_bytes_per_s: the most to send by `rate`; None for what the path carries.
    """

    engine: DataChannelEngine = "fast"
    congestion: CongestionName = "loss"
    max_bytes_per_s: int | None = None

    @classmethod
    def from_environment(cls) -> "TransportOptions":
        """Return the defaults, with what the environment says instead."""
        engine = os.environ.get(ENGINE_VARIABLE, "fast")
        congestion = os.environ.get(CONGESTION_VARIABLE, "loss")
        return cls(
            engine="stock" if engine == "stock" else "fast",
            congestion="rate" if congestion == "rate" else "loss",
        )

    def make_congestion(self) -> CongestionControl:
        """Return a new congestion control."""
        return LossBased(BASE_PAYLOAD_BYTES)


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
        if self.sctp is not None:
            FastSctpTransport.adopt(self.sctp, self._options.make_congestion)


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


def engine_of(connection: RTCPeerConnection) -> Literal["fast", "aiortc"]:
    """Say which way the data channels of an established connection go."""
    sctp = connection.sctp
    is_fast = isinstance(sctp, FastSctpTransport) and sctp.is_fast
    return "fast" if is_fast else "aiortc"


def put_first(connection: RTCPeerConnection, channel: RTCDataChannel) -> None:
    """Let a channel's messages go before those of others, where that is possible."""
    if isinstance(connection.sctp, FastSctpTransport):
        connection.sctp.set_urgent(channel)


def allow_large_packets(connection: RTCPeerConnection) -> None:
    """The peer reads packets larger than aiortc does; try what the path carries."""
    if isinstance(connection.sctp, FastSctpTransport):
        connection.sctp.allow_large_packets()

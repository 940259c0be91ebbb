"""How data channels go, as the user chose it: which way, at whose pace, how fast.

Pure but for reading the environment; imports nothing heavy, so that commands can offer
the choices. Used by `transport.data_channels`, and by whoever makes connections.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

from sleap_rtc_plugin.transport.sctp.congestion import CongestionName

__all__ = [
    "CONGESTION_VARIABLE",
    "ENGINE_VARIABLE",
    "MAX_MBIT",
    "MIN_MBIT",
    "RATE_VARIABLE",
    "RELAY_ONLY_VARIABLE",
    "DataChannelEngine",
    "TransportOptions",
    "bytes_per_s",
    "forced_relay_only",
]

DataChannelEngine = Literal["fast", "stock"]
ENGINE_VARIABLE: Final = "SLEAP_REMOTE_DATA_CHANNELS"
CONGESTION_VARIABLE: Final = "SLEAP_REMOTE_CONGESTION"
RATE_VARIABLE: Final = "SLEAP_REMOTE_MAX_MBIT"
RELAY_ONLY_VARIABLE: Final = "SLEAP_REMOTE_RELAY_ONLY"
# Less leaves nothing for control messages and keep-alive.
MIN_MBIT: Final = 0.1
MAX_MBIT: Final = 100_000.0


@dataclass(frozen=True)
class TransportOptions:
    """How data channels go.

    Attributes:
        engine: `fast` where that is possible, or `stock`: aiortc alone.
        congestion: what sets the pace of sending: `loss`, which shares a path with
            others as TCP does, or `rate`, which keeps its pace on a path that loses
            packets at random.
        max_bytes_per_s: the most to send; None for what the path carries.
        relay_only: tell the other side no address of this machine, and go over TURN
            servers or the signaling server's relay alone.
    """

    engine: DataChannelEngine = "fast"
    congestion: CongestionName = "loss"
    max_bytes_per_s: int | None = None
    relay_only: bool = False

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, default: Self | None = None
    ) -> Self:
        """Return what the environment says, and `default` where it says nothing.

        A word that is none of the choices says nothing.
        """
        chosen = default or cls()
        engine, congestion = chosen.engine, chosen.congestion
        match environment.get(ENGINE_VARIABLE):
            case "fast" | "stock" as word:
                engine = word
        match environment.get(CONGESTION_VARIABLE):
            case "loss" | "rate" as pace:
                congestion = pace
        rate = bytes_per_s(environment.get(RATE_VARIABLE, ""))
        forced = forced_relay_only(environment)
        relay_only = chosen.relay_only if forced is None else forced
        return cls(
            engine, congestion, rate or chosen.max_bytes_per_s, relay_only=relay_only
        )


def forced_relay_only(environment: Mapping[str, str] = os.environ) -> bool | None:
    """Return whether the environment wants relays alone, or None where it is silent."""
    match environment.get(RELAY_ONLY_VARIABLE):
        case "1" | "true" | "yes":
            return True
        case "0" | "false" | "no":
            return False
    return None


def bytes_per_s(mbit: str | float) -> int | None:
    """Return Mbit/s in bytes per second; None for what is no bound to send by."""
    try:
        number = float(mbit)
    except ValueError:
        return None
    return int(number * 1e6 / 8) if MIN_MBIT <= number <= MAX_MBIT else None

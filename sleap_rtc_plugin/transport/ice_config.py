"""What the signaling server says of STUN, TURN and its relay, and what of it to use.

Pure, time is an argument. Fetched by `transport.ice_source`; used by whoever makes
connections: a client's stay in a room, and the worker's door.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from sleap_rtc_plugin.protocol.limits import (
    ICE_MAX_AGE_S,
    ICE_REFRESH_MARGIN_S,
    MAX_ICE_URLS,
    MAX_URL_CHARS,
)
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.signaling_messages import IceServer

__all__ = [
    "TURN_WAYS",
    "IceUrl",
    "TurnWay",
    "is_worth_keeping",
    "parse_ice_url",
    "stun_servers",
    "turn_servers",
    "turn_ways",
]

TurnWay = Literal["turn-udp", "turn-tcp", "turn-tls"]
# The lightest first.
TURN_WAYS: Final[tuple[TurnWay, ...]] = get_args(TurnWay)
_URL: Final = re.compile(
    r"(?P<scheme>stun|turn|turns):(?P<host>[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:\?transport=(?P<transport>udp|tcp))?\Z"
)
# (scheme, transport) -> what it is and the usual port; RFC 7064, RFC 7065.
_KINDS: Final[dict[tuple[str, str | None], tuple[Literal["stun"] | TurnWay, int]]] = {
    ("stun", None): ("stun", 3478),
    ("turn", None): ("turn-udp", 3478),
    ("turn", "udp"): ("turn-udp", 3478),
    ("turn", "tcp"): ("turn-tcp", 3478),
    ("turns", None): ("turn-tls", 5349),
    ("turns", "tcp"): ("turn-tls", 5349),
}


@dataclass(frozen=True)
class IceUrl:
    """One address of a STUN or TURN server; `way` says how it is spoken to."""

    way: Literal["stun"] | TurnWay
    host: str
    port: int

    @property
    def address(self) -> str:
        """The address for people."""
        return f"{self.host}:{self.port}"


def parse_ice_url(url: str) -> IceUrl | None:
    """Read a STUN or TURN address; None for one that cannot be used here."""
    match = _URL.match(url) if len(url) <= MAX_URL_CHARS else None
    kind = _KINDS.get((match["scheme"], match["transport"])) if match else None
    if match is None or kind is None:
        return None
    way, usual = kind
    port = int(match["port"] or usual)
    return IceUrl(way, match["host"], port) if 0 < port < 65536 else None


def _only(config: IceServerList, way: Literal["stun"] | TurnWay) -> list[IceServer]:
    """Return the first server of a kind with that one address.

    aiortc takes the first of several, and says nothing about the others.
    """
    urls = [(server, url) for server in config.ice_servers for url in server.urls]
    for server, url in urls[:MAX_ICE_URLS]:
        parsed = parse_ice_url(url)
        if parsed is not None and parsed.way == way:
            return [
                IceServer(
                    urls=[url],
                    username=server.username,
                    credential=server.credential,
                )
            ]
    return []


def stun_servers(config: IceServerList) -> list[IceServer]:
    """Return the STUN server to use, if there is one."""
    return _only(config, "stun")


def turn_servers(config: IceServerList, way: TurnWay) -> list[IceServer]:
    """Return the TURN server to use over UDP, TCP or TLS, if there is one."""
    return _only(config, way)


def turn_ways(config: IceServerList) -> list[TurnWay]:
    """Return how TURN servers may be spoken to, the lightest way first."""
    return [way for way in TURN_WAYS if turn_servers(config, way)]


def is_worth_keeping(config: IceServerList, *, age_s: float, unix_now: float) -> bool:
    """Say whether a configuration that was fetched `age_s` ago may still be used.

    The age counts as well, for this machine's clock may be wrong.
    """
    if age_s >= ICE_MAX_AGE_S:
        return False
    if config.expires_at is None:
        return True
    return config.expires_at - unix_now > ICE_REFRESH_MARGIN_S

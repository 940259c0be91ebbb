"""What peers and the signaling server say about the relay of last resort.

Two text frames open a relay on a WebSocket of its own; after them there are only
binary frames between the partners, which the server never looks at. Also the answer
of `GET /ice-servers`, which says whether there is a relay at all. Called by both
ends; nothing here is about what the relayed bytes mean.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.ids import is_relay_id
from sleap_rtc_plugin.protocol.limits import (
    MAX_ICE_SERVERS,
    MAX_RELAY_JOIN_BYTES,
    MAX_URL_CHARS,
)
from sleap_rtc_plugin.protocol.signaling_messages import IceServer, Id

__all__ = [
    "RELAY_PATH",
    "IceServerList",
    "RelayJoin",
    "RelayJoined",
    "RelayTerms",
    "decode_relay_join",
    "decode_relay_joined",
    "encode_relay",
]

RELAY_PATH: Final = "/relay"
_PATH: Final = r"^(/[A-Za-z0-9._-]+)+\Z"


class RelayTerms(Struct, frozen=True, kw_only=True):
    """The relay that a server offers.

    Attributes:
        path: where, below the server's address.
        max_mbit: how much it carries in each direction, in Mbit/s.
    """

    path: Annotated[
        str, Meta(pattern=r"^(/[A-Za-z0-9._-]+)+\Z", max_length=MAX_URL_CHARS)
    ]
    max_mbit: Annotated[float, Meta(gt=0)]


class IceServerList(Struct, frozen=True, kw_only=True):
    """The answer of `GET /ice-servers`; older servers give the first field alone.

    Attributes:
        ice_servers: STUN and TURN servers.
        expires_at: until when the credentials are good, as Unix time; None where
            they do not end.
        relay: the relay of last resort; None where the server offers none.
    """

    ice_servers: Annotated[list[IceServer], Meta(max_length=MAX_ICE_SERVERS)]
    expires_at: float | None = None
    relay: RelayTerms | None = None


class RelayJoin(Struct, frozen=True, kw_only=True, tag_field="type", tag="relay_join"):
    """The first frame on a relay's socket: wait for the partner on `relay_id`.

    Attributes:
        relay_id: what the two agreed on; see `ids.new_relay_id`.
        peer_id: who this is, as registered in the token's room at this moment.
    """

    relay_id: Id
    peer_id: Id


class RelayJoined(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="relay_joined"
):
    """Both partners are there; from here on only binary frames travel."""


_encoder: Final = msgspec.json.Encoder()
# A union, since msgspec lets the tag of a lone type be missing.
_decoder: Final[msgspec.json.Decoder[RelayJoin | RelayJoined]] = msgspec.json.Decoder(
    RelayJoin | RelayJoined
)


def encode_relay(message: RelayJoin | RelayJoined) -> str:
    """Encode a message as the text of one WebSocket frame."""
    return _encoder.encode(message).decode()


def decode_relay_join(text: str) -> RelayJoin:
    """Decode the first frame of a partner.

    Raises:
        RemoteProtocolError: too long, or not a `relay_join`.
    """
    join = _decode(text)
    if not isinstance(join, RelayJoin) or not is_relay_id(join.relay_id):
        raise RemoteProtocolError(detail="no relay_join")
    return join


def decode_relay_joined(text: str) -> RelayJoined:
    """Decode the server's only frame.

    Raises:
        RemoteProtocolError: too long, or not a `relay_joined`.
    """
    joined = _decode(text)
    if not isinstance(joined, RelayJoined):
        raise RemoteProtocolError(detail="no relay_joined")
    return joined


def _decode(text: str) -> RelayJoin | RelayJoined:
    if len(text) > MAX_RELAY_JOIN_BYTES:
        raise RemoteProtocolError(detail="a relay's first message is too long")
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise RemoteProtocolError(detail="a relay's first message is none") from None

"""PURE: what instances of a server write down for each other, and say to each other.

All of it is checked on the way in: whoever else may write to the same Redis is not
believed to speak our language. Bounds are those of the messages of peers.
"""

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.limits import MAX_ID_LENGTH
from sleap_rtc_plugin.protocol.signaling_messages import (
    Id,
    PeerInfo,
    RelayedMessage,
)
from sleap_rtc_signaling.instructions import Presence
from sleap_rtc_signaling.limits import MAX_BUS_MESSAGE_BYTES

__all__ = [
    "Answered",
    "BusMessageInvalid",
    "ClaimLimits",
    "Event",
    "Forwarded",
    "Found",
    "InstanceId",
    "Message",
    "Owner",
    "PeerCame",
    "Revoked",
    "RoomClosed",
    "decode_event",
    "decode_info",
    "decode_message",
    "encode",
]

InstanceId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
Number = Annotated[int, Meta(ge=0, le=2**53)]
_AnyId = Annotated[str, Meta(max_length=MAX_ID_LENGTH)]

T = TypeVar("T")
_encoder: Final = msgspec.json.Encoder()


class BusMessageInvalid(Exception):
    """What came over the bus is nothing that an instance says."""


# -- who is where ---------------------------------------------


class Owner(Struct, frozen=True, kw_only=True):
    """A peer that is registered at this instance, as the others may know it.

    Attributes:
        connection: the number of its socket at its instance.
        room_id: its room.
        resume_digest: SHA-256 of its resume key.
        info: what the room may know of it.
    """

    connection: int
    room_id: str
    resume_digest: bytes
    info: PeerInfo

    @property
    def peer_id(self) -> str:
        """The id that it holds."""
        return self.info.peer_id


class Found(Struct, frozen=True):
    """Where a peer is: its instance, and what of that is known."""

    instance: str
    presence: Presence


class ClaimLimits(Struct, frozen=True):
    """How many there may be in one room, over all instances."""

    peers: int
    ids: int


# -- to one instance ---------------------------------------------


class Forwarded(Struct, frozen=True, kw_only=True, tag="forwarded"):
    """Deliver this, and answer `instance` under `number`."""

    instance: InstanceId
    number: Number
    room_id: Id
    to: Id
    message: RelayedMessage


class Answered(Struct, frozen=True, kw_only=True, tag="answered"):
    """What became of it."""

    number: Number
    is_delivered: bool


Message = Forwarded | Answered


# -- to all instances ---------------------------------------------


class PeerCame(Struct, frozen=True, kw_only=True, tag="peer_came"):
    """A peer has registered at `instance`; whoever had it before lets go of it."""

    instance: InstanceId
    room_id: Id
    peer_id: Id


class RoomClosed(Struct, frozen=True, kw_only=True, tag="room_closed"):
    """A room was deleted."""

    room_id: Id


class Revoked(Struct, frozen=True, kw_only=True, tag="revoked"):
    """A credential or an account was sent out of a room."""

    room_id: Id
    credential_id: _AnyId = ""
    account_id: _AnyId = ""


Event = PeerCame | RoomClosed | Revoked

_messages: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)
_events: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_infos: Final = msgspec.json.Decoder(PeerInfo)
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode(value: Message | Event | PeerInfo) -> bytes:
    """Return a value as JSON."""
    return _encoder.encode(value)


def decode_message(data: bytes) -> Message:
    """Read what another instance says to this one.

    Raises:
        BusMessageInvalid: it is something else.
    """
    return _decode(_messages, data)


def decode_event(data: bytes) -> Event:
    """Read what another instance says to all.

    Raises:
        BusMessageInvalid: it is something else.
    """
    return _decode(_events, data)


def decode_info(data: bytes) -> PeerInfo:
    """Read what is written of a peer.

    Raises:
        BusMessageInvalid: it is something else.
    """
    return _decode(_infos, data)


def _decode(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T:
    if len(data) > MAX_BUS_MESSAGE_BYTES:
        raise BusMessageInvalid(f"more than {MAX_BUS_MESSAGE_BYTES} bytes")
    try:
        value: T = decoder.decode(data)
    except _UNREADABLE as error:
        raise BusMessageInvalid(str(error)) from None
    return value

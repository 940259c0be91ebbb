"""Bytes to typed messages and back, for both wires. Called by every driver.

Signaling messages are JSON objects tagged by `type`. Control frames are text,
`NAME::{json}`. Whatever comes in gives a message or a `RemoteProtocolError`.
"""

import re
from typing import Any, Final, cast

import msgspec
from msgspec import DecodeError, Raw, Struct, ValidationError

from sleap_rtc_plugin.protocol import messages
from sleap_rtc_plugin.protocol.errors import LocalProtocolError, RemoteProtocolError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_CONTROL_FRAME_BYTES,
    MAX_FRAME_NAME_LENGTH,
    MAX_PEER_MESSAGE_BYTES,
    MAX_SIGNALING_MESSAGE_BYTES,
)
from sleap_rtc_plugin.protocol.messages import ControlMessage
from sleap_rtc_plugin.protocol.signaling_messages import (
    ClientMessage,
    PeerPayload,
    ServerMessage,
)

__all__ = [
    "decode_client_message",
    "decode_control",
    "decode_peer_payload",
    "decode_server_message",
    "encode_control",
    "encode_peer_payload",
    "encode_signaling",
]

_encoder: Final = msgspec.json.Encoder()
_client_decoder: Final = msgspec.json.Decoder(ClientMessage)
_server_decoder: Final = msgspec.json.Decoder(ServerMessage)
_payload_decoder: Final = msgspec.json.Decoder(PeerPayload)
_control_types: Final = {kind.NAME: kind for kind in messages.CONTROL_TYPES}
_control_decoders: Final = {
    name: msgspec.json.Decoder(kind) for name, kind in _control_types.items()
}
_FRAME_NAME: Final = re.compile(rf"[A-Z][A-Z_]{{0,{MAX_FRAME_NAME_LENGTH - 1}}}\Z")


def encode_signaling(message: Struct) -> str:
    """Encode a signaling message as the text of one WebSocket frame."""
    return _encoder.encode(message).decode()


def decode_client_message(data: str | bytes) -> ClientMessage:
    """Decode what a peer sent to the server.

    Raises:
        RemoteProtocolError: too large, not JSON, or not one of the messages.
    """
    return cast(ClientMessage, _decode_signaling(_client_decoder, data))


def decode_server_message(data: str | bytes) -> ServerMessage:
    """Decode what the server sent to a peer.

    Raises:
        RemoteProtocolError: too large, not JSON, or not one of the messages.
    """
    return cast(ServerMessage, _decode_signaling(_server_decoder, data))


def encode_peer_payload(payload: PeerPayload) -> Raw:
    """Encode what one peer tells another through the server."""
    return Raw(_encoder.encode(payload))


def decode_peer_payload(payload: Raw) -> PeerPayload:
    """Decode what a peer sent through the server.

    Raises:
        RemoteProtocolError: too large, or not one of the payloads.
    """
    data = bytes(payload)
    _check_size(len(data), MAX_PEER_MESSAGE_BYTES, "a peer message")
    return cast(PeerPayload, _decode(_payload_decoder, data, "a peer message"))


def encode_control(message: ControlMessage) -> str:
    """Encode a message as the text frame `NAME::{json}` of the control channel.

    Raises:
        LocalProtocolError: the frame would be larger than a peer accepts.
    """
    body = _encoder.encode(message)
    name = message.NAME
    if len(name) + 2 + len(body) > MAX_CONTROL_FRAME_BYTES:
        raise LocalProtocolError(detail=f"a {name} frame of {len(body)} bytes")
    return f"{name}::{body.decode()}"


def decode_control(frame: str | bytes) -> ControlMessage:
    """Decode a text frame of the control channel.

    Raises:
        RemoteProtocolError: bytes where text belongs, too large, an unknown name,
            or a body that is not that message.
    """
    if isinstance(frame, bytes):
        raise RemoteProtocolError(detail="a binary frame on the control channel")
    _check_size(len(frame), MAX_CONTROL_FRAME_BYTES, "a control frame")
    name, separator, body = frame.partition("::")
    if (
        not separator
        or len(name) > MAX_FRAME_NAME_LENGTH
        or not _FRAME_NAME.match(name)
    ):
        raise RemoteProtocolError(detail="a control frame without a name")
    decoder = _control_decoders.get(name)
    if decoder is None:
        raise RemoteProtocolError(detail=f"an unknown control frame {name}")
    try:
        data = body.encode()
    except UnicodeEncodeError:
        raise RemoteProtocolError(detail="a control frame that is not text") from None
    _check_size(len(data), MAX_CONTROL_FRAME_BYTES, "a control frame")
    return cast(ControlMessage, _decode(decoder, data, f"a {name} frame"))


def _decode_signaling(decoder: msgspec.json.Decoder[Any], data: str | bytes) -> Any:
    _check_size(len(data), MAX_SIGNALING_MESSAGE_BYTES, "a signaling message")
    try:
        if isinstance(data, str):
            data = data.encode()
        else:
            # A payload is kept unread, so nothing below notices what is not UTF-8.
            data.decode()
    except UnicodeError:
        raise RemoteProtocolError(
            detail="a signaling message that is not text"
        ) from None
    _check_size(len(data), MAX_SIGNALING_MESSAGE_BYTES, "a signaling message")
    return _decode(decoder, data, "a signaling message")


def _decode(decoder: msgspec.json.Decoder[Any], data: bytes, what: str) -> Any:
    try:
        return decoder.decode(data)
    # msgspec reads a tag that is not UTF-8 as it stands, hence the UnicodeError.
    except (DecodeError, ValidationError, RecursionError, UnicodeError) as error:
        reason = clean_text(str(error), 200)
        raise RemoteProtocolError(detail=f"{what}: {reason}") from None


def _check_size(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise RemoteProtocolError(detail=f"{what} of more than {limit} bytes")

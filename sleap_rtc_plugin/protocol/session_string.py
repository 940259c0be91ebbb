"""The session string: one line that lets a person into a room, end to end.

`sleap-session:` and base64url of JSON. Its `secret` authenticates the peers to each
other and never reaches the signaling server. Called by the worker that prints it
and by every client that is given one.
"""

import base64
import binascii
import re
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import SessionStringInvalid, SessionStringTooNew
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import (
    MAX_SESSION_STRING_CHARS,
    MAX_TOKEN_CHARS,
    MAX_URL_CHARS,
    SECRET_BYTES,
    SESSION_STRING_VERSION,
)

__all__ = ["SCHEME", "Session", "is_signaling_url"]

SCHEME: Final = "sleap-session:"
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_CHECK_BYTES: Final = 4


class _Fields(Struct, frozen=True):
    v: int
    url: str
    room_id: str
    token: str
    peer_id: str
    secret: str


class _Version(Struct, frozen=True):
    v: int


class Session(Struct, frozen=True, kw_only=True):
    """A parsed session string.

    Attributes:
        url: the signaling server, `http://host:port` or `https://…`.
        room_id: the room.
        token: admits to the room; it does not own it.
        peer_id: the worker that made the string, preferred where there are several.
        secret: 32 bytes that only the peers know.
    """

    url: str
    room_id: str
    token: str
    peer_id: str
    secret: bytes

    def __repr__(self) -> str:
        """Show where the session leads and nothing that opens it."""
        return f"Session(url={self.url!r}, room_id={self.room_id!r})"

    def encode(self) -> str:
        """Return the line to hand to a person."""
        body = msgspec.json.encode(
            _Fields(
                v=SESSION_STRING_VERSION,
                url=self.url,
                room_id=self.room_id,
                token=self.token,
                peer_id=self.peer_id,
                secret=_encode64(self.secret),
            )
        )
        return SCHEME + _encode64(body + _checksum(body))

    @classmethod
    def parse(cls, text: str) -> "Session":
        """Read a session string, tolerating white space that a paste brings along.

        Raises:
            SessionStringInvalid: truncated, altered, or not a session string.
            SessionStringTooNew: made by a newer version.
        """
        text = "".join(text.split())
        if not text.startswith(SCHEME):
            raise SessionStringInvalid(reason=f"it does not begin with {SCHEME}")
        if len(text) > MAX_SESSION_STRING_CHARS:
            raise SessionStringInvalid(reason="it is too long")
        raw = _decode64(text.removeprefix(SCHEME))
        body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if not body or check != _checksum(body):
            raise SessionStringInvalid(reason="part of it is missing or changed")
        try:
            version = msgspec.json.decode(body, type=_Version).v
            if version > SESSION_STRING_VERSION:
                raise SessionStringTooNew(version=str(version))
            fields = msgspec.json.decode(body, type=_Fields)
        except msgspec.MsgspecError:
            raise SessionStringInvalid(reason="a field is missing or wrong") from None
        return cls._checked(fields)

    @classmethod
    def _checked(cls, fields: _Fields) -> "Session":
        secret = _decode64(fields.secret)
        if fields.v != SESSION_STRING_VERSION:
            raise SessionStringInvalid(reason="its version is unknown")
        if not is_signaling_url(fields.url):
            raise SessionStringInvalid(reason="its server address is not a web address")
        if not is_id(fields.room_id) or not is_id(fields.peer_id):
            raise SessionStringInvalid(reason="its room or worker is not a proper name")
        if not 0 < len(fields.token) <= MAX_TOKEN_CHARS:
            raise SessionStringInvalid(reason="its token is missing")
        if len(secret) != SECRET_BYTES:
            raise SessionStringInvalid(reason="its secret has the wrong length")
        return cls(
            url=fields.url.rstrip("/"),
            room_id=fields.room_id,
            token=fields.token,
            peer_id=fields.peer_id,
            secret=secret,
        )


def is_signaling_url(url: str) -> bool:
    """Tell whether `url` is `http(s)://host[:port]` without user, query or fragment."""
    if len(url) > MAX_URL_CHARS:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return (
        url.startswith(("http://", "https://"))
        and bool(parts.hostname)
        and port != 0
        and parts.username is None
        and not parts.query
        and not parts.fragment
        and url.isprintable()
        and " " not in url
    )


def _checksum(body: bytes) -> bytes:
    """Return four bytes that catch a slip in copying; they protect from nobody."""
    return binascii.crc32(body).to_bytes(_CHECK_BYTES, "big")


def _encode64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode64(text: str) -> bytes:
    if not _BASE64URL.match(text):
        raise SessionStringInvalid(reason="it holds characters that do not belong")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise SessionStringInvalid(reason="part of it is missing") from None
    if _encode64(data) != text:
        # Bits of the last character that decoding passes over.
        raise SessionStringInvalid(reason="its last character is changed")
    return data

"""The invitation code: one line that makes a person a member of a room, once.

`sleap-invite:` and base64url of JSON. It names its server, so that nothing else has to
be typed, and holds no end-to-end secret. Called by the server that makes it and by
every client that is given one.
"""

import base64
import binascii
import re
from typing import Final

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import InvitationCodeInvalid
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import (
    INVITATION_CODE_VERSION,
    MAX_INVITATION_CHARS,
)
from sleap_rtc_plugin.protocol.session_string import is_signaling_url

__all__ = ["INVITATION_SCHEME", "InvitationCode"]

INVITATION_SCHEME: Final = "sleap-invite:"
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_CHECK_BYTES: Final = 4


class _Fields(Struct, frozen=True):
    v: int
    url: str
    id: str
    secret: str


class InvitationCode(Struct, frozen=True, kw_only=True):
    """A parsed invitation code.

    Attributes:
        url: the signaling server, `http://host:port` or `https://…`.
        invitation_id: which invitation it is.
        secret: text that only the invited one has; the server keeps a hash.
    """

    url: str
    invitation_id: str
    secret: str

    def __repr__(self) -> str:
        """Show where the invitation leads and nothing that uses it."""
        return f"InvitationCode(url={self.url!r})"

    def encode(self) -> str:
        """Return the line to hand to a person."""
        body = msgspec.json.encode(
            _Fields(
                v=INVITATION_CODE_VERSION,
                url=self.url,
                id=self.invitation_id,
                secret=self.secret,
            )
        )
        check = binascii.crc32(body).to_bytes(_CHECK_BYTES, "big")
        text = base64.urlsafe_b64encode(body + check).rstrip(b"=").decode()
        return INVITATION_SCHEME + text

    @classmethod
    def parse(cls, text: str) -> "InvitationCode":
        """Read a code, tolerating white space that a paste brings along.

        Raises:
            InvitationCodeInvalid: truncated, altered, or not an invitation code.
        """
        text = "".join(text.split())
        if not text.startswith(INVITATION_SCHEME):
            raise InvitationCodeInvalid(
                reason=f"it does not begin with {INVITATION_SCHEME}"
            )
        if len(text) > MAX_INVITATION_CHARS:
            raise InvitationCodeInvalid(reason="it is too long")
        fields = _read(text.removeprefix(INVITATION_SCHEME))
        if fields.v != INVITATION_CODE_VERSION:
            raise InvitationCodeInvalid(reason="its version is unknown")
        if not is_signaling_url(fields.url) or not is_id(fields.id):
            raise InvitationCodeInvalid(reason="it names no server")
        if not _BASE64URL.match(fields.secret):
            raise InvitationCodeInvalid(reason="its secret is missing")
        return cls(
            url=fields.url.rstrip("/"), invitation_id=fields.id, secret=fields.secret
        )


def _read(text: str) -> _Fields:
    if not _BASE64URL.match(text):
        raise InvitationCodeInvalid(reason="it holds characters that do not belong")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise InvitationCodeInvalid(reason="part of it is missing") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise InvitationCodeInvalid(reason="its last character is changed")
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if not body or check != binascii.crc32(body).to_bytes(_CHECK_BYTES, "big"):
        raise InvitationCodeInvalid(reason="part of it is missing or changed")
    try:
        return msgspec.json.decode(body, type=_Fields)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvitationCodeInvalid(reason="a field is missing or wrong") from None

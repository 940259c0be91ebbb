"""The sessions of browsers: a cookie, and a record that only the cookie opens.

A record's name is a digest of the cookie's first part and its content is encrypted
under the second, so that whoever reads the store can act as nobody. Several servers on
one store share the sessions. Called by the site.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from sleap_rtc_plugin.protocol.account_messages import DeviceFlow
from sleap_rtc_signaling.stores.records import Record, RecordKey, Records

__all__ = ["Content", "Login", "Session", "Sessions"]

_KIND: Final = "dashboard"
_ID_BYTES: Final = 16
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORM_TOKEN: Final = b"form token"


class Login(Struct, frozen=True, kw_only=True):
    """Who has signed in; the tokens never leave the server."""

    account_id: str
    name: str
    method: str
    token: str
    refresh_token: str
    expires_at: float

    def __repr__(self) -> str:
        """Show the account without its tokens."""
        return f"Login({self.account_id!r})"


class Content(Struct, frozen=True, kw_only=True):
    """What a session holds.

    Attributes:
        login: who has signed in, or None.
        flow: how far signing in at a provider is, or None.
        method: the way of that.
        renewing_at: when a server began to renew the login, as Unix time; 0 if none.
    """

    login: Login | None = None
    flow: DeviceFlow | None = None
    method: str = ""
    renewing_at: float = 0.0


@dataclass(frozen=True, repr=False)
class Session:
    """A session as it was read; `cookie` is a secret of the browser's."""

    cookie: str
    content: Content
    version: int
    expires_at: float

    @property
    def form_token(self) -> str:
        """What every form of this session carries; of no use in another."""
        _, key = _parts(self.cookie) or (b"", b"")
        return hmac.new(key, _FORM_TOKEN, hashlib.sha256).hexdigest()

    def allows(self, form_token: str) -> bool:
        """Tell whether a form is one of this session's own."""
        return hmac.compare_digest(self.form_token.encode(), form_token.encode())


class Sessions:
    """All sessions of one store.

    Args:
        records: where they are kept.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def open(self, content: Content, expires_at: float, now: float) -> Session:
        """Begin a session with a new cookie."""
        cookie = _encode(secrets.token_bytes(_ID_BYTES + _KEY_BYTES))
        session = Session(cookie, content, 0, expires_at)
        await self._records.create(_record(session, content), now)
        return session

    async def find(self, cookie: str, now: float) -> Session | None:
        """Return the session of a cookie, or None where there is none any more."""
        parts = _parts(cookie)
        if parts is None:
            return None
        name = _name(parts[0])
        record = await self._records.get(name, now)
        if record is None or record.expires_at is None:
            return None
        content = _open(parts[1], name, record.value)
        if content is None:
            return None
        return Session(cookie, content, record.version, record.expires_at)

    async def replace(self, session: Session, content: Content, now: float) -> bool:
        """Change what a session holds; False if it has changed since it was read."""
        return await self._records.replace(_record(session, content), now)

    async def close(self, session: Session) -> None:
        """End a session."""
        parts = _parts(session.cookie)
        if parts is not None:
            await self._records.delete(_name(parts[0]))


def _record(session: Session, content: Content) -> Record:
    parts = _parts(session.cookie)
    assert parts is not None  # noqa: S101 -- every session was made from one
    name = _name(parts[0])
    nonce = os.urandom(_NONCE_BYTES)
    plain = msgspec.json.encode(content)
    sealed = nonce + AESGCM(parts[1]).encrypt(nonce, plain, name.partition.encode())
    return Record(
        key=name,
        # The back ends keep JSON.
        value=msgspec.json.encode(_encode(sealed)),
        expires_at=session.expires_at,
        version=session.version,
    )


def _open(key: bytes, name: RecordKey, value: bytes) -> Content | None:
    try:
        sealed = _decode(msgspec.json.decode(value, type=str))
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        plain = AESGCM(key).decrypt(nonce, text, name.partition.encode())
        return msgspec.json.decode(plain, type=Content)
    except (InvalidTag, ValueError, msgspec.MsgspecError):
        return None


def _name(session_id: bytes) -> RecordKey:
    return RecordKey(_KIND, hashlib.sha256(session_id).hexdigest())


def _parts(cookie: str) -> tuple[bytes, bytes] | None:
    try:
        raw = _decode(cookie)
    except ValueError:
        return None
    if len(raw) != _ID_BYTES + _KEY_BYTES:
        return None
    return raw[:_ID_BYTES], raw[_ID_BYTES:]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError from None

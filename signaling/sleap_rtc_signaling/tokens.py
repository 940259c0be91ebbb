"""The tokens of accounts and rooms: Ed25519-signed JWTs (RFC 7519, RFC 8037).

The key is made on the first start and kept in the data directory, readable by its
owner only. A token says to whom it belongs and for what it is; whether the account
or the room still exists is for the store to say.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sleap_rtc_plugin.protocol.errors import StorageFailed, TokenRefused
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import MAX_TOKEN_CHARS

__all__ = ["KEY_FILE", "RoomToken", "TokenKind", "Tokens", "load_or_make_key"]

_log = logging.getLogger(__name__)

TokenKind = Literal["account", "room"]

KEY_FILE: Final = "signing-key.pem"
_ALGORITHM: Final = "EdDSA"
_ISSUER: Final = "sleap-rtc-signaling"
_AUDIENCE: Final[dict[TokenKind, str]] = {
    "account": "sleap-rtc-account",
    "room": "sleap-rtc-room",
}
_TYPE: Final[dict[TokenKind, str]] = {
    "account": "sleap-rtc-account+jwt",
    "room": "sleap-rtc-room+jwt",
}
_CREDENTIAL: Final = "cid"
_REQUIRED: Final = ["iss", "aud", "sub", "exp", "iat"]
_PRIVATE_MODE: Final = stat.S_IRUSR | stat.S_IWUSR


class RoomToken(NamedTuple):
    """What a room token says; one of an older version has no credential's id."""

    room_id: str
    credential_id: str
    expires_at: float


class Tokens:
    """Signs and verifies tokens with one key.

    Args:
        key: the server's private key.
        server: how the server is named in errors.
    """

    def __init__(self, key: Ed25519PrivateKey, server: str) -> None:
        self._key = key
        self._public_key = key.public_key()
        self._server = server
        public = self._public_key.public_bytes_raw()
        self.key_id: Final = hashlib.sha256(public).hexdigest()[:16]

    def __repr__(self) -> str:
        """Name the key, not what it is."""
        return f"Tokens(key_id={self.key_id!r})"

    def issue(
        self,
        kind: TokenKind,
        subject: str,
        now: float,
        expires_at: float,
        *,
        credential_id: str = "",
    ) -> str:
        """Sign a token.

        Args:
            kind: what it is for.
            subject: the account or the room.
            now: Unix time in seconds.
            expires_at: until when it is good, as Unix time.
            credential_id: by which it can be taken back; a room's tokens have one.
        """
        claims: dict[str, str | float] = {
            "iss": _ISSUER,
            "aud": _AUDIENCE[kind],
            "sub": subject,
            "iat": int(now),
            "exp": expires_at,
            "jti": secrets.token_hex(8),
        }
        if credential_id:
            claims[_CREDENTIAL] = credential_id
        headers = {"kid": self.key_id, "typ": _TYPE[kind]}
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers=headers)

    def verify(self, kind: TokenKind, token: str, now: float) -> str:
        """Check a token and return its subject.

        Raises:
            TokenRefused: it is not ours, not of this kind, or has expired.
        """
        subject, _ = self.verify_until(kind, token, now)
        return subject

    def verify_until(
        self, kind: TokenKind, token: str, now: float
    ) -> tuple[str, float]:
        """Check a token, and return its subject and until when it is good.

        Raises:
            TokenRefused: as `verify`.
        """
        subject, expires_at, _ = self._verified(kind, token, now)
        return subject, expires_at

    def verify_room(self, token: str, now: float) -> RoomToken:
        """Check a room token; whether it was taken back is for the store to say.

        Raises:
            TokenRefused: as `verify`.
        """
        room_id, expires_at, claims = self._verified("room", token, now)
        credential_id = claims.get(_CREDENTIAL, "")
        if not isinstance(credential_id, str) or (
            credential_id and not is_id(credential_id)
        ):
            raise self._refused("the token is not valid")
        return RoomToken(room_id, credential_id, expires_at)

    def _verified(
        self, kind: TokenKind, token: str, now: float
    ) -> tuple[str, float, dict[str, Any]]:
        try:
            claims = self._claims(kind, token)
        # Whatever a hostile token makes the library raise, the answer is no; and
        # the library's words might repeat parts of the token.
        except Exception:
            raise self._refused("the token is not valid") from None
        expires_at, subject = claims["exp"], claims["sub"]
        if not isinstance(expires_at, int | float) or not isinstance(subject, str):
            raise self._refused("the token is not valid")
        if expires_at <= now:
            raise self._refused("the token has expired")
        if not is_id(subject):
            raise self._refused("the token is not valid")
        return subject, float(expires_at), claims

    def _claims(self, kind: TokenKind, token: str) -> dict[str, Any]:
        if not 0 < len(token) <= MAX_TOKEN_CHARS:
            raise ValueError
        header = jwt.get_unverified_header(token)
        expected = {"alg": _ALGORITHM, "kid": self.key_id, "typ": _TYPE[kind]}
        if any(header.get(name) != value for name, value in expected.items()):
            raise ValueError
        return jwt.decode(
            token,
            self._public_key,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE[kind],
            issuer=_ISSUER,
            # Time is an argument here, so the library's own clock stays out of it.
            options={
                "require": _REQUIRED,
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )

    def _refused(self, reason: str) -> TokenRefused:
        return TokenRefused(server=self._server, reason=reason)


def load_or_make_key(directory: Path) -> Ed25519PrivateKey:
    """Read the signing key, and make it on the first start.

    Two servers that start at the same moment get the same key.

    Raises:
        StorageFailed: it cannot be read or written, or is not such a key.
    """
    path = directory / KEY_FILE
    try:
        if not path.exists():
            _make_key(path)
        _keep_private(path)
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageFailed(place=str(path), reason=reason) from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StorageFailed(place=str(path), reason="it is not a key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StorageFailed(place=str(path), reason="it is not an Ed25519 key")
    return key


def _make_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where the name exists, so the first of two servers wins.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _keep_private(path: Path) -> None:
    if os.name != "posix":  # the mode bits mean nothing there
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~_PRIVATE_MODE:
        _log.warning("%s was open to other users; it is private now", path)
        path.chmod(_PRIVATE_MODE)

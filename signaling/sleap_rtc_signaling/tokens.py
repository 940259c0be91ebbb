"""The tokens of accounts and rooms: Ed25519-signed JWTs (RFC 7519, RFC 8037).

A token says to whom it belongs and for what it is; whether the account or the room
still exists is for the store to say. Of several keys the newest signs and all verify;
where they come from is said in `signing_keys`.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import TokenRefused
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import MAX_TOKEN_CHARS
from sleap_rtc_signaling.signing_keys import (
    KEY_FILE,
    SigningKey,
    load_or_make_key,
    load_or_make_keys,
    rotate,
)

__all__ = [
    "KEY_FILE",
    "Claims",
    "TokenKind",
    "Tokens",
    "load_or_make_key",
    "load_or_make_keys",
    "rotate",
]

TokenKind = Literal["account", "room", "worker"]
"""What a token is for: `room` admits anybody to a room, `worker` a worker alone."""

_ALGORITHM: Final = "EdDSA"
_ISSUER: Final = "sleap-rtc-signaling"
_AUDIENCE: Final[dict[TokenKind, str]] = {
    "account": "sleap-rtc-account",
    "room": "sleap-rtc-room",
    "worker": "sleap-rtc-worker",
}
_TYPE: Final[dict[TokenKind, str]] = {
    "account": "sleap-rtc-account+jwt",
    "room": "sleap-rtc-room+jwt",
    "worker": "sleap-rtc-worker+jwt",
}
_REQUIRED: Final = ["iss", "aud", "sub", "exp", "iat"]


class Claims(Struct, frozen=True, kw_only=True):
    """What a token says, once it is verified.

    Attributes:
        subject: the account or the room.
        expires_at: until when the token is good, as Unix time.
        credential_id: by which it is known where it is taken back: of a room, the
            credential; of an account, the sign-in. Empty where it cannot be.
    """

    subject: str
    expires_at: float
    credential_id: str = ""


class Tokens:
    """Signs with the newest of the server's keys, and verifies with all of them.

    Args:
        keys: the server's private keys, or its only one.
        server: how the server is named in errors.
    """

    def __init__(
        self, keys: Ed25519PrivateKey | Sequence[SigningKey], server: str
    ) -> None:
        if isinstance(keys, Ed25519PrivateKey):
            keys = [SigningKey(keys)]
        self._server = server
        self._keys: list[SigningKey] = []
        self.reload(keys)

    def __repr__(self) -> str:
        """Name the newest key, not what it is."""
        return f"Tokens(key_id={self.key_id!r})"

    @property
    def key_id(self) -> str:
        """How tokens name the newest key."""
        return self._keys[-1].key_id

    def reload(self, keys: Sequence[SigningKey]) -> None:
        """Sign and verify with these keys from now on.

        A token of a key that is gone is refused when it is shown again; who was
        admitted with one before stays.
        """
        if not keys:
            raise ValueError("a server without a key cannot sign")
        self._keys = sorted(keys, key=lambda key: key.signs_from)

    def issue(
        self,
        kind: TokenKind,
        subject: str,
        now: float,
        expires_at: float,
        credential_id: str = "",
    ) -> str:
        """Sign a token.

        Args:
            kind: what it is for.
            subject: the account or the room.
            now: Unix time in seconds.
            expires_at: until when it is good, as Unix time.
            credential_id: by which it can be taken back.
        """
        # The oldest signs where a clock stands before all of them.
        ready = [key for key in self._keys if key.signs_from <= now]
        key = ready[-1] if ready else self._keys[0]
        claims: dict[str, Any] = {
            "iss": _ISSUER,
            "aud": _AUDIENCE[kind],
            "sub": subject,
            "iat": int(now),
            "exp": expires_at,
            "jti": secrets.token_hex(8),
        }
        if credential_id:
            claims["cid"] = credential_id
        headers = {"kid": key.key_id, "typ": _TYPE[kind]}
        return jwt.encode(claims, key.private, algorithm=_ALGORITHM, headers=headers)

    def verify(self, kind: TokenKind, token: str, now: float) -> str:
        """Check a token and return its subject.

        Raises:
            TokenRefused: it is not ours, not of this kind, or has expired.
        """
        return self.verify_claims(kind, token, now).subject

    def verify_until(
        self, kind: TokenKind, token: str, now: float
    ) -> tuple[str, float]:
        """Check a token, and return its subject and until when it is good.

        Raises:
            TokenRefused: as `verify`.
        """
        claims = self.verify_claims(kind, token, now)
        return claims.subject, claims.expires_at

    def verify_claims(self, kind: TokenKind, token: str, now: float) -> Claims:
        """Check a token, and return what it says.

        Raises:
            TokenRefused: as `verify`.
        """
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
        credential_id = claims.get("cid", "")
        if not is_id(subject) or not _is_credential(credential_id):
            raise self._refused("the token is not valid")
        return Claims(
            subject=subject, expires_at=float(expires_at), credential_id=credential_id
        )

    def _claims(self, kind: TokenKind, token: str) -> dict[str, Any]:
        if not 0 < len(token) <= MAX_TOKEN_CHARS:
            raise ValueError
        header = jwt.get_unverified_header(token)
        if (header.get("alg"), header.get("typ")) != (_ALGORITHM, _TYPE[kind]):
            raise ValueError
        key = next(key for key in self._keys if key.key_id == header.get("kid"))
        return jwt.decode(
            token,
            key.public,
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


def _is_credential(value: object) -> bool:
    return isinstance(value, str) and (not value or is_id(value))

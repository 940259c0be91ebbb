"""Sign-ins of this server's own: a token of an hour, and one that refreshes it.

Whoever proved elsewhere who they are gets these, and nothing of the provider's leaves
the server. A refresh token is good once, and only its digest is kept; who shows a
spent one ends the sign-in, since one of two holders has stolen it. Called by the ways
to sign in that have persons.
"""

import hashlib
import hmac
import secrets
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sleap_rtc_plugin.protocol.account_messages import Account
from sleap_rtc_plugin.protocol.errors import TokenRefused
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_signaling.accounts import Identity
from sleap_rtc_signaling.limits import (
    REFRESH_LIFETIME_S,
    SIGN_IN_LIFETIME_S,
    SIGN_IN_TOKEN_S,
)
from sleap_rtc_signaling.stores.records import Record, RecordKey, Records
from sleap_rtc_signaling.tokens import Tokens

__all__ = ["SignIns", "is_ours"]

_KIND: Final = "sign-in"
_PREFIX: Final = "signin-"
_SECRET_BYTES: Final = 32
_MAX_ENDED_AT_ONCE: Final = 1_000


class _SignIn(Struct, frozen=True, kw_only=True):
    """What is kept of a sign-in; of its refresh token only a digest."""

    account_id: str
    name: str
    method: str
    refresh_digest: str
    ends_at: float


class SignIns:
    """All sign-ins of the servers on one store.

    Args:
        records: where they are.
        tokens: signs and verifies.
        server: how the server is named in errors.
    """

    def __init__(self, records: Records, tokens: Tokens, server: str) -> None:
        self._records = records
        self._tokens = tokens
        self._server = server

    async def begin(
        self, account_id: str, name: str, method: str, now: float
    ) -> Account:
        """Sign a person in.

        Args:
            account_id: whose account; the same for the same person always.
            name: what the person is called, cleaned.
            method: the way by which they proved who they are.
            now: Unix time in seconds.
        """
        sign_in_id = f"{_PREFIX}{secrets.token_hex(16)}"
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        entry = _SignIn(
            account_id=account_id,
            name=name,
            method=method,
            refresh_digest=_digest(secret),
            ends_at=now + SIGN_IN_LIFETIME_S,
        )
        record = Record(
            _key(sign_in_id),
            msgspec.json.encode(entry),
            now + REFRESH_LIFETIME_S,
            account_id,
        )
        if not await self._records.create(record, now):
            raise self._refused("it was made twice")
        return self._account(sign_in_id, entry, secret, now)

    async def refresh(self, refresh_token: str, now: float) -> Account:
        """Give the next two tokens for a refresh token.

        Raises:
            TokenRefused: it is spent, taken back, or has ended.
        """
        sign_in_id, record, entry, fits = await self._shown(refresh_token, now)
        if not fits:
            await self._records.delete(record.key)
            raise self._refused("it was used before, so the sign-in has ended")
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        entry = replace(entry, refresh_digest=_digest(secret))
        ends_at = min(now + REFRESH_LIFETIME_S, entry.ends_at)
        changed = Record(
            record.key,
            msgspec.json.encode(entry),
            ends_at,
            record.index,
            record.version,
        )
        if not await self._records.replace(changed, now):
            # Another was a moment faster; whoever shows it again ends the sign-in.
            raise self._refused("it was used before")
        return self._account(sign_in_id, entry, secret, now)

    async def identify(self, token: str, now: float) -> Identity:
        """Verify a token.

        Raises:
            TokenRefused: it is not good, or its sign-in has ended.
        """
        _, identity = await self._identified(token, now)
        return identity

    async def end(self, token: str, refresh_token: str, now: float) -> Identity:
        """End a sign-in, by either of its tokens; the first that is good counts.

        Raises:
            TokenRefused: neither is good.
        """
        try:
            key, identity = await self._identified(token, now)
        except TokenRefused:
            _, record, entry, fits = await self._shown(refresh_token, now)
            # A spent one ends the sign-in too, here as in `refresh`.
            await self._records.delete(record.key)
            if not fits:
                raise self._refused("it was used before") from None
            return _identity(entry, now)
        await self._records.delete(key)
        return identity

    async def end_all(self, account_id: str, now: float) -> int:
        """End every sign-in of an account, and return how many there were."""
        found = await self._records.indexed(_KIND, account_id, now, _MAX_ENDED_AT_ONCE)
        for record in found:
            await self._records.delete(record.key)
        return len(found)

    async def _identified(self, token: str, now: float) -> tuple[RecordKey, Identity]:
        claims = self._tokens.verify_claims("account", token, now)
        if not is_ours(claims.credential_id):
            raise self._refused("the token is not valid")
        key = _key(claims.credential_id)
        record = await self._records.get(key, now)
        if record is None:
            raise self._refused("the sign-in has ended")
        entry = msgspec.json.decode(record.value, type=_SignIn)
        if entry.account_id != claims.subject:
            raise self._refused("the token is not valid")
        return key, _identity(entry, claims.expires_at)

    async def _shown(
        self, refresh_token: str, now: float
    ) -> tuple[str, Record, _SignIn, bool]:
        """Find the sign-in of a refresh token, and whether the token is the last."""
        sign_in_id, _, secret = refresh_token.partition(".")
        if not is_ours(sign_in_id) or not secret:
            raise self._refused("it is not valid")
        record = await self._records.get(_key(sign_in_id), now)
        if record is None:
            raise self._refused("the sign-in has ended")
        entry = msgspec.json.decode(record.value, type=_SignIn)
        fits = hmac.compare_digest(_digest(secret), entry.refresh_digest)
        return sign_in_id, record, entry, fits

    def _account(
        self, sign_in_id: str, entry: _SignIn, secret: str, now: float
    ) -> Account:
        expires_at = min(now + SIGN_IN_TOKEN_S, entry.ends_at)
        return Account(
            account_id=entry.account_id,
            token=self._tokens.issue(
                "account", entry.account_id, now, expires_at, sign_in_id
            ),
            expires_at=expires_at,
            refresh_token=f"{sign_in_id}.{secret}",
            name=entry.name,
            method=entry.method,
        )

    def _refused(self, reason: str) -> TokenRefused:
        return TokenRefused(server=self._server, reason=reason)


def is_ours(text: str) -> bool:
    """Tell whether `text` is, or a refresh token begins with, the id of a sign-in."""
    sign_in_id = text.partition(".")[0]
    return sign_in_id.startswith(_PREFIX) and is_id(sign_in_id)


def _identity(entry: _SignIn, expires_at: float) -> Identity:
    return Identity(
        account_id=entry.account_id,
        name=entry.name,
        method=entry.method,
        is_named=True,
        expires_at=expires_at,
    )


def _key(sign_in_id: str) -> RecordKey:
    return RecordKey(_KIND, sign_in_id)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()

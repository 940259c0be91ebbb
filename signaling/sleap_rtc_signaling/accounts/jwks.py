"""A provider's public keys (RFC 7517), and the tokens that they verify.

The keys are fetched when they are needed, kept for a while, and fetched again for a
key id that is not known, but seldom: a flood of bad tokens is no flood of fetches.
Called by the ways to sign in whose tokens another signs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sleap_rtc_plugin.protocol.errors import AccountsUnavailable
from sleap_rtc_signaling.accounts.provider_http import ProviderHttp
from sleap_rtc_signaling.limits import (
    CLOCK_SKEW_S,
    JWKS_FRESH_S,
    JWKS_REFETCH_S,
    JWKS_RETRY_S,
    JWKS_STALE_S,
    MAX_JWKS_KEYS,
    MAX_KEY_ID_CHARS,
    MAX_PROVIDER_TOKEN_CHARS,
    MAX_RSA_BITS,
    MIN_RSA_BITS,
)

__all__ = ["Algorithm", "BadToken", "ProviderKeys", "unverified_issuer"]

Algorithm = Literal["RS256", "ES256"]
PublicKey = RSAPublicKey | EllipticCurvePublicKey

_OK: Final = 200
_NEVER: Final = float("-inf")


class BadToken(Exception):
    """A token that is not good; the text is a reason without anything of the token."""


class ProviderKeys:
    """The keys of one provider.

    Args:
        http: asks the provider.
        find_url: returns where the keys are, given the Unix time.
        algorithms: which signatures are accepted; never one with a shared secret.
    """

    def __init__(
        self,
        http: ProviderHttp,
        find_url: Callable[[float], Awaitable[str]],
        algorithms: Sequence[Algorithm],
    ) -> None:
        self._http = http
        self._find_url = find_url
        self._algorithms = tuple(algorithms)
        self._keys: dict[str, PublicKey] = {}
        self._fetched_at = self._tried_at = _NEVER
        self._fetch: asyncio.Task[None] | None = None

    async def verify(
        self, token: str, now: float, *, issuer: str, audience: str = ""
    ) -> dict[str, Any]:
        """Verify a token of the provider's, and return its claims.

        Args:
            token: the token.
            now: Unix time in seconds.
            issuer: what `iss` must be.
            audience: what `aud` must have; empty where the caller checks another claim.

        Raises:
            BadToken: it is not good, or not any more.
            AccountsUnavailable: the key that it needs cannot be had.
        """
        algorithm, key_id = self._header(token)
        key = await self._key(key_id, now)
        wanted = RSAPublicKey if algorithm == "RS256" else EllipticCurvePublicKey
        if key is None or not isinstance(key, wanted):
            raise BadToken("the token is not valid")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=issuer,
                audience=audience or None,
                options={
                    "require": ["iss", "sub", "exp", *(["aud"] if audience else [])],
                    "verify_aud": bool(audience),
                    # Time is an argument here.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        # Whatever a hostile token makes the library raise, the answer is no.
        except Exception:
            raise BadToken("the token is not valid") from None
        _check_times(claims, now)
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise BadToken("the token is not valid")
        return claims

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.gather(self._fetch, return_exceptions=True)

    def _header(self, token: str) -> tuple[Algorithm, str]:
        try:
            if not 0 < len(token) <= MAX_PROVIDER_TOKEN_CHARS:
                raise ValueError
            header = jwt.get_unverified_header(token)
        except Exception:
            raise BadToken("the token is not valid") from None
        key_id = header.get("kid")
        for algorithm in self._algorithms:
            if header.get("alg") == algorithm and "crit" not in header:
                break
        else:
            raise BadToken("the token is not valid")
        if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_CHARS:
            raise BadToken("the token is not valid")
        return algorithm, key_id

    async def _key(self, key_id: str, now: float) -> PublicKey | None:
        """Return a key; None where the provider has no such key."""
        known = key_id in self._keys
        fresh_s = JWKS_FRESH_S if known else JWKS_REFETCH_S
        failure: AccountsUnavailable | None = None
        if now - self._fetched_at >= fresh_s:
            if now - self._tried_at >= JWKS_RETRY_S or self._fetch is not None:
                try:
                    await self._fetch_once(now)
                except AccountsUnavailable as error:
                    failure = error
            else:
                failure = self._http.unavailable("its keys cannot be had")
        if failure is None:
            return self._keys.get(key_id)
        if key_id in self._keys and now - self._fetched_at < JWKS_STALE_S:
            return self._keys[key_id]
        raise failure

    async def _fetch_once(self, now: float) -> None:
        """Fetch the keys; whoever asks meanwhile waits for the same answer."""
        if self._fetch is None:
            self._tried_at = now
            self._fetch = asyncio.create_task(self._fetch_keys(now))
            self._fetch.add_done_callback(self._fetched)
        # One who stops waiting does not stop the others.
        await asyncio.shield(self._fetch)

    def _fetched(self, fetch: asyncio.Task[None]) -> None:
        self._fetch = None
        if not fetch.cancelled():
            fetch.exception()  # where nobody waits any more, nobody minds

    async def _fetch_keys(self, now: float) -> None:
        status, answer = await self._http.get(await self._find_url(now))
        listed = answer.get("keys") if isinstance(answer, dict) else None
        if status != _OK or not isinstance(listed, list):
            raise self._http.unavailable("its keys cannot be had")
        keys: dict[str, PublicKey] = {}
        for entry in listed[:MAX_JWKS_KEYS]:
            key_id, key = _read_key(entry, self._algorithms)
            if key is not None:
                keys.setdefault(key_id, key)
        # Nothing that we can use is no reason to forget what is known.
        if not keys:
            raise self._http.unavailable("its keys cannot be had")
        self._keys, self._fetched_at = keys, now


def unverified_issuer(token: str) -> str:
    """Return who a token says has signed it, to know whose keys it needs.

    It is believed by nobody: whoever is named verifies the token.
    """
    if not 0 < len(token) <= MAX_PROVIDER_TOKEN_CHARS:
        return ""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except Exception:  # a hostile token has no issuer, whatever it makes raise
        return ""
    issuer = claims.get("iss", "")
    return issuer if isinstance(issuer, str) else ""


def _check_times(claims: dict[str, Any], now: float) -> None:
    latest = now + CLOCK_SKEW_S
    for name in ("exp", "nbf", "iat"):
        at = claims.get(name)
        if at is None and name != "exp":
            continue
        if not isinstance(at, int | float) or isinstance(at, bool):
            raise BadToken("the token is not valid")
        if name == "exp" and not at > now:
            raise BadToken("the token has expired")
        if name != "exp" and not at <= latest:
            raise BadToken("the token is not valid")


def _read_key(
    entry: object, algorithms: Sequence[Algorithm]
) -> tuple[str, PublicKey | None]:
    """Read one key; None for one that is not for these signatures."""
    if not isinstance(entry, dict):
        return "", None
    key_id = entry.get("kid")
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(entry.get("kty")))
    if (
        not isinstance(key_id, str)
        or not 0 < len(key_id) <= MAX_KEY_ID_CHARS
        or algorithm not in algorithms
        or entry.get("use", "sig") != "sig"
        or entry.get("alg", algorithm) != algorithm
    ):
        return "", None
    try:
        key = jwt.PyJWK(entry, algorithm).key
    except Exception:  # a provider's broken key is none
        return "", None
    if isinstance(key, RSAPublicKey):
        good = MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    else:
        good = isinstance(key, EllipticCurvePublicKey) and isinstance(
            key.curve, SECP256R1
        )
    return (key_id, key) if good else ("", None)

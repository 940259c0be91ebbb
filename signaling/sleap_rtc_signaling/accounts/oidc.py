"""A provider of OpenID Connect: found by its issuer, believed by its signature.

Discovery (OpenID Connect Discovery 1.0), the device flow's two questions, and the ID
token that comes of them. Called by the device flows.
"""

import asyncio
import hmac
import secrets
from typing import Any, Final

from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import AccountsUnavailable
from sleap_rtc_signaling.accounts.device_answers import (
    GRANT_TYPE,
    read_device_code,
    read_refusal,
)
from sleap_rtc_signaling.accounts.device_flow import (
    DeviceCode,
    Person,
    Refused,
    Waiting,
)
from sleap_rtc_signaling.accounts.jwks import BadToken, ProviderKeys
from sleap_rtc_signaling.accounts.provider_http import ProviderHttp, is_secure_url
from sleap_rtc_signaling.accounts_config import OidcConfig
from sleap_rtc_signaling.limits import JWKS_FRESH_S, JWKS_RETRY_S, JWKS_STALE_S
from sleap_rtc_signaling.sections import ConfigError

__all__ = ["OidcProvider"]

_OK: Final = 200
_SCOPE: Final = "openid profile email"
_NONCE_BYTES: Final = 16
_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_MAX_SUBJECT_CHARS: Final = 255
_NAMES: Final = ("name", "preferred_username", "email")


class _Endpoints(Struct, frozen=True):
    device: str
    token: str
    keys: str


class OidcProvider:
    """`Provider` for anything that speaks OpenID Connect, such as Keycloak.

    Args:
        config: the administrator's settings.
        server: how the server is named in errors.

    Raises:
        ConfigError: the settings make no sense.
    """

    def __init__(self, config: OidcConfig, server: str) -> None:
        if not is_secure_url(config.issuer):
            raise ConfigError(
                f"The provider {config.name} needs an issuer that begins with https."
            )
        if config.allowed_organisations:
            raise ConfigError(
                f"The provider {config.name} is not GitHub, so it has no "
                "allowed_organisations; use allowed_domains or allowed_subjects."
            )
        self.label = config.label or config.name
        self._config = config
        self._http = ProviderHttp(self.label, server)
        self._keys = ProviderKeys(self._http, self._keys_url, config.algorithms)
        self._endpoints: _Endpoints | None = None
        self._found_at = self._tried_at = float("-inf")
        self._finding = asyncio.Lock()

    async def begin(self, now: float) -> DeviceCode:
        """Begin a flow."""
        endpoints = await self._find(now)
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        form = {"scope": self._config.scope or _SCOPE, "nonce": nonce}
        status, answer = await self._http.post(endpoints.device, self._client() | form)
        code = read_device_code(answer, nonce) if status == _OK else None
        if code is None:
            raise self._http.unavailable("it begins no sign-in for this server")
        return code

    async def ask(
        self, device_code: str, nonce: str, now: float
    ) -> Person | Waiting | Refused:
        """Ask whether the user has finished."""
        endpoints = await self._find(now)
        form = {"grant_type": GRANT_TYPE, "device_code": device_code}
        status, answer = await self._http.post(endpoints.token, self._client() | form)
        refusal = read_refusal(answer)
        if refusal is not None:
            return refusal
        token = answer.get("id_token")
        if status != _OK or not isinstance(token, str):
            return Refused("the provider did not say who it was")
        try:
            claims = await self._verify(token, nonce, now)
        except BadToken:
            return Refused("what the provider said is not valid")
        if not self._is_allowed(claims):
            return Refused("this account is not on the list of this server")
        return Person(
            issuer=self._config.issuer, subject=claims["sub"], name=_name(claims)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._keys.close()
        await self._http.close()

    def _client(self) -> dict[str, str]:
        client = {"client_id": self._config.client_id}
        if self._config.client_secret:
            client["client_secret"] = self._config.client_secret
        return client

    async def _keys_url(self, now: float) -> str:
        return (await self._find(now)).keys

    async def _find(self, now: float) -> _Endpoints:
        """Read where everything is, now and then anew."""
        async with self._finding:
            age_s = now - self._found_at
            if self._endpoints is not None and age_s < JWKS_FRESH_S:
                return self._endpoints
            usable = self._endpoints is not None and age_s < JWKS_STALE_S
            if now - self._tried_at >= JWKS_RETRY_S:
                self._tried_at = now
                try:
                    self._endpoints = await self._discover()
                except AccountsUnavailable:
                    if not usable:
                        raise
                else:
                    self._found_at = now
                    usable = True
            if self._endpoints is None or not usable:
                raise self._http.unavailable("it does not answer")
            return self._endpoints

    async def _discover(self) -> _Endpoints:
        issuer = self._config.issuer
        status, found = await self._http.get(issuer.rstrip("/") + _WELL_KNOWN)
        # Whoever answers for another issuer would sign for it too (section 4.3).
        if (
            status != _OK
            or not isinstance(found, dict)
            or found.get("issuer") != issuer
        ):
            raise self._http.unavailable("its description makes no sense")
        places = [
            found.get(name)
            for name in ("device_authorization_endpoint", "token_endpoint", "jwks_uri")
        ]
        if not all(is_secure_url(place) for place in places):
            raise self._http.unavailable("it offers no sign-in by a code over https")
        return _Endpoints(*(str(place) for place in places))

    async def _verify(self, token: str, nonce: str, now: float) -> dict[str, Any]:
        """Check an ID token (OpenID Connect Core section 3.1.3.7)."""
        client_id = self._config.client_id
        claims = await self._keys.verify(
            token, now, issuer=self._config.issuer, audience=client_id
        )
        audience, party = claims["aud"], claims.get("azp", client_id)
        if party != client_id or (
            isinstance(audience, list) and len(audience) > 1 and "azp" not in claims
        ):
            raise BadToken("the token is for another")
        # Few providers repeat a nonce in this flow; one that does repeats ours.
        given = claims.get("nonce", nonce)
        if not isinstance(given, str) or not hmac.compare_digest(
            given.encode("utf-8", "replace"), nonce.encode()
        ):
            raise BadToken("the token is of another sign-in")
        if len(claims["sub"]) > _MAX_SUBJECT_CHARS:
            raise BadToken("the token is not valid")
        return claims

    def _is_allowed(self, claims: dict[str, Any]) -> bool:
        config = self._config
        if not config.allowed_subjects and not config.allowed_domains:
            return True
        if claims["sub"] in config.allowed_subjects:
            return True
        address = claims.get("email")
        if not isinstance(address, str) or claims.get("email_verified") is not True:
            return False
        _, at, domain = address.rpartition("@")
        domains = {allowed.lower() for allowed in config.allowed_domains}
        return bool(at) and domain.lower() in domains


def _name(claims: dict[str, Any]) -> str:
    """Return the first name that there is; an address is none, what is before it is."""
    for claim in _NAMES:
        value = claims.get(claim)
        if isinstance(value, str) and value.strip():
            return value.partition("@")[0] if claim == "email" else value
    return ""

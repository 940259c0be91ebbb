"""Accounts that are users of an AWS Cognito user pool, made when somebody signs in.

The tokens are Cognito's own, verified by the pool's public keys and not by a call for
each request. What was signed out is remembered until its tokens end. Called by the
mix of ways to sign in.
"""

import hashlib
import logging
import secrets
from typing import Any, Final

import msgspec

from sleap_rtc_plugin.protocol.account_messages import (
    ANONYMOUS,
    Account,
    DeviceFlow,
    DevicePending,
    SignInMethod,
)
from sleap_rtc_plugin.protocol.errors import (
    AccountsUnavailable,
    BadRequest,
    NotAllowed,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.limits import MAX_TOKEN_CHARS
from sleap_rtc_signaling.accounts import Identity
from sleap_rtc_signaling.accounts.cognito_calls import CognitoCalls, CognitoRefused
from sleap_rtc_signaling.accounts.jwks import BadToken, ProviderKeys
from sleap_rtc_signaling.accounts.provider_http import ProviderHttp, is_secure_url
from sleap_rtc_signaling.accounts_config import CognitoConfig
from sleap_rtc_signaling.limits import COGNITO_DELETED_AT_ONCE, COGNITO_TOKEN_S
from sleap_rtc_signaling.sections import ConfigError
from sleap_rtc_signaling.stores.records import Record, RecordKey, Records

__all__ = ["CognitoAccounts"]

_log = logging.getLogger(__name__)
_DENIED: Final = "cognito-denied"
_USER: Final = "cognito-user"
_USER_PREFIX: Final = "anonymous-"
_PASSWORD_BYTES: Final = 36
# Whatever a pool's rules ask for: a capital, a small letter, a digit, a symbol.
_EVERY_KIND: Final = "Aa1-"


class CognitoAccounts:
    """`Accounts` of one user pool.

    Args:
        config: which pool.
        records: remember what was signed out, and which users were made.
        server: how the server is named in errors.
        makes_users: whether anybody gets an account; else the pool's users are known
            by the tokens that they bring.

    Raises:
        ConfigError: boto3 is not installed, or the endpoint is not an address.
    """

    def __init__(
        self,
        config: CognitoConfig,
        records: Records,
        server: str,
        *,
        makes_users: bool = True,
    ) -> None:
        if config.endpoint_url and not is_secure_url(config.endpoint_url):
            raise ConfigError("The endpoint_url of Cognito must begin with https.")
        self._config = config
        self._records = records
        self._server = server
        self._makes_users = makes_users
        pool = config.user_pool_id
        aws = f"https://cognito-idp.{config.region}.amazonaws.com"
        self.issuer: Final = f"{aws}/{pool}"
        place = (config.endpoint_url or aws).rstrip("/")
        self._keys_at = f"{place}/{pool}/.well-known/jwks.json"
        self._http = ProviderHttp("Cognito", server)
        self._keys = ProviderKeys(self._http, self._find_keys, ["RS256"])
        self._calls = CognitoCalls(config, server)

    def methods(self) -> list[SignInMethod]:
        """Return the one way there is, if there is one."""
        way = SignInMethod(name=ANONYMOUS, kind="direct", label="Without a name")
        return [way] if self._makes_users else []

    async def sign_in(self, method: str, now: float) -> Account:
        """Make a user with a random name and password, which nobody keeps."""
        if not self._makes_users:
            raise NotAllowed(action="sign in without a name")
        name = f"{_USER_PREFIX}{secrets.token_hex(10)}"
        password = secrets.token_urlsafe(_PASSWORD_BYTES) + _EVERY_KIND
        pool = self._config.user_pool_id
        # Written down first, so that no user is forgotten in the pool.
        await self._remember(name, now)
        try:
            await self._calls.call(
                "admin_create_user",
                UserPoolId=pool,
                Username=name,
                MessageAction="SUPPRESS",
            )
            await self._calls.call(
                "admin_set_user_password",
                UserPoolId=pool,
                Username=name,
                Password=password,
                Permanent=True,
            )
            answer = await self._calls.call(
                "admin_initiate_auth",
                UserPoolId=pool,
                ClientId=self._config.client_id,
                AuthFlow="ADMIN_USER_PASSWORD_AUTH",
                AuthParameters={"USERNAME": name, "PASSWORD": password},
            )
        except CognitoRefused:
            _log.warning("the user pool lets no ephemeral user in; see its settings")
            raise self._calls.unavailable("it refuses this server") from None
        return await self._account(answer, "", now)

    async def start(self, method: str, now: float) -> DeviceFlow:
        """Refuse: there is nobody to ask."""
        raise BadRequest(reason="this way to sign in has no code")

    async def poll(
        self, method: str, flow_id: str, now: float
    ) -> Account | DevicePending:
        """Refuse: there is nobody to ask."""
        raise BadRequest(reason="this way to sign in has no code")

    async def refresh(self, refresh_token: str, now: float) -> Account:
        """Give the next token; Cognito's refresh token stays the same."""
        if await self._is_denied(_digest(refresh_token), now):
            raise self._refused("it was signed out")
        try:
            answer = await self._calls.call(
                "initiate_auth",
                ClientId=self._config.client_id,
                AuthFlow="REFRESH_TOKEN_AUTH",
                AuthParameters={"REFRESH_TOKEN": refresh_token},
            )
        except CognitoRefused:
            raise self._refused("it was taken back or has ended") from None
        return await self._account(answer, refresh_token, now)

    async def sign_out(self, token: str, refresh_token: str, now: float) -> Identity:
        """Take both tokens back: here at once, at Cognito if it answers."""
        claims = await self._verify(token, now)
        ends_at = now + COGNITO_TOKEN_S
        await self._deny(_token_digest(token), ends_at, now)
        if origin := _origin(claims):
            # All tokens that came of the same sign-in.
            await self._deny(_digest(origin), ends_at, now)
        if refresh_token:
            forever = now + self._config.user_lifetime_s
            await self._deny(_digest(refresh_token), forever, now)
            try:
                await self._calls.call(
                    "revoke_token",
                    Token=refresh_token,
                    ClientId=self._config.client_id,
                )
            except (CognitoRefused, AccountsUnavailable):
                _log.warning("Cognito did not take a refresh token back; it is denied")
        return self._identity(claims)

    async def identify(self, token: str, now: float) -> Identity:
        """Verify a token."""
        return self._identity(await self._verify(token, now))

    async def delete_old(self, now: float) -> int:
        """Delete some of the users that were made long ago; return how many.

        Raises:
            AccountsUnavailable: AWS does not answer.
        """
        pool = self._config.user_pool_id
        oldest = await self._records.partition(
            _USER, _partition(pool), now, COGNITO_DELETED_AT_ONCE
        )
        count = 0
        for record in oldest:
            made_at = float(record.key.name.partition("-")[0])
            if now - made_at < self._config.user_lifetime_s:
                break
            name = msgspec.json.decode(record.value, type=str)
            try:
                await self._calls.call(
                    "admin_delete_user", UserPoolId=pool, Username=name
                )
            except CognitoRefused:
                _log.info("an ephemeral user was gone before")
            await self._records.delete(record.key)
            count += 1
        return count

    async def close(self) -> None:
        """Let go of the threads and the connections."""
        await self._keys.close()
        await self._http.close()
        await self._calls.close()

    async def _find_keys(self, now: float) -> str:
        return self._keys_at

    async def _account(
        self, answer: dict[str, Any], refresh_token: str, now: float
    ) -> Account:
        result = answer.get("AuthenticationResult", {})
        token = result.get("AccessToken")
        refresh_token = result.get("RefreshToken") or refresh_token
        if not isinstance(token, str) or len(refresh_token) > MAX_TOKEN_CHARS:
            raise self._calls.unavailable("its answer makes no sense")
        # Settings that do not fit together come to light here, not at the next step.
        identity = await self.identify(token, now)
        return Account(
            account_id=identity.account_id,
            token=token,
            expires_at=identity.expires_at,
            refresh_token=refresh_token,
        )

    async def _verify(self, token: str, now: float) -> dict[str, Any]:
        try:
            claims = await self._keys.verify(token, now, issuer=self.issuer)
        except BadToken as error:
            raise self._refused(str(error)) from None
        if (
            claims.get("token_use") != "access"
            or claims.get("client_id") != self._config.client_id
        ):
            raise self._refused("the token is not valid")
        if await self._is_denied(_token_digest(token), now):
            raise self._refused("it was signed out")
        origin = _origin(claims)
        if origin and await self._is_denied(_digest(origin), now):
            raise self._refused("it was signed out")
        return claims

    def _identity(self, claims: dict[str, Any]) -> Identity:
        text = f"{self.issuer}\0{claims['sub']}".encode("utf-8", "replace")
        return Identity(
            account_id=f"cognito-{hashlib.sha256(text).hexdigest()[:32]}",
            name="",
            method=ANONYMOUS,
            is_named=False,
            expires_at=float(claims["exp"]),
        )

    async def _remember(self, name: str, now: float) -> None:
        # Names are in order, so the oldest come first.
        key = RecordKey(
            _USER, _partition(self._config.user_pool_id), f"{int(now):012d}-{name}"
        )
        await self._records.create(Record(key, msgspec.json.encode(name)), now)

    async def _deny(self, digest: str, ends_at: float, now: float) -> None:
        # One that is there already is as good.
        await self._records.create(
            Record(RecordKey(_DENIED, digest), b"true", ends_at), now
        )

    async def _is_denied(self, digest: str, now: float) -> bool:
        return await self._records.get(RecordKey(_DENIED, digest), now) is not None

    def _refused(self, reason: str) -> TokenRefused:
        return TokenRefused(server=self._server, reason=reason)


def _origin(claims: dict[str, Any]) -> str:
    origin = claims.get("origin_jti")
    return f"origin\0{origin}" if isinstance(origin, str) and origin else ""


def _partition(pool: str) -> str:
    return _digest(pool)[:32]


def _token_digest(token: str) -> str:
    # Without the signature, which can be written in more than one way.
    return _digest(token.rpartition(".")[0])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

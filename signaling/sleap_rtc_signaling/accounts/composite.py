"""Any mix of ways to sign in, as the administrator configured them.

A token is verified by whoever signed it; which one that is, is read from the token
before, and believed by nobody. Made by the server, called by the routes.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

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
    StorageFailed,
    TokenRefused,
)
from sleap_rtc_signaling.accounts import Identity
from sleap_rtc_signaling.accounts.anonymous import AnonymousAccounts
from sleap_rtc_signaling.accounts.cognito import CognitoAccounts
from sleap_rtc_signaling.accounts.device_flow import DeviceFlows, Provider
from sleap_rtc_signaling.accounts.github import GitHubProvider
from sleap_rtc_signaling.accounts.jwks import unverified_issuer
from sleap_rtc_signaling.accounts.oidc import OidcProvider
from sleap_rtc_signaling.accounts.sign_ins import SignIns, is_ours
from sleap_rtc_signaling.accounts_config import AccountsConfig
from sleap_rtc_signaling.limits import PURGE_INTERVAL_S
from sleap_rtc_signaling.sections import ConfigError
from sleap_rtc_signaling.stores import Store
from sleap_rtc_signaling.tokens import Tokens

__all__ = ["MixedAccounts", "make_accounts"]

_log = logging.getLogger(__name__)

Signed = TypeVar("Signed", Account, Identity)


class MixedAccounts:
    """`Accounts` of several kinds.

    Args:
        tokens: verifies what this server has signed.
        sign_ins: the sign-ins of persons.
        flows: the providers, by the names of their ways.
        anonymous: accounts of this server without a name, if it has them.
        cognito: accounts of a user pool, if there is one.
        server: how the server is named in errors.
    """

    def __init__(
        self,
        tokens: Tokens,
        sign_ins: SignIns,
        flows: dict[str, DeviceFlows],
        anonymous: AnonymousAccounts | None,
        cognito: CognitoAccounts | None,
        server: str,
    ) -> None:
        self._tokens = tokens
        self._sign_ins = sign_ins
        self._flows = flows
        self._anonymous = anonymous
        self._cognito = cognito
        self._server = server

    def methods(self) -> list[SignInMethod]:
        """Return the ways to sign in: persons first."""
        direct = self._cognito or self._anonymous
        return [
            *(flow.described() for flow in self._flows.values()),
            *(direct.methods() if direct else []),
        ]

    async def sign_in(self, method: str, now: float) -> Account:
        """Make an account at once."""
        if method in self._flows:
            raise BadRequest(reason="this way to sign in goes by a code")
        if method != ANONYMOUS:
            raise self._unknown()
        direct = self._cognito or self._anonymous
        if direct is None:
            raise NotAllowed(action="sign in without a name")
        return await direct.sign_in(method, now)

    async def start(self, method: str, now: float) -> DeviceFlow:
        """Begin to sign in at a provider."""
        return await self._flow(method).start(now)

    async def poll(
        self, method: str, flow_id: str, now: float
    ) -> Account | DevicePending:
        """Ask whether the user has finished."""
        return await self._flow(method).poll(flow_id, now)

    async def refresh(self, refresh_token: str, now: float) -> Account:
        """Give the next token."""
        if is_ours(refresh_token):
            return self._offered(await self._sign_ins.refresh(refresh_token, now))
        if self._cognito is not None and refresh_token:
            return await self._cognito.refresh(refresh_token, now)
        raise self._refused("it is not valid")

    async def sign_out(self, token: str, refresh_token: str, now: float) -> Identity:
        """Take both tokens back."""
        if self._is_of_pool(token) and self._cognito is not None:
            return await self._cognito.sign_out(token, refresh_token, now)
        if is_ours(refresh_token) or self._is_of_person(token, now):
            return await self._sign_ins.end(token, refresh_token, now)
        if self._anonymous is None:
            raise self._refused("the token is not valid")
        return await self._anonymous.sign_out(token, refresh_token, now)

    async def identify(self, token: str, now: float) -> Identity:
        """Verify a token."""
        if self._is_of_pool(token) and self._cognito is not None:
            return await self._cognito.identify(token, now)
        if self._is_of_person(token, now):
            return self._offered(await self._sign_ins.identify(token, now))
        if self._anonymous is None:
            raise self._refused("this server has no accounts without a name")
        return await self._anonymous.identify(token, now)

    async def keep(self, clock: Callable[[], float]) -> None:
        """Delete users that nobody needs any more, now and then, for ever."""
        while self._cognito is not None:
            await asyncio.sleep(PURGE_INTERVAL_S)
            try:
                await self._cognito.delete_old(clock())
            except (AccountsUnavailable, StorageFailed) as error:
                _log.warning("old users could not be deleted: %s", error)

    async def close(self) -> None:
        """Let go of everything."""
        for part in (*self._flows.values(), self._anonymous, self._cognito):
            if part is not None:
                await part.close()

    def _is_of_pool(self, token: str) -> bool:
        return (
            self._cognito is not None
            and unverified_issuer(token) == self._cognito.issuer
        )

    def _is_of_person(self, token: str, now: float) -> bool:
        """Tell whether this server signed the token for a person.

        Raises:
            TokenRefused: it has signed no such token at all, or it has expired.
        """
        return is_ours(self._tokens.verify_claims("account", token, now).credential_id)

    def _offered(self, signed: Signed) -> Signed:
        # Whoever signed in by a way that was taken out has no business here.
        if signed.method not in self._flows:
            raise self._refused("this way to sign in is not offered any more")
        return signed

    def _flow(self, method: str) -> DeviceFlows:
        flow = self._flows.get(method)
        if flow is None:
            raise (
                BadRequest(reason="this way to sign in has no code")
                if method == ANONYMOUS
                else self._unknown()
            )
        return flow

    def _unknown(self) -> BadRequest:
        return BadRequest(reason="this server has no such way to sign in")

    def _refused(self, reason: str) -> TokenRefused:
        return TokenRefused(server=self._server, reason=reason)


def make_accounts(
    config: AccountsConfig,
    store: Store,
    tokens: Tokens,
    lifetime_s: float,
    server: str,
) -> MixedAccounts:
    """Make what the administrator configured.

    Args:
        config: the ways to sign in.
        store: knows the accounts without a name; its records hold sign-ins, flows,
            and what was signed out.
        tokens: signs and verifies.
        lifetime_s: how long an account without a name lasts.
        server: how the server is named in errors.

    Raises:
        ConfigError: the settings make no sense.
    """
    records = store.records
    sign_ins = SignIns(records, tokens, server)
    flows: dict[str, DeviceFlows] = {}
    for way in config.oidc:
        if way.name in flows or way.name == ANONYMOUS:
            raise ConfigError(f"The name {way.name} of a provider is taken.")
        provider: Provider = (
            GitHubProvider(way, server)
            if way.kind == "github"
            else OidcProvider(way, server)
        )
        flows[way.name] = DeviceFlows(way.name, provider, records, sign_ins, server)
    cognito = anonymous = None
    if config.cognito is not None:
        cognito = CognitoAccounts(
            config.cognito, records, server, makes_users=config.anonymous
        )
    elif config.anonymous:
        anonymous = AnonymousAccounts(store, tokens, lifetime_s, server)
    if not flows and cognito is None and anonymous is None:
        raise ConfigError(
            "Nobody can sign in: `accounts` needs anonymous, cognito or oidc."
        )
    return MixedAccounts(tokens, sign_ins, flows, anonymous, cognito, server)

"""Accounts that anybody gets: a token of this server's, and a row in its store."""

from collections.abc import Callable

from sleap_rtc_plugin.protocol.account_messages import (
    ANONYMOUS,
    Account,
    DeviceFlow,
    DevicePending,
    SignInMethod,
)
from sleap_rtc_plugin.protocol.errors import BadRequest, TokenRefused
from sleap_rtc_plugin.protocol.ids import new_account_id
from sleap_rtc_signaling.accounts import Identity
from sleap_rtc_signaling.stores import Store
from sleap_rtc_signaling.tokens import Tokens

__all__ = ["AnonymousAccounts"]


class AnonymousAccounts:
    """`Accounts` without a name or a password.

    Args:
        store: knows which accounts there are.
        tokens: signs and verifies.
        lifetime_s: how long an account lasts.
        server: how the server is named in errors.
    """

    def __init__(
        self, store: Store, tokens: Tokens, lifetime_s: float, server: str
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._lifetime_s = lifetime_s
        self._server = server
        self._new_id: Callable[[], str] = new_account_id

    def methods(self) -> list[SignInMethod]:
        """Return the one way there is."""
        return [SignInMethod(name=ANONYMOUS, kind="direct", label="Without a name")]

    async def sign_in(self, method: str, now: float) -> Account:
        """Make an account."""
        account_id = self._new_id()
        expires_at = now + self._lifetime_s
        await self._store.add_account(account_id, now, expires_at)
        token = self._tokens.issue("account", account_id, now, expires_at)
        return Account(account_id=account_id, token=token, expires_at=expires_at)

    async def start(self, method: str, now: float) -> DeviceFlow:
        """Refuse: there is nobody to ask."""
        raise BadRequest(reason="this way to sign in has no code")

    async def poll(
        self, method: str, flow_id: str, now: float
    ) -> Account | DevicePending:
        """Refuse: there is nobody to ask."""
        raise BadRequest(reason="this way to sign in has no code")

    async def refresh(self, refresh_token: str, now: float) -> Account:
        """Refuse: an anonymous account is made anew."""
        raise TokenRefused(server=self._server, reason="it cannot be refreshed")

    async def sign_out(self, token: str, refresh_token: str, now: float) -> Identity:
        """Return whose the token was."""
        return await self.identify(token, now)

    async def identify(self, token: str, now: float) -> Identity:
        """Verify a token."""
        account_id, ends = self._tokens.verify_until("account", token, now)
        if not await self._store.has_account(account_id, now):
            raise TokenRefused(server=self._server, reason="the account has ended")
        return Identity(
            account_id=account_id,
            name="",
            method=ANONYMOUS,
            is_named=False,
            expires_at=ends,
        )

    async def close(self) -> None:
        """Do nothing: it holds nothing."""

"""Who somebody is: anonymous, of a Cognito user pool, or of an OpenID provider.

One interface, whatever stands behind it. What an account may do in a room is not said
here but in the store (members). Called by the REST routes and by the switchboard.
"""

from typing import Protocol

from msgspec import Struct

from sleap_rtc_plugin.protocol.account_messages import (
    Account,
    DeviceFlow,
    DevicePending,
    SignInMethod,
)

__all__ = ["Accounts", "Identity"]


class Identity(Struct, frozen=True, kw_only=True):
    """What a token of an account says, once it is verified.

    Attributes:
        account_id: an id of this server's, the same for the same person always.
        name: what the person is called; empty for an anonymous account. Cleaned.
        method: the way it was signed in.
        is_named: whether it is a person's account, and can be a member for good.
        expires_at: until when the token is good, as Unix time.
    """

    account_id: str
    name: str
    method: str
    is_named: bool
    expires_at: float


class Accounts(Protocol):
    """The ways to sign in that this server offers.

    `method` is one of `methods()`; another raises `BadRequest`. Times are Unix seconds.
    """

    def methods(self) -> list[SignInMethod]:
        """Return the ways to sign in, the preferred one first."""

    async def sign_in(self, method: str, now: float) -> Account:
        """Make an account at once (a `direct` method).

        Raises:
            AccountsUnavailable: whoever keeps the accounts does not answer.
            TooMany: there are as many as there may be.
        """

    async def start(self, method: str, now: float) -> DeviceFlow:
        """Begin to sign in at a provider (a `device` method).

        Raises:
            AccountsUnavailable: the provider does not answer.
        """

    async def poll(
        self, method: str, flow_id: str, now: float
    ) -> Account | DevicePending:
        """Ask whether the user has finished.

        Raises:
            SignInRefused: the user said no, took too long, or there is no such flow.
            AccountsUnavailable: the provider does not answer.
        """

    async def refresh(self, refresh_token: str, now: float) -> Account:
        """Give the next token.

        Raises:
            TokenRefused: the refresh token was used, taken back, or has ended.
            AccountsUnavailable: as above.
        """

    async def sign_out(self, token: str, refresh_token: str, now: float) -> Identity:
        """Take both tokens back, and return whose they were."""

    async def identify(self, token: str, now: float) -> Identity:
        """Verify a token.

        Raises:
            TokenRefused: it is not good, or not any more.
            AccountsUnavailable: its keys cannot be had.
        """

    async def close(self) -> None:
        """Let go of everything."""

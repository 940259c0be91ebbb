"""A signaling server's accounts, as far as a client sees them, without a socket.

Stands in for `AccountClient`. Refresh tokens are good once, and one that is used twice
ends the account, as at a real server.
"""

import asyncio
from typing import Any, Self

from sleap_rtc_plugin.protocol.account_messages import Account, AccountInfo
from sleap_rtc_plugin.protocol.errors import RtcError, TokenRefused

TOKEN_LIFETIME_S = 3600.0


class Clock:
    """Unix time that the test sets forward."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class AccountServer:
    """What the server knows; `client` is what takes the place of `AccountClient`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.refreshes = 0
        self.signed_out: list[str] = []
        self.refused: set[str] = set()
        self.fault: RtcError | None = None
        self.gate: asyncio.Event | None = None
        self.has_ended = False
        self._spent: set[str] = set()

    def client(self, server: str) -> "_Client":
        return _Client(self, server)

    def account(self, number: int = 0, **fields: Any) -> Account:
        return Account(
            **{
                "account_id": "github-ada",
                "token": f"token-{number}",
                "expires_at": self.clock.now + TOKEN_LIFETIME_S,
                "refresh_token": f"refresh-{number}",
                "name": "Ada Łovelace",
                "method": "github",
                **fields,
            }
        )

    async def refresh(self, server: str, refresh_token: str) -> Account:
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        if refresh_token in self._spent:
            self.has_ended = True
        if self.has_ended:
            raise TokenRefused(server=server, reason="it was used")
        self._spent.add(refresh_token)
        self.refreshes += 1
        return self.account(self.refreshes)


class _Client:
    def __init__(self, world: AccountServer, server: str) -> None:
        self._world = world
        self._server = server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def refresh(self, refresh_token: str) -> Account:
        return await self._world.refresh(self._server, refresh_token)

    async def sign_out(self, account: Account) -> None:
        if self._world.fault is not None:
            raise self._world.fault
        self._world.signed_out.append(account.token)

    async def account(self, token: str) -> AccountInfo:
        if token in self._world.refused:
            raise TokenRefused(server=self._server, reason="it is not good")
        return AccountInfo(account_id="a", name=token, method="github", expires_at=0.0)

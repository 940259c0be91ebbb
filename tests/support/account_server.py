"""A signaling server's accounts, as far as a client sees them, without a socket.

Stands in for `AccountClient`. Refresh tokens are good once, and one that is used twice
ends the account, as at a real server.
"""

import asyncio
from typing import Any, Self

from sleap_rtc_plugin.protocol.account_messages import (
    Account,
    AccountInfo,
    Credential,
    CredentialKind,
    DeviceFlow,
    DevicePending,
    RoomDetails,
    RoomInfo,
    SignInMethod,
)
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
        self.rooms: dict[str, list[RoomInfo]] = {}
        self.details: RoomDetails | None = None
        self.made: list[tuple[str, str, str]] = []
        self.revoked: list[str] = []
        self.invited: RoomInfo | None = None
        self.accepted: list[tuple[str, str]] = []
        self.methods: list[SignInMethod] = []
        self.flow: DeviceFlow | None = None
        self.polls: list[Account | DevicePending | RtcError] = []
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

    async def rooms(self, token: str) -> list[RoomInfo]:
        if self._world.fault is not None:
            raise self._world.fault
        return self._world.rooms[self._server]

    async def room(self, token: str, room_id: str) -> RoomDetails:
        assert self._world.details is not None
        return self._world.details

    async def make_credential(
        self,
        token: str,
        room_id: str,
        kind: CredentialKind,
        *,
        label: str = "",
        expires_in_s: float | None = None,
    ) -> Credential:
        self._world.made.append((room_id, kind, label))
        number = len(self._world.made)
        return Credential(
            credential_id=f"credential-{number}",
            kind=kind,
            token=f"credential-{number}",
            expires_at=9e9,
        )

    async def revoke_invitation(self, token: str, room_id: str, wanted: str) -> None:
        self._world.revoked.append(wanted)

    async def revoke_credential(self, token: str, room_id: str, wanted: str) -> None:
        self._world.revoked.append(wanted)

    async def accept_invitation(self, token: str, code: str) -> RoomInfo:
        assert self._world.invited is not None
        self._world.accepted.append((self._server, code))
        return self._world.invited

    async def sign_in_methods(self) -> list[SignInMethod]:
        return self._world.methods

    async def sign_in(self, method: str) -> Account:
        return self._world.account(method=method)

    async def start_device_flow(self, method: str) -> DeviceFlow:
        assert self._world.flow is not None
        return self._world.flow

    async def poll_device_flow(
        self, method: str, flow: DeviceFlow
    ) -> Account | DevicePending:
        answer = self._world.polls.pop(0)
        if isinstance(answer, RtcError):
            raise answer
        return answer

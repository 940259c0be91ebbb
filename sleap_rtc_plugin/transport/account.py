"""The signaling server's REST side: sign in, open and delete rooms, ICE servers.

Used by the worker that opens a room and by clients for the ICE server list. Tokens
are passed in and handed back, never logged.
"""

from types import TracebackType
from typing import Self, TypeVar

import httpx
import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.account_messages import (
    ClaimPairing,
    FinishPairing,
    OpenPairing,
    Pairing,
    PairingState,
)
from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    SignalingUnreachable,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_SIGNALING_MESSAGE_BYTES,
    SIGNALING_REPLY_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.signaling_messages import IceServer, ServerError
from sleap_rtc_plugin.protocol.signaling_session import error_from_server
from sleap_rtc_plugin.transport.tls import client_context

__all__ = ["Account", "AccountClient", "Room"]


T = TypeVar("T")


class Account(Struct, frozen=True):
    """A signed-in account; its token opens rooms and deletes its own."""

    account_id: str
    token: str
    expires_at: float

    def __repr__(self) -> str:
        """Show the account without its token."""
        return f"Account({self.account_id!r})"


class Room(Struct, frozen=True):
    """A room; its token admits peers."""

    room_id: str
    token: str
    expires_at: float

    def __repr__(self) -> str:
        """Show the room without its token."""
        return f"Room({self.room_id!r})"


class _Refusal(Struct, frozen=True):
    code: str
    message: str
    fields: dict[str, str] = {}


class AccountClient:
    """REST calls to one signaling server. Use as an async context manager."""

    def __init__(self, server: str) -> None:
        """Talk to the server at `server` (`http(s)://host[:port]`)."""
        self._server = server.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self._server,
            timeout=SIGNALING_REPLY_TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
            verify=client_context(),
        )

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def sign_in_anonymously(self) -> Account:
        """Make an anonymous account (`POST /anonymous-signin`)."""
        return await self._call("POST", "/anonymous-signin", None, Account)

    async def create_room(self, account_token: str) -> Room:
        """Open a room that this account owns (`POST /create-room`)."""
        return await self._call("POST", "/create-room", account_token, Room)

    async def delete_room(self, account_token: str, room_id: str) -> None:
        """Delete an own room and its peers (`POST /delete-peers-and-room`)."""
        await self._call(
            "POST", "/delete-peers-and-room", account_token, dict, {"room_id": room_id}
        )

    async def ice_servers(self, token: str) -> list[IceServer]:
        """Return the STUN and TURN servers to use (`GET /ice-servers`)."""
        return (await self.ice_config(token)).ice_servers

    async def ice_config(self, token: str) -> IceServerList:
        """Return them with when they expire, and whether there is a relay."""
        return await self._call("GET", "/ice-servers", token, IceServerList)

    # -- pairing ----------------------------------------------------------------------

    async def open_pairing(self, room_token: str, message: str) -> Pairing:
        """Open a pairing for a room (`POST /pairings`)."""
        body = OpenPairing(message=message)
        return await self._call("POST", "/pairings", room_token, Pairing, body)

    async def claim_pairing(self, number: int) -> PairingState:
        """Take the one try that a code has (`POST /pairings/{number}/claim`)."""
        return await self._pairing(number, "claim", ClaimPairing())

    async def answer_pairing(
        self, number: int, key: str, message: str, proof: str
    ) -> PairingState:
        """Leave the claimer's message and proof (`.../answer`)."""
        body = FinishPairing(key=key, message=message, sealed=proof)
        return await self._pairing(number, "answer", body)

    async def finish_pairing(self, number: int, key: str, sealed: str) -> PairingState:
        """Leave what the worker sealed, or nothing (`.../finish`)."""
        body = FinishPairing(key=key, sealed=sealed)
        return await self._pairing(number, "finish", body)

    async def pairing_state(self, number: int, key: str) -> PairingState:
        """Ask how far the other side is (`.../state`)."""
        return await self._pairing(number, "state", FinishPairing(key=key))

    async def close_pairing(self, number: int, key: str) -> None:
        """Take an own pairing back (`.../close`)."""
        path = f"/pairings/{number}/close"
        await self._call("POST", path, None, dict, FinishPairing(key=key))

    async def _pairing(self, number: int, step: str, body: Struct) -> PairingState:
        path = f"/pairings/{number}/{step}"
        return await self._call("POST", path, None, PairingState, body)

    async def _call(
        self,
        method: str,
        path: str,
        token: str | None,
        kind: type[T],
        body: Struct | dict[str, str] | None = None,
    ) -> T:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            response = await self._http.request(
                method,
                path,
                headers=headers,
                content=None if body is None else msgspec.json.encode(body),
            )
        except httpx.HTTPError as error:
            reason = clean_text(str(error), 100) or type(error).__name__
            raise SignalingUnreachable(server=self._server, reason=reason) from None
        if len(response.content) > MAX_SIGNALING_MESSAGE_BYTES:
            raise RemoteProtocolError(detail="an answer that is too long")
        if response.is_success:
            try:
                return msgspec.json.decode(response.content, type=kind)
            except msgspec.MsgspecError:
                raise RemoteProtocolError(
                    detail=f"an unreadable answer to {path}"
                ) from None
        try:
            refusal = msgspec.json.decode(response.content, type=_Refusal)
        except msgspec.MsgspecError:
            reason = f"it answered {path} with HTTP status {response.status_code}"
            raise SignalingUnreachable(server=self._server, reason=reason) from None
        said = ServerError(
            id="", code=refusal.code, message=refusal.message, fields=refusal.fields
        )
        raise error_from_server(said, self._server)

"""The signaling server's REST side: sign in, rooms, members, invitations, ICE servers.

One call for each route, and nothing remembered. Used by whoever signs in, by the worker
that opens a room and by clients for the ICE server list. Tokens are passed in and
handed back, never logged.
"""

from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.account_messages import (
    ANONYMOUS,
    AcceptInvitation,
    Access,
    Account,
    AccountInfo,
    ChangeMember,
    ChangeRoom,
    ClaimPairing,
    CreateRoom,
    Credential,
    CredentialKind,
    DeleteRoom,
    DeviceFlow,
    DevicePending,
    FinishPairing,
    Invitation,
    InviteMember,
    MakeCredential,
    MemberRole,
    OpenPairing,
    Pairing,
    PairingState,
    PollDevice,
    Refresh,
    RevokeById,
    RoomDetails,
    RoomInfo,
    RoomList,
    RoomMade,
    SignInMethod,
    SignInMethods,
)
from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    RemoteProtocolError,
    SignalingUnreachable,
)
from sleap_rtc_plugin.protocol.ids import clean_text, is_id
from sleap_rtc_plugin.protocol.limits import (
    MAX_REST_ANSWER_BYTES,
    SIGNALING_REPLY_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.signaling_messages import IceServer, ServerError
from sleap_rtc_plugin.protocol.signaling_session import error_from_server
from sleap_rtc_plugin.transport.tls import client_context

__all__ = ["AccountClient", "is_sign_in_page"]


T = TypeVar("T")

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ONLY_ANONYMOUS = SignInMethod(name=ANONYMOUS, kind="direct", label="Without a name")


class _Refusal(Struct, frozen=True):
    code: str
    message: str
    fields: dict[str, str] = {}


class AccountClient:
    """REST calls to one signaling server. Use as an async context manager.

    Every call raises an `RtcError`: `SignalingUnreachable` where nobody answers, or
    what the server says, such as `TokenRefused` or `NotAllowed`.
    """

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

    # -- signing in ------------------------------------------------------------------

    async def sign_in_methods(self) -> list[SignInMethod]:
        """Return the ways to sign in, the preferred one first (`GET /sign-in`).

        A server that does not know the question has the anonymous way alone.
        """
        try:
            return (await self._call("GET", "/sign-in", SignInMethods)).methods
        except BadRequest:
            return [_ONLY_ANONYMOUS]

    async def sign_in_anonymously(self) -> Account:
        """Make an anonymous account (`POST /anonymous-signin`)."""
        return await self._call("POST", "/anonymous-signin", Account)

    async def sign_in(self, method: str) -> Account:
        """Make an account at once, by a `direct` method (`POST /sign-in/{name}`)."""
        if method == ANONYMOUS:
            return await self.sign_in_anonymously()
        return await self._call("POST", f"/sign-in/{_part(method)}", Account)

    async def start_device_flow(self, method: str) -> DeviceFlow:
        """Begin to sign in at a provider (`POST /sign-in/{name}`).

        Raises:
            RemoteProtocolError: the page that the user is to open is none to open.
        """
        flow = await self._call("POST", f"/sign-in/{_part(method)}", DeviceFlow)
        complete = flow.verification_uri_complete
        if not is_sign_in_page(flow.verification_uri) or (
            complete and not is_sign_in_page(complete)
        ):
            raise RemoteProtocolError(detail="a page for signing in that is not safe")
        return flow

    async def poll_device_flow(
        self, method: str, flow: DeviceFlow
    ) -> Account | DevicePending:
        """Ask whether the user has finished (`POST /sign-in/{name}/poll`).

        Raises:
            SignInRefused: the user said no, or took too long.
        """
        path = f"/sign-in/{_part(method)}/poll"
        asked = PollDevice(flow_id=flow.flow_id)
        status, content = await self._exchange("POST", path, body=asked)
        if status == HTTPStatus.ACCEPTED:
            return _decode(content, DevicePending, path)
        return _decode(content, Account, path)

    async def refresh(self, refresh_token: str) -> Account:
        """Return the account with its next tokens (`POST /refresh`)."""
        asked = Refresh(refresh_token=refresh_token)
        return await self._call("POST", "/refresh", Account, body=asked)

    async def sign_out(self, account: Account) -> None:
        """Let the server take both tokens back (`POST /sign-out`)."""
        asked = (
            Refresh(refresh_token=account.refresh_token)
            if account.refresh_token
            else None
        )
        await self._exchange("POST", "/sign-out", account.token, asked)

    async def account(self, token: str) -> AccountInfo:
        """Return whose token it is (`GET /account`)."""
        return await self._call("GET", "/account", AccountInfo, token)

    # -- rooms and their members -----------------------------------------------------

    async def create_room(
        self, token: str, *, name: str = "", access: Access = "open"
    ) -> RoomMade:
        """Open a room that this account owns (`POST /create-room`)."""
        asked = CreateRoom(name=name, access=access)
        # What is usual goes without a body, which older servers know nothing of.
        body = asked if asked != CreateRoom() else None
        return await self._call("POST", "/create-room", RoomMade, token, body)

    async def delete_room(self, token: str, room_id: str) -> None:
        """Delete an own room and its peers (`POST /delete-peers-and-room`)."""
        asked = DeleteRoom(room_id=room_id)
        await self._exchange("POST", "/delete-peers-and-room", token, asked)

    async def rooms(self, token: str) -> list[RoomInfo]:
        """Return the rooms of which the account is a member (`GET /rooms`)."""
        return (await self._call("GET", "/rooms", RoomList, token)).rooms

    async def room(self, token: str, room_id: str) -> RoomDetails:
        """Return a room and who is in it (`GET /rooms/{room_id}`)."""
        return await self._call("GET", f"/rooms/{_part(room_id)}", RoomDetails, token)

    async def change_room(
        self,
        token: str,
        room_id: str,
        *,
        name: str | None = None,
        access: Access | None = None,
    ) -> None:
        """Give a room another name or access (`POST /rooms/{room_id}`)."""
        asked = ChangeRoom(name=name, access=access)
        await self._exchange("POST", f"/rooms/{_part(room_id)}", token, asked)

    async def change_member(
        self, token: str, room_id: str, account_id: str, role: MemberRole | None
    ) -> None:
        """Give a member another role, or none (`POST /rooms/{room_id}/members`)."""
        asked = ChangeMember(account_id=account_id, role=role)
        await self._exchange("POST", f"/rooms/{_part(room_id)}/members", token, asked)

    async def invite(
        self, token: str, room_id: str, invitation: InviteMember
    ) -> Invitation:
        """Make an invitation (`POST /rooms/{room_id}/invitations`)."""
        path = f"/rooms/{_part(room_id)}/invitations"
        return await self._call("POST", path, Invitation, token, invitation)

    async def revoke_invitation(
        self, token: str, room_id: str, invitation_id: str
    ) -> None:
        """Take an invitation back (`.../invitations/revoke`)."""
        path = f"/rooms/{_part(room_id)}/invitations/revoke"
        await self._exchange("POST", path, token, RevokeById(id=invitation_id))

    async def accept_invitation(self, token: str, code: str) -> RoomInfo:
        """Become a member of a room (`POST /accept-invitation`).

        Raises:
            InvitationRefused: it was used, has expired, or never was.
        """
        asked = AcceptInvitation(code=code)
        return await self._call("POST", "/accept-invitation", RoomInfo, token, asked)

    async def make_credential(
        self,
        token: str,
        room_id: str,
        kind: CredentialKind,
        *,
        label: str = "",
        expires_in_s: float | None = None,
    ) -> Credential:
        """Make a room token (`POST /rooms/{room_id}/credentials`)."""
        path = f"/rooms/{_part(room_id)}/credentials"
        asked = MakeCredential(kind=kind, label=label, expires_in_s=expires_in_s)
        return await self._call("POST", path, Credential, token, asked)

    async def revoke_credential(
        self, token: str, room_id: str, credential_id: str
    ) -> None:
        """Take a room token back (`.../credentials/revoke`)."""
        path = f"/rooms/{_part(room_id)}/credentials/revoke"
        await self._exchange("POST", path, token, RevokeById(id=credential_id))

    # -- the ways to a peer ----------------------------------------------------------

    async def ice_servers(self, token: str) -> list[IceServer]:
        """Return the STUN and TURN servers to use (`GET /ice-servers`)."""
        return (await self.ice_config(token)).ice_servers

    async def ice_config(self, token: str, room_id: str = "") -> IceServerList:
        """Return them with when they expire, and whether there is a relay.

        Args:
            token: a room token, or an account token.
            room_id: the room, where the token is that of an account.
        """
        path = f"/ice-servers?room_id={_part(room_id)}" if room_id else "/ice-servers"
        return await self._call("GET", path, IceServerList, token)

    # -- pairing ----------------------------------------------------------------------

    async def open_pairing(self, room_token: str, message: str) -> Pairing:
        """Open a pairing for a room (`POST /pairings`)."""
        body = OpenPairing(message=message)
        return await self._call("POST", "/pairings", Pairing, room_token, body)

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
        await self._exchange("POST", path, body=FinishPairing(key=key))

    async def _pairing(self, number: int, step: str, body: Struct) -> PairingState:
        path = f"/pairings/{number}/{step}"
        return await self._call("POST", path, PairingState, body=body)

    # -- one question and its answer -------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        token: str = "",
        body: Struct | None = None,
    ) -> T:
        _, content = await self._exchange(method, path, token, body)
        return _decode(content, kind, path)

    async def _exchange(
        self, method: str, path: str, token: str = "", body: Struct | None = None
    ) -> tuple[int, bytes]:
        """Return status and content of an answer that is no refusal."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = b""
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = msgspec.json.encode(body)
        answer = bytearray()
        try:
            async with self._http.stream(
                method, path, headers=headers, content=content
            ) as response:
                async for part in response.aiter_bytes():
                    answer += part
                    if len(answer) > MAX_REST_ANSWER_BYTES:
                        raise RemoteProtocolError(detail="an answer that is too long")
        except httpx.HTTPError as error:
            reason = clean_text(str(error), 100) or type(error).__name__
            raise SignalingUnreachable(server=self._server, reason=reason) from None
        if response.is_success:
            return response.status_code, bytes(answer)
        route = path.partition("?")[0]
        raise self._refusal(route, response.status_code, bytes(answer))

    def _refusal(self, path: str, status: int, content: bytes) -> Exception:
        try:
            refusal = msgspec.json.decode(content, type=_Refusal)
        except msgspec.MsgspecError:
            reason = f"it answered {path} with HTTP status {status}"
            return SignalingUnreachable(server=self._server, reason=reason)
        said = ServerError(
            id="", code=refusal.code, message=refusal.message, fields=refusal.fields
        )
        return error_from_server(said, self._server)


def is_sign_in_page(url: str) -> bool:
    """Tell whether a person may be sent to `url` to sign in.

    That is an `https` address, or an `http` one on this machine.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.username is not None or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _part(text: str) -> str:
    """Return an id as one part of a path.

    Raises:
        BadRequest: it is no id.
    """
    if not is_id(text):
        raise BadRequest(reason="an id has only small letters, digits and hyphens")
    return text


def _decode(content: bytes, kind: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        route = path.partition("?")[0]
        raise RemoteProtocolError(detail=f"an unreadable answer to {route}") from None

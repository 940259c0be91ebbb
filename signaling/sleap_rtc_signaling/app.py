"""The HTTP routes and the WebSocket of the server, as Starlette applications.

Routes check who asks and how often, and leave the rest to the store and the
switchboard. Errors are JSON with the codes of `protocol.errors`; nothing that a
caller sent is repeated in one, and no token is ever logged.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from sleap_rtc_plugin import __version__
from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    NotAllowed,
    RateLimited,
    RemoteFailure,
    RoomGone,
    RtcError,
    StorageFailed,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.ids import new_account_id, new_room_id
from sleap_rtc_plugin.protocol.relay_messages import (
    RELAY_PATH,
    IceServerList,
    RelayTerms,
)
from sleap_rtc_signaling.config import SignalingConfig
from sleap_rtc_signaling.limits import (
    MAX_BODY_BYTES,
    MAX_DISCARDED_BYTES,
    REQUEST_DEADLINE_S,
    REST_RATE,
    SIGN_IN_RATE,
)
from sleap_rtc_signaling.metrics import Metrics
from sleap_rtc_signaling.rate_limit import RateLimiter, address_key
from sleap_rtc_signaling.relay_service import RelayService
from sleap_rtc_signaling.stores import Room, Store
from sleap_rtc_signaling.switchboard import Switchboard
from sleap_rtc_signaling.tokens import Tokens
from sleap_rtc_signaling.turn_credentials import turn_name, turn_servers

__all__ = ["Routes"]

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.json.Encoder()

_STATUS: Final = {
    "token_refused": 401,
    "not_allowed": 403,
    "room_gone": 404,
    "too_many": 409,
    "rate_limited": 429,
    "remote_failure": 500,
    "storage_failed": 503,
}
"""HTTP status by error code; every other code is the caller's mistake, 400."""


class _DeleteRoom(Struct, frozen=True):
    room_id: str


class _BodyTooLarge(Exception):
    """A body went past its bound; HTTP has a status of its own for that."""


class Routes:
    """What the two ports serve.

    Args:
        config: the administrator's settings.
        store: accounts and rooms.
        tokens: issues and verifies.
        switchboard: the live sockets.
        relays: the relays of last resort.
        metrics: counts.
        server: how the server is named in errors.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        config: SignalingConfig,
        store: Store,
        tokens: Tokens,
        switchboard: Switchboard,
        relays: RelayService,
        metrics: Metrics,
        server: str,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._store = store
        self._tokens = tokens
        self._switchboard = switchboard
        self._relays = relays
        self._metrics = metrics
        self._server = server
        self._clock = clock
        self._requests = RateLimiter(REST_RATE)
        self._sign_ins = RateLimiter(SIGN_IN_RATE)

    def application(self, *, websocket: bool) -> Starlette:
        """Make the application of one port.

        Args:
            websocket: whether the WebSockets are served too.
        """
        routes: list[BaseRoute] = [
            self._route("POST", "/anonymous-signin", self._sign_in),
            self._route("POST", "/create-room", self._create_room),
            self._route("POST", "/delete-peers-and-room", self._delete_room),
            self._route("GET", "/ice-servers", self._ice_servers),
            self._route("GET", "/health", self._health),
            self._route("GET", "/ready", self._ready),
            self._route("GET", "/metrics", self._render_metrics),
        ]
        if websocket:
            routes.append(WebSocketRoute("/ws", self._switchboard.serve))
            routes.append(WebSocketRoute(RELAY_PATH, self._relays.serve))
        return Starlette(
            routes=routes,
            exception_handlers={
                RtcError: self._refused,
                _BodyTooLarge: self._too_large,
                HTTPException: _no_such_route,
                Exception: _failed,
            },
        )

    def _route(
        self,
        method: str,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
    ) -> Route:
        async def limited(request: Request) -> Response:
            self._take(self._requests, request)
            return await endpoint(request)

        return Route(path, limited, methods=[method])

    # -- accounts and rooms -------------------------------------------------------

    async def _sign_in(self, request: Request) -> Response:
        self._take(self._sign_ins, request)
        now = self._clock()
        account_id = new_account_id()
        expires_at = now + self._config.account_token_lifetime_s
        await self._store.add_account(account_id, now, expires_at)
        token = self._tokens.issue("account", account_id, now, expires_at)
        return _json(
            {"account_id": account_id, "token": token, "expires_at": expires_at}
        )

    async def _create_room(self, request: Request) -> Response:
        owner = await self._account(request)
        now = self._clock()
        room = Room(
            room_id=new_room_id(),
            owner=owner,
            created_at=now,
            expires_at=now + self._config.room_lifetime_s,
        )
        await self._store.add_room(room)
        # The token outlives the first lifetime of the room: a worker renews the room
        # for weeks, and the session string that it printed must still admit.
        token_ends = now + max(
            self._config.room_token_lifetime_s, self._config.room_lifetime_s
        )
        token = self._tokens.issue("room", room.room_id, now, token_ends)
        return _json(
            {"room_id": room.room_id, "token": token, "expires_at": room.expires_at}
        )

    async def _delete_room(self, request: Request) -> Response:
        owner = await self._account(request)
        try:
            asked = msgspec.json.decode(await _read_body(request), type=_DeleteRoom)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise BadRequest(reason='the body must be {"room_id": …}') from None
        if not await self._store.delete_room(asked.room_id, owner):
            # The same for a foreign room and for none: ids are not to be probed.
            raise NotAllowed(action="delete this room")
        self._switchboard.close_room(asked.room_id)
        return _json({"room_id": asked.room_id})

    async def _ice_servers(self, request: Request) -> Response:
        token = self._bearer(request)
        now = self._clock()
        try:
            subject = room_id = self._tokens.verify("room", token, now)
        except TokenRefused as as_room:
            try:
                subject = await self._account(request)
            except TokenRefused as as_account:
                # A token of the other kind is merely "not valid"; who knows its kind
                # may know that it has expired, which helps the user.
                raise (as_room if "expired" in as_room.reason else as_account) from None
        else:
            if await self._store.find_room(room_id, now) is None:
                raise RoomGone(server=self._server)
        return _json(self._ice_server_list(subject, now))

    def _ice_server_list(self, subject: str, now: float) -> IceServerList:
        config = self._config
        ends = int(now + config.turn_lifetime_s)
        shared = turn_servers(config.turn, turn_name(subject), ends)
        return IceServerList(
            ice_servers=[*config.ice_servers, *shared],
            expires_at=ends if shared else None,
            relay=RelayTerms(path=RELAY_PATH, max_mbit=config.relay.max_mbit)
            if config.relay.enabled
            else None,
        )

    # -- operation ------------------------------------------------------------------

    async def _health(self, request: Request) -> Response:
        return _json({"status": "ok", "version": __version__})

    async def _ready(self, request: Request) -> Response:
        await self._store.check()
        return _json({"status": "ready"})

    async def _render_metrics(self, request: Request) -> Response:
        return Response(
            self._switchboard.render_metrics(),
            headers={"content-type": self._metrics.content_type},
        )

    # -- who asks, and how often ------------------------------------------------------

    def _take(self, limiter: RateLimiter, request: Request) -> None:
        host = request.client.host if request.client else ""
        wait_s = limiter.take(address_key(host), time.monotonic())
        if wait_s:
            raise RateLimited(retry_after_s=f"{wait_s:.1f}")

    async def _account(self, request: Request) -> str:
        now = self._clock()
        account_id = self._tokens.verify("account", self._bearer(request), now)
        if not await self._store.has_account(account_id, now):
            raise TokenRefused(server=self._server, reason="the account has ended")
        return account_id

    def _bearer(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenRefused(server=self._server, reason="a token is missing")
        return token.strip()

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RtcError)  # noqa: S101 -- registered for it alone
        if isinstance(error, StorageFailed):
            _log.error("%s", error)
            error = StorageFailed(place="The server's store", reason="see its log")
        self._metrics.refused(error.code)
        status = _STATUS.get(error.code, 400)
        headers = {}
        if isinstance(error, RateLimited):
            headers["retry-after"] = str(int(float(error.retry_after_s)) + 1)
        if isinstance(error, TokenRefused):
            headers["www-authenticate"] = "Bearer"
        return _error(error, status, headers)

    async def _too_large(self, request: Request, error: Exception) -> Response:
        reason = f"the body is larger than {MAX_BODY_BYTES} bytes"
        refusal = BadRequest(reason=reason)
        self._metrics.refused(refusal.code)
        return _error(refusal, 413, {"connection": "close"})


async def _read_body(request: Request) -> bytes:
    """Read a body that is bounded in size and in time."""
    body = bytearray()
    size = 0
    try:
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            async for part in request.stream():
                size += len(part)
                # What is too much is not kept, but read on for a while: closing on
                # unread bytes resets the connection, and the answer would be lost.
                if size > MAX_DISCARDED_BYTES:
                    break
                if size <= MAX_BODY_BYTES:
                    body += part
    except TimeoutError:
        raise BadRequest(reason="the body did not come in time") from None
    except ClientDisconnect:
        raise BadRequest(reason="the body did not come whole") from None
    if size > MAX_BODY_BYTES:
        raise _BodyTooLarge
    return bytes(body)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- registered for it alone
    reason = f"{error.detail.lower()}: this server has no such route"
    return _error(
        BadRequest(reason=reason), error.status_code, dict(error.headers or {})
    )


async def _failed(request: Request, error: Exception) -> Response:
    failure = RemoteFailure(kind="a fault of its own", detail="see the server's log")
    return _error(failure, _STATUS[failure.code], {})


def _json(value: object) -> Response:
    return Response(
        _encoder.encode(value),
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


def _error(error: RtcError, status: int, headers: dict[str, str]) -> Response:
    return Response(
        _encoder.encode(
            {
                "code": error.code,
                "message": str(error),
                "fields": error.to_wire().fields,
            }
        ),
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store", **headers},
    )

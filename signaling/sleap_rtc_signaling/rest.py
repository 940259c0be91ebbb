"""What every HTTP route of the server shares: bounds, tokens, bodies, errors.

Errors are JSON with the codes of `protocol.errors`; nothing that a caller sent is
repeated in one, and no token is ever logged. Called by the modules that hold routes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    RateLimited,
    RemoteFailure,
    RtcError,
    StorageFailed,
    TokenRefused,
)
from sleap_rtc_signaling.accounts import Accounts, Identity
from sleap_rtc_signaling.bus.exchange import Exchange
from sleap_rtc_signaling.event_log import note
from sleap_rtc_signaling.limits import (
    MAX_BODY_BYTES,
    MAX_DISCARDED_BYTES,
    REQUEST_DEADLINE_S,
    REST_RATE,
)
from sleap_rtc_signaling.metrics import Metrics
from sleap_rtc_signaling.rate_limit import RateLimiter, address_key

__all__ = ["Rest", "answer", "read_body", "status_of"]

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.json.Encoder()

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]

_STATUS: Final = {
    "token_refused": 401,
    "sign_in_required": 401,
    "sign_in_refused": 403,
    "invitation_refused": 403,
    "not_allowed": 403,
    "pairing_refused": 404,
    "room_gone": 404,
    "too_many": 409,
    "rate_limited": 429,
    "remote_failure": 500,
    "accounts_unavailable": 503,
    "storage_failed": 503,
}
"""HTTP status by error code; every other code is the caller's mistake, 400."""


_SERVER_FAULT: Final = 500


def status_of(error: RtcError) -> int:
    """Return the HTTP status of a refusal."""
    return _STATUS.get(error.code, 400)


class _BodyTooLarge(Exception):
    """A body went past its bound; HTTP has a status of its own for that."""


class Rest:
    """Checks who asks and how often, and turns errors into answers.

    Args:
        accounts: verifies the tokens of accounts.
        metrics: counts.
        server: how the server is named in errors.
        clock: Unix time in seconds.
        exchange: counts with other instances; None where there are none.
    """

    def __init__(
        self,
        accounts: Accounts,
        metrics: Metrics,
        server: str,
        clock: Callable[[], float],
        exchange: Exchange | None = None,
    ) -> None:
        self._exchange = exchange
        self.server = server
        self.clock = clock
        self._accounts = accounts
        self._metrics = metrics
        self._requests = RateLimiter(REST_RATE, kind="requests")

    def route(self, method: str, path: str, endpoint: Endpoint) -> Route:
        """Make a route that is bounded in how often one address may ask."""

        async def counted(request: Request) -> Response:
            began = time.monotonic()
            status = 500
            try:
                await self.take(self._requests, request)
                response = await endpoint(request)
                status = response.status_code
            except RtcError as error:
                status = status_of(error)
                raise
            finally:
                took_s = time.monotonic() - began
                self._metrics.requested(method, path, status, took_s)
                note(
                    _log,
                    logging.INFO if status < _SERVER_FAULT else logging.WARNING,
                    "request",
                    method=method,
                    route=path,
                    status=status,
                    ms=round(took_s * 1000, 1),
                )
            return response

        return Route(path, counted, methods=[method])

    @property
    def exception_handlers(self) -> Mapping[Any, Any]:
        """What an application does with errors."""
        return {
            RtcError: self._refused,
            _BodyTooLarge: self._too_large,
            HTTPException: _no_such_route,
            Exception: _failed,
        }

    # -- who asks, and how often ------------------------------------------------------

    async def take(self, limiter: RateLimiter, request: Request) -> None:
        """Count a request of an address, at all instances.

        Raises:
            RateLimited: there were too many.
        """
        host = request.client.host if request.client else ""
        await self.take_key(limiter, address_key(host))

    async def take_key(self, limiter: RateLimiter, key: str = "") -> None:
        """Count something that is not of one address.

        Raises:
            RateLimited: there was too much.
        """
        wait_s = limiter.take(key, time.monotonic())
        if not wait_s and self._exchange is not None:
            wait_s = await self._exchange.take(limiter.kind, key, limiter.rate)
        if wait_s:
            raise RateLimited(retry_after_s=f"{wait_s:.1f}")

    async def account(self, request: Request) -> Identity:
        """Return whose account token the request carries.

        Raises:
            TokenRefused: there is none, or it is not good.
        """
        return await self._accounts.identify(self.bearer(request), self.clock())

    def bearer(self, request: Request) -> str:
        """Return the request's token (RFC 6750 section 2.1).

        Raises:
            TokenRefused: there is none.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenRefused(server=self.server, reason="a token is missing")
        return token.strip()

    async def body(self, request: Request, kind: type[T], expected: str) -> T:
        """Read a JSON body.

        Args:
            request: whose.
            kind: what it must be.
            expected: the same in words, such as `{"room_id": …}`.

        Raises:
            BadRequest: it is something else, or did not come whole or in time.
        """
        try:
            return msgspec.json.decode(await read_body(request) or b"{}", type=kind)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise BadRequest(reason=f"the body must be {expected}") from None

    # -- errors -----------------------------------------------------------------------

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RtcError)  # noqa: S101 -- registered for it alone
        if isinstance(error, StorageFailed):
            _log.error("%s", error)
            error = StorageFailed(place="The server's store", reason="see its log")
        self._metrics.refused(error.code)
        status = status_of(error)
        headers = {}
        if isinstance(error, RateLimited):
            headers["retry-after"] = str(int(float(error.retry_after_s)) + 1)
        if status == _STATUS["token_refused"]:
            headers["www-authenticate"] = "Bearer"
        return _error(error, status, headers)

    async def _too_large(self, request: Request, error: Exception) -> Response:
        reason = f"the body is larger than {MAX_BODY_BYTES} bytes"
        refusal = BadRequest(reason=reason)
        self._metrics.refused(refusal.code)
        return _error(refusal, 413, {"connection": "close"})


async def read_body(request: Request) -> bytes:
    """Read a body that is bounded in size and in time.

    Raises:
        BadRequest: it did not come whole or in time.
    """
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


def answer(value: object, status: int = 200) -> Response:
    """Answer with JSON that nobody keeps."""
    return Response(
        _encoder.encode(value),
        status_code=status,
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

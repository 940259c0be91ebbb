"""The server's own REST routes, called in this process with a person's token.

So the dashboard can do what the person may do over REST and nothing else, and every
check stands in one place. No socket is opened and nothing is logged. Called by pages.
"""

from collections.abc import MutableMapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.types import ASGIApp

from sleap_rtc_plugin.protocol.errors import (
    ErrorInfo,
    RemoteFailure,
    RtcError,
    from_wire,
)

__all__ = ["RestCalls"]

T = TypeVar("T")
_ERROR: Final = 400


class _Refusal(Struct, frozen=True):
    code: str
    fields: dict[str, str] = {}


class RestCalls:
    """Calls an ASGI application.

    Args:
        application: the one with the REST routes.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        token: str = "",
        body: object = None,
        visitor: Request | None = None,
    ) -> T:
        """Make a request and return what the answer's body is.

        Args:
            method: such as `GET`.
            path: below the server's address; ids in it are checked by the caller.
            kind: what a good answer holds.
            token: the person's account token.
            body: sent as JSON, unless it is None.
            visitor: what the person asked of the dashboard: rates are counted for its
                address, and the server is named as it was there.

        Raises:
            RtcError: the request was refused; as the route raised it.
        """
        status, answered = await self._request(
            method,
            path,
            token,
            b"" if body is None else msgspec.json.encode(body),
            visitor,
        )
        try:
            if status >= _ERROR:
                raise _error(answered)
            return msgspec.json.decode(answered, type=kind)
        except msgspec.MsgspecError:
            raise RemoteFailure(
                kind="an answer of its own that it cannot read", detail=path
            ) from None

    async def _request(
        self,
        method: str,
        path: str,
        token: str,
        body: bytes,
        visitor: Request | None,
    ) -> tuple[int, bytes]:
        headers = [(b"content-length", str(len(body)).encode())]
        if body:
            headers.append((b"content-type", b"application/json"))
        if visitor is not None:
            host = visitor.headers.get("host", "")
            headers.append((b"host", host.encode("latin-1")))
        if token:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http" if visitor is None else visitor.url.scheme,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": None if visitor is None else visitor.scope["client"],
            "server": None,
        }
        status = 500
        parts: list[bytes] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        await self._application(scope, receive, send)
        return status, b"".join(parts)


def _error(answered: bytes) -> RtcError:
    refusal = msgspec.json.decode(answered, type=_Refusal)
    return from_wire(ErrorInfo(code=refusal.code, fields=refusal.fields))

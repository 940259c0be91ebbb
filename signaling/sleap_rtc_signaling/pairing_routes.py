"""The routes of pairing: a worker opens one, somebody with the code claims it.

Whoever claims need not be signed in: the code is all they have. So claims are few for
one address and few for the whole server, and a number is spent by the first.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from sleap_rtc_plugin.protocol.account_messages import (
    ClaimPairing,
    FinishPairing,
    OpenPairing,
)
from sleap_rtc_plugin.protocol.errors import PairingRefused
from sleap_rtc_plugin.protocol.limits import MAX_PAIRING_NUMBER
from sleap_rtc_signaling.limits import ALL_CLAIMS_RATE, CLAIM_RATE
from sleap_rtc_signaling.pairing_book import PairingBook
from sleap_rtc_signaling.rate_limit import RateLimiter
from sleap_rtc_signaling.rest import Rest, answer

__all__ = ["PairingRoutes"]

T = TypeVar("T", bound=Struct)


class PairingRoutes:
    """What a worker and a claimer ask for.

    Args:
        rest: what all routes share.
        book: the pairings.
        room_of: returns the room of a token that may hand out its session string.
    """

    def __init__(
        self,
        rest: Rest,
        book: PairingBook,
        room_of: Callable[[str, float], Awaitable[str]],
    ) -> None:
        self._rest = rest
        self._book = book
        self._room_of = room_of
        self._claims = RateLimiter(CLAIM_RATE, kind="claims")
        self._all_claims = RateLimiter(ALL_CLAIMS_RATE, kind="all-claims")

    def routes(self) -> list[BaseRoute]:
        """Return the routes, for both ports."""
        route = self._rest.route
        return [
            route("POST", "/pairings", self._open),
            route("POST", "/pairings/{number}/claim", self._claim),
            route("POST", "/pairings/{number}/answer", self._answer),
            route("POST", "/pairings/{number}/finish", self._finish),
            route("POST", "/pairings/{number}/state", self._state),
            route("POST", "/pairings/{number}/close", self._close),
        ]

    async def _open(self, request: Request) -> Response:
        now = self._rest.clock()
        room_id = await self._room_of(self._rest.bearer(request), now)
        asked = await self._body(request, OpenPairing)
        return answer(await self._book.open(room_id, asked.message, now))

    async def _claim(self, request: Request) -> Response:
        await self._rest.take(self._claims, request)
        await self._rest.take_key(self._all_claims)
        await self._body(request, ClaimPairing)
        return answer(await self._book.claim(_number(request), self._rest.clock()))

    async def _answer(self, request: Request) -> Response:
        asked, now = await self._body(request, FinishPairing), self._rest.clock()
        return answer(
            await self._book.answer(
                _number(request), asked.key, asked.message, asked.sealed, now
            )
        )

    async def _finish(self, request: Request) -> Response:
        asked, now = await self._body(request, FinishPairing), self._rest.clock()
        return answer(
            await self._book.finish(_number(request), asked.key, asked.sealed, now)
        )

    async def _state(self, request: Request) -> Response:
        asked = await self._body(request, FinishPairing)
        return answer(
            await self._book.look(_number(request), asked.key, self._rest.clock())
        )

    async def _close(self, request: Request) -> Response:
        asked = await self._body(request, FinishPairing)
        await self._book.close(_number(request), asked.key, self._rest.clock())
        return answer({})

    async def _body(self, request: Request, kind: type[T]) -> T:
        names = ", ".join(kind.__struct_fields__)
        return await self._rest.body(
            request, kind, f"an object of {names or 'nothing'}"
        )


def _number(request: Request) -> int:
    text = str(request.path_params["number"])
    if not (text.isascii() and text.isdigit() and len(text) <= len("9999")):
        raise PairingRefused(reason="there is no such number")
    number = int(text)
    if not 0 < number <= MAX_PAIRING_NUMBER:
        raise PairingRefused(reason="there is no such number")
    return number

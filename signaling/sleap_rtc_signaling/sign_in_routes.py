"""The HTTP routes by which somebody signs in, stays signed in, and signs out.

Which ways there are is for the accounts to say; what is here is how often one address
may ask. Added to both ports by the server.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from sleap_rtc_plugin.protocol.account_messages import (
    ANONYMOUS,
    AccountInfo,
    DevicePending,
    PollDevice,
    Refresh,
    SignInMethods,
    SignOut,
)
from sleap_rtc_plugin.protocol.errors import BadRequest
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_signaling.accounts import Accounts
from sleap_rtc_signaling.limits import (
    ALL_DEVICE_FLOWS_RATE,
    DEVICE_FLOW_RATE,
    DEVICE_POLL_RATE,
    REFRESH_RATE,
    SIGN_IN_RATE,
)
from sleap_rtc_signaling.rate_limit import RateLimiter
from sleap_rtc_signaling.rest import Rest, answer

__all__ = ["SignInRoutes"]

_PENDING: Final = 202


class SignInRoutes:
    """What is asked about accounts.

    Args:
        rest: what all routes share.
        accounts: the ways to sign in.
    """

    def __init__(self, rest: Rest, accounts: Accounts) -> None:
        self._rest = rest
        self._accounts = accounts
        self._sign_ins = RateLimiter(SIGN_IN_RATE, kind="sign-ins")
        self._flows = RateLimiter(DEVICE_FLOW_RATE, kind="flows")
        self._all_flows = RateLimiter(ALL_DEVICE_FLOWS_RATE, kind="all-flows")
        self._polls = RateLimiter(DEVICE_POLL_RATE, kind="polls")
        self._refreshes = RateLimiter(REFRESH_RATE, kind="refreshes")

    def routes(self) -> list[BaseRoute]:
        """Return the routes, for both ports."""
        route = self._rest.route
        return [
            route("POST", "/anonymous-signin", self._anonymous),
            route("GET", "/sign-in", self._methods),
            route("POST", "/sign-in/{name}", self._sign_in),
            route("POST", "/sign-in/{name}/poll", self._poll),
            route("POST", "/refresh", self._refresh),
            route("POST", "/sign-out", self._sign_out),
            route("GET", "/account", self._account),
        ]

    async def _anonymous(self, request: Request) -> Response:
        await self._rest.take(self._sign_ins, request)
        return answer(await self._accounts.sign_in(ANONYMOUS, self._rest.clock()))

    async def _methods(self, request: Request) -> Response:
        return answer(SignInMethods(methods=self._accounts.methods()))

    async def _sign_in(self, request: Request) -> Response:
        name, now = _name(request), self._rest.clock()
        kinds = {method.name: method.kind for method in self._accounts.methods()}
        if kinds.get(name) != "device":
            await self._rest.take(self._sign_ins, request)
            return answer(await self._accounts.sign_in(name, now))
        await self._rest.take(self._flows, request)
        # The provider counts all of them as this server's.
        await self._rest.take_key(self._all_flows)
        return answer(await self._accounts.start(name, now))

    async def _poll(self, request: Request) -> Response:
        await self._rest.take(self._polls, request)
        asked = await self._rest.body(request, PollDevice, '{"flow_id": …}')
        found = await self._accounts.poll(
            _name(request), asked.flow_id, self._rest.clock()
        )
        is_pending = isinstance(found, DevicePending)
        return answer(found, _PENDING if is_pending else 200)

    async def _refresh(self, request: Request) -> Response:
        await self._rest.take(self._refreshes, request)
        asked = await self._rest.body(request, Refresh, '{"refresh_token": …}')
        return answer(
            await self._accounts.refresh(asked.refresh_token, self._rest.clock())
        )

    async def _sign_out(self, request: Request) -> Response:
        await self._rest.take(self._refreshes, request)
        token = self._rest.bearer(request)
        asked = await self._rest.body(
            request, SignOut, '{"refresh_token": …} or nothing'
        )
        who = await self._accounts.sign_out(
            token, asked.refresh_token, self._rest.clock()
        )
        return answer({"account_id": who.account_id})

    async def _account(self, request: Request) -> Response:
        who = await self._rest.account(request)
        return answer(
            AccountInfo(
                account_id=who.account_id,
                name=who.name,
                method=who.method,
                expires_at=who.expires_at,
            )
        )


def _name(request: Request) -> str:
    name = str(request.path_params["name"])
    if not is_id(name):
        raise BadRequest(reason="this server has no such way to sign in")
    return name

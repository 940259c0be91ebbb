"""A login is renewed once, whoever asks; REST answers are read as what they are."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sleap_rtc_plugin.protocol.account_messages import Account, RoomList
from sleap_rtc_plugin.protocol.errors import NotAllowed, RemoteFailure, TokenRefused
from sleap_rtc_signaling.accounts import Accounts
from sleap_rtc_signaling.dashboard.rest_calls import RestCalls
from sleap_rtc_signaling.dashboard.sessions import Content, Login, Sessions
from sleap_rtc_signaling.dashboard.site import Site, Visit
from sleap_rtc_signaling.limits import LOGIN_RENEW_BEFORE_S
from sleap_rtc_signaling.metrics import Metrics
from sleap_rtc_signaling.rest import Rest, answer
from sleap_rtc_signaling.stores.memory import MemoryRecords

NOW = 1_000.0
HOUR_S = 3600.0


class Provider:
    """The REST routes of accounts: a refresh token is good once."""

    def __init__(self) -> None:
        self.number = 0
        self.refreshed: list[str] = []
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def application(self) -> Starlette:
        rest = Rest(_nobody(), Metrics(), "http://lab", lambda: NOW)
        routes = [
            Route("/refresh", self.refresh, methods=["POST"]),
            Route("/rooms", self.rooms),
            Route("/strange", self.strange),
        ]
        return Starlette(routes=routes, exception_handlers=rest.exception_handlers)

    async def refresh(self, request: Request) -> Response:
        token = (await request.json())["refresh_token"]
        self.was_asked.set()
        await self.gate.wait()
        if token in self.refreshed or token != f"refresh-{self.number}":
            raise TokenRefused(server="http://lab", reason="it was used before")
        self.refreshed.append(token)
        self.number += 1
        return answer(self.account())

    def account(self) -> Account:
        return Account(
            account_id="github-1",
            token=f"token-{self.number}",
            expires_at=NOW + HOUR_S,
            refresh_token=f"refresh-{self.number}",
        )

    async def rooms(self, request: Request) -> Response:
        self.asked.append(request.headers["authorization"])
        if self.asked[-1] == "Bearer bad":
            raise NotAllowed(action="see this")
        return answer(RoomList(rooms=[]))

    async def strange(self, request: Request) -> Response:
        return Response(b"<html>", status_code=200)


def _nobody() -> Accounts:
    return None  # type: ignore[return-value]  # no route here asks who somebody is


def site_of(provider: Provider, records: MemoryRecords) -> Site:
    rest = Rest(_nobody(), Metrics(), "http://lab", lambda: NOW)
    site = Site(rest, records)
    site.calls = RestCalls(provider.application())
    return site


async def visit_of(records: MemoryRecords, left_s: float) -> Visit:
    login = Login(
        account_id="github-1",
        name="Ann",
        method="github",
        token="token-0",
        refresh_token="refresh-0",
        expires_at=NOW + left_s,
    )
    made = await Sessions(records).open(Content(login=login), NOW + HOUR_S, NOW)
    found = await Sessions(records).find(made.cookie, NOW)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    return Visit(Request({**scope, "client": None}), found, {}, NOW)


async def test_a_token_that_is_good_is_used_as_it_is() -> None:
    provider, records = Provider(), MemoryRecords()
    visit = await visit_of(records, LOGIN_RENEW_BEFORE_S + 1)
    await site_of(provider, records).ask(visit, "GET", "/rooms", RoomList)
    assert provider.asked == ["Bearer token-0"]
    assert provider.refreshed == []


@pytest.mark.parametrize("servers", [1, 2])
async def test_of_many_requests_at_many_servers_one_renews(servers: int) -> None:
    provider, records = Provider(), MemoryRecords()
    visit = await visit_of(records, 1)
    sites = [site_of(provider, records) for _ in range(servers)]
    asking = [
        asyncio.ensure_future(site.ask(visit, "GET", "/rooms", RoomList))
        for site in sites
        for _ in range(5)
    ]
    await asyncio.gather(*asking)
    assert provider.refreshed == ["refresh-0"]
    assert set(provider.asked) == {"Bearer token-1"}
    # The next request finds the new token in the session.
    found = await Sessions(records).find(visit.session.cookie, NOW)  # type: ignore[union-attr]
    assert found is not None and found.content.login is not None
    assert found.content.login.refresh_token == "refresh-1"


async def test_a_session_that_is_closed_meanwhile_stays_closed() -> None:
    provider, records = Provider(), MemoryRecords()
    visit = await visit_of(records, 1)
    provider.gate.clear()
    asking = asyncio.ensure_future(
        site_of(provider, records).ask(visit, "GET", "/rooms", RoomList)
    )
    await provider.was_asked.wait()
    assert visit.session is not None
    await Sessions(records).close(visit.session)
    provider.gate.set()
    with pytest.raises(TokenRefused):
        await asking
    assert await Sessions(records).find(visit.session.cookie, NOW) is None


async def test_a_refresh_token_that_is_refused_ends_the_login() -> None:
    provider, records = Provider(), MemoryRecords()
    provider.number = 7
    visit = await visit_of(records, 1)
    with pytest.raises(TokenRefused):
        await site_of(provider, records).ask(visit, "GET", "/rooms", RoomList)


Ask = Callable[[RestCalls], Awaitable[object]]


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda calls: calls.ask("GET", "/rooms", RoomList, token="bad"), NotAllowed),
        (lambda calls: calls.ask("GET", "/strange", RoomList), RemoteFailure),
    ],
)
async def test_answers_are_read_as_what_they_are(
    ask: Ask, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await ask(RestCalls(Provider().application()))

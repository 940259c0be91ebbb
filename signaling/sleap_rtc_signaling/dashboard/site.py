"""What every page of the dashboard shares: sessions, forms, headers, refusals.

A page gets a `Visit`, which has been checked, and answers with HTML. Nothing a page
loads comes from elsewhere, and no page runs a script or a style that is not a file of
ours. Called by the modules that hold pages.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sleap_rtc_plugin import __version__
from sleap_rtc_plugin.protocol.account_messages import Account, Refresh
from sleap_rtc_plugin.protocol.errors import (
    AccountsUnavailable,
    BadRequest,
    RtcError,
    StorageFailed,
    TokenRefused,
)
from sleap_rtc_signaling.dashboard.assets import Assets
from sleap_rtc_signaling.dashboard.rest_calls import RestCalls
from sleap_rtc_signaling.dashboard.sessions import Content, Login, Session, Sessions
from sleap_rtc_signaling.dashboard.views import (
    duration_words,
    left_words,
    moment,
    size_words,
)
from sleap_rtc_signaling.limits import (
    LOGIN_LIFETIME_S,
    LOGIN_RENEW_BEFORE_S,
    LOGIN_RENEW_DEADLINE_S,
    LOGIN_RENEW_POLL_S,
    MAX_FORM_FIELDS,
    PAGE_RATE,
)
from sleap_rtc_signaling.rate_limit import RateLimiter
from sleap_rtc_signaling.rest import Rest, read_body, status_of
from sleap_rtc_signaling.stores.records import Records

__all__ = ["BASE", "HEADERS", "Site", "Visit", "lifetime_s", "login_of", "to"]

T = TypeVar("T")
Endpoint = Callable[["Visit"], Awaitable[Response]]

BASE: Final = "/dashboard"
SIGN_IN: Final = f"{BASE}/sign-in"
_COOKIE: Final = "sleap-dashboard"
# RFC 6265bis section 4.1.3.2: no other host of the domain can set this one.
_SECURE_COOKIE: Final = f"__Host-{_COOKIE}"
_SEE_OTHER: Final = 303

HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # "no-referrer" would take the origin from forms, by which they are known as ours.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class Visit:
    """One request of a browser, checked.

    Attributes:
        request: as it came.
        session: the browser's session, or None.
        form: the fields of a form that was sent.
        now: Unix time in seconds.
    """

    request: Request
    session: Session | None
    form: Mapping[str, str]
    now: float

    @property
    def login(self) -> Login | None:
        """Who has signed in."""
        return None if self.session is None else self.session.content.login


class Site:
    """Makes routes out of pages.

    Args:
        rest: counts requests, tells the time, and names the server.
        records: where sessions are kept.
        public_url: where people reach the server, if it was told.
    """

    def __init__(
        self, rest: Rest, records: Records, public_url: str | None = None
    ) -> None:
        self.assets = Assets(Path(__file__).with_name("static"))
        self.calls: RestCalls | None = None
        self._rest = rest
        self._sessions = Sessions(records)
        self._public_url = public_url or ""
        self._limiter = RateLimiter(PAGE_RATE, kind="pages")
        self._renewing: dict[str, asyncio.Lock] = {}
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals |= {
            "asset": self.assets.path,
            "base": BASE,
            "server": rest.server,
            "public_url": self._public_url,
            "version": __version__,
        }
        self._templates.filters |= {
            "duration": duration_words,
            "left": left_words,
            "moment": moment,
            "size": size_words,
        }

    def let_templates_know(self, **values: object) -> None:
        """Give every template a value or a function."""
        self._templates.globals |= values

    # -- routes -----------------------------------------------------------------------

    def page(
        self, method: str, path: str, endpoint: Endpoint, *, signed_in: bool = True
    ) -> Route:
        """Make a route of a page.

        Args:
            method: `GET`, or `POST` for a form.
            path: its address.
            endpoint: answers.
            signed_in: whether it is for those alone who have signed in.
        """

        async def checked(request: Request) -> Response:
            try:
                await self._rest.take(self._limiter, request)
                visit = await self._visit(request)
                if signed_in and visit.login is None:
                    return self.to_sign_in(request)
                return await endpoint(visit)
            except TokenRefused:
                return self.to_sign_in(request)
            except RtcError as error:
                return self.refusal(request, error)

        return Route(path, checked, methods=[method])

    async def _visit(self, request: Request) -> Visit:
        now = self._rest.clock()
        session = await self._sessions.find(self._cookie(request), now)
        form: dict[str, str] = {}
        if request.method == "POST":
            form = await _form(request)
            self._check_origin(request)
            token = form.pop("form_token", "")
            if session is not None and not session.allows(token):
                raise BadRequest(
                    reason="the form is of another session; load the page again"
                )
        return Visit(request, session, form, now)

    # -- answers ----------------------------------------------------------------------

    def html(self, template: str, /, **values: object) -> str:
        """Fill in a template."""
        return self._templates.get_template(template).render(values)

    def render(self, visit: Visit, template: str, /, **values: object) -> Response:
        """Answer with a page."""
        html = self.html(
            template,
            login=visit.login,
            form_token="" if visit.session is None else visit.session.form_token,
            now=visit.now,
            **values,
        )
        return HTMLResponse(html, headers=dict(HEADERS))

    def refusal(self, request: Request, error: RtcError) -> Response:
        """Answer with a page that says what is wrong and what to do."""
        if isinstance(error, StorageFailed):
            error = StorageFailed(place="The server's store", reason="see its log")
        html = self.html(
            "refusal.html", login=None, form_token="", now=0.0, sentence=str(error)
        )
        return HTMLResponse(html, status_of(error), headers=dict(HEADERS))

    def to_sign_in(self, request: Request) -> Response:
        """Send the browser to the page that signs in, and forget its cookie."""
        answer = to(request, SIGN_IN)
        if self._cookie(request):
            self._set_cookie(answer, request, "", 0)
        return answer

    # -- sessions ---------------------------------------------------------------------

    async def open_session(
        self, visit: Visit, answer: Response, content: Content, lifetime_s: float
    ) -> None:
        """Begin a session in place of the visit's, and give its cookie to `answer`."""
        await self.close_session(visit)
        ends = visit.now + lifetime_s
        session = await self._sessions.open(content, ends, visit.now)
        self._set_cookie(answer, visit.request, session.cookie, int(lifetime_s))

    async def close_session(self, visit: Visit) -> None:
        """End the visit's session, if it has one."""
        if visit.session is not None:
            await self._sessions.close(visit.session)

    async def again(self, visit: Visit) -> Visit | None:
        """Look at the visit's session anew; None where it was closed or has ended."""
        now = self._rest.clock()
        cookie = "" if visit.session is None else visit.session.cookie
        session = await self._sessions.find(cookie, now)
        return None if session is None else replace(visit, session=session, now=now)

    # -- cookies and origins ----------------------------------------------------------

    def _is_secure(self, request: Request) -> bool:
        """Tell whether the browser came over https, to us or to a proxy before us."""
        host = request.headers.get("host", "")
        return request.url.scheme == "https" or self._public_url == f"https://{host}"

    def _cookie_name(self, request: Request) -> str:
        return _SECURE_COOKIE if self._is_secure(request) else _COOKIE

    def _cookie(self, request: Request) -> str:
        return request.cookies.get(self._cookie_name(request), "")

    def _set_cookie(
        self, answer: Response, request: Request, value: str, age_s: int
    ) -> None:
        answer.set_cookie(
            self._cookie_name(request),
            value,
            max_age=age_s,
            path="/",
            secure=self._is_secure(request),
            httponly=True,
            samesite="strict",
        )

    def _check_origin(self, request: Request) -> None:
        """Refuse a form that another site sent, whatever cookie came with it.

        Raises:
            BadRequest: it is not known to be one of ours.
        """
        # W3C Fetch Metadata; over plain http browsers leave it out.
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin", "")
        host = request.headers.get("host", "")
        is_own = (
            site == "same-origin"
            if site is not None
            else bool(origin)
            and origin in (f"http://{host}", f"https://{host}", self._public_url)
        )
        if not is_own:
            raise BadRequest(
                reason="the form came from another site; open this server's own "
                "address, and let a proxy in front of it pass the Host header on"
            )

    # -- the REST routes, as the person who visits ------------------------------------

    async def ask(
        self, visit: Visit, method: str, path: str, kind: type[T], body: object = None
    ) -> T:
        """Call a REST route as whoever has signed in.

        Raises:
            RtcError: as the route refuses it; `TokenRefused` where the login has ended.
        """
        login = await self._fresh_login(visit)
        return await self.call(visit, method, path, kind, body, token=login.token)

    async def call(
        self,
        visit: Visit,
        method: str,
        path: str,
        kind: type[T],
        body: object = None,
        *,
        token: str = "",
    ) -> T:
        """Call a REST route with a token, or as nobody."""
        assert self.calls is not None  # noqa: S101 -- set before anything is served
        return await self.calls.ask(
            method, path, kind, token=token, body=body, visitor=visit.request
        )

    async def _fresh_login(self, visit: Visit) -> Login:
        """Return a login whose token is good for a while, renewed where it has to be.

        A refresh token is good once, so of all requests and servers one renews.
        """
        session = visit.session
        if session is None or session.content.login is None:
            raise TokenRefused(server=self._rest.server, reason="nobody is signed in")
        login = session.content.login
        if not _is_due(login, visit.now):
            return login
        lock = self._renewing.setdefault(session.cookie, asyncio.Lock())
        try:
            async with asyncio.timeout(LOGIN_RENEW_DEADLINE_S), lock:
                return await self._renewed(visit, session)
        except TimeoutError:
            raise AccountsUnavailable(
                server=self._rest.server, reason="renewing the login took too long"
            ) from None
        finally:
            if not lock.locked():
                self._renewing.pop(session.cookie, None)

    async def _renewed(self, visit: Visit, session: Session) -> Login:
        while True:
            now = self._rest.clock()
            found = await self._sessions.find(session.cookie, now)
            login = None if found is None else found.content.login
            if found is None or login is None:
                raise TokenRefused(server=self._rest.server, reason="it was signed out")
            if not _is_due(login, now):
                return login
            if now - found.content.renewing_at < LOGIN_RENEW_DEADLINE_S:
                # Another server is at it.
                await asyncio.sleep(LOGIN_RENEW_POLL_S)
                continue
            claim = Content(login=login, renewing_at=now)
            if not await self._sessions.replace(found, claim, now):
                continue
            body = Refresh(refresh_token=login.refresh_token)
            account = await self.call(visit, "POST", "/refresh", Account, body)
            claimed = replace(found, version=found.version + 1)
            renewed = login_of(account)
            if not await self._sessions.replace(claimed, Content(login=renewed), now):
                raise TokenRefused(server=self._rest.server, reason="it was signed out")
            return renewed


def login_of(account: Account) -> Login:
    """Return what a session keeps of an account."""
    return Login(
        account_id=account.account_id,
        name=account.name,
        method=account.method,
        token=account.token,
        refresh_token=account.refresh_token,
        expires_at=account.expires_at,
    )


def lifetime_s(login: Login, now: float) -> float:
    """Return how long a session with this login lasts."""
    if login.refresh_token:
        return LOGIN_LIFETIME_S
    return max(1.0, min(LOGIN_LIFETIME_S, login.expires_at - now))


def to(request: Request, path: str) -> Response:
    """Send the browser to another page; htmx is told in its own way."""
    if request.headers.get("hx-request") == "true":
        return Response(headers={**HEADERS, "hx-redirect": path})
    return RedirectResponse(path, _SEE_OTHER, headers=dict(HEADERS))


def _is_due(login: Login, now: float) -> bool:
    return bool(login.refresh_token) and login.expires_at - now < LOGIN_RENEW_BEFORE_S


# -- requests --------------------------------------------------------------------


async def _form(request: Request) -> dict[str, str]:
    try:
        text = (await read_body(request)).decode("ascii")
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            max_num_fields=MAX_FORM_FIELDS,
            errors="strict",
        )
    except ValueError:
        raise BadRequest(reason="the form cannot be read") from None
    return dict(pairs)

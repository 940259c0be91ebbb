"""The pages that sign in and out: at once, or with a code at a provider (RFC 8628).

The accounts themselves are behind the REST routes; here is only what a person sees of
them. Called by the dashboard.
"""

from typing import Any

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from sleap_rtc_plugin.protocol.account_messages import (
    Account,
    AccountInfo,
    DeviceFlow,
    PollDevice,
    Refresh,
    SignInMethod,
    SignInMethods,
)
from sleap_rtc_plugin.protocol.errors import BadRequest, RtcError, SignInRefused
from sleap_rtc_signaling.dashboard.sessions import Content
from sleap_rtc_signaling.dashboard.site import (
    BASE,
    Site,
    Visit,
    lifetime_s,
    login_of,
    to,
)

__all__ = ["SignInPages"]

_SIGN_IN = f"{BASE}/sign-in"
_CODE = f"{BASE}/sign-in/code"


class SignInPages:
    """Signing in and out.

    Args:
        site: what all pages share.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        page = self._site.page
        return [
            page("GET", _SIGN_IN, self._ways, signed_in=False),
            page("POST", _SIGN_IN, self._begin, signed_in=False),
            page("GET", _CODE, self._code, signed_in=False),
            page("POST", _CODE, self._poll, signed_in=False),
            page("POST", f"{BASE}/sign-out", self._sign_out, signed_in=False),
        ]

    async def _methods(self, visit: Visit) -> list[SignInMethod]:
        found = await self._site.call(visit, "GET", "/sign-in", SignInMethods)
        return found.methods

    async def _ways(self, visit: Visit) -> Response:
        if visit.login is not None:
            return to(visit.request, "/")
        methods = await self._methods(visit)
        return self._site.render(visit, "sign_in.html", methods=methods)

    async def _begin(self, visit: Visit) -> Response:
        wanted = visit.form.get("method", "")
        for method in await self._methods(visit):
            if method.name == wanted:
                break
        else:
            raise BadRequest(reason="this server has no such way to sign in")
        path = f"/sign-in/{method.name}"
        if method.kind == "direct":
            return await self._signed_in(
                visit, await self._site.call(visit, "POST", path, Account)
            )
        flow = await self._site.call(visit, "POST", path, DeviceFlow)
        answer = to(visit.request, _CODE)
        await self._site.open_session(
            visit,
            answer,
            Content(flow=flow, method=method.name),
            max(1.0, flow.expires_at - visit.now),
        )
        return answer

    async def _code(self, visit: Visit) -> Response:
        content = None if visit.session is None else visit.session.content
        if content is None or content.flow is None:
            return to(visit.request, _SIGN_IN)
        flow = content.flow
        is_link = flow.verification_uri.startswith(("https://", "http://"))
        complete = flow.verification_uri_complete
        return self._site.render(
            visit,
            "code.html",
            flow=flow,
            link=flow.verification_uri if is_link else "",
            # Shown beside the code, so that a person sees that they are the same.
            complete=complete if complete.startswith(("https://", "http://")) else "",
            interval_s=max(1, round(flow.interval_s)),
        )

    async def _poll(self, visit: Visit) -> Response:
        session = visit.session
        if session is None or session.content.flow is None:
            return to(visit.request, _SIGN_IN)
        content = session.content
        assert content.flow is not None  # noqa: S101 -- looked at above
        path = f"/sign-in/{content.method}/poll"
        body = PollDevice(flow_id=content.flow.flow_id)
        try:
            found = await self._site.call(visit, "POST", path, dict[str, Any], body)
        except SignInRefused:
            await self._site.close_session(visit)
            raise
        if "token" in found:
            return await self._signed_in(visit, msgspec.convert(found, Account))
        if visit.request.headers.get("hx-request") == "true":
            return Response(status_code=204)
        return to(visit.request, _CODE)

    async def _signed_in(self, visit: Visit, account: Account) -> Response:
        login = login_of(account)
        answer = to(visit.request, "/")
        await self._site.open_session(
            visit, answer, Content(login=login), lifetime_s(login, visit.now)
        )
        return answer

    async def _sign_out(self, visit: Visit) -> Response:
        login = visit.login
        if login is not None:
            try:
                body = Refresh(refresh_token=login.refresh_token)
                await self._site.ask(visit, "POST", "/sign-out", AccountInfo, body)
            except RtcError:
                # The cookie ends in any case; the token ends by itself.
                pass
        await self._site.close_session(visit)
        return self._site.to_sign_in(visit.request)

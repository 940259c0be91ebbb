"""The HTTP routes and the WebSockets of the server, as Starlette applications.

What is here makes anonymous accounts, names ICE servers, and tells how the server is.
The routes of other modules are added. What all of them share is in `rest`.
"""

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute

from sleap_rtc_plugin import __version__
from sleap_rtc_plugin.protocol.errors import StorageFailed, TokenRefused
from sleap_rtc_plugin.protocol.relay_messages import (
    RELAY_PATH,
    IceServerList,
    RelayTerms,
)
from sleap_rtc_signaling import rest_description
from sleap_rtc_signaling.admission import Admissions
from sleap_rtc_signaling.config import SignalingConfig
from sleap_rtc_signaling.metrics import Metrics
from sleap_rtc_signaling.relay_service import RelayService
from sleap_rtc_signaling.rest import Rest, answer
from sleap_rtc_signaling.stores import Store
from sleap_rtc_signaling.switchboard import Switchboard
from sleap_rtc_signaling.turn_credentials import turn_name, turn_servers

__all__ = ["Routes"]


class Routes:
    """What the two ports serve.

    Args:
        config: the administrator's settings.
        rest: what all routes share.
        store: whether it works.
        admissions: who may be in a room.
        switchboard: the live sockets.
        relays: the relays of last resort.
        metrics: counts.
        is_connected: whether other instances, where there are any, can be reached.
        is_draining: whether the server is about to stop.
        more: routes of other modules, served on both ports.
        pages: those of the dashboard, served beside the WebSockets alone.
    """

    def __init__(
        self,
        config: SignalingConfig,
        rest: Rest,
        store: Store,
        admissions: Admissions,
        switchboard: Switchboard,
        relays: RelayService,
        metrics: Metrics,
        is_connected: Callable[[], bool] = lambda: True,
        is_draining: Callable[[], bool] = lambda: False,
        more: Sequence[BaseRoute] = (),
        pages: Sequence[BaseRoute] = (),
    ) -> None:
        self._config = config
        self._rest = rest
        self._store = store
        self._admissions = admissions
        self._switchboard = switchboard
        self._relays = relays
        self._metrics = metrics
        self._is_connected = is_connected
        self._is_draining = is_draining
        self._more = more
        self._pages = pages
        self._clock: Callable[[], float] = rest.clock

    def application(self, *, websocket: bool) -> Starlette:
        """Make the application of one port.

        Args:
            websocket: whether the WebSockets are served too.
        """
        route = self._rest.route
        routes: list[BaseRoute] = [
            route("GET", "/ice-servers", self._ice_servers),
            route("GET", "/health", self._health),
            route("GET", "/ready", self._ready),
            route("GET", "/metrics", self._render_metrics),
            route("GET", rest_description.PATH, self._describe),
            *self._more,
        ]
        if websocket:
            routes.append(WebSocketRoute("/ws", self._switchboard.serve))
            routes.append(WebSocketRoute(RELAY_PATH, self._relays.serve))
            routes += self._pages
        return Starlette(
            routes=routes, exception_handlers=self._rest.exception_handlers
        )

    # -- ICE servers ------------------------------------------------------------------

    async def _ice_servers(self, request: Request) -> Response:
        token, now = self._rest.bearer(request), self._clock()
        room_id = request.query_params.get("room_id", "")
        try:
            entry = await self._admissions.enter(token, room_id, now)
        except TokenRefused as as_room:
            if room_id:
                raise
            try:
                subject = (await self._rest.account(request)).account_id
            except TokenRefused as as_account:
                # A token of the other kind is merely "not valid"; who knows its kind
                # may know that it has expired, which helps the user.
                as_either = (as_room, as_account)
                known = [e for e in as_either if e.reason != "the token is not valid"]
                raise (known or [as_account])[0] from None
        else:
            subject = entry.room.room_id
        return answer(self._ice_server_list(subject, now))

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
        return answer({"status": "ok", "version": __version__})

    async def _ready(self, request: Request) -> Response:
        if self._is_draining():
            return answer({"status": "draining"}, 503)
        await self._store.check()
        if not self._is_connected():
            raise StorageFailed(place="Redis", reason="it does not answer")
        return answer({"status": "ready"})

    async def _describe(self, request: Request) -> Response:
        return Response(rest_description.description(), media_type="application/json")

    async def _render_metrics(self, request: Request) -> Response:
        return Response(
            self._switchboard.render_metrics(),
            headers={"content-type": self._metrics.content_type},
        )

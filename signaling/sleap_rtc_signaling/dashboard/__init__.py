"""The dashboard: pages over the server's own REST routes, for people with a browser.

It holds no right of its own: a page asks the REST routes as the person who looks at it.
What is live comes from the switchboard. Made by the server, on its main port alone.
"""

from collections.abc import Awaitable, Callable

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo
from sleap_rtc_signaling.config import RegistryConfig
from sleap_rtc_signaling.dashboard.model_pages import ModelPages
from sleap_rtc_signaling.dashboard.models import Models
from sleap_rtc_signaling.dashboard.people_pages import PeoplePages
from sleap_rtc_signaling.dashboard.rest_calls import RestCalls
from sleap_rtc_signaling.dashboard.room_pages import RoomPages
from sleap_rtc_signaling.dashboard.sign_in_pages import SignInPages
from sleap_rtc_signaling.dashboard.site import BASE, Site
from sleap_rtc_signaling.dashboard.string_pages import StringPages
from sleap_rtc_signaling.rest import Rest
from sleap_rtc_signaling.stores.records import Records

__all__ = ["Dashboard"]


class Dashboard:
    """All pages.

    Args:
        rest: what all HTTP routes share.
        records: where sessions are kept.
        peers: says who is in a room.
        registry: where the rooms' models are.
        public_url: where people reach the server, if it was told.
    """

    def __init__(
        self,
        rest: Rest,
        records: Records,
        peers: Callable[[str], Awaitable[list[PeerInfo]]],
        registry: RegistryConfig,
        public_url: str | None = None,
    ) -> None:
        self._site = Site(rest, records, public_url)
        self._rooms = RoomPages(self._site, peers, rest.clock)
        self._others = (
            SignInPages(self._site),
            PeoplePages(self._site),
            StringPages(self._site),
            ModelPages(self._site, Models(registry.store)),
        )

    def routes(self) -> list[BaseRoute]:
        """Return the routes of every page."""
        return [
            *self._rooms.routes(),
            *(route for pages in self._others for route in pages.routes()),
            Route(f"{BASE}/static/{{name}}", self._site.assets.serve),
        ]

    def connect(self, application: ASGIApp) -> None:
        """Say which application has the REST routes; before anything is served."""
        self._site.calls = RestCalls(application)

    def close(self) -> None:
        """End every live page, so that the server can stop."""
        self._rooms.close()

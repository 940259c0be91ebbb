"""The pages of the rooms: those of an account, and what happens in one of them.

Live, over server-sent events, for every member; what peers say of themselves is shown
as text. Called by the dashboard.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.routing import Route

from sleap_rtc_plugin.protocol.account_messages import RoomDetails, RoomInfo, RoomList
from sleap_rtc_plugin.protocol.errors import (
    NotAllowed,
    RoomGone,
    RtcError,
    SignInRequired,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo
from sleap_rtc_signaling.dashboard.live import Live
from sleap_rtc_signaling.dashboard.site import BASE, Site, Visit
from sleap_rtc_signaling.dashboard.views import RoomView, left_words

__all__ = ["RoomPages", "ends_words", "find_room"]

# What ends a live page; anything else may pass, and is tried again.
_FINAL = (TokenRefused, NotAllowed, RoomGone, SignInRequired)
_PARTS = ("workers", "jobs", "ended")


async def find_room(site: Site, visit: Visit) -> RoomDetails:
    """Return the room of a page's address, as the one who visits sees it.

    Raises:
        RtcError: there is none, or it is not theirs to see.
    """
    room_id = visit.request.path_params["room_id"]
    if not is_id(room_id):
        raise NotAllowed(action="see this room")
    return await site.ask(visit, "GET", f"/rooms/{room_id}", RoomDetails)


class RoomPages:
    """What there is to see of rooms.

    Args:
        site: what all pages share.
        peers: says who is in a room.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        site: Site,
        peers: Callable[[str], Awaitable[list[PeerInfo]]],
        clock: Callable[[], float],
    ) -> None:
        self._site = site
        self._peers = peers
        self._live = Live(peers, self._draw, clock)

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        page = self._site.page
        room = f"{BASE}/rooms/{{room_id}}"
        return [
            page("GET", "/", self._rooms),
            page("GET", room, self._room),
            page("GET", f"{room}/live", self._events),
        ]

    def close(self) -> None:
        """End every live page."""
        self._live.close()

    async def _rooms(self, visit: Visit) -> Response:
        found = await self._site.ask(visit, "GET", "/rooms", RoomList)
        rooms = sorted(
            found.rooms, key=lambda room: (room.name.casefold(), room.room_id)
        )
        peers = await asyncio.gather(*(self._peers(room.room_id) for room in rooms))
        rows = [
            {
                "room": room,
                "workers": sum(peer.role == "worker" for peer in inside),
                "clients": sum(peer.role == "client" for peer in inside),
                "ends": ends_words(room, visit.now),
            }
            for room, inside in zip(rooms, peers, strict=True)
        ]
        return self._site.render(visit, "rooms.html", rows=rows)

    async def _room(self, visit: Visit) -> Response:
        room = (await find_room(self._site, visit)).room
        return self._site.render(
            visit,
            "room.html",
            room=room,
            ends=ends_words(room, visit.now),
            parts=await self._live.parts(room.room_id),
        )

    async def _events(self, visit: Visit) -> Response:
        room = (await find_room(self._site, visit)).room
        assert visit.login is not None  # noqa: S101 -- the page is for those signed in

        async def may_watch() -> bool:
            seen = await self._site.again(visit)
            if seen is None or seen.login is None:
                return False
            try:
                await find_room(self._site, seen)
            except _FINAL:
                return False
            except RtcError:
                return True
            return True

        return self._live.stream(room.room_id, visit.login.account_id, may_watch)

    def _draw(self, view: RoomView) -> Mapping[str, str]:
        return {
            name: self._site.html(f"parts/{name}.html", view=view) for name in _PARTS
        }


def ends_words(room: RoomInfo, now: float) -> str:
    """Say when a room ends."""
    left_s = room.expires_at - now
    return f"in {left_words(left_s)}" if left_s > 0 else "now"

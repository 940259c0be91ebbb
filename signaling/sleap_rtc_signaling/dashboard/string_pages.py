"""The pages that make a room and the strings that lead into it.

The server makes the room and its credentials. The end-to-end secret is made in the
browser by `session_string.js`, which puts the strings together; it never comes here.
Called by the dashboard.
"""

from typing import Final, get_args

from starlette.responses import Response
from starlette.routing import Route

from sleap_rtc_plugin.protocol.account_messages import (
    Access,
    CreateRoom,
    Credential,
    MakeCredential,
    RoomMade,
)
from sleap_rtc_plugin.protocol.errors import BadRequest
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_NAME_CHARS,
    SECRET_BYTES,
    SESSION_STRING_VERSION,
)
from sleap_rtc_plugin.protocol.session_string import SCHEME
from sleap_rtc_signaling.dashboard.site import BASE, Site, Visit

__all__ = ["StringPages"]

_NEW_ROOM: Final = f"{BASE}/new-room"
_FIRST_WORKER: Final = "First worker"


class StringPages:
    """A new room and its session strings.

    Args:
        site: what all pages share.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        site.let_templates_know(
            scheme=SCHEME,
            string_version=SESSION_STRING_VERSION,
            secret_bytes=SECRET_BYTES,
        )

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        page = self._site.page
        return [
            page("GET", _NEW_ROOM, self._ask),
            page("POST", _NEW_ROOM, self._make),
        ]

    async def _ask(self, visit: Visit) -> Response:
        return self._site.render(visit, "new_room.html")

    async def _make(self, visit: Visit) -> Response:
        access = visit.form.get("access", "")
        if access not in get_args(Access):
            raise BadRequest(reason="the form says neither open nor members")
        body = CreateRoom(
            name=clean_text(visit.form.get("name", ""), MAX_NAME_CHARS),
            access=access,  # type: ignore[arg-type]  # looked at above
        )
        room = await self._site.ask(visit, "POST", "/create-room", RoomMade, body)
        worker = await self._site.ask(
            visit,
            "POST",
            f"/rooms/{room.room_id}/credentials",
            Credential,
            MakeCredential(kind="worker", label=_FIRST_WORKER),
        )
        return self._site.render(
            visit,
            "strings.html",
            room=room,
            name=body.name,
            is_for_members=access == "members",
            tokens={"people": room.token, "worker": worker.token},
        )

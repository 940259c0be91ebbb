"""The page of a room's members, invitations and credentials, and what its forms do.

Every form is one call of a REST route, as the person who sent it; what they may not do
is refused there, and the page leaves out what could only be refused. Called by the
dashboard.
"""

from typing import Final, get_args

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from sleap_rtc_plugin.protocol.account_messages import (
    AcceptInvitation,
    Access,
    ChangeMember,
    ChangeRoom,
    Credential,
    Invitation,
    InviteMember,
    MakeCredential,
    MemberRole,
    RevokeById,
    RoomInfo,
)
from sleap_rtc_plugin.protocol.errors import BadRequest
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_NAME_CHARS
from sleap_rtc_signaling.dashboard.room_pages import ends_words, find_room
from sleap_rtc_signaling.dashboard.site import BASE, Site, Visit, to
from sleap_rtc_signaling.limits import DAY_S

__all__ = ["PeoplePages"]

_ROOM: Final = f"{BASE}/rooms/{{room_id}}"
_NEVER: Final = "never"
_DAYS: Final = {"1": "a day", "7": "a week", "30": "30 days"}
_MEMBER_DAYS: Final = {_NEVER: "for good", "1": "for a day", "30": "for 30 days"}
_SAID: Final = {
    "member": "The member's role was changed.",
    "removed": "The member was removed, and sent out of the room if they were in it.",
    "invitation": "The invitation was taken back.",
    "credential": "The credential was taken back. Who came in with it was sent out.",
    "room": "The room was changed.",
}


class PeoplePages:
    """Who may enter a room, and with what.

    Args:
        site: what all pages share.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        page = self._site.page
        forms = {
            "members": self._change_member,
            "room": self._change_room,
            "invitations": self._invite,
            "invitations/revoke": self._take_invitation_back,
            "credentials": self._make_credential,
            "credentials/revoke": self._take_credential_back,
            "delete": self._delete,
        }
        return [
            page("GET", f"{_ROOM}/people", self._people),
            *(page("POST", f"{_ROOM}/{path}", end) for path, end in forms.items()),
            page("POST", f"{BASE}/accept-invitation", self._accept),
        ]

    async def _people(self, visit: Visit) -> Response:
        return await self._render(visit)

    async def _render(
        self,
        visit: Visit,
        *,
        invitation: Invitation | None = None,
        credential: Credential | None = None,
    ) -> Response:
        details = await find_room(self._site, visit)
        said = _SAID.get(visit.request.query_params.get("said", ""), "")
        return self._site.render(
            visit,
            "people.html",
            room=details.room,
            details=details,
            ends=ends_words(details.room, visit.now),
            is_owner=details.room.role == "owner",
            roles=get_args(MemberRole),
            days=_DAYS,
            member_days=_MEMBER_DAYS,
            said=said,
            invitation=invitation,
            credential=credential,
        )

    # -- members and the room ---------------------------------------------------------

    async def _change_member(self, visit: Visit) -> Response:
        role = visit.form.get("role", "")
        is_removal = "remove" in visit.form
        body = ChangeMember(
            account_id=visit.form.get("account_id", ""),
            role=None if is_removal else _role(role),
        )
        return await self._post(
            visit, "members", body, "removed" if is_removal else "member"
        )

    async def _change_room(self, visit: Visit) -> Response:
        access = visit.form.get("access", "")
        if access not in get_args(Access):
            raise BadRequest(reason="the form says neither open nor members")
        body = ChangeRoom(
            name=_name(visit, "name"),
            access=access,  # type: ignore[arg-type]  # looked at above
        )
        return await self._post(visit, "", body, "room")

    async def _delete(self, visit: Visit) -> Response:
        details = await find_room(self._site, visit)
        if visit.form.get("sure") != "yes":
            raise BadRequest(reason="tick the box to end the room for everybody")
        body = {"room_id": details.room.room_id}
        await self._site.ask(visit, "POST", "/delete-peers-and-room", msgspec.Raw, body)
        return to(visit.request, "/")

    # -- invitations ------------------------------------------------------------------

    async def _invite(self, visit: Visit) -> Response:
        body = InviteMember(
            role=_role(visit.form.get("role", "")),
            expires_in_s=_seconds(visit.form.get("days", "7")),
            member_for_s=_seconds(visit.form.get("member_days", _NEVER)),
            note=_name(visit, "note"),
        )
        room = (await find_room(self._site, visit)).room
        path = f"/rooms/{room.room_id}/invitations"
        made = await self._site.ask(visit, "POST", path, Invitation, body)
        return await self._render(visit, invitation=made)

    async def _take_invitation_back(self, visit: Visit) -> Response:
        body = RevokeById(id=visit.form.get("id", ""))
        return await self._post(visit, "invitations/revoke", body, "invitation")

    async def _accept(self, visit: Visit) -> Response:
        body = AcceptInvitation(code="".join(visit.form.get("code", "").split()))
        room = await self._site.ask(visit, "POST", "/accept-invitation", RoomInfo, body)
        return to(visit.request, f"{BASE}/rooms/{room.room_id}")

    # -- credentials ------------------------------------------------------------------

    async def _make_credential(self, visit: Visit) -> Response:
        kind = visit.form.get("kind", "")
        if kind not in ("session", "worker"):
            raise BadRequest(reason="the form says neither session nor worker")
        body = MakeCredential(
            kind=kind,  # type: ignore[arg-type]  # looked at above
            label=_name(visit, "label"),
            expires_in_s=_seconds(visit.form.get("days", "30")),
        )
        room = (await find_room(self._site, visit)).room
        path = f"/rooms/{room.room_id}/credentials"
        made = await self._site.ask(visit, "POST", path, Credential, body)
        return await self._render(visit, credential=made)

    async def _take_credential_back(self, visit: Visit) -> Response:
        body = RevokeById(id=visit.form.get("id", ""))
        return await self._post(visit, "credentials/revoke", body, "credential")

    async def _post(
        self, visit: Visit, route: str, body: object, said: str
    ) -> Response:
        room = (await find_room(self._site, visit)).room
        path = f"/rooms/{room.room_id}/{route}".rstrip("/")
        await self._site.ask(visit, "POST", path, msgspec.Raw, body)
        return to(visit.request, f"{BASE}/rooms/{room.room_id}/people?said={said}")


def _role(text: str) -> MemberRole:
    if text not in get_args(MemberRole):
        raise BadRequest(reason="the form says no role that there is")
    role: MemberRole = text  # type: ignore[assignment]  # looked at above
    return role


def _name(visit: Visit, field: str) -> str:
    return clean_text(visit.form.get(field, ""), MAX_NAME_CHARS)


def _seconds(days: str) -> float | None:
    if days == _NEVER:
        return None
    if days not in _DAYS and days not in _MEMBER_DAYS:
        raise BadRequest(reason="the form says no time that there is")
    return int(days) * DAY_S

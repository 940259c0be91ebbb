"""The routes of rooms, their members, invitations and credentials.

They read what is asked, bound how often, and answer; `rooms` does the rest. A foreign
room is answered as one that is not there. Called by the server, for both ports.
"""

from typing import TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from sleap_rtc_plugin.protocol.account_messages import (
    AcceptInvitation,
    ChangeMember,
    ChangeRoom,
    CreateRoom,
    DeleteRoom,
    InviteMember,
    MakeCredential,
    RevokeById,
    RoomList,
)
from sleap_rtc_plugin.protocol.errors import RoomGone
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_signaling.limits import ACCEPT_RATE, ROOM_CHANGE_RATE
from sleap_rtc_signaling.rate_limit import RateLimiter
from sleap_rtc_signaling.rest import Rest, answer
from sleap_rtc_signaling.rooms import Rooms

__all__ = ["RoomRoutes"]

T = TypeVar("T", bound=Struct)


class RoomRoutes:
    """What signed-in accounts ask about rooms.

    Args:
        rest: what all routes share.
        rooms: carries it out.
        public_url: the server's address in invitations; where None, the one by which
            the inviting owner reaches it.
    """

    def __init__(self, rest: Rest, rooms: Rooms, public_url: str | None = None) -> None:
        self._public_url = public_url
        self._rest = rest
        self._rooms = rooms
        self._changes = RateLimiter(ROOM_CHANGE_RATE, kind="changes")
        self._accepts = RateLimiter(ACCEPT_RATE, kind="accepts")

    def routes(self) -> list[BaseRoute]:
        """Return the routes, for both ports."""
        route = self._rest.route
        room = "/rooms/{room_id}"
        return [
            route("POST", "/create-room", self._create),
            route("POST", "/delete-peers-and-room", self._delete),
            route("GET", "/rooms", self._list),
            route("GET", room, self._details),
            route("POST", room, self._change),
            route("POST", f"{room}/members", self._change_member),
            route("POST", f"{room}/invitations", self._invite),
            route("POST", f"{room}/invitations/revoke", self._revoke_invitation),
            route("POST", "/accept-invitation", self._accept),
            route("POST", f"{room}/credentials", self._make_credential),
            route("POST", f"{room}/credentials/revoke", self._revoke_credential),
        ]

    async def _create(self, request: Request) -> Response:
        identity = await self._rest.account(request)
        asked = await self._body(request, CreateRoom)
        return answer(
            await self._rooms.create(
                identity, asked.name, asked.access, self._rest.clock()
            )
        )

    async def _delete(self, request: Request) -> Response:
        identity = await self._rest.account(request)
        asked = await self._body(request, DeleteRoom)
        await self._rooms.delete(identity, asked.room_id, self._rest.clock())
        return answer({"room_id": asked.room_id})

    async def _list(self, request: Request) -> Response:
        identity = await self._rest.account(request)
        return answer(
            RoomList(rooms=await self._rooms.mine(identity, self._rest.clock()))
        )

    async def _details(self, request: Request) -> Response:
        identity = await self._rest.account(request)
        room_id = self._room_id(request)
        return answer(await self._rooms.details(identity, room_id, self._rest.clock()))

    async def _change(self, request: Request) -> Response:
        await self._rest.take(self._changes, request)
        identity = await self._rest.account(request)
        asked = await self._body(request, ChangeRoom)
        return answer(
            await self._rooms.change(
                identity,
                self._room_id(request),
                asked.name,
                asked.access,
                self._rest.clock(),
            )
        )

    async def _change_member(self, request: Request) -> Response:
        await self._rest.take(self._changes, request)
        identity = await self._rest.account(request)
        asked = await self._body(request, ChangeMember)
        await self._rooms.change_member(
            identity,
            self._room_id(request),
            asked.account_id,
            asked.role,
            self._rest.clock(),
        )
        return answer({})

    async def _invite(self, request: Request) -> Response:
        await self._rest.take(self._changes, request)
        identity = await self._rest.account(request)
        asked = await self._body(request, InviteMember)
        url = self._public_url or f"{request.url.scheme}://{request.url.netloc}"
        return answer(
            await self._rooms.invite(
                identity, self._room_id(request), asked, url, self._rest.clock()
            )
        )

    async def _revoke_invitation(self, request: Request) -> Response:
        await self._rest.take(self._changes, request)
        identity = await self._rest.account(request)
        asked = await self._body(request, RevokeById)
        await self._rooms.revoke_invitation(
            identity, self._room_id(request), asked.id, self._rest.clock()
        )
        return answer({})

    async def _accept(self, request: Request) -> Response:
        await self._rest.take(self._accepts, request)
        identity = await self._rest.account(request)
        asked = await self._body(request, AcceptInvitation)
        return answer(
            await self._rooms.accept(identity, asked.code, self._rest.clock())
        )

    async def _make_credential(self, request: Request) -> Response:
        await self._rest.take(self._changes, request)
        identity = await self._rest.account(request)
        asked = await self._body(request, MakeCredential)
        return answer(
            await self._rooms.make_credential(
                identity, self._room_id(request), asked, self._rest.clock()
            )
        )

    async def _revoke_credential(self, request: Request) -> Response:
        await self._rest.take(self._changes, request)
        identity = await self._rest.account(request)
        asked = await self._body(request, RevokeById)
        await self._rooms.revoke_credential(
            identity, self._room_id(request), asked.id, self._rest.clock()
        )
        return answer({})

    def _room_id(self, request: Request) -> str:
        room_id = str(request.path_params["room_id"])
        if not is_id(room_id):
            raise RoomGone(server=self._rest.server)
        return room_id

    async def _body(self, request: Request, kind: type[T]) -> T:
        names = ", ".join(kind.__struct_fields__)
        return await self._rest.body(request, kind, f"an object of {names}")

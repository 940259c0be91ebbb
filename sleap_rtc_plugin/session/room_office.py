"""What an owner does about a room: whom to let in, as what, and until when.

Each is one question to the room's signaling server, as the account that is signed in
there. Session strings are completed here, since their secret never leaves the user's
computers. Called by `sleap-remote rooms` and by the companion.
"""

import msgspec

from sleap_rtc_plugin.protocol.account_messages import (
    Access,
    CredentialKind,
    Invitation,
    InviteMember,
    MemberInfo,
    MemberRole,
    RoomDetails,
)
from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    RoomNotKnown,
    SessionNotKept,
)
from sleap_rtc_plugin.protocol.ids import clean_text, is_id, new_peer_id
from sleap_rtc_plugin.protocol.invitation_code import InvitationCode
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.accounts import SignedInAccounts
from sleap_rtc_plugin.session.credentials import CredentialStore
from sleap_rtc_plugin.session.known_rooms import (
    KnownRoom,
    find_room,
    keep_session,
    load_session,
)
from sleap_rtc_plugin.session.new_room import open_room

__all__ = ["RoomOffice", "accept_invitation"]


class RoomOffice:
    """The rooms of the accounts that are signed in here.

    Every method raises the `RtcError` that the server answers with: `NotAllowed` where
    the account may not do that, `NotSignedIn` where there is none.

    Args:
        accounts: who is signed in where; the user's own by default.
        credentials: the session strings; the user's own by default.
    """

    def __init__(
        self,
        accounts: SignedInAccounts | None = None,
        credentials: CredentialStore | None = None,
    ) -> None:
        self.accounts = accounts or SignedInAccounts()
        self.credentials = credentials or CredentialStore()

    async def find(self, wanted: str) -> KnownRoom:
        """Return the room of this id or name.

        Raises:
            RoomNotKnown: there is none, or more than one of that name.
        """
        return await find_room(wanted, self.accounts, self.credentials)

    async def create(self, server: str, name: str, access: Access) -> Session:
        """Open a room with a new secret, and remember its session string."""
        session = await open_room(
            server,
            # Which worker is preferred is not known before there is one.
            new_peer_id("worker"),
            name=name,
            access=access,
            accounts=self.accounts,
            needs_account=True,
        )
        await keep_session(session, self.credentials, is_asked_for=True)
        return session

    async def details(self, room: KnownRoom) -> RoomDetails:
        """Return a room, its members, invitations and credentials."""
        return await self.accounts.call(
            room.server, lambda client, token: client.room(token, room.room_id)
        )

    async def change(
        self, room: KnownRoom, name: str | None, access: Access | None
    ) -> None:
        """Give a room another name or access."""
        await self.accounts.call(
            room.server,
            lambda client, token: client.change_room(
                token, room.room_id, name=name, access=access
            ),
        )

    async def delete(self, room: KnownRoom) -> None:
        """Delete a room: everybody in it is disconnected, its string is forgotten."""
        await self.accounts.call(
            room.server, lambda client, token: client.delete_room(token, room.room_id)
        )
        if room.is_kept:
            await self.credentials.forget(room.room_id)

    # -- members -----------------------------------------------------------------------

    async def invite(self, room: KnownRoom, invitation: InviteMember) -> Invitation:
        """Make an invitation."""
        return await self.accounts.call(
            room.server,
            lambda client, token: client.invite(token, room.room_id, invitation),
        )

    async def member(self, room: KnownRoom, wanted: str) -> MemberInfo:
        """Return the member of this account id or name.

        Raises:
            RoomNotKnown: there is none, or more than one of that name.
        """
        members = (await self.details(room)).members
        found = [one for one in members if one.account_id == wanted]
        found = found or [one for one in members if one.name and one.name == wanted]
        if len(found) != 1:
            reason = "more than one member is called" if found else "no member is"
            raise RoomNotKnown(room=room.title, reason=f"{reason} {clean_text(wanted)}")
        return found[0]

    async def set_role(
        self, room: KnownRoom, member: MemberInfo, role: MemberRole | None
    ) -> None:
        """Give a member another role; None takes the membership away."""
        await self.accounts.call(
            room.server,
            lambda client, token: client.change_member(
                token, room.room_id, member.account_id, role
            ),
        )

    # -- what admits -------------------------------------------------------------------

    async def credential(
        self,
        room: KnownRoom,
        kind: CredentialKind,
        *,
        label: str = "",
        expires_in_s: float | None = None,
    ) -> tuple[Session, float]:
        """Make a room token; return it as a session, and until when it admits.

        Raises:
            SessionNotKept: the room's secret is not on this computer.
        """
        # Asked first: a token that no session string can be made of helps nobody.
        own = await load_session(
            room.title, room.room_id, room.server, self.credentials
        )
        made = await self.accounts.call(
            room.server,
            lambda client, token: client.make_credential(
                token, room.room_id, kind, label=label, expires_in_s=expires_in_s
            ),
        )
        session = msgspec.structs.replace(own, token=made.token)
        return session, made.expires_at

    async def revoke(self, room: KnownRoom, wanted: str) -> str:
        """Take back the invitation or credential of this id.

        Returns:
            What it was: `invitation`, or the kind of the credential.

        Raises:
            RoomNotKnown: the room has none of that id.
        """
        details = await self.details(room)
        for invitation in details.invitations:
            if invitation.invitation_id == wanted:
                await self.accounts.call(
                    room.server,
                    lambda client, token: client.revoke_invitation(
                        token, room.room_id, wanted
                    ),
                )
                return "invitation"
        for credential in details.credentials:
            if credential.credential_id == wanted:
                await self.accounts.call(
                    room.server,
                    lambda client, token: client.revoke_credential(
                        token, room.room_id, wanted
                    ),
                )
                return f"{credential.kind} credential"
        reason = f"it has no invitation or credential {clean_text(wanted)}"
        raise RoomNotKnown(room=room.title, reason=reason)


async def accept_invitation(
    text: str, accounts: SignedInAccounts, credentials: CredentialStore
) -> KnownRoom:
    """Become a member of the room that an invitation is for.

    Args:
        text: the code; it names its server.
        accounts: who is signed in where.
        credentials: the session strings.

    Raises:
        InvitationCodeInvalid: it cannot be read.
        NotSignedIn: nobody is signed in at its server.
        InvitationRefused: it was used, has expired, or never was.
    """
    code = InvitationCode.parse(text)
    room = await accounts.call(
        code.url,
        lambda client, token: client.accept_invitation(token, code.encode()),
    )
    if not is_id(room.room_id):
        raise RemoteProtocolError(detail="a room without a proper id")
    try:
        await load_session(room.name, room.room_id, code.url, credentials)
    except SessionNotKept:
        is_kept = False
    else:
        is_kept = True
    return KnownRoom(
        room_id=room.room_id,
        server=code.url,
        name=clean_text(room.name),
        role=room.role,
        access=room.access,
        is_kept=is_kept,
        expires_at=room.expires_at,
    )

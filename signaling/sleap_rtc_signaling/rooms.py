"""Rooms as their members use them: make, list, change, invite, give out credentials.

Every call says who asks, and answers a foreign room as one that is not there. What is
taken back takes effect on open sockets at once. Called by the REST routes and by the
dashboard; what a roster is, is `stores.roster`'s to say.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from sleap_rtc_plugin.protocol.account_messages import (
    Access,
    Credential,
    CredentialInfo,
    CredentialKind,
    Invitation,
    InvitationInfo,
    InviteMember,
    MakeCredential,
    MemberInfo,
    MemberRole,
    RoomDetails,
    RoomInfo,
    RoomMade,
)
from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    InvitationCodeInvalid,
    InvitationRefused,
    NotAllowed,
    RoomGone,
)
from sleap_rtc_plugin.protocol.ids import clean_text, new_room_id
from sleap_rtc_plugin.protocol.invitation_code import InvitationCode
from sleap_rtc_plugin.protocol.limits import MAX_INVITATION_CHARS
from sleap_rtc_signaling.accounts import Identity
from sleap_rtc_signaling.limits import (
    INVITATION_LIFETIME_S,
    INVITATION_SECRET_BYTES,
    MAX_CREDENTIAL_LIFETIME_S,
    MAX_INVITATION_LIFETIME_S,
    MAX_ROOMS_LISTED,
    MAX_STORE_CALLS_AT_ONCE,
    MAX_STORE_TRIES,
    NAMED_ROOM_LIFETIME_S,
)
from sleap_rtc_signaling.stores import Room, Store
from sleap_rtc_signaling.stores.layout import MEMBERSHIP
from sleap_rtc_signaling.stores.records import Record, RecordKey
from sleap_rtc_signaling.stores.roster import (
    RANKS,
    KeptCredential,
    KeptInvitation,
    Member,
    Roster,
    accepted,
    digest_of,
    find_member,
    first_roster,
    invited,
    living,
    roster_key,
    roster_of,
    roster_record,
    with_credential,
    with_role,
    without_credential,
    without_invitation,
)
from sleap_rtc_signaling.stores.store import contended
from sleap_rtc_signaling.tokens import Tokens

__all__ = ["OLD_CREDENTIAL", "Rooms", "Sockets"]

OLD_CREDENTIAL: Final = "of-an-older-version"
"""Stands for the room tokens of versions that gave them no id."""

_INVITATION: Final = "invitation"
_SPENT: Final = "it was used, has expired, or never was"

T = TypeVar("T")


class Sockets(Protocol):
    """What the switchboard does for rooms."""

    def close_room(self, room_id: str) -> None:
        """Send everybody out of a room that was deleted."""

    def revoke(
        self, room_id: str, *, credential_id: str = "", account_id: str = ""
    ) -> None:
        """Send those out whom a credential or an account let in."""


class Rooms:
    """The rooms of one store, for those who are signed in.

    Args:
        store: where they are.
        tokens: signs credentials.
        sockets: the live ones.
        server: how the server is named in errors.
        room_lifetime_s: how long a room lives without a worker.
        token_lifetime_s: how long a credential is good where nobody says.
    """

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        sockets: Sockets,
        server: str,
        room_lifetime_s: float,
        token_lifetime_s: float,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._sockets = sockets
        self._server = server
        self._room_lifetime_s = room_lifetime_s
        # A worker renews its room for weeks, and the session string that it printed
        # must still admit.
        self._token_lifetime_s = max(token_lifetime_s, room_lifetime_s)

    # -- rooms --------------------------------------------------------------------

    async def create(
        self, identity: Identity, name: str, access: Access, now: float
    ) -> RoomMade:
        """Make a room, whose owner is who asks, and its first credential.

        Raises:
            TooMany: the account has as many rooms as it may.
        """
        lifetime_s = NAMED_ROOM_LIFETIME_S if identity.is_named else 0.0
        room = Room(
            room_id=new_room_id(),
            owner=identity.account_id,
            created_at=now,
            expires_at=now + max(self._room_lifetime_s, lifetime_s),
            name=clean_text(name),
            access=access,
            lifetime_s=lifetime_s,
        )
        credential = KeptCredential(
            credential_id=_new_id("credential"),
            kind="session",
            label="",
            made_by=identity.account_id,
            created_at=now,
            expires_at=now + self._token_lifetime_s,
        )
        roster = with_credential(first_roster(room, identity.name), credential, now)
        await self._store.add_room(room)
        await self._store.records.create(roster_record(room.room_id, roster), now)
        token = self._token(room.room_id, credential, now)
        return RoomMade(room_id=room.room_id, token=token, expires_at=room.expires_at)

    async def mine(self, identity: Identity, now: float) -> list[RoomInfo]:
        """Return the rooms of which an account is a member, by their names."""
        account_id = identity.account_id
        made, joined = await asyncio.gather(
            self._store.made_rooms(account_id, now),
            self._store.records.partition(
                MEMBERSHIP, account_id, now, MAX_ROOMS_LISTED
            ),
        )
        places = asyncio.Semaphore(MAX_STORE_CALLS_AT_ONCE)

        async def look(room_id: str) -> RoomInfo | None:
            async with places:
                try:
                    room, _, member = await self._enter(identity, room_id, now)
                except RoomGone:
                    return None
                return _info(room, member)

        ids = dict.fromkeys([*made, *(record.key.name for record in joined)])
        found = await asyncio.gather(*(look(room_id) for room_id in ids))
        rooms = [info for info in found if info is not None]
        return sorted(rooms, key=lambda info: (info.name, info.room_id))

    async def details(
        self, identity: Identity, room_id: str, now: float
    ) -> RoomDetails:
        """Return what a member may see of a room.

        Raises:
            RoomGone: there is none, or none of this account.
        """
        room, roster, member = await self._enter(identity, room_id, now)
        is_owner = member.role == "owner"
        members = roster.members if RANKS[member.role] else (member,)
        credentials = [
            credential
            for credential in roster.credentials
            if is_owner or credential.made_by == member.account_id
        ]
        return RoomDetails(
            room=_info(room, member),
            members=[_member_info(each) for each in members],
            invitations=[
                InvitationInfo(
                    invitation_id=each.invitation_id,
                    role=each.role,
                    note=each.note,
                    expires_at=each.expires_at,
                )
                for each in (roster.invitations if is_owner else ())
            ],
            credentials=[
                CredentialInfo(
                    credential_id=each.credential_id,
                    kind=each.kind,
                    label=each.label,
                    created_at=each.created_at,
                    expires_at=each.expires_at,
                )
                for each in credentials
            ],
        )

    async def change(
        self,
        identity: Identity,
        room_id: str,
        name: str | None,
        access: Access | None,
        now: float,
    ) -> RoomInfo:
        """Give a room another name or access; what is None stays.

        Raises:
            RoomGone: there is none, or none of this account.
            NotAllowed: only owners may.
        """
        room, roster, member = await self._enter(identity, room_id, now)
        _demand(member, "owner", "change this room")
        cleaned = None if name is None else clean_text(name)
        changed = await self._store.change_room(room_id, cleaned, access, now)
        if changed is None:
            raise RoomGone(server=self._server)
        if changed.access == "members" and room.access != "members":
            # Those who came in with a session string alone would not get in now.
            self._sockets.revoke(room_id, credential_id=OLD_CREDENTIAL)
            for credential in roster.credentials:
                if credential.kind == "session":
                    self._revoke_credential(room_id, credential.credential_id)
        return _info(changed, member)

    async def delete(self, identity: Identity, room_id: str, now: float) -> None:
        """Delete a room and send everybody out.

        Raises:
            NotAllowed: there is none, or this account is no owner of it.
        """
        try:
            room, _, member = await self._enter(identity, room_id, now)
        except RoomGone:
            # The same for a foreign room and for none: ids are not to be probed.
            raise NotAllowed(action="delete this room") from None
        _demand(member, "owner", "delete this room")
        await self._store.remove_room(room)
        self._sockets.close_room(room_id)

    # -- members ------------------------------------------------------------------

    async def change_member(
        self,
        identity: Identity,
        room_id: str,
        account_id: str,
        role: MemberRole | None,
        now: float,
    ) -> None:
        """Give a member another role, or remove it; everybody may leave.

        Raises:
            RoomGone: there is none, or none of this account.
            NotAllowed: only owners may, or the room would have no owner.
        """

        def change(roster: Roster) -> tuple[Roster, list[str]]:
            # Judged anew each time: who asks may have lost the role just now.
            me = self._member(roster, identity, now)
            if not (account_id == me.account_id and role is None):
                _demand(me, "owner", "change the members of this room")
            return with_role(roster, account_id, role, now)

        gone = await self._update(room_id, change, now)
        for credential_id in gone:
            self._revoke_credential(room_id, credential_id)
        if role is None:
            key = RecordKey(MEMBERSHIP, account_id, room_id)
            await self._store.records.delete(key)
        if role in (None, "guest"):
            self._sockets.revoke(room_id, account_id=account_id)

    async def invite(
        self,
        identity: Identity,
        room_id: str,
        asked: InviteMember,
        url: str,
        now: float,
    ) -> Invitation:
        """Make an invitation; its code is nowhere but in the answer.

        Args:
            identity: who asks.
            room_id: to which room.
            asked: what the invited one will be, and for how long.
            url: where the server is reached, for the code.
            now: Unix time in seconds.

        Raises:
            RoomGone: there is none, or none of this account.
            NotAllowed: only owners may.
            TooMany: as many wait as may.
            BadRequest: an owner cannot be one for a while.
        """
        if asked.role == "owner" and asked.member_for_s is not None:
            raise BadRequest(reason="an owner's membership cannot end by itself")
        lifetime_s = min(
            asked.expires_in_s or INVITATION_LIFETIME_S, MAX_INVITATION_LIFETIME_S
        )
        code = InvitationCode(
            url=url.rstrip("/"),
            invitation_id=_new_id(_INVITATION),
            secret=secrets.token_urlsafe(INVITATION_SECRET_BYTES),
        )
        text = code.encode()
        if len(text) > MAX_INVITATION_CHARS:
            raise BadRequest(reason="the server's address is too long for a code")
        kept = KeptInvitation(
            invitation_id=code.invitation_id,
            digest=digest_of(code.secret),
            role=asked.role,
            note=clean_text(asked.note),
            expires_at=now + lifetime_s,
            member_for_s=asked.member_for_s,
        )

        def change(roster: Roster) -> tuple[Roster, None]:
            _demand(self._member(roster, identity, now), "owner", "invite somebody")
            return invited(roster, kept, now), None

        await self._update(room_id, change, now)
        # Only the code leads here, so who finds nothing in between finds it later.
        where = RecordKey(_INVITATION, kept.invitation_id)
        pointer = Record(where, room_id.encode(), kept.expires_at)
        await self._store.records.create(pointer, now)
        return Invitation(
            invitation_id=kept.invitation_id, code=text, expires_at=kept.expires_at
        )

    async def revoke_invitation(
        self, identity: Identity, room_id: str, invitation_id: str, now: float
    ) -> None:
        """Take an invitation back.

        Raises:
            RoomGone: there is none, or none of this account.
            NotAllowed: only owners may, or there is no such invitation.
        """

        def change(roster: Roster) -> tuple[Roster, None]:
            me = self._member(roster, identity, now)
            _demand(me, "owner", "take back invitations")
            return without_invitation(roster, invitation_id, now), None

        await self._update(room_id, change, now)
        await self._store.records.delete(RecordKey(_INVITATION, invitation_id))

    async def accept(self, identity: Identity, code: str, now: float) -> RoomInfo:
        """Make whoever asks a member, by a code that is good once.

        Raises:
            InvitationRefused: the code was used, has expired, or never was.
            TooMany: the room has as many members as it may.
        """
        refused = InvitationRefused(server=self._server, reason=_SPENT)
        try:
            parsed = InvitationCode.parse(code)
        except InvitationCodeInvalid:
            raise refused from None
        where = RecordKey(_INVITATION, parsed.invitation_id)
        pointer = await self._store.records.get(where, now)
        if pointer is None:
            raise refused
        room_id = pointer.value.decode()
        # An account that ends cannot be a member for longer.
        member = Member(
            account_id=identity.account_id,
            name=clean_text(identity.name),
            role="guest",
            added_at=now,
            expires_at=None if identity.is_named else identity.expires_at,
        )

        def change(roster: Roster) -> tuple[Roster, None]:
            return accepted(
                roster, parsed.invitation_id, parsed.secret, member, self._server, now
            ), None

        # First the way from the account to the room: of itself it opens nothing.
        listed = RecordKey(MEMBERSHIP, identity.account_id, room_id)
        await self._store.records.create(Record(listed, b"{}"), now)
        try:
            await self._update(room_id, change, now)
        except RoomGone:
            raise refused from None
        await self._store.records.delete(where)
        room, _, entered = await self._enter(identity, room_id, now)
        return _info(room, entered)

    # -- credentials --------------------------------------------------------------

    async def make_credential(
        self, identity: Identity, room_id: str, asked: MakeCredential, now: float
    ) -> Credential:
        """Make a room token; owners any, members one for their workers.

        Raises:
            RoomGone: there is none, or none of this account.
            NotAllowed: the role does not allow it.
            TooMany: the room has as many as it may.
        """
        lifetime_s = min(
            asked.expires_in_s or self._token_lifetime_s, MAX_CREDENTIAL_LIFETIME_S
        )
        kept = KeptCredential(
            credential_id=_new_id("credential"),
            kind=asked.kind,
            label=clean_text(asked.label),
            made_by=identity.account_id,
            created_at=now,
            expires_at=now + lifetime_s,
        )

        def change(roster: Roster) -> tuple[Roster, None]:
            needed: MemberRole = "owner" if asked.kind == "session" else "member"
            action = f"make a {asked.kind} credential"
            _demand(self._member(roster, identity, now), needed, action)
            return with_credential(roster, kept, now), None

        await self._update(room_id, change, now)
        return Credential(
            credential_id=kept.credential_id,
            kind=kept.kind,
            token=self._token(room_id, kept, now),
            expires_at=kept.expires_at,
        )

    async def revoke_credential(
        self, identity: Identity, room_id: str, credential_id: str, now: float
    ) -> None:
        """Take a credential back, and send out whom it let in.

        Raises:
            RoomGone: there is none, or none of this account.
            NotAllowed: there is no such credential, or somebody else made it.
        """

        def change(roster: Roster) -> tuple[Roster, None]:
            me = self._member(roster, identity, now)
            made_by = None if me.role == "owner" else me.account_id
            return without_credential(roster, credential_id, made_by, now), None

        await self._update(room_id, change, now)
        self._revoke_credential(room_id, credential_id)

    # -- shared -------------------------------------------------------------------

    def _token(self, room_id: str, credential: KeptCredential, now: float) -> str:
        return self._tokens.issue(
            "worker" if credential.kind == "worker" else "room",
            room_id,
            now,
            credential.expires_at,
            credential.credential_id,
        )

    def _revoke_credential(self, room_id: str, credential_id: str) -> None:
        self._sockets.revoke(room_id, credential_id=credential_id)

    def _member(self, roster: Roster, identity: Identity, now: float) -> Member:
        member = find_member(roster, identity.account_id, now)
        if member is None:
            # The same for a foreign room and for none: ids are not to be probed.
            raise RoomGone(server=self._server)
        return member

    async def _enter(
        self, identity: Identity, room_id: str, now: float
    ) -> tuple[Room, Roster, Member]:
        """Find a room, what of its roster has not ended, and who asks therein."""
        room = await self._store.find_room(room_id, now)
        if room is None:
            raise RoomGone(server=self._server)
        record = await self._store.records.get(roster_key(room_id), now)
        roster = living(roster_of(record, room), now)
        member = self._member(roster, identity, now)
        await self._store.use_room(room, now)
        return room, roster, member

    async def _update(
        self, room_id: str, change: Callable[[Roster], tuple[Roster, T]], now: float
    ) -> T:
        """Change a roster by compare-and-swap; `change` may be called again."""
        room = await self._store.find_room(room_id, now)
        if room is None:
            raise RoomGone(server=self._server)
        for _ in range(MAX_STORE_TRIES):
            record = await self._store.records.get(roster_key(room_id), now)
            changed, result = change(roster_of(record, room))
            version = 0 if record is None else record.version
            if await self._store.put(roster_record(room_id, changed, version), now):
                return result
        raise contended()


def _new_id(what: CredentialKind | str) -> str:
    return f"{what}-{secrets.token_hex(8)}"


def _demand(member: Member, role: MemberRole, action: str) -> None:
    """Raise `NotAllowed` where a member's role is less than the one needed."""
    if RANKS[member.role] < RANKS[role]:
        raise NotAllowed(action=action)


def _info(room: Room, member: Member) -> RoomInfo:
    return RoomInfo(
        room_id=room.room_id,
        name=room.name,
        access=room.access,
        role=member.role,
        expires_at=room.expires_at,
    )


def _member_info(member: Member) -> MemberInfo:
    return MemberInfo(
        account_id=member.account_id,
        name=member.name,
        role=member.role,
        added_at=member.added_at,
        expires_at=member.expires_at,
    )

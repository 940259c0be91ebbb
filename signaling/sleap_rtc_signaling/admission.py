"""Who may register as what: what a room token and an account are worth in a room.

`judge` is the rule, pure; `Admissions` looks up what it needs. An open room asks for
its token alone. A room for its members asks clients for a member's account, and workers
for a worker's credential or for the account of an owner or member. Called by the
switchboard for each registration, by the relay and by the routes.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from sleap_rtc_plugin.protocol.account_messages import CredentialKind
from sleap_rtc_plugin.protocol.errors import (
    AccountsUnavailable,
    NotAllowed,
    RoomGone,
    RtcError,
    SignInRequired,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.signaling_messages import Register, Role
from sleap_rtc_signaling.accounts import Accounts, Identity
from sleap_rtc_signaling.instructions import ANY_ROLE, Admission
from sleap_rtc_signaling.rooms import OLD_CREDENTIAL
from sleap_rtc_signaling.stores import Room, Store
from sleap_rtc_signaling.stores.roster import (
    Member,
    Roster,
    find_credential,
    find_member,
    roster_key,
    roster_of,
)
from sleap_rtc_signaling.tokens import Claims, Tokens

__all__ = ["Admissions", "Entry", "Pass", "judge"]

_WORKER: Final[frozenset[Role]] = frozenset({"worker"})
_CLIENT: Final[frozenset[Role]] = frozenset({"client"})

Revive = Callable[[str], Awaitable[float | None]]
"""Returns until when a room lives on whose renewal is overdue; None: it has ended."""


class Pass(NamedTuple):
    """A room token that is good: what it is, and until when."""

    credential_id: str
    kind: CredentialKind
    expires_at: float


class Entry(NamedTuple):
    """Somebody who may be in a room, and until when that was proven."""

    room: Room
    expires_at: float


def judge(
    room: Room, role: Role, shown: Pass | None, member: Member | None, server: str
) -> Admission:
    """Decide what somebody may be in a room.

    Args:
        room: which one.
        role: what the peer wants to be.
        shown: its room token, where it has one.
        member: the member whose account it showed.
        server: how the server is named in errors.

    Returns:
        The admission by the one thing that let the peer in; taking that back, or its
        end, sends the peer out. A session string's end does not, as it never has.

    Raises:
        NotAllowed: what was shown admits, but not to this role.
        SignInRequired: the room is for its members.
    """
    is_open = room.access == "open"
    if shown is not None and shown.kind == "worker" and role == "worker":
        return _by_token(room, shown, _WORKER)
    if shown is not None and shown.kind == "session" and is_open:
        return _by_token(room, shown, ANY_ROLE)
    if member is not None:
        roles = _CLIENT if member.role == "guest" else ANY_ROLE
        if role not in roles:
            raise NotAllowed(action=f"enter this room as a {role}")
        return Admission(
            room_id=room.room_id,
            expires_at=room.expires_at,
            roles=roles,
            account_id=member.account_id,
            until=member.expires_at,
        )
    if shown is not None and shown.kind == "worker":
        raise NotAllowed(action=f"enter this room as a {role}")
    raise SignInRequired(server=server)


def _by_token(room: Room, shown: Pass, roles: frozenset[Role]) -> Admission:
    return Admission(
        room_id=room.room_id,
        expires_at=room.expires_at,
        roles=roles,
        credential_id=shown.credential_id,
        until=shown.expires_at if shown.kind == "worker" else None,
    )


class Admissions:
    """Looks up who shows what.

    Args:
        store: knows rooms and their people.
        tokens: verifies room tokens.
        accounts: verifies accounts.
        server: how the server is named in errors.
    """

    def __init__(
        self, store: Store, tokens: Tokens, accounts: Accounts, server: str
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._accounts = accounts
        self._server = server

    async def admit(self, message: Register, now: float, revive: Revive) -> Admission:
        """Find out what a registration is worth.

        Args:
            message: the registration.
            now: Unix time in seconds.
            revive: asked about a room that the store takes for ended.

        Raises:
            TokenRefused: a token is not good, was taken back, or is for another room.
            SignInRequired: the room is for its members.
            NotAllowed: the role is not one for this peer.
            RoomGone: there is no such room, or none that this peer may know of.
            AccountsUnavailable: the account cannot be verified, and would be needed.
            StorageFailed: nothing can be looked up.
        """
        token = message.token
        verified = self._verify(token, now) if token else None
        if verified is not None and verified[1].subject != message.room_id:
            raise TokenRefused(server=self._server, reason="it is for another room")
        identity, fault = await self._identify(message.account, now)
        if verified is None and identity is None:
            reason = "a token is missing"
            raise fault or TokenRefused(server=self._server, reason=reason)
        room = await self._room(message.room_id, now, revive)
        roster = await self._roster(room, now)
        shown = None
        if verified is not None:
            shown = self._shown(roster, *verified, now)
        member = None
        if identity is not None:
            member = find_member(roster, identity.account_id, now)
        if shown is None and member is None:
            # A room to which nothing leads is not there, whether it is or not.
            raise RoomGone(server=self._server)
        try:
            admission = judge(room, message.role, shown, member, self._server)
        except SignInRequired:
            if fault is not None:
                raise fault from None
            if message.account:
                raise NotAllowed(action="enter a room without being a member") from None
            raise
        if admission.account_id:
            await self._store.use_room(room, now)
        return admission

    async def enter(self, token: str, room_id: str, now: float) -> Entry:
        """Find out whether somebody may be in a room, in whatever role.

        Args:
            token: a room token, or the token of a member's account.
            room_id: for the latter: which room.
            now: Unix time in seconds.

        Raises:
            TokenRefused: it is neither, was taken back, or has ended.
            RoomGone: there is no such room, or the account is no member of it.
        """
        try:
            verified = self._verify(token, now)
        except TokenRefused as as_room:
            if not room_id:
                raise
            return await self._enter_as_member(token, room_id, as_room, now)
        room = await self._room(verified[1].subject, now, _nobody_revives)
        roster = await self._roster(room, now)
        shown = self._shown(roster, *verified, now)
        return Entry(room, shown.expires_at)

    async def hands_out(self, token: str, now: float) -> str:
        """Return the room of somebody who may hand out its session string.

        Raises:
            TokenRefused, RoomGone: as `enter`.
            NotAllowed: the token is a worker's credential, which is no session string.
        """
        kind, claims = self._verify(token, now)
        room = await self._room(claims.subject, now, _nobody_revives)
        shown = self._shown(await self._roster(room, now), kind, claims, now)
        if shown.kind != "session":
            raise NotAllowed(action="hand out this room's session string")
        return room.room_id

    async def _enter_as_member(
        self, token: str, room_id: str, as_room: TokenRefused, now: float
    ) -> Entry:
        try:
            identity = await self._accounts.identify(token, now)
        except TokenRefused as as_account:
            # A token of the other kind is merely "not valid"; who knows its kind may
            # know that it has expired, which helps the user.
            raise (as_room if "expired" in as_room.reason else as_account) from None
        room = await self._room(room_id, now, _nobody_revives)
        member = find_member(await self._roster(room, now), identity.account_id, now)
        if member is None:
            raise RoomGone(server=self._server)
        ends = identity.expires_at
        return Entry(
            room, ends if member.expires_at is None else min(ends, member.expires_at)
        )

    async def _room(self, room_id: str, now: float, revive: Revive) -> Room:
        room = await self._store.find_room(room_id, now)
        if room is None:
            ends = await revive(room_id)
            if ends is not None:
                room = await self._store.find_room(room_id, now)
        if room is None:
            raise RoomGone(server=self._server)
        return room

    async def _roster(self, room: Room, now: float) -> Roster:
        record = await self._store.records.get(roster_key(room.room_id), now)
        return roster_of(record, room)

    def _verify(self, token: str, now: float) -> tuple[CredentialKind, Claims]:
        """Check a room token of either kind."""
        try:
            return "session", self._tokens.verify_claims("room", token, now)
        except TokenRefused as as_session:
            try:
                return "worker", self._tokens.verify_claims("worker", token, now)
            except TokenRefused as as_worker:
                # Who knows its kind knows more than that it is "not valid".
                raise (
                    as_worker if "expired" in as_worker.reason else as_session
                ) from None

    def _shown(
        self, roster: Roster, kind: CredentialKind, claims: Claims, now: float
    ) -> Pass:
        if not claims.credential_id and kind == "session":
            return Pass(OLD_CREDENTIAL, kind, claims.expires_at)
        kept = find_credential(roster, claims.credential_id, now)
        if kept is None or kept.kind != kind:
            raise TokenRefused(server=self._server, reason="it was taken back")
        return Pass(kept.credential_id, kind, claims.expires_at)

    async def _identify(
        self, token: str, now: float
    ) -> tuple[Identity | None, RtcError | None]:
        """Return whose account it is, and why it is nobody's where it is not.

        An account that is not good keeps nobody out whom a room token lets in.
        """
        if not token:
            return None, None
        try:
            return await self._accounts.identify(token, now), None
        except (TokenRefused, AccountsUnavailable) as fault:
            return None, fault


async def _nobody_revives(room_id: str) -> float | None:
    return None

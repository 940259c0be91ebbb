"""PURE: the people of a room, its invitations and credentials, in one record.

Because it is one record, every change is all or nothing: an invitation is used by one,
the last owner stays, and no list grows past its bound, whoever else changes it at the
same moment. Nothing here waits or tells the time. Called by `rooms` and `admission`.
"""

import hashlib
import hmac
import math
from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sleap_rtc_plugin.protocol.account_messages import CredentialKind, MemberRole
from sleap_rtc_plugin.protocol.errors import (
    InvitationRefused,
    NotAllowed,
    RtcError,
    TooMany,
)
from sleap_rtc_plugin.protocol.limits import MAX_MEMBERS_PER_ROOM
from sleap_rtc_signaling.limits import (
    MAX_CREDENTIALS_PER_ROOM,
    MAX_INVITATIONS_PER_ROOM,
)
from sleap_rtc_signaling.stores.layout import ROSTER, Room
from sleap_rtc_signaling.stores.records import Record, RecordKey

__all__ = [
    "RANKS",
    "KeptCredential",
    "KeptInvitation",
    "Member",
    "Roster",
    "accepted",
    "digest_of",
    "find_credential",
    "find_member",
    "first_roster",
    "invited",
    "living",
    "roster_key",
    "roster_of",
    "roster_record",
    "with_credential",
    "with_role",
    "without_credential",
    "without_invitation",
]

RANKS: Final[dict[MemberRole, int]] = {"guest": 0, "member": 1, "owner": 2}
"""The roles, from what may least to what may most."""

_SPENT: Final = "it was used, has expired, or never was"


class Member(Struct, frozen=True, kw_only=True):
    """One member; `expires_at` is None where the membership does not end."""

    account_id: str
    name: str
    role: MemberRole
    added_at: float
    expires_at: float | None = None


class KeptInvitation(Struct, frozen=True, kw_only=True):
    """An invitation that waits.

    Attributes:
        invitation_id: names it.
        digest: SHA-256 of its secret, which is random; the secret is kept nowhere.
        role: what the invited one will be.
        note: for whom it is.
        expires_at: until when it may be used.
        member_for_s: how long the membership lasts; None where it does not end.
    """

    invitation_id: str
    digest: str
    role: MemberRole
    note: str
    expires_at: float
    member_for_s: float | None = None


class KeptCredential(Struct, frozen=True, kw_only=True):
    """A room token that was given out, without the token."""

    credential_id: str
    kind: CredentialKind
    label: str
    made_by: str
    created_at: float
    expires_at: float


class Roster(Struct, frozen=True):
    """Who and what may enter a room."""

    members: tuple[Member, ...] = ()
    invitations: tuple[KeptInvitation, ...] = ()
    credentials: tuple[KeptCredential, ...] = ()


Entry = TypeVar("Entry", Member, KeptInvitation, KeptCredential)


# -- as a record --------------------------------------------------------------------


def roster_key(room_id: str) -> RecordKey:
    """Return where a room's roster is."""
    return RecordKey(ROSTER, room_id)


def roster_record(room_id: str, roster: Roster, version: int = 0) -> Record:
    """Return a roster as a record, which goes when its room does."""
    return Record(roster_key(room_id), msgspec.json.encode(roster), version=version)


def roster_of(record: Record | None, room: Room) -> Roster:
    """Return a room's roster; one of an older version has its owner alone."""
    if record is None:
        return first_roster(room, "")
    return msgspec.json.decode(record.value, type=Roster)


def first_roster(room: Room, name: str) -> Roster:
    """Return the roster of a new room: who made it is its owner."""
    owner = Member(
        account_id=room.owner, name=name, role="owner", added_at=room.created_at
    )
    return Roster(members=(owner,))


def digest_of(secret: str) -> str:
    """Return what is kept of an invitation's secret: 128 random bits need no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


# -- looking ------------------------------------------------------------------------


def living(roster: Roster, now: float) -> Roster:
    """Leave out what has ended."""
    return Roster(
        _living(roster.members, now),
        _living(roster.invitations, now),
        _living(roster.credentials, now),
    )


def find_member(roster: Roster, account_id: str, now: float) -> Member | None:
    """Return a member whose membership has not ended."""
    members = _living(roster.members, now)
    return next((m for m in members if m.account_id == account_id), None)


def find_credential(
    roster: Roster, credential_id: str, now: float
) -> KeptCredential | None:
    """Return a credential that was neither taken back nor has ended."""
    credentials = _living(roster.credentials, now)
    return next((c for c in credentials if c.credential_id == credential_id), None)


# -- changing: each takes a roster and returns another --------------------------------


def with_role(
    roster: Roster, account_id: str, role: MemberRole | None, now: float
) -> tuple[Roster, list[str]]:
    """Give a member another role, or remove it (None).

    Whoever may no longer bring workers loses the credentials that it made for them.

    Returns:
        The roster, and the ids of the credentials that are gone.

    Raises:
        NotAllowed: there is no such member, or the room would have no owner.
    """
    roster = living(roster, now)
    member = find_member(roster, account_id, now)
    if member is None:
        raise NotAllowed(action="change somebody who is no member of this room")
    if role == "owner" and member.expires_at is not None:
        raise NotAllowed(action="make somebody an owner whose membership ends")
    others = tuple(m for m in roster.members if m.account_id != account_id)
    members = others if role is None else (*others, replace(member, role=role))
    if not any(m.role == "owner" and m.expires_at is None for m in members):
        raise NotAllowed(action="leave this room without an owner")
    gone = [
        credential.credential_id
        for credential in roster.credentials
        if credential.made_by == account_id
        and credential.kind == "worker"
        and role in (None, "guest")
    ]
    kept = tuple(c for c in roster.credentials if c.credential_id not in gone)
    in_order = tuple(sorted(members, key=lambda m: (m.added_at, m.account_id)))
    return replace(roster, members=in_order, credentials=kept), gone


def invited(roster: Roster, invitation: KeptInvitation, now: float) -> Roster:
    """Add an invitation.

    Raises:
        TooMany: as many wait as may.
    """
    roster = living(roster, now)
    if len(roster.invitations) >= MAX_INVITATIONS_PER_ROOM:
        limit = str(MAX_INVITATIONS_PER_ROOM)
        raise TooMany(what="open invitations of this room", limit=limit)
    return replace(roster, invitations=(*roster.invitations, invitation))


def accepted(
    roster: Roster,
    invitation_id: str,
    secret: str,
    member: Member,
    server: str,
    now: float,
) -> Roster:
    """Make somebody a member; the invitation is gone with that.

    Args:
        roster: the room's.
        invitation_id: which invitation.
        secret: what the invited one has.
        member: who it is; the role is the invitation's, and the membership ends at the
            earlier of this member's end and the invitation's.
        server: how the server is named in errors.
        now: Unix time in seconds.

    Raises:
        InvitationRefused: there is no such invitation, or it gives nothing.
        TooMany: the room has as many members as it may.
    """
    roster = living(roster, now)
    invitation = next(
        (i for i in roster.invitations if i.invitation_id == invitation_id), None
    )
    known = "" if invitation is None else invitation.digest
    # Compared in any case: how long it takes says nothing about what there is.
    fits = hmac.compare_digest(digest_of(secret), known or digest_of(""))
    if invitation is None or not fits:
        raise InvitationRefused(server=server, reason=_SPENT)
    ends = member.expires_at
    if invitation.member_for_s is not None:
        until = now + invitation.member_for_s
        ends = until if ends is None else min(ends, until)
    if invitation.role == "owner" and ends is not None:
        reason = "an owner needs an account with a name"
        raise InvitationRefused(server=server, reason=reason)
    before = find_member(roster, member.account_id, now)
    if before is not None and not _is_more(invitation.role, ends, before):
        reason = "this account is a member already"
        raise InvitationRefused(server=server, reason=reason)
    others = tuple(m for m in roster.members if m.account_id != member.account_id)
    if len(others) >= MAX_MEMBERS_PER_ROOM:
        raise TooMany(what="members of this room", limit=str(MAX_MEMBERS_PER_ROOM))
    entered = replace(member, role=invitation.role, expires_at=ends)
    left = tuple(i for i in roster.invitations if i is not invitation)
    return replace(roster, members=(*others, entered), invitations=left)


def without_invitation(roster: Roster, invitation_id: str, now: float) -> Roster:
    """Take an invitation back.

    Raises:
        NotAllowed: there is none.
    """
    roster = living(roster, now)
    left = tuple(i for i in roster.invitations if i.invitation_id != invitation_id)
    if len(left) == len(roster.invitations):
        raise _none_there("invitation")
    return replace(roster, invitations=left)


def with_credential(roster: Roster, credential: KeptCredential, now: float) -> Roster:
    """Add a credential.

    Raises:
        TooMany: the room has as many as it may.
    """
    roster = living(roster, now)
    if len(roster.credentials) >= MAX_CREDENTIALS_PER_ROOM:
        limit = str(MAX_CREDENTIALS_PER_ROOM)
        raise TooMany(what="credentials of this room", limit=limit)
    return replace(roster, credentials=(*roster.credentials, credential))


def without_credential(
    roster: Roster, credential_id: str, made_by: str | None, now: float
) -> Roster:
    """Take a credential back.

    Args:
        roster: the room's.
        credential_id: which one.
        made_by: who must have made it; None for an owner, who may take back any.
        now: Unix time in seconds.

    Raises:
        NotAllowed: there is none, or somebody else made it.
    """
    roster = living(roster, now)
    found = find_credential(roster, credential_id, now)
    if found is None or made_by not in (None, found.made_by):
        raise _none_there("credential")
    left = tuple(c for c in roster.credentials if c is not found)
    return replace(roster, credentials=left)


def _living(entries: Iterable[Entry], now: float) -> tuple[Entry, ...]:
    return tuple(e for e in entries if e.expires_at is None or e.expires_at > now)


def _is_more(role: MemberRole, ends: float | None, before: Member) -> bool:
    """Tell whether an invitation gives a member more, and takes nothing."""
    new = (RANKS[role], math.inf if ends is None else ends)
    old = (
        RANKS[before.role],
        math.inf if before.expires_at is None else before.expires_at,
    )
    return new != old and new[0] >= old[0] and new[1] >= old[1]


def _none_there(what: str) -> RtcError:
    return NotAllowed(action=f"take back a {what} that is not there or not yours")

"""What clients and the signaling server say over REST about accounts and rooms.

Signing in, rooms and their members, invitations, credentials, and pairing by a code.
Plain values, in the order in which PROTOCOL.md lists the routes. Called by both ends.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.limits import (
    MAX_INVITATION_CHARS,
    MAX_MEMBERS_PER_ROOM,
    MAX_NAME_CHARS,
    MAX_PAIRING_MESSAGE_BYTES,
    MAX_TOKEN_CHARS,
    MAX_URL_CHARS,
)
from sleap_rtc_plugin.protocol.signaling_messages import Id

__all__ = [
    "ANONYMOUS",
    "AcceptInvitation",
    "Access",
    "Account",
    "AccountInfo",
    "ChangeMember",
    "ChangeRoom",
    "ClaimPairing",
    "CreateRoom",
    "Credential",
    "CredentialInfo",
    "CredentialKind",
    "DeleteRoom",
    "DeviceFlow",
    "DevicePending",
    "FinishPairing",
    "Invitation",
    "InvitationInfo",
    "InviteMember",
    "MakeCredential",
    "MemberInfo",
    "MemberRole",
    "OpenPairing",
    "Pairing",
    "PairingState",
    "PollDevice",
    "Refresh",
    "RevokeById",
    "RoomDetails",
    "RoomInfo",
    "RoomList",
    "RoomMade",
    "SignInMethod",
    "SignInMethods",
    "SignOut",
    "TokenText",
]

ANONYMOUS: Final = "anonymous"
"""The name of the way to sign in that asks nobody."""

Name = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
TokenText = Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)]
Url = Annotated[str, Meta(max_length=MAX_URL_CHARS)]
Seconds = Annotated[float, Meta(gt=0)]

Access = Literal["open", "members"]
"""Who may enter a room: everybody with its token, or its members alone."""

MemberRole = Literal["owner", "member", "guest"]
"""What a member may do.

An owner may do everything. A member may enter as a client or with a worker, and see
who else is a member. A guest may enter as a client, as long as the membership lasts.
"""

CredentialKind = Literal["session", "worker"]
"""What a room token admits: anybody (a session string), or a worker alone."""


class _Body(Struct, frozen=True, kw_only=True):
    """Common settings; unknown fields of newer versions are ignored."""


# -- signing in -----------------------------------------------------------------


class SignInMethod(_Body, frozen=True):
    """A way to sign in.

    Attributes:
        name: how it is named in the routes.
        kind: `direct` gives an account at once; `device` shows a code that the user
            enters at the provider (RFC 8628).
        label: what a person calls it, such as `GitHub`.
        is_named: whether the account is a person's, and can be a member for good.
    """

    name: Id
    kind: Literal["direct", "device"]
    label: Name
    is_named: bool = False


class SignInMethods(_Body, frozen=True):
    """The answer of `GET /sign-in`; the first is what the server prefers."""

    methods: Annotated[list[SignInMethod], Meta(max_length=16)]


class Account(_Body, frozen=True):
    """A signed-in account; its token opens rooms and deletes its own.

    Attributes:
        account_id: who it is, the same each time the same person signs in.
        token: goes into `Authorization: Bearer`.
        expires_at: until when the token is good, as Unix time.
        refresh_token: gives the next token at `POST /refresh`; empty where there is
            none. It is good once: the answer has the next one.
        name: what the person is called; empty for an anonymous account.
        method: the way it was signed in.
    """

    account_id: str
    token: TokenText
    expires_at: float
    refresh_token: TokenText = ""
    name: Name = ""
    method: str = ANONYMOUS

    def __repr__(self) -> str:
        """Show the account without its tokens."""
        return f"Account({self.account_id!r})"


class DeviceFlow(_Body, frozen=True):
    """What to show while somebody signs in elsewhere (RFC 8628 section 3.2).

    Attributes:
        flow_id: names the flow to the server; a secret of this client.
        user_code: what the user enters at `verification_uri`.
        verification_uri: where, an `https` address (`http` on this machine alone).
        expires_at: until when the user may do so, as Unix time.
        verification_uri_complete: the same with the code in it; may be empty.
        interval_s: how long to wait between two questions.
    """

    flow_id: TokenText
    user_code: Annotated[str, Meta(max_length=64)]
    verification_uri: Url
    expires_at: float
    verification_uri_complete: Url = ""
    interval_s: Seconds = 5.0

    def __repr__(self) -> str:
        """Show the flow without its secret."""
        return f"DeviceFlow({self.user_code!r})"


class PollDevice(_Body, frozen=True):
    """The body of `POST /sign-in/{name}/poll`."""

    flow_id: TokenText


class DevicePending(_Body, frozen=True):
    """The answer (202) while the user has not finished."""

    interval_s: Seconds


class Refresh(_Body, frozen=True):
    """The body of `POST /refresh`."""

    refresh_token: TokenText


class SignOut(_Body, frozen=True):
    """The body of `POST /sign-out`; nothing is one too."""

    refresh_token: TokenText = ""


class AccountInfo(_Body, frozen=True):
    """The answer of `GET /account`: who asks."""

    account_id: str
    name: Name
    method: str
    expires_at: float


# -- rooms and their members ------------------------------------------------------


class CreateRoom(_Body, frozen=True):
    """The body of `POST /create-room`; without one, an open room without a name."""

    name: Name = ""
    access: Access = "open"


class DeleteRoom(_Body, frozen=True):
    """The body of `POST /delete-peers-and-room`.

    Any text is taken: a room that cannot be is refused like one of somebody else.
    """

    room_id: str


class RoomMade(_Body, frozen=True):
    """A new room; its token admits peers."""

    room_id: str
    token: TokenText
    expires_at: float

    def __repr__(self) -> str:
        """Show the room without its token."""
        return f"RoomMade({self.room_id!r})"


class RoomInfo(_Body, frozen=True):
    """A room as one of its members sees it."""

    room_id: str
    name: Name
    access: Access
    role: MemberRole
    expires_at: float


class RoomList(_Body, frozen=True):
    """The answer of `GET /rooms`: the rooms of which the account is a member."""

    rooms: list[RoomInfo]


class ChangeRoom(_Body, frozen=True):
    """The body of `POST /rooms/{room_id}`: what is None stays as it is."""

    name: Name | None = None
    access: Access | None = None


class MemberInfo(_Body, frozen=True):
    """One member; `expires_at` is None where the membership does not end."""

    account_id: str
    name: Name
    role: MemberRole
    added_at: float
    expires_at: float | None = None


class InvitationInfo(_Body, frozen=True):
    """An invitation that waits; its code is shown once, when it is made."""

    invitation_id: str
    role: MemberRole
    note: Name
    expires_at: float


class CredentialInfo(_Body, frozen=True):
    """A room token that was given out, without the token."""

    credential_id: str
    kind: CredentialKind
    label: Name
    created_at: float
    expires_at: float


class RoomDetails(_Body, frozen=True):
    """The answer of `GET /rooms/{room_id}`; a guest sees no more than itself."""

    room: RoomInfo
    members: Annotated[list[MemberInfo], Meta(max_length=MAX_MEMBERS_PER_ROOM)]
    invitations: list[InvitationInfo] = []
    credentials: list[CredentialInfo] = []


class ChangeMember(_Body, frozen=True):
    """The body of `POST /rooms/{room_id}/members`; a role of None removes."""

    account_id: str
    role: MemberRole | None


class InviteMember(_Body, frozen=True):
    """The body of `POST /rooms/{room_id}/invitations`.

    Attributes:
        role: what the invited one will be.
        expires_in_s: how long the invitation may be used.
        member_for_s: how long the membership lasts; None where it does not end.
        note: for whom it is, for the list.
    """

    role: MemberRole = "member"
    expires_in_s: Seconds | None = None
    member_for_s: Seconds | None = None
    note: Name = ""


class Invitation(_Body, frozen=True):
    """An invitation; `code` goes to the invited one and is good once."""

    invitation_id: str
    code: Annotated[str, Meta(max_length=MAX_INVITATION_CHARS)]
    expires_at: float

    def __repr__(self) -> str:
        """Show the invitation without its code."""
        return f"Invitation({self.invitation_id!r})"


class AcceptInvitation(_Body, frozen=True):
    """The body of `POST /accept-invitation`; the answer is a `RoomInfo`."""

    code: Annotated[str, Meta(max_length=MAX_INVITATION_CHARS)]


class MakeCredential(_Body, frozen=True):
    """The body of `POST /rooms/{room_id}/credentials`."""

    kind: CredentialKind
    label: Name = ""
    expires_in_s: Seconds | None = None


class Credential(_Body, frozen=True):
    """A room token that was just made; `token` is shown once."""

    credential_id: str
    kind: CredentialKind
    token: TokenText
    expires_at: float

    def __repr__(self) -> str:
        """Show the credential without its token."""
        return f"Credential({self.credential_id!r})"


class RevokeById(_Body, frozen=True):
    """The body of `.../invitations/revoke` and `.../credentials/revoke`."""

    id: Id


# -- pairing by a code --------------------------------------------------------------


PairingBytes = Annotated[str, Meta(max_length=MAX_PAIRING_MESSAGE_BYTES)]
"""Bytes in base64url without padding."""


class OpenPairing(_Body, frozen=True):
    """The body of `POST /pairings`, with a room token: the worker's SPAKE2 message."""

    message: PairingBytes


class Pairing(_Body, frozen=True):
    """An open pairing: the number that goes before the words.

    Attributes:
        number: what the code begins with.
        owner_key: with it the worker asks what has become of the pairing.
        expires_at: until when the code is good, as Unix time.
    """

    number: int
    owner_key: TokenText
    expires_at: float

    def __repr__(self) -> str:
        """Show the pairing without its key."""
        return f"Pairing({self.number!r})"


class ClaimPairing(_Body, frozen=True):
    """The body of `POST /pairings/{number}/claim`: good once, then the code is spent.

    The answer is a `PairingState` with the worker's message.
    """


class FinishPairing(_Body, frozen=True):
    """What the other side says next: its SPAKE2 message, and its proof or the string.

    Attributes:
        key: the `owner_key` or the claimer's `claim_key`.
        message: the claimer's SPAKE2 message; empty from the worker.
        sealed: the claimer's proof; from the worker, its proof and the session string,
            sealed under the common key. Empty from a worker that found the proof wrong.
    """

    key: TokenText
    message: PairingBytes = ""
    sealed: PairingBytes = ""


class PairingState(_Body, frozen=True):
    """How far a pairing is, for either side.

    Attributes:
        state: `open` until it is claimed, `claimed` until the claimer has answered,
            `answered` until the worker has, then `done` or `failed`.
        message: the other side's SPAKE2 message, once it is there.
        sealed: what the other side sealed, once it is there.
        claim_key: for the claimer alone, in the answer to its claim.
    """

    state: Literal["open", "claimed", "answered", "done", "failed"]
    message: PairingBytes = ""
    sealed: PairingBytes = ""
    claim_key: TokenText = ""

    def __repr__(self) -> str:
        """Show the state without what belongs to one side."""
        return f"PairingState({self.state!r})"

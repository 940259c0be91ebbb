"""The leaves of the tree about accounts, members of rooms, and pairing.

What a signaling server says of who somebody is and what they may do there. The tree
itself is drawn in the package.
"""

from dataclasses import dataclass

from sleap_rtc_plugin.protocol.errors.base import EXIT_REFUSED, RtcError
from sleap_rtc_plugin.protocol.errors.meeting import ConnectionFailure

__all__ = [
    "AccountError",
    "AccountsUnavailable",
    "InvitationCodeInvalid",
    "InvitationRefused",
    "NotSignedIn",
    "PairingFailed",
    "PairingRefused",
    "RoomNotKnown",
    "SessionNotKept",
    "SignInRefused",
    "SignInRequired",
]


class AccountError(RtcError):
    """Somebody is not who, or may not do what, they would have to."""

    exit_code = EXIT_REFUSED


@dataclass(eq=False)
class SignInRequired(AccountError):
    """The room admits its members only, and nobody has signed in."""

    server: str
    code = "sign_in_required"
    sentence = (
        "This room is for its members; sign in with `sleap-remote login {server}`, "
        "or ask the room's owner for an invitation."
    )


@dataclass(eq=False)
class NotSignedIn(AccountError):
    """Something asks for an account, and this computer keeps none for the server."""

    server: str
    code = "not_signed_in"
    sentence = (
        "Nobody is signed in at {server} on this computer; "
        "sign in with `sleap-remote login`."
    )


@dataclass(eq=False)
class SignInRefused(AccountError):
    """Signing in came to no good end."""

    server: str
    reason: str
    code = "sign_in_refused"
    sentence = "Signing in at {server} did not succeed ({reason}); sign in again."


@dataclass(eq=False)
class AccountsUnavailable(ConnectionFailure):
    """Whoever keeps the accounts does not answer the server."""

    server: str
    reason: str
    code = "accounts_unavailable"
    sentence = (
        "{server} cannot check accounts at the moment ({reason}); "
        "try again in a minute."
    )


@dataclass(eq=False)
class InvitationCodeInvalid(AccountError):
    """The invitation code cannot be read."""

    reason: str
    code = "invitation_code_invalid"
    sentence = (
        "The invitation code cannot be read ({reason}); "
        "copy the whole line that you were sent and try again."
    )


@dataclass(eq=False)
class InvitationRefused(AccountError):
    """An invitation that was used, has expired, or never was."""

    server: str
    reason: str
    code = "invitation_refused"
    sentence = (
        "{server} does not accept the invitation ({reason}); "
        "ask the room's owner for a new one."
    )


@dataclass(eq=False)
class RoomNotKnown(AccountError):
    """No room of that name or id is remembered here, or among those of the account."""

    room: str
    reason: str
    code = "room_not_known"
    sentence = (
        "The room {room} cannot be named ({reason}); "
        "see your rooms and their ids with `sleap-remote rooms list`."
    )


@dataclass(eq=False)
class SessionNotKept(AccountError):
    """A room may be entered, but its end-to-end secret is not on this computer."""

    room: str
    code = "session_not_kept"
    sentence = (
        "The secret of the room {room} is not on this computer; ask somebody in the "
        "room for a session string and give it once with --session."
    )


@dataclass(eq=False)
class PairingRefused(AccountError):
    """There is no pairing under this code, or no longer."""

    reason: str
    code = "pairing_refused"
    sentence = (
        "The pairing code is not accepted ({reason}); "
        "let the worker show a new one with `sleap-remote worker --pair`."
    )


@dataclass(eq=False)
class PairingFailed(AccountError):
    """The two sides typed different words, or somebody is between them."""

    reason: str
    code = "pairing_failed"
    sentence = (
        "The two sides of the pairing do not agree ({reason}); "
        "the code is used up, so let the worker show a new one."
    )

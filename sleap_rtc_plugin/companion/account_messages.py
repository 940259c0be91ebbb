"""What SLEAP's side and the companion say about accounts and their rooms; typed values.

Part of the unions of `companion.messages`, apart from it for its length. Tokens stay
with the companion. Times are Unix seconds.
"""

from msgspec import Struct

__all__ = [
    "AcceptInvite",
    "AccountRoom",
    "CancelSignIn",
    "InvitationAccepted",
    "OpenServer",
    "ServerOpened",
    "SignInCode",
    "SignInWay",
    "SignOut",
    "StartSignIn",
]


class _Tagged(Struct, frozen=True, kw_only=True, tag=True):
    """A message, told from the others by its class name."""


class SignInWay(Struct, frozen=True, kw_only=True):
    """A way to sign in.

    `label` is what a person calls it; `has_code` says that a page wants a code.
    """

    name: str
    label: str
    has_code: bool = False
    is_named: bool = False


class AccountRoom(Struct, frozen=True, kw_only=True):
    """A room of the account that is signed in.

    `is_kept` says that its session string is on this computer.
    """

    room_id: str
    server: str
    name: str = ""
    role: str = ""
    is_kept: bool = False


# -- commands --------------------------------------------------------------------------


class OpenServer(_Tagged, frozen=True):
    """Who is signed in at a server, and how could one? Answered with `ServerOpened`."""

    server: str


class StartSignIn(_Tagged, frozen=True):
    """Sign in; answered with `ServerOpened` once it is done.

    Where the way has a code, `SignInCode` comes before.
    """

    server: str
    method: str


class CancelSignIn(_Tagged, frozen=True):
    """Give up what `StartSignIn` began; that fails. Answered with `Done`."""


class SignOut(_Tagged, frozen=True):
    """Sign out, here and at the server. Answered with `Done`."""

    server: str


class AcceptInvite(_Tagged, frozen=True):
    """Become a member by an invitation code. Answered with `InvitationAccepted`."""

    code: str


AccountCommand = OpenServer | StartSignIn | CancelSignIn | SignOut | AcceptInvite


# -- results ---------------------------------------------------------------------------


class ServerOpened(_Tagged, frozen=True):
    """How the user stands to a server; `account_id` is empty where nobody is signed in.

    `ways` are those to sign in, `rooms` those of the account.
    """

    server: str
    ways: list[SignInWay]
    account_id: str = ""
    name: str = ""
    rooms: list[AccountRoom] = []


class InvitationAccepted(_Tagged, frozen=True):
    """The account is a member of this room now."""

    room: AccountRoom


AccountResult = ServerOpened | InvitationAccepted


# -- events ----------------------------------------------------------------------------


class SignInCode(_Tagged, frozen=True):
    """What the user enters at `page`, until `expires_at`.

    `page_with_code` is the same page with the code in it, or empty.
    """

    server: str
    code: str
    page: str
    page_with_code: str
    expires_at: float


AccountEvent = SignInCode

"""How the user stands to a server: signing in there, and choosing one of its rooms.

`AccountView` is what the lab page draws of it, a frozen value without a secret;
`AccountChoices` carries out what the user wants. Made by the presenter, which enters
the rooms; called by the dialog.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sleap_rtc_plugin.companion.account_messages import (
    AcceptInvite,
    AccountRoom,
    CancelSignIn,
    InvitationAccepted,
    OpenServer,
    ServerOpened,
    SignInCode,
    SignInWay,
    SignOut,
    StartSignIn,
)
from sleap_rtc_plugin.companion.messages import (
    Command,
    Connect,
    ConnectRemembered,
    Event,
    Pair,
    Result,
    SignIn,
)
from sleap_rtc_plugin.gui.messages import error_words
from sleap_rtc_plugin.protocol.errors import (
    InvitationCodeInvalid,
    NotSignedIn,
    PairingRefused,
    RtcError,
    SessionError,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.invitation_code import INVITATION_SCHEME, InvitationCode
from sleap_rtc_plugin.protocol.pairing_code import PairingCode
from sleap_rtc_plugin.protocol.session_string import Session, is_signaling_url

if TYPE_CHECKING:
    from sleap_rtc_plugin.gui.snapshot import Snapshot

__all__ = ["AccountChoices", "AccountView", "Way", "is_invitation", "server_address"]

MAX_WAYS_SHOWN: Final = 8
MAX_ROOMS_SHOWN: Final = 200
OTHER_LAB: Final = (
    "This session string is of another lab. Ask somebody in the lab for one of its own."
)

NO_SERVER: Final = (
    "A pairing code needs its server. Type the server's address as well, as the worker "
    "shows it, and press Connect."
)

Way = Connect | ConnectRemembered | SignIn | Pair
"""How a room is entered."""


@dataclass(frozen=True)
class AccountView:
    """What is shown of a server and of who is signed in there.

    Attributes:
        server: its address.
        is_busy: an answer is awaited.
        ways: those to sign in.
        who: who is signed in, in words; empty where nobody is.
        rooms: the rooms of the account.
        code: what the user is to enter elsewhere, while that is awaited.
        wanted: the room that was chosen, whose session string is not here.
    """

    server: str
    is_busy: bool = False
    ways: tuple[SignInWay, ...] = ()
    who: str = ""
    rooms: tuple[AccountRoom, ...] = ()
    code: SignInCode | None = None
    wanted: AccountRoom | None = None


def is_invitation(text: str) -> bool:
    """Tell whether somebody pasted an invitation code where session strings go."""
    return "".join(text.split()).startswith(INVITATION_SCHEME)


def server_address(typed: str) -> str:
    """Return what was typed as the address of a server, right or wrong."""
    server = typed.strip()
    if server and "://" not in server:
        server = f"http://{server}"
    return server if server.endswith("://") else server.rstrip("/")


def opened(answer: ServerOpened) -> AccountView:
    """Return what to show of a server."""
    rooms = answer.rooms[:MAX_ROOMS_SHOWN]
    return AccountView(
        server=clean_text(answer.server),
        ways=tuple(_clean_way(way) for way in answer.ways[:MAX_WAYS_SHOWN]),
        who=clean_text(answer.name) or clean_text(answer.account_id),
        rooms=tuple(_clean_room(room) for room in rooms),
    )


def needs_no_choice(answer: ServerOpened) -> bool:
    """Tell whether a server only knows accounts without a name, and none is kept."""
    return not answer.account_id and not any(way.is_named for way in answer.ways)


def _clean_way(way: SignInWay) -> SignInWay:
    return msgspec.structs.replace(way, label=clean_text(way.label))


def _clean_room(room: AccountRoom) -> AccountRoom:
    return msgspec.structs.replace(
        room, name=clean_text(room.name), role=clean_text(room.role)
    )


class AccountChoices:
    """Carries out what the user wants at a server.

    Args:
        ask: puts a command to the companion.
        spawn: starts a coroutine under a name.
        change: changes fields of the presenter's snapshot.
        snapshot: returns that.
        enter: enters a room.
    """

    def __init__(
        self,
        ask: Callable[[Command], Awaitable[Result | None]],
        spawn: Callable[[Coroutine[Any, Any, Any], str], Any],
        change: Callable[..., None],
        snapshot: Callable[[], "Snapshot"],
        enter: Callable[[Way], None],
    ) -> None:
        self._ask = ask
        self._spawn = spawn
        self._change = change
        self._snapshot = snapshot
        self._enter = enter
        self._invitation = ""

    @property
    def _view(self) -> AccountView | None:
        return self._snapshot().account

    # -- what the user does ----------------------------------------------------------

    def open(self, server: str) -> None:
        """Look who is signed in at a server; where accounts have no names, go in."""
        if not self._snapshot().can_enter:
            return
        self._change(account=AccountView(server=server, is_busy=True), problem="")
        self._spawn(self._open(server), "ask a server how to sign in")

    def start(self, method: str) -> None:
        """Sign in by one of the ways."""
        view = self._view
        if view is None or view.is_busy:
            return
        self._set(view, is_busy=True)
        self._change(problem="")
        self._spawn(self._sign_in(view.server, method), "sign in")

    def close(self) -> None:
        """Leave the server; a sign-in that waits is given up."""
        view = self._view
        self._invitation = ""
        if view is None:
            return
        self._change(account=None, problem="")
        if view.is_busy:
            self._spawn(self._ask_quietly(CancelSignIn()), "give up signing in")

    def sign_out(self) -> None:
        """Sign out at the server."""
        view = self._view
        if view is not None and not view.is_busy:
            self._change(account=None, problem="")
            self._spawn(self._ask_quietly(SignOut(server=view.server)), "sign out")

    def choose(self, room_id: str) -> None:
        """Enter a room of the account, or ask for its session string once."""
        view = self._view
        if view is None or view.is_busy:
            return
        for room in view.rooms:
            if room.room_id == room_id:
                if room.is_kept:
                    self._enter(ConnectRemembered(room_id=room_id))
                else:
                    self._set(view, wanted=room)
                    self._change(problem="")
                return

    def complete(self, text: str) -> None:
        """Enter the chosen room with its session string."""
        view = self._view
        if view is None or view.wanted is None:
            return
        try:
            session = Session.parse(text)
        except SessionError as error:
            self._change(problem=error_words(error))
            return
        if (session.room_id, session.url) != (view.wanted.room_id, view.server):
            self._change(problem=OTHER_LAB)
            return
        remember = self._snapshot().remembers
        self._enter(Connect(session=session.encode(), remember=remember))

    def back(self) -> None:
        """Show the rooms again, in place of the field for a session string."""
        view = self._view
        if view is not None:
            self._set(view, wanted=None)
            self._change(problem="")

    def new_lab(self) -> None:
        """Open a new room that belongs to the account."""
        view = self._view
        if view is not None and not view.is_busy:
            remember = self._snapshot().remembers
            self._enter(SignIn(server=view.server, remember=remember))

    def accept(self, text: str) -> None:
        """Take an invitation, after signing in at its server where that is needed."""
        try:
            code = InvitationCode.parse(text)
        except InvitationCodeInvalid as error:
            self._change(problem=error_words(error))
            return
        if not self._snapshot().can_enter:
            return
        self._invitation = code.encode()
        self._change(account=AccountView(server=code.url, is_busy=True), problem="")
        self._spawn(self._accept(code.url), "accept an invitation")

    def pair(self, text: str, address: str) -> None:
        """Enter the room of the worker that shows a code.

        Args:
            text: the code.
            address: the server that the worker uses; the code does not name it.
        """
        try:
            PairingCode.parse(text)
        except PairingRefused as error:
            self._change(problem=error_words(error))
            return
        server = server_address(address)
        if not is_signaling_url(server):
            self._change(problem=NO_SERVER)
            return
        remember = self._snapshot().remembers
        self._enter(Pair(server=server, code=text, remember=remember))

    def handle(self, event: Event) -> None:
        """Take an event of the companion."""
        view = self._view
        if view is None or not isinstance(event, SignInCode):
            return
        if view.is_busy and event.server == view.server:
            code = msgspec.structs.replace(event, code=clean_text(event.code))
            self._set(view, code=code)

    # -- coroutines ------------------------------------------------------------------

    async def _open(self, server: str) -> None:
        try:
            answer = await self._ask(OpenServer(server=server))
        except RtcError as error:
            self._failed(server, error)
            return
        if not self._is_at(server):
            return
        if not isinstance(answer, ServerOpened):
            self._change(account=None)
            return
        if needs_no_choice(answer) and not self._invitation:
            self._change(account=None)
            remember = self._snapshot().remembers
            self._enter(SignIn(server=server, remember=remember))
            return
        self._change(account=opened(answer))
        if not answer.account_id and len(answer.ways) == 1:
            self.start(answer.ways[0].name)

    async def _sign_in(self, server: str, method: str) -> None:
        try:
            answer = await self._ask(StartSignIn(server=server, method=method))
        except RtcError as error:
            self._failed(server, error)
            return
        if not self._is_at(server):
            return
        if not isinstance(answer, ServerOpened):
            self._change(account=None)  # the companion ended, and the sign-in with it
            return
        self._change(account=opened(answer), problem="")
        if self._invitation:
            view = opened(answer)
            self._change(account=dataclasses.replace(view, is_busy=True))
            await self._accept(server)

    async def _accept(self, server: str) -> None:
        code = self._invitation
        try:
            answer = await self._ask(AcceptInvite(code=code))
        except NotSignedIn:
            await self._open(server)
            return
        except RtcError as error:
            self._invitation = ""
            self._failed(server, error)
            return
        self._invitation = ""
        if not self._is_at(server):
            return
        if not isinstance(answer, InvitationAccepted):
            self._change(account=None)
            return
        room = _clean_room(answer.room)
        if room.is_kept:
            self._enter(ConnectRemembered(room_id=room.room_id))
            return
        await self._open(server)
        view = self._view
        if view is not None and view.server == server and view.who:
            self._set(view, wanted=room)

    async def _ask_quietly(self, command: Command) -> None:
        try:
            await self._ask(command)
        except RtcError as error:
            self._change(problem=error_words(error))

    # -- state -----------------------------------------------------------------------

    def _is_at(self, server: str) -> bool:
        """Tell whether the user is still there, now that an answer is."""
        view = self._view
        return view is not None and view.is_busy and view.server == server

    def _failed(self, server: str, error: RtcError) -> None:
        if not self._is_at(server):
            return  # the user gave it up
        view = self._view
        if view is None or len(view.ways) < 2:
            self._change(account=None, problem=error_words(error))
            return
        self._set(view, is_busy=False, code=None)
        self._change(problem=error_words(error))

    def _set(self, view: AccountView, **changes: Any) -> None:
        self._change(account=dataclasses.replace(view, **changes))

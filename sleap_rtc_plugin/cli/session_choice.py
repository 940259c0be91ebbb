"""Which session a command is about: `--session STRING`, or `--room NAME`.

A room is named where its session string was used on this computer before, and is kept.
Used by every command that enters a room.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from sleap_rtc_plugin.protocol.session_string import Session

__all__ = ["SessionChoice", "session_option"]

F = TypeVar("F", bound=Callable[..., Any])
_NONE_GIVEN = (
    "No session is given; paste the worker's session string after --session or into "
    "the variable SLEAP_SESSION, or name a room that is remembered with --room."
)


@dataclass(frozen=True)
class SessionChoice:
    """What the user gave.

    Attributes:
        text: the session string; None where there is none.
        room: a room's name or id; None where none is named.
        is_default: whether the session string is merely that of the environment.
    """

    text: str | None = None
    room: str | None = None
    is_default: bool = False

    def __repr__(self) -> str:
        """Show the room and no session string."""
        return f"SessionChoice(room={self.room!r})"

    def __bool__(self) -> bool:
        """Tell whether there is anything to go by."""
        return bool(self.text) or self.room is not None

    def beside_store(
        self, store: str | None = None
    ) -> "tuple[SessionChoice, str | None]":
        """Tell apart what `--room` means where models may be in a store of their own.

        Args:
            store: the store that is used, if one is.

        Returns:
            The session to go by, and the room that the models are filed under.
        """
        if self.room is None or not (self.text or store):
            return self, None
        return SessionChoice(self.text, None, self.is_default), self.room

    async def find(self) -> Session:
        """Return the session; keep one that was given in full, for the next time.

        It is kept where the user is signed in at its server, unless the settings say
        that nothing is to be remembered.

        Raises:
            click.UsageError: none is given, or two are.
            RtcError: it cannot be used, or there is no such room.
        """
        from sleap_rtc_plugin.session.known_rooms import find_session

        if self.room is not None:
            if self.text and not self.is_default:
                raise click.UsageError("Give --session or --room, not both.")
            return await find_session(self.room)
        if not self.text:
            raise click.UsageError(_NONE_GIVEN)
        session = Session.parse(self.text)
        await _keep(session)
        return session


async def _keep(session: Session) -> None:
    from sleap_rtc_plugin.session.accounts import SignedInAccounts
    from sleap_rtc_plugin.session.known_rooms import keep_session

    if await SignedInAccounts().find(session.url) is not None:
        await keep_session(session)


def session_option(function: F) -> F:
    """Add `--session` and `--room`; the command is given them as `session`."""

    @click.option(
        "--session",
        "session_text",
        envvar="SLEAP_SESSION",
        metavar="STRING",
        help="The session string that the worker printed.  [env: SLEAP_SESSION]",
    )
    @click.option(
        "--room",
        "session_room",
        metavar="NAME|ID",
        help="In place of --session: a room whose session string was used on this "
        "computer before; `sleap-remote rooms list` shows them.",
    )
    @click.pass_context
    @functools.wraps(function)
    def command(
        context: click.Context,
        /,
        *args: Any,
        session_text: str | None,
        session_room: str | None,
        **others: Any,
    ) -> Any:
        source = context.get_parameter_source("session_text")
        choice = SessionChoice(
            session_text, session_room, source is ParameterSource.ENVIRONMENT
        )
        return function(*args, session=choice, **others)

    return cast(F, command)

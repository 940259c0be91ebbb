"""The shape that every state machine of the protocol shares.

A machine has a literal table: state -> kind of event -> the method that handles it.
An event the table lacks is somebody's fault, and the error says whose. Subclassed
by the transfer, job and signaling-session machines; holds no decision of its own.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["Machine", "Remote"]

StateT = TypeVar("StateT", bound=Enum)
EventT = TypeVar("EventT")
InstructionT = TypeVar("InstructionT")


class Remote:
    """Marks events that a peer causes: out of place, they are the peer's fault."""


class Machine(Generic[StateT, EventT, InstructionT]):
    """Events in, instructions out, by a table."""

    TABLE: ClassVar[Mapping[Any, Mapping[type, str]]]

    def __init__(self, state: StateT) -> None:
        """Start in `state`."""
        self.state = state

    def handle(self, event: EventT, now: float) -> list[InstructionT]:
        """Take an event at `now` (seconds) and return what is to be done, in order.

        Raises:
            RemoteProtocolError: a peer's event that this state does not allow.
            LocalProtocolError: an event of our own that this state does not allow.
        """
        method = self.TABLE[self.state].get(type(event))
        if method is None:
            detail = f"{type(event).__name__} in state {self.state.value}"
            if isinstance(event, Remote):
                raise RemoteProtocolError(detail=detail)
            raise LocalProtocolError(detail=detail)
        instructions: list[InstructionT] = getattr(self, method)(event, now)
        return instructions

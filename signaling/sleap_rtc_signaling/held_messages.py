"""PURE: what is said to peers that are just coming back.

After a restart of the server, or of a network, one peer is back before the other, and
what it says would be refused although the other is there a moment later. A few such
messages wait, for a few seconds. Called by the hub.
"""

import dataclasses
from collections.abc import Callable

from sleap_rtc_signaling.instructions import Held
from sleap_rtc_signaling.limits import HELD_MESSAGE_S, MAX_HELD_MESSAGES

__all__ = ["HeldMessages"]


class HeldMessages:
    """All messages of a server that wait, in the order in which they were said."""

    def __init__(self) -> None:
        self._held: list[Held] = []

    def hold(self, held: Held, now: float) -> bool:
        """Let a message wait; False where too many do, or it has waited already."""
        until = held.until or now + HELD_MESSAGE_S
        if len(self._held) >= MAX_HELD_MESSAGES or until <= now:
            return False
        self._held.append(dataclasses.replace(held, until=until))
        return True

    def release(self, room_id: str, peer_id: str) -> list[Held]:
        """Take what waited for a peer that is back."""
        return self._take(lambda held: (held.room_id, held.to) == (room_id, peer_id))

    def waits(self, room_id: str, peer_id: str) -> bool:
        """Tell whether anything waits for this peer."""
        return any((held.room_id, held.to) == (room_id, peer_id) for held in self._held)

    def targets(self) -> set[tuple[str, str]]:
        """Return for whom anything waits: rooms and peer ids."""
        return {(held.room_id, held.to) for held in self._held}

    def drop_sender(self, sender: int) -> None:
        """Forget what a connection that is gone wanted to say: it will say it again."""
        self._take(lambda held: held.sender == sender)

    def drop_room(self, room_id: str) -> None:
        """Forget what was said in a room that has ended."""
        self._take(lambda held: held.room_id == room_id)

    def deadline(self) -> float | None:
        """Return when `expire` wants to be called, as Unix time, or None."""
        return min((held.until for held in self._held), default=None)

    def expire(self, now: float) -> list[Held]:
        """Take what has waited long enough."""
        return self._take(lambda held: held.until <= now)

    def _take(self, is_meant: Callable[[Held], bool]) -> list[Held]:
        taken = [held for held in self._held if is_meant(held)]
        if taken:
            self._held = [held for held in self._held if not is_meant(held)]
        return taken

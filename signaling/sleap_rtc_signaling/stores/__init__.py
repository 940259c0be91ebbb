"""What a signaling server remembers: accounts, rooms, bytes of relays; no secret.

Live peers are not here but in the hub; of a worker there is a digest, by which it is
known when it comes back. Every server on the same store sees the same
rooms; the protocol below is all that the server asks of a store.
"""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from sleap_rtc_signaling.instructions import DropPeerId, KeepPeerId
from sleap_rtc_signaling.relay_book import RelayUsage

__all__ = ["Room", "Store"]


class Room(Struct, frozen=True, kw_only=True):
    """A room; times are Unix seconds."""

    room_id: str
    owner: str
    created_at: float
    expires_at: float


class Store(Protocol):
    """Where accounts and rooms are kept. All methods may be called at any time."""

    async def add_account(
        self, account_id: str, created_at: float, expires_at: float
    ) -> None:
        """Remember an account.

        Raises:
            TooMany: the store holds as many accounts as it may.
        """

    async def has_account(self, account_id: str, now: float) -> bool:
        """Tell whether the account exists and has not expired."""

    async def add_room(self, room: Room) -> None:
        """Remember a room.

        Raises:
            TooMany: its owner has as many living rooms as an account may have.
        """

    async def find_room(self, room_id: str, now: float) -> Room | None:
        """Return a room that has not expired."""

    async def renew_room(self, room_id: str, expires_at: float) -> bool:
        """Let a room live longer; False if it was deleted."""

    async def delete_room(self, room_id: str, owner: str) -> bool:
        """Delete a room; False if `owner` has no such room."""

    async def wake_up(self, now: float) -> None:
        """Let time stand still for the rooms since `stay_awake` was last called.

        A server that was down for a night would otherwise come back to rooms that
        have ended, although their workers never left.
        """

    async def stay_awake(self, now: float) -> None:
        """Write down that the server is there."""

    async def keep_peer_id(self, kept: KeepPeerId) -> None:
        """Write down who holds an id."""

    async def drop_peer_id(self, dropped: DropPeerId) -> None:
        """Forget who held an id."""

    async def kept_peer_ids(self, now: float) -> list[tuple[KeepPeerId, float]]:
        """Return who holds an id in a room, and when that room ends."""

    async def add_relayed(
        self, rows: Mapping[tuple[int, str], tuple[str, int]]
    ) -> None:
        """Add what was relayed: day and room -> account and bytes."""

    async def relayed(self, day: int, room_id: str, account_id: str) -> RelayUsage:
        """Return what was relayed on a day, by all servers on this store."""

    async def purge(self, now: float) -> None:
        """Remove what has expired."""

    async def check(self) -> None:
        """Raise if the store cannot be used."""

    async def close(self) -> None:
        """Let go of everything; nothing may be called after this."""

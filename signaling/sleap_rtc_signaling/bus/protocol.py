"""What an exchange needs of a bus. Redis has it; so has a test's dictionary."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo
from sleap_rtc_signaling.bus.records import (
    ClaimLimits,
    Event,
    Found,
    Message,
    Owner,
)
from sleap_rtc_signaling.limits import Rate

__all__ = ["Bus"]


class Bus(Protocol):
    """One instance's access to what all instances share.

    Every method but `inbox` and `events` raises `StorageFailed` when the bus cannot
    be reached; those two wait until it can.
    """

    @property
    def instance(self) -> str:
        """The id of this instance, new with each start."""

    @property
    def is_ready(self) -> bool:
        """Whether the bus could be reached a moment ago."""

    async def beat(self) -> None:
        """Say that this instance is there."""

    # -- who is where ---------------------------------------------

    async def claim(self, owner: Owner, limits: ClaimLimits) -> None:
        """Write a peer down as registered here; again does no harm.

        Raises:
            PeerIdTaken: somebody else holds its id.
            TooMany: the room is full.
        """

    async def renew(self, owners: Sequence[Owner]) -> list[Owner]:
        """Write down again who is here; return those who are elsewhere by now."""

    async def show(self, owner: Owner) -> None:
        """Write down the peer's new metadata, if it is still here."""

    async def release(self, owner: Owner, reserved_s: float, held_s: float) -> None:
        """Let go of a peer, if it is still here: its id is reserved for a while.

        Args:
            owner: which one.
            reserved_s: how long nobody else gets its id.
            held_s: how long what is said to it waits.
        """

    async def find(self, room_id: str, peer_id: str) -> Found | None:
        """Return where a peer is; None where nobody knows its id."""

    async def peers(self, room_id: str) -> list[PeerInfo]:
        """Return who is registered in a room, at all instances."""

    # -- saying something ---------------------------------------------

    async def send(self, instance: str, message: Message) -> bool:
        """Say something to one instance; False where it is gone."""

    async def announce(self, event: Event) -> None:
        """Say something to all instances, this one included."""

    def inbox(self) -> AsyncIterator[Message]:
        """What is said to this instance, for ever."""

    def events(self) -> AsyncIterator[Event]:
        """What is said to all since the start of this instance, for ever."""

    # -- counting ---------------------------------------------

    async def take(self, kind: str, key: str, rate: Rate, cost: float) -> float:
        """Take tokens from a bucket of all instances, as `RateLimiter.take` does."""

    async def enter(self, address: str, limit: int) -> bool:
        """Count a socket of an address; False where all instances have `limit`."""

    async def count(self, addresses: Mapping[str, int]) -> None:
        """Write down how many sockets of each address are here."""

    async def close(self) -> None:
        """Say good-bye, and let go of the connections."""

"""PURE: who meets whom at the relay of last resort, and how much may pass.

The book knows sockets as numbers, rooms and accounts by their ids, and days as whole
numbers; it has no clock, socket or database and never sees a byte that is relayed. The
relay service tells it what happens, carries out its instructions, and wakes it at
`deadline()`.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

from sleap_rtc_plugin.protocol.close_codes import RelayCloseCode
from sleap_rtc_plugin.protocol.limits import GIB, RELAY_JOIN_TIMEOUT_S
from sleap_rtc_signaling.limits import (
    DAY_S,
    MAX_RELAYS,
    MAX_RELAYS_PER_ROOM,
    RELAY_ACCOUNT_SHARE,
    RELAY_IDLE_TIMEOUT_S,
    RELAY_ROOM_GIB_PER_DAY,
    RELAY_TOTAL_GIB_PER_DAY,
)

__all__ = [
    "EndRelay",
    "Joined",
    "Member",
    "RelayBook",
    "RelayCounts",
    "RelayEnd",
    "RelayInstruction",
    "RelayLimits",
    "RelayUsage",
]

_RESTART = 1012
_TRY_LATER = 1013


class RelayEnd(Enum):
    """Why a relay's socket is closed: the close code and the reason beside it."""

    NOT_OFFERED = (RelayCloseCode.NOT_OFFERED, "this server offers no relay")
    TOKEN = (RelayCloseCode.REFUSED, "the token is not accepted")
    ROOM_GONE = (RelayCloseCode.REFUSED, "the room has ended")
    MALFORMED = (RelayCloseCode.REFUSED, "the first message is no relay_join")
    NOT_IN_ROOM = (RelayCloseCode.REFUSED, "the peer is not registered in the room")
    ID_IN_USE = (RelayCloseCode.REFUSED, "the relay id is in use")
    MISPLACED = (RelayCloseCode.REFUSED, "what came is not what is expected now")
    TOKEN_ENDED = (RelayCloseCode.REFUSED, "the token has expired")
    PARTNER_ABSENT = (RelayCloseCode.PARTNER_ABSENT, "the partner did not come in time")
    PARTNER_LEFT = (RelayCloseCode.PARTNER_LEFT, "the partner has left")
    TOO_MANY = (RelayCloseCode.LIMIT, "the server relays as much as it may")
    TOO_MANY_OF_ACCOUNT = (RelayCloseCode.LIMIT, "too many relays of the room's owner")
    TOO_MANY_IN_ROOM = (RelayCloseCode.LIMIT, "too many relays in the room")
    QUOTA = (RelayCloseCode.LIMIT, "the server's quota of the day is used up")
    QUOTA_OF_ACCOUNT = (RelayCloseCode.LIMIT, "the owner's quota of the day is used up")
    QUOTA_OF_ROOM = (RelayCloseCode.LIMIT, "the room's quota of the day is used up")
    NOT_READ = (RelayCloseCode.LIMIT, "one side did not read")
    IDLE = (RelayCloseCode.LIMIT, "nothing happened on the relay")
    STOPPING = (_RESTART, "the server stops")
    STORE = (_TRY_LATER, "the server's store failed")

    def __init__(self, code: int, words: str) -> None:
        self.code = int(code)
        self.words = words


@dataclass(frozen=True)
class RelayLimits:
    """How much an administrator lets pass.

    Attributes:
        max_relays: pairs of partners at once.
        max_relays_per_room: the same, of one room.
        room_bytes_per_day: what passes in a room, both directions together.
        total_bytes_per_day: what passes in all.
        account_share: which part of `max_relays` and `total_bytes_per_day` one
            account's rooms may have together.
        join_timeout_s: how long a partner is waited for.
        idle_timeout_s: how long nothing may pass in either direction.
    """

    max_relays: int = MAX_RELAYS
    max_relays_per_room: int = MAX_RELAYS_PER_ROOM
    room_bytes_per_day: float = RELAY_ROOM_GIB_PER_DAY * GIB
    total_bytes_per_day: float = RELAY_TOTAL_GIB_PER_DAY * GIB
    account_share: float = RELAY_ACCOUNT_SHARE
    join_timeout_s: float = RELAY_JOIN_TIMEOUT_S
    idle_timeout_s: float = RELAY_IDLE_TIMEOUT_S


# -- instructions ------------------------------------------------------------------


@dataclass(frozen=True)
class Joined:
    """Tell this partner that the other is there."""

    connection: int


@dataclass(frozen=True)
class EndRelay:
    """Close this socket; the book has forgotten it."""

    connection: int
    end: RelayEnd


RelayInstruction = Joined | EndRelay


# -- what comes in -----------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A peer whose token and registration were checked."""

    room_id: str
    account_id: str
    peer_id: str
    token_ends: float


@dataclass(frozen=True)
class RelayUsage:
    """What passed today, in bytes, as far as it was written down."""

    room: int = 0
    account: int = 0
    total: int = 0


@dataclass(frozen=True)
class RelayCounts:
    """How many there are, for the metrics."""

    relays: int
    waiting: int


# -- state -------------------------------------------------------------------------


@dataclass(eq=False)
class _Seat:
    connection: int
    member: Member
    relay_id: str
    wait_until: float
    partner: "_Seat | None" = None
    last_at: float = 0.0


@dataclass
class _Spent:
    """Bytes of one day, written down or not."""

    day: int = 0
    total: int = 0
    rooms: Counter[str] = field(default_factory=Counter)
    accounts: Counter[str] = field(default_factory=Counter)


class RelayBook:
    """The relays of one server.

    Args:
        limits: how much may pass.
    """

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self._limits = limits or RelayLimits()
        self._seats: dict[int, _Seat] = {}
        # Room and relay id -> who waits or is paired there, two at most.
        self._relays: dict[tuple[str, str], list[_Seat]] = {}
        self._spent = _Spent()
        # Day and room -> account and bytes that the store does not know yet.
        self._unwritten: dict[tuple[int, str], tuple[str, int]] = {}

    # -- partners -------------------------------------------------------------------

    def join(
        self,
        connection: int,
        member: Member,
        relay_id: str,
        usage: RelayUsage,
        now: float,
    ) -> list[RelayInstruction]:
        """Let a peer wait for its partner, or bring the two together.

        Args:
            connection: on which socket it came.
            member: who it is.
            relay_id: where it wants to meet.
            usage: what the store knows about today.
            now: Unix time in seconds.
        """
        self._learn(member, usage, now)
        place = (member.room_id, relay_id)
        there = self._relays.get(place, [])
        refusal = self._refusal(member, there, now)
        if refusal is not None:
            return [EndRelay(connection, refusal)]
        wait_until = now + self._limits.join_timeout_s
        seat = _Seat(connection, member, relay_id, wait_until, last_at=now)
        self._seats[connection] = seat
        self._relays[place] = [*there, seat]
        if not there:
            return []
        (first,) = there
        first.partner, seat.partner = seat, first
        first.last_at = now
        # The later one first: the earlier may begin as soon as it is told.
        return [Joined(connection), Joined(first.connection)]

    def partner(self, connection: int) -> int | None:
        """Return the socket of the other side, once both are there."""
        seat = self._seats.get(connection)
        return None if seat is None or seat.partner is None else seat.partner.connection

    def passed(
        self, connection: int, size_bytes: int, now: float
    ) -> list[RelayInstruction]:
        """Take note of bytes from one partner; they may be the last that fit."""
        seat = self._seats.get(connection)
        if seat is None or seat.partner is None:
            return []
        seat.last_at = seat.partner.last_at = now
        member, spent = seat.member, self._spent_on(now)
        spent.total += size_bytes
        spent.rooms[member.room_id] += size_bytes
        spent.accounts[member.account_id] += size_bytes
        key = (spent.day, member.room_id)
        _, unwritten = self._unwritten.get(key, ("", 0))
        self._unwritten[key] = (member.account_id, unwritten + size_bytes)
        used_up = self._used_up(member)
        return self.end(connection, used_up) if used_up is not None else []

    def end(self, connection: int, end: RelayEnd) -> list[RelayInstruction]:
        """End a relay for both sides, for one reason."""
        seat = self._forget(connection)
        if seat is None:
            return []
        ended: list[RelayInstruction] = [EndRelay(connection, end)]
        if seat.partner is not None:
            self._forget(seat.partner.connection)
            ended.append(EndRelay(seat.partner.connection, end))
        return ended

    def refuse(self, connection: int, end: RelayEnd) -> list[RelayInstruction]:
        """End a relay because of what one side did; the other learns that it left."""
        seat = self._forget(connection)
        if seat is None:
            return []
        return [EndRelay(connection, end), *self._left(seat)]

    def left(self, connection: int) -> list[RelayInstruction]:
        """Take note that a socket is gone."""
        seat = self._forget(connection)
        return [] if seat is None else self._left(seat)

    def close_room(self, room_id: str) -> list[RelayInstruction]:
        """End the relays of a room that has ended."""
        ended: list[RelayInstruction] = []
        for seat in list(self._seats.values()):
            if seat.member.room_id == room_id:
                ended += self.end(seat.connection, RelayEnd.ROOM_GONE)
        return ended

    def close_peers(
        self, room_id: str, peer_ids: Collection[str]
    ) -> list[RelayInstruction]:
        """End the relays of peers that were sent out of their room."""
        ended: list[RelayInstruction] = []
        for seat in list(self._seats.values()):
            member = seat.member
            if member.room_id == room_id and member.peer_id in peer_ids:
                ended += self.refuse(seat.connection, RelayEnd.TOKEN)
        return ended

    def rooms(self) -> set[str]:
        """Return the rooms in which somebody waits or is paired."""
        return {seat.member.room_id for seat in self._seats.values()}

    def counts(self) -> RelayCounts:
        """Return how many relays there are, and how many peers wait."""
        paired = sum(1 for seat in self._seats.values() if seat.partner is not None)
        return RelayCounts(relays=paired // 2, waiting=len(self._seats) - paired)

    def _left(self, seat: _Seat) -> list[RelayInstruction]:
        if seat.partner is None:
            return []
        self._forget(seat.partner.connection)
        return [EndRelay(seat.partner.connection, RelayEnd.PARTNER_LEFT)]

    def _forget(self, connection: int) -> _Seat | None:
        seat = self._seats.pop(connection, None)
        if seat is not None:
            place = (seat.member.room_id, seat.relay_id)
            self._relays[place].remove(seat)
            if not self._relays[place]:
                del self._relays[place]
        return seat

    def _refusal(
        self, member: Member, there: list[_Seat], now: float
    ) -> RelayEnd | None:
        if member.token_ends <= now:
            return RelayEnd.TOKEN_ENDED
        # A peer that meets itself would be served its own bytes.
        if len(there) > 1 or any(s.member.peer_id == member.peer_id for s in there):
            return RelayEnd.ID_IN_USE
        limits, seats = self._limits, self._seats.values()
        of_room = sum(1 for seat in seats if seat.member.room_id == member.room_id)
        if of_room >= 2 * limits.max_relays_per_room:
            return RelayEnd.TOO_MANY_IN_ROOM
        of_account = sum(
            1 for seat in seats if seat.member.account_id == member.account_id
        )
        share = max(1, int(limits.account_share * limits.max_relays))
        if of_account >= 2 * share:
            return RelayEnd.TOO_MANY_OF_ACCOUNT
        if len(seats) >= 2 * limits.max_relays:
            return RelayEnd.TOO_MANY
        return self._used_up(member)

    # -- time -----------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return when `expire` wants to be called, as Unix time, or None."""
        times = (self._due(seat)[0] for seat in self._seats.values())
        return min(times, default=None)

    def expire(self, now: float) -> list[RelayInstruction]:
        """Do what is due: partners that did not come, idle relays, tokens."""
        ended: list[RelayInstruction] = []
        for seat in list(self._seats.values()):
            at, end = self._due(seat)
            if at > now or seat.connection not in self._seats:
                continue
            if end is RelayEnd.TOKEN_ENDED:
                ended += self.refuse(seat.connection, end)
            else:
                ended += self.end(seat.connection, end)
        return ended

    def _due(self, seat: _Seat) -> tuple[float, RelayEnd]:
        if seat.partner is None:
            due = (seat.wait_until, RelayEnd.PARTNER_ABSENT)
        else:
            due = (seat.last_at + self._limits.idle_timeout_s, RelayEnd.IDLE)
        token_ends = (seat.member.token_ends, RelayEnd.TOKEN_ENDED)
        return min(due, token_ends, key=lambda pair: pair[0])

    # -- the day's bytes ------------------------------------------------------------

    def unwritten(self) -> Mapping[tuple[int, str], tuple[str, int]]:
        """Return day and room -> account and bytes that are to be written down."""
        return dict(self._unwritten)

    def written(self, rows: Mapping[tuple[int, str], tuple[str, int]]) -> None:
        """Take note that `rows`, from `unwritten`, are in the store."""
        for key, (_, size_bytes) in rows.items():
            account_id, more = self._unwritten[key]
            if more > size_bytes:
                self._unwritten[key] = (account_id, more - size_bytes)
            else:
                del self._unwritten[key]
        # Whoever comes back brings along what the store knows.
        rooms = self.rooms() | {room_id for _, room_id in self._unwritten}
        accounts = {seat.member.account_id for seat in self._seats.values()}
        accounts |= {account_id for account_id, _ in self._unwritten.values()}
        spent = self._spent
        spent.rooms = Counter({k: v for k, v in spent.rooms.items() if k in rooms})
        spent.accounts = Counter(
            {k: v for k, v in spent.accounts.items() if k in accounts}
        )

    def day(self, now: float) -> int:
        """Return the day of the quotas: days of UTC since 1970."""
        return int(now // DAY_S)

    def _spent_on(self, now: float) -> _Spent:
        day = self.day(now)
        if day != self._spent.day:
            self._spent = _Spent(day)
        return self._spent

    def _learn(self, member: Member, usage: RelayUsage, now: float) -> None:
        """Take over what the store knows, other servers' bytes among it."""
        spent = self._spent_on(now)
        unwritten = [
            (room_id, account_id, size_bytes)
            for (day, room_id), (account_id, size_bytes) in self._unwritten.items()
            if day == spent.day
        ]
        of_room = sum(n for room, _, n in unwritten if room == member.room_id)
        of_account = sum(n for _, owner, n in unwritten if owner == member.account_id)
        in_all = sum(n for _, _, n in unwritten)
        # The larger, since what is being written is in neither of the two.
        room_id, account_id = member.room_id, member.account_id
        spent.rooms[room_id] = max(spent.rooms[room_id], usage.room + of_room)
        spent.accounts[account_id] = max(
            spent.accounts[account_id], usage.account + of_account
        )
        spent.total = max(spent.total, usage.total + in_all)

    def _used_up(self, member: Member) -> RelayEnd | None:
        limits, spent = self._limits, self._spent
        if spent.rooms[member.room_id] > limits.room_bytes_per_day:
            return RelayEnd.QUOTA_OF_ROOM
        share = limits.account_share * limits.total_bytes_per_day
        if spent.accounts[member.account_id] > share:
            return RelayEnd.QUOTA_OF_ACCOUNT
        if spent.total > limits.total_bytes_per_day:
            return RelayEnd.QUOTA
        return None

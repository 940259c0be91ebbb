"""Who meets whom at the relay of last resort, and what may pass."""

from dataclasses import replace

import pytest

from sleap_rtc_plugin.protocol.close_codes import CloseCode, RelayCloseCode
from sleap_rtc_plugin.protocol.limits import RELAY_JOIN_TIMEOUT_S
from sleap_rtc_signaling.limits import DAY_S, RELAY_IDLE_TIMEOUT_S
from sleap_rtc_signaling.relay_book import (
    EndRelay,
    Joined,
    Member,
    RelayBook,
    RelayCounts,
    RelayEnd,
    RelayInstruction,
    RelayLimits,
    RelayUsage,
)

LIMITS = RelayLimits(
    max_relays=4,
    max_relays_per_room=2,
    room_bytes_per_day=1_000,
    total_bytes_per_day=4_000,
    account_share=0.75,
)
NEVER = 1e12
MAX_REASON_BYTES = 123


class World:
    """A book, and rooms whose owner is `owner-` and their name's first letter."""

    def __init__(self, limits: RelayLimits = LIMITS) -> None:
        self.book = RelayBook(limits)
        self.now = 1_000.0
        self.last = 0

    def join(
        self,
        peer_id: str,
        relay_id: str = "relay-1",
        room_id: str = "a1",
        *,
        usage: RelayUsage | None = None,
        token_ends: float = NEVER,
    ) -> tuple[int, list[RelayInstruction]]:
        self.last += 1
        member = Member(room_id, f"owner-{room_id[0]}", peer_id, token_ends)
        joined = self.book.join(
            self.last, member, relay_id, usage or RelayUsage(), self.now
        )
        return self.last, joined

    def pair(self, relay_id: str = "relay-1", room_id: str = "a1") -> tuple[int, int]:
        one, waits = self.join("worker-1", relay_id, room_id)
        assert waits == []
        two, joined = self.join("client-1", relay_id, room_id)
        assert joined == [Joined(two), Joined(one)]
        return one, two

    def passes(self, connection: int, size_bytes: int) -> list[RelayInstruction]:
        return self.book.passed(connection, size_bytes, self.now)


def ends(end: RelayEnd, *connections: int) -> list[RelayInstruction]:
    return [EndRelay(connection, end) for connection in connections]


@pytest.fixture
def world() -> World:
    return World()


# -- partners --------------------


def test_two_peers_meet(world: World) -> None:
    one, waits = world.join("worker-1")
    assert waits == []
    assert world.book.partner(one) is None
    assert world.book.counts() == RelayCounts(relays=0, waiting=1)
    two, joined = world.join("client-1")
    assert joined == [Joined(two), Joined(one)]
    assert (world.book.partner(one), world.book.partner(two)) == (two, one)
    assert world.book.counts() == RelayCounts(relays=1, waiting=0)


def test_a_third_is_refused_and_disturbs_nobody(world: World) -> None:
    one, two = world.pair()
    three, refused = world.join("client-2")
    assert refused == ends(RelayEnd.ID_IN_USE, three)
    assert world.book.left(three) == []
    assert world.book.partner(one) == two


def test_a_peer_does_not_meet_itself(world: World) -> None:
    world.join("worker-1")
    again, refused = world.join("worker-1")
    assert refused == ends(RelayEnd.ID_IN_USE, again)


def test_the_same_id_in_another_room_is_another_relay(world: World) -> None:
    world.join("worker-1", room_id="a1")
    _, waits = world.join("client-1", room_id="a2")
    assert waits == []


def test_who_leaves_ends_the_relay_for_the_other(world: World) -> None:
    one, two = world.pair()
    assert world.book.left(one) == ends(RelayEnd.PARTNER_LEFT, two)
    assert world.book.left(two) == []
    assert world.book.counts() == RelayCounts(0, 0)
    # The id may be used again.
    world.pair()


def test_who_waits_may_leave(world: World) -> None:
    one, _ = world.join("worker-1")
    assert world.book.left(one) == []
    world.pair()


def test_who_misbehaves_is_told_what_and_the_other_that_it_left(world: World) -> None:
    one, two = world.pair()
    assert world.book.refuse(one, RelayEnd.MISPLACED) == [
        EndRelay(one, RelayEnd.MISPLACED),
        EndRelay(two, RelayEnd.PARTNER_LEFT),
    ]
    assert world.book.refuse(one, RelayEnd.MISPLACED) == []


def test_a_room_that_ends_takes_its_relays_along(world: World) -> None:
    one, two = world.pair("relay-1")
    waiting, _ = world.join("worker-1", "relay-2")
    other, _ = world.pair("relay-3", room_id="b1")
    ended = world.book.close_room("a1")
    assert set(ended) == set(ends(RelayEnd.ROOM_GONE, one, two, waiting))
    assert world.book.rooms() == {"b1"}
    assert world.book.partner(other) is not None


# -- time --------------------


def test_a_partner_is_waited_for_so_long(world: World) -> None:
    one, _ = world.join("worker-1")
    due = world.now + RELAY_JOIN_TIMEOUT_S
    assert world.book.deadline() == due
    assert world.book.expire(due - 0.1) == []
    assert world.book.expire(due) == ends(RelayEnd.PARTNER_ABSENT, one)
    assert world.book.deadline() is None


def test_a_relay_on_which_nothing_happens_ends(world: World) -> None:
    one, two = world.pair()
    world.now += RELAY_IDLE_TIMEOUT_S - 1
    assert world.passes(two, 1) == []
    world.now += RELAY_IDLE_TIMEOUT_S - 1
    assert world.book.expire(world.now) == []
    world.now += 1
    assert world.book.expire(world.now) == ends(RelayEnd.IDLE, one, two)


def test_a_token_that_ends_takes_the_relay_along(world: World) -> None:
    one, _ = world.join("worker-1", token_ends=1_020.0)
    two, _ = world.join("client-1")
    assert world.book.deadline() == 1_020.0
    assert world.book.expire(1_020.0) == [
        EndRelay(one, RelayEnd.TOKEN_ENDED),
        EndRelay(two, RelayEnd.PARTNER_LEFT),
    ]
    late, refused = world.join("worker-1", token_ends=world.now)
    assert refused == ends(RelayEnd.TOKEN_ENDED, late)


# -- how many --------------------


def test_a_room_has_so_many_relays(world: World) -> None:
    for number in range(2):
        world.pair(f"relay-{number}")
    late, refused = world.join("client-9", "relay-9")
    assert refused == ends(RelayEnd.TOO_MANY_IN_ROOM, late)
    _, elsewhere = world.join("client-9", "relay-9", "b1")
    assert elsewhere == []


def test_an_account_has_a_share_of_all_relays(world: World) -> None:
    for number in range(3):
        world.pair(room_id=f"a{number}")
    late, refused = world.join("client-9", room_id="a9")
    assert refused == ends(RelayEnd.TOO_MANY_OF_ACCOUNT, late)


def test_the_server_has_so_many_relays(world: World) -> None:
    for owner in "abcd":
        world.pair(room_id=f"{owner}1")
    late, refused = world.join("client-9", room_id="e1")
    assert refused == ends(RelayEnd.TOO_MANY, late)


def test_a_share_of_few_relays_is_one_at_least() -> None:
    world = World(replace(LIMITS, max_relays=1, account_share=0.1))
    world.pair()


# -- how much --------------------


def test_the_frame_that_passes_a_rooms_quota_is_the_last(world: World) -> None:
    one, two = world.pair()
    assert world.passes(one, 600) == []
    assert world.passes(two, 400) == []
    assert world.passes(two, 1) == ends(RelayEnd.QUOTA_OF_ROOM, two, one)
    late, refused = world.join("client-1")
    assert refused == ends(RelayEnd.QUOTA_OF_ROOM, late)
    # Tomorrow is another day.
    world.now += DAY_S
    world.pair()


def test_an_account_has_a_share_of_the_days_quota(world: World) -> None:
    relays = [world.pair(room_id=f"a{number}") for number in range(3)]
    assert [world.passes(one, 1_000) for one, _ in relays] == [[], [], []]
    world.book.left(relays[0][0])
    late, _ = world.join("worker-1", room_id="a9")
    two, _ = world.join("client-1", room_id="a9")
    assert world.passes(late, 1) == ends(RelayEnd.QUOTA_OF_ACCOUNT, late, two)


def test_what_the_store_knows_counts(world: World) -> None:
    for usage, end in (
        (RelayUsage(room=1_001), RelayEnd.QUOTA_OF_ROOM),
        (RelayUsage(account=3_001), RelayEnd.QUOTA_OF_ACCOUNT),
        (RelayUsage(total=4_001), RelayEnd.QUOTA),
    ):
        world = World()
        late, refused = world.join("worker-1", usage=usage)
        assert refused == ends(end, late)


def test_bytes_are_written_down_once_and_count_all_the_while(world: World) -> None:
    one, two = world.pair()
    day = world.book.day(world.now)
    world.passes(one, 500)
    rows = world.book.unwritten()
    assert rows == {(day, "a1"): ("owner-a", 500)}
    world.passes(two, 300)
    world.book.written(rows)
    assert world.book.unwritten() == {(day, "a1"): ("owner-a", 300)}
    world.book.written(world.book.unwritten())
    assert world.book.unwritten() == {}
    assert world.passes(one, 201) == ends(RelayEnd.QUOTA_OF_ROOM, one, two)


def test_a_room_that_comes_back_brings_its_bytes_from_the_store(world: World) -> None:
    one, _ = world.pair()
    world.passes(one, 900)
    world.book.left(one)
    world.book.written(world.book.unwritten())
    one, _ = world.join("worker-1", usage=RelayUsage(900, 900, 900))
    two, _ = world.join("client-1", usage=RelayUsage(900, 900, 900))
    assert world.passes(one, 101) == ends(RelayEnd.QUOTA_OF_ROOM, one, two)


def test_bytes_before_midnight_are_yesterdays(world: World) -> None:
    one, _ = world.pair()
    day = world.book.day(world.now)
    world.passes(one, 900)
    world.now += DAY_S
    assert world.passes(one, 900) == []
    assert world.book.unwritten() == {
        (day, "a1"): ("owner-a", 900),
        (day + 1, "a1"): ("owner-a", 900),
    }


def test_nothing_passes_for_who_is_not_there(world: World) -> None:
    one, _ = world.join("worker-1")
    assert world.passes(one, 5_000) == world.passes(99, 5_000) == []
    assert world.book.unwritten() == {}
    assert world.book.end(99, RelayEnd.NOT_READ) == []


# -- ends --------------------


@pytest.mark.parametrize("end", list(RelayEnd))
def test_an_end_fits_into_a_close_frame(end: RelayEnd) -> None:
    assert 0 < len(end.words.encode()) <= MAX_REASON_BYTES
    assert end.code in {*RelayCloseCode, 1012, 1013}
    assert end.code not in set(CloseCode)

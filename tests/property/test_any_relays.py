"""Any peers, bytes and pauses in any order: what the relay book and a pace never do."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sleap_rtc_signaling.limits import DAY_S
from sleap_rtc_signaling.pace import Pace
from sleap_rtc_signaling.relay_book import (
    EndRelay,
    Joined,
    Member,
    RelayBook,
    RelayInstruction,
    RelayLimits,
    RelayUsage,
)

LIMITS = RelayLimits(
    max_relays=3,
    max_relays_per_room=2,
    room_bytes_per_day=500,
    total_bytes_per_day=1_500,
    account_share=0.7,
)
MAX_FRAME = 200


class AnyRelays(RuleBasedStateMachine):
    """Keeps an own, simpler book with a store, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.book = RelayBook(LIMITS)
        self.now = 0.0
        self.next = 0
        self.members: dict[int, tuple[Member, str]] = {}
        self.partners: dict[int, int] = {}
        self.stored: Counter[tuple[int, str]] = Counter()
        self.passed: Counter[tuple[int, str]] = Counter()

    def perform(self, instructions: list[RelayInstruction]) -> None:
        joined = [i.connection for i in instructions if isinstance(i, Joined)]
        assert len(joined) in (0, 2)
        if joined:
            one, two = joined
            assert one not in self.partners
            assert two not in self.partners
            (first, relay), (second, same) = self.members[one], self.members[two]
            assert relay == same
            assert first.room_id == second.room_id
            assert first.peer_id != second.peer_id
            self.partners |= {one: two, two: one}
        for instruction in instructions:
            if isinstance(instruction, EndRelay):
                assert instruction.connection in self.members
                self.forget(instruction.connection)

    def forget(self, connection: int) -> None:
        self.members.pop(connection)
        partner = self.partners.pop(connection, None)
        if partner is not None:
            self.partners.pop(partner, None)

    def usage(self, member: Member) -> RelayUsage:
        day = self.book.day(self.now)
        rows = {room: n for (on, room), n in self.stored.items() if on == day}
        return RelayUsage(
            room=rows.get(member.room_id, 0),
            account=sum(n for r, n in rows.items() if r[0] == member.account_id),
            total=sum(rows.values()),
        )

    @rule(
        room=st.sampled_from(["a1", "a2", "b1", "c1"]),
        peer=st.sampled_from(["ann", "bob", "eve"]),
        relay=st.sampled_from(["r-1", "r-2", "r-3"]),
        lives=st.sampled_from([5.0, 1e9]),
    )
    def join(self, room: str, peer: str, relay: str, lives: float) -> None:
        member = Member(room, room[0], peer, self.now + lives)
        self.next += 1
        self.members[self.next] = (member, relay)
        usage = self.usage(member)
        self.perform(self.book.join(self.next, member, relay, usage, self.now))

    @precondition(lambda self: self.partners)
    @rule(data=st.data(), size=st.integers(0, MAX_FRAME))
    def frame(self, data: st.DataObject, size: int) -> None:
        connection = data.draw(st.sampled_from(sorted(self.partners)))
        member, _ = self.members[connection]
        assert self.book.partner(connection) == self.partners[connection]
        self.passed[self.book.day(self.now), member.room_id] += size
        self.perform(self.book.passed(connection, size, self.now))

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(sorted(self.members)))
        partner = self.partners.get(connection)
        told = self.book.left(connection)
        assert [i.connection for i in told] == ([partner] if partner else [])
        self.forget(connection)
        for instruction in told:
            self.members.pop(instruction.connection)

    @rule(room=st.sampled_from(["a1", "a2", "b1", "c1"]))
    def close_room(self, room: str) -> None:
        inside = {
            c for c, (member, _) in self.members.items() if member.room_id == room
        }
        ended = self.book.close_room(room)
        assert {i.connection for i in ended} == inside
        self.perform(ended)

    @rule(seconds=st.sampled_from([0.5, 6.0, 11.0, 61.0, DAY_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.book.expire(self.now))
        deadline = self.book.deadline()
        assert deadline is None or deadline > self.now

    @rule()
    def write(self) -> None:
        rows = self.book.unwritten()
        for key, (_, size) in rows.items():
            self.stored[key] += size
        self.book.written(rows)
        assert self.book.unwritten() == {}

    @invariant()
    def both_books_agree(self) -> None:
        counts = self.book.counts()
        assert counts.relays * 2 == len(self.partners)
        assert counts.relays * 2 + counts.waiting == len(self.members)
        assert self.book.rooms() == {m.room_id for m, _ in self.members.values()}
        assert len(self.members) <= 2 * LIMITS.max_relays

    @invariant()
    def no_byte_is_lost_and_no_quota_passed_by_more_than_a_frame(self) -> None:
        known = Counter(self.stored)
        for key, (_, size) in self.book.unwritten().items():
            known[key] += size
        assert +known == +self.passed
        for day in {on for on, _ in known}:
            rooms = {room: n for (on, room), n in known.items() if on == day}
            assert max(rooms.values()) <= LIMITS.room_bytes_per_day + MAX_FRAME
            # Each relay may have one frame on its way when the last byte is spent.
            over = MAX_FRAME * LIMITS.max_relays
            assert sum(rooms.values()) <= LIMITS.total_bytes_per_day + over


def test_any_relays() -> None:
    run_state_machine_as_test(
        AnyRelays,
        settings=settings(max_examples=50, stateful_step_count=40, deadline=None),
    )


@given(
    rate=st.floats(1.0, 1e9),
    burst=st.integers(1, 1_000_000),
    steps=st.lists(
        st.tuples(st.integers(0, 70_000), st.floats(0.0, 10.0)), max_size=60
    ),
)
@settings(deadline=None)
def test_a_pace_is_never_passed(
    rate: float, burst: int, steps: list[tuple[int, float]]
) -> None:
    pace, now, total = Pace(rate, burst), 0.0, 0
    for size, pause in steps:
        now += pause
        total += size
        now += pace.take(size, now)
        # When it may pass, all before it fits under the burst and the rate.
        assert total <= (burst + rate * now) * (1 + 1e-6) + 1

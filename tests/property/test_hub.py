"""Any messages from any connections in any order: what the hub never does."""

import hashlib
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import Raw, structs

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.errors import RemoteProtocolError, TokenRefused
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    Candidate,
    DiscoverPeers,
    Offer,
    PeerList,
    PeerMessage,
    PeerMetadata,
    Ping,
    Register,
    Registered,
    ServerError,
    UpdateMetadata,
)
from sleap_rtc_signaling.hub import Hub
from sleap_rtc_signaling.instructions import (
    Admission,
    Deliver,
    Disconnect,
    DropPeerId,
    KeepPeerId,
    RenewRoom,
    Reply,
    RoomEnded,
)
from sleap_rtc_signaling.limits import HELD_MESSAGE_S

connections = st.integers(0, 5)
room_ids = st.sampled_from(["room-1", "room-2"])
peer_ids = st.sampled_from(["ann", "bob", "eve"])
command_ids = st.sampled_from(["c-1", "c-2", "c-3"])
tags = st.lists(st.sampled_from(["gpu", "lab", ""]), max_size=3)
names = st.sampled_from(["a", "a.b", "a.b.c", "", ".", "$eq", "$", "a.b.c.d.e"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=8,
)
operators = st.sampled_from(
    ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$where", "x"]
)
conditions = values | st.dictionaries(operators, values, max_size=3)
metadata = st.builds(
    PeerMetadata, tags=tags, properties=st.dictionaries(names, values, max_size=3)
)
sdps = st.text(st.characters(codec="utf-8"), max_size=20)
registers = st.builds(
    Register,
    id=command_ids,
    room_id=room_ids,
    token=st.just("token"),
    peer_id=peer_ids,
    role=st.sampled_from(["worker", "client"]),
    resume_key=st.sampled_from(["1" * 32, "2" * 32]),
    metadata=metadata,
)
relays = st.one_of(
    st.builds(
        PeerMessage,
        id=command_ids,
        to=peer_ids,
        payload=st.sampled_from([Raw(b"{}"), Raw(b'"' + b"x" * 20_000 + b'"')]),
    ),
    st.builds(Offer, id=command_ids, to=peer_ids, sdp=sdps),
    st.builds(Answer, id=command_ids, to=peer_ids, sdp=sdps, offer_id=command_ids),
    st.builds(
        Candidate, id=command_ids, to=peer_ids, candidate=sdps, offer_id=command_ids
    ),
)
others = st.one_of(
    relays,
    st.builds(
        DiscoverPeers,
        id=command_ids,
        role=st.sampled_from(["worker", "client", None]),
        tags=tags,
        properties=st.dictionaries(names, conditions, max_size=3),
    ),
    st.builds(UpdateMetadata, id=command_ids, metadata=metadata),
    st.builds(Ping, id=command_ids),
)
admissions = st.one_of(
    st.none(),
    st.just(TokenRefused(server="s", reason="r")),
    st.builds(Admission, room_ids, st.floats(0.0, 20_000.0)),
    st.builds(Admission, room_ids, st.just(1e9)),
)


class AnyTraffic(RuleBasedStateMachine):
    """Keeps an own, simpler book of who is where, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub("http://server")
        self.now = 0.0
        self.open: set[int] = set()
        self.rooms: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.kept: dict[tuple[str, str], KeepPeerId] = {}
        # Connection -> how many commands have had no reply.
        self.owed: Counter[int] = Counter()

    def perform(self, instructions: list[Any]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Disconnect):
                assert instruction.connection in self.open
                self.owed.pop(instruction.connection, None)
                self.open.discard(instruction.connection)
                self.rooms.pop(instruction.connection, None)
                self.names.pop(instruction.connection, None)
            elif isinstance(instruction, Reply | Deliver):
                assert instruction.connection in self.open
                if isinstance(instruction, Reply):
                    self.owed[instruction.connection] -= 1
                text = codec.encode_signaling(instruction.message)
                assert codec.decode_server_message(text) is not None
            elif isinstance(instruction, KeepPeerId):
                self.kept[instruction.room_id, instruction.peer_id] = instruction
            elif isinstance(instruction, DropPeerId):
                del self.kept[instruction.room_id, instruction.peer_id]
            elif isinstance(instruction, RoomEnded):
                for place in [p for p in self.kept if p[0] == instruction.room_id]:
                    del self.kept[place]
            else:
                assert isinstance(instruction, RenewRoom)

    @initialize()
    def two_rooms_with_peers(self) -> None:
        for connection, (room_id, peer_id) in enumerate(
            [("room-1", "ann"), ("room-1", "bob"), ("room-2", "eve"), ("room-2", "ann")]
        ):
            message = Register(
                id="c-1",
                room_id=room_id,
                token="token",
                peer_id=peer_id,
                role="worker",
                resume_key="1" * 32,
            )
            self.open_socket(connection)
            self.enter(connection, message, Admission(room_id, 9_000.0))

    @rule(connection=connections)
    def connect(self, connection: int) -> None:
        self.open_socket(connection)

    def open_socket(self, connection: int) -> None:
        if connection not in self.open:
            self.open.add(connection)
            self.hub.connected(connection, self.now)

    @rule(connection=connections, message=registers)
    def join(self, connection: int, message: Register) -> None:
        self.open_socket(connection)
        self.enter(connection, message, Admission(message.room_id, self.now + 9_000.0))

    @rule(connection=connections, is_lost=st.booleans())
    def disconnect(self, connection: int, is_lost: bool) -> None:
        self.hub.disconnected(connection, self.now, is_lost=is_lost)
        self.owed.pop(connection, None)
        self.open.discard(connection)
        self.rooms.pop(connection, None)
        self.names.pop(connection, None)

    @rule(connection=connections, message=registers)
    def register_without_connecting(self, connection: int, message: Register) -> None:
        self.enter(connection, message, Admission(message.room_id, 1e9))

    @rule(connection=connections, message=registers, admission=admissions)
    def register(self, connection: int, message: Register, admission: Any) -> None:
        self.open_socket(connection)
        self.enter(connection, message, admission)

    def enter(self, connection: int, message: Register, admission: Any) -> None:
        was_open = connection in self.open
        was_registered = connection in self.rooms
        before = dict(self.rooms)
        instructions = self.hub.handle(connection, message, self.now, admission)
        self.owed[connection] += int(was_open)
        replies = [
            i.message
            for i in instructions
            if isinstance(i, Reply) and i.connection == connection
        ]
        assert len(replies) == int(was_open)
        for delivery in instructions:
            if isinstance(delivery, Deliver):
                # What waited for this peer, from somebody in its room.
                assert delivery.connection == connection
                assert message.room_id in {
                    self.rooms[c]
                    for c, name in self.names.items()
                    if name == delivery.message.from_
                }
        entered = [r for r in replies if isinstance(r, Registered)]
        assert not (entered and was_registered)
        thrown_out = {
            i.connection
            for i in instructions
            if isinstance(i, Disconnect) and i.connection != connection
        }
        for other in thrown_out:
            # Only its own newer socket pushes a peer out.
            assert entered
            assert before[other] == message.room_id
            assert self.names[other] == message.peer_id
            assert self.keys[before[other], self.names[other]] == message.resume_key
        self.perform(instructions)
        if entered:
            kept = self.kept.get((message.room_id, message.peer_id))
            digest = hashlib.sha256(message.resume_key.encode()).digest()
            # Before as after a restart, a worker's id is its own.
            assert kept is None or kept.resume_digest == digest
            assert (kept is not None) == (message.role == "worker")
            assert isinstance(admission, Admission)
            assert admission.room_id == message.room_id
            self.rooms[connection] = message.room_id
            self.names[connection] = message.peer_id
            self.keys[message.room_id, message.peer_id] = message.resume_key

    @rule(connection=connections, message=others)
    def command_of_anybody(self, connection: int, message: Any) -> None:
        self.command(connection, message)

    @precondition(lambda self: self.rooms)
    @rule(data=st.data(), message=others)
    def command_of_a_peer(self, data: st.DataObject, message: Any) -> None:
        connection = data.draw(st.sampled_from(sorted(self.rooms)))
        self.command(connection, message)

    @precondition(lambda self: self.rooms)
    @rule(data=st.data(), message=relays)
    def relay_to_somebody(self, data: st.DataObject, message: Any) -> None:
        connection, to = (data.draw(st.sampled_from(sorted(self.rooms))) for _ in "ab")
        message = structs.replace(message, to=self.names[to])
        self.command(connection, message)

    def command(self, connection: int, message: Any) -> None:
        was_open = connection in self.open
        room = self.rooms.get(connection)
        instructions = self.hub.handle(connection, message, self.now)
        self.owed[connection] += int(was_open)
        replies = [i for i in instructions if isinstance(i, Reply)]
        delivered = [i for i in instructions if isinstance(i, Deliver)]
        if was_open and not instructions:
            assert isinstance(message, Offer | Answer | Candidate | PeerMessage)
            assert message.to not in {
                name for c, name in self.names.items() if self.rooms[c] == room
            }
            return  # it waits
        assert len(replies) == int(was_open)
        for reply in replies:
            assert reply.connection == connection
            assert reply.message.id == message.id
        if room is None:
            assert delivered == []
            if was_open:
                assert isinstance(replies[0].message, ServerError)
                assert instructions[1].connection == connection
        assert len(delivered) <= 1
        for delivery in delivered:
            assert self.rooms[delivery.connection] == room
            assert self.names[delivery.connection] == message.to
            assert delivery.message.from_ == self.names[connection]
            assert delivery.message.id == message.id
        for reply in replies:
            if isinstance(reply.message, PeerList):
                here = {
                    self.names[c] for c, where in self.rooms.items() if where == room
                }
                assert {info.peer_id for info in reply.message.peers} <= here
        self.perform(instructions)

    @rule(connection=connections)
    def malformed(self, connection: int) -> None:
        was_open = connection in self.open
        error = RemoteProtocolError(detail="d")
        instructions = self.hub.malformed(connection, error, self.now)
        self.owed[connection] += int(was_open)
        assert sum(isinstance(i, Reply) for i in instructions) == int(was_open)
        self.perform(instructions)

    @rule(room_id=room_ids)
    def close_room(self, room_id: str) -> None:
        inside = {c for c, where in self.rooms.items() if where == room_id}
        instructions = self.hub.close_room(room_id, self.now)
        assert instructions.pop() == RoomEnded(room_id)
        assert {i.connection for i in instructions} == inside
        self.perform(instructions)

    @rule()
    def restart(self) -> None:
        self.hub = Hub("http://server")
        for kept in self.kept.values():
            self.hub.restore(kept, self.now + 9_000.0, self.now)
        self.open.clear()
        self.owed.clear()
        self.rooms.clear()
        self.names.clear()

    @rule(seconds=st.sampled_from([0.1, 1.0, 11.0, 601.0, 8_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.hub.expire(self.now))
        deadline = self.hub.deadline()
        assert deadline is None or deadline > self.now
        if seconds > HELD_MESSAGE_S:
            # Every command has had its one reply by now.
            assert not +self.owed

    @invariant()
    def no_command_has_two_replies(self) -> None:
        assert min(self.owed.values(), default=0) >= 0

    @precondition(lambda self: self.rooms)
    @invariant()
    def one_holder_for_each_id(self) -> None:
        held = Counter((room, self.names[c]) for c, room in self.rooms.items())
        assert max(held.values()) == 1

    @invariant()
    def both_books_agree(self) -> None:
        for connection in range(6):
            assert self.hub.knows(connection) == (connection in self.open)
            assert self.hub.is_registered(connection) == (connection in self.rooms)
        counts = self.hub.counts()
        assert sum(counts.peers.values()) == len(self.rooms)
        assert counts.rooms == len(set(self.rooms.values()))
        assert counts.unregistered == len(self.open) - len(self.rooms)


def test_any_traffic() -> None:
    run_state_machine_as_test(
        AnyTraffic,
        settings=settings(max_examples=30, stateful_step_count=30, deadline=None),
    )


@given(query=st.dictionaries(names, conditions, max_size=4), properties=metadata)
@settings(max_examples=100, deadline=None)
def test_any_filter_on_any_metadata_is_answered(
    query: dict[str, Any], properties: PeerMetadata
) -> None:
    hub = Hub("http://server")
    hub.connected(1, 0.0)
    register = Register(
        id="r",
        room_id="room-1",
        token="t",
        peer_id="ann",
        role="worker",
        resume_key="1" * 32,
    )
    hub.handle(1, register, 0.0, Admission("room-1", 100.0))
    update = UpdateMetadata(id="u", metadata=properties)
    assert len(hub.handle(1, update, 0.0)) == 1
    found = hub.handle(1, DiscoverPeers(id="d", properties=query), 0.0)
    assert len(found) == 1

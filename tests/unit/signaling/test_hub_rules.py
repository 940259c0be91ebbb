import hashlib
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.errors import (
    RateLimited,
    RemoteProtocolError,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_METADATA_BYTES,
    MAX_PEER_MESSAGE_BYTES,
    MAX_PEERS_PER_ROOM,
    MAX_SIGNALING_MESSAGE_BYTES,
    PEER_ID_RESERVED_S,
    REGISTER_DEADLINE_S,
    ROOM_LIFETIME_S,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    Candidate,
    Delivered,
    DiscoverPeers,
    MetadataUpdated,
    Offer,
    PeerList,
    PeerMessage,
    PeerMetadata,
    Ping,
    Pong,
    Register,
    Registered,
    RelayedAnswer,
    RelayedCandidate,
    RelayedOffer,
    RelayedPeerMessage,
    ServerError,
    UpdateMetadata,
)
from sleap_rtc_signaling import held_messages as held_module
from sleap_rtc_signaling import hub as hub_module
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
from sleap_rtc_signaling.limits import (
    HELD_AFTER_LOSS_S,
    HELD_MESSAGE_S,
    MAX_MALFORMED_MESSAGES,
)

ROOM_ENDS = ROOM_LIFETIME_S


def key(name: str) -> str:
    return (name * 32)[:32]


def register(peer_id: str, role: str = "client", **fields: Any) -> Register:
    return Register(
        **{
            "id": "r",
            "room_id": "room-1",
            "token": "t",
            "peer_id": peer_id,
            "role": role,
            "resume_key": key(peer_id),
            **fields,
        }
    )


class World:
    """A hub and the peers in it, each with the number of its connection."""

    def __init__(self) -> None:
        self.hub = Hub("http://server")
        self.now = 0.0
        self.last = 0

    def connect(self) -> int:
        self.last += 1
        self.hub.connected(self.last, self.now)
        return self.last

    def join(self, peer_id: str, role: str = "client", **fields: Any) -> int:
        connection = self.connect()
        instructions = self.register(connection, peer_id, role, **fields)
        assert isinstance(instructions[-1], Reply)
        assert isinstance(instructions[-1].message, Registered)
        return connection

    def register(
        self, connection: int, peer_id: str, role: str = "client", **fields: Any
    ) -> list[Any]:
        message = register(peer_id, role, **fields)
        admission = Admission(message.room_id, ROOM_ENDS)
        return self.hub.handle(connection, message, self.now, admission)

    def say(self, connection: int, message: Any) -> list[Any]:
        return self.hub.handle(connection, message, self.now)

    def leave(self, connection: int) -> None:
        self.hub.disconnected(connection, self.now)

    def listed(self, connection: int) -> list[str]:
        (reply,) = self.say(connection, DiscoverPeers(id="d"))
        return [info.peer_id for info in reply.message.peers]


@pytest.fixture
def world() -> World:
    return World()


def refusal(instructions: list[Any], code: str) -> ServerError:
    message = instructions[0].message
    assert isinstance(message, ServerError)
    assert message.code == code
    return message


# -- registering --------------------


def test_registering_enters_the_room(world: World) -> None:
    connection = world.connect()
    assert world.register(connection, "client-1") == [
        Reply(
            connection,
            Registered(
                id="r", peer_id="client-1", room_id="room-1", expires_at=ROOM_ENDS
            ),
        )
    ]
    assert world.listed(connection) == ["client-1"]


def kept(peer_id: str, name: str = "") -> KeepPeerId:
    digest = hashlib.sha256(key(name or peer_id).encode()).digest()
    return KeepPeerId("room-1", peer_id, digest)


def test_a_workers_id_is_written_down_once_and_freed_in_the_end(world: World) -> None:
    worker = world.connect()
    assert world.register(worker, "worker-1", "worker")[0] == kept("worker-1")
    world.leave(worker)
    again = world.connect()
    assert len(world.register(again, "worker-1", "worker")) == 1
    world.leave(again)
    world.now += PEER_ID_RESERVED_S
    assert world.hub.expire(world.now) == [DropPeerId("room-1", "worker-1")]
    # A client's id is not, nor is that of a worker that becomes one.
    client = world.connect()
    assert len(world.register(client, "client-1")) == 1
    world.register(world.connect(), "worker-2", "worker")
    changed = world.register(world.connect(), "worker-2", "client")
    assert DropPeerId("room-1", "worker-2") in changed


def test_a_restart_keeps_a_workers_id_for_it(world: World) -> None:
    world.hub.restore(kept("worker-1"), ROOM_ENDS, world.now)
    assert world.hub.deadline() == world.now + PEER_ID_RESERVED_S
    thief = world.connect()
    stolen = world.register(thief, "worker-1", "worker", resume_key="x" * 32)
    refusal(stolen, "peer_id_taken")
    world.join("worker-1", "worker")
    world.now += PEER_ID_RESERVED_S
    assert world.hub.has_peer("room-1", "worker-1")


def test_a_restart_keeps_an_id_for_a_while_only(world: World) -> None:
    world.hub.restore(kept("worker-1"), ROOM_ENDS, world.now)
    world.now += PEER_ID_RESERVED_S
    assert world.hub.expire(world.now) == [DropPeerId("room-1", "worker-1")]
    assert not world.hub.has_room("room-1")


@pytest.mark.parametrize(
    "message",
    [
        DiscoverPeers(id="x"),
        UpdateMetadata(id="x", metadata=PeerMetadata()),
        PeerMessage(id="x", to="worker-1", payload=Raw(b"{}")),
        Offer(id="x", to="worker-1", sdp="v=0"),
        Answer(id="x", to="worker-1", sdp="v=0", offer_id="o"),
        Candidate(id="x", to="worker-1", candidate="c", offer_id="o"),
        Ping(id="x"),
    ],
)
def test_an_unregistered_connection_can_only_register(
    world: World, message: Any
) -> None:
    world.join("worker-1", "worker")
    stranger = world.connect()
    instructions = world.say(stranger, message)
    assert refusal(instructions, "not_registered").id == "x"
    assert instructions[1:] == [Disconnect(stranger, CloseCode.NOT_REGISTERED)]
    assert world.register(stranger, "client-1") == []


@pytest.mark.parametrize(
    ("admission", "code"),
    [
        (None, "token_refused"),
        (TokenRefused(server="s", reason="expired"), "token_refused"),
        (Admission("room-2", ROOM_ENDS), "token_refused"),
        (Admission("room-1", 0.0), "room_gone"),
    ],
)
def test_only_a_token_for_this_living_room_admits(
    world: World, admission: Any, code: str
) -> None:
    connection = world.connect()
    instructions = world.hub.handle(connection, register("client-1"), 0.0, admission)
    refusal(instructions, code)
    assert instructions[1] == Disconnect(connection, CloseCode.REGISTRATION_REFUSED)
    assert not world.hub.knows(connection)


def test_registering_twice_is_refused_and_changes_nothing(world: World) -> None:
    connection = world.join("client-1")
    refusal(world.register(connection, "client-2"), "bad_request")
    assert world.listed(connection) == ["client-1"]


def test_registering_has_a_deadline(world: World) -> None:
    connection = world.connect()
    assert world.hub.deadline() == REGISTER_DEADLINE_S
    assert world.hub.expire(REGISTER_DEADLINE_S - 0.1) == []
    assert world.hub.expire(REGISTER_DEADLINE_S) == [
        Disconnect(connection, CloseCode.REGISTER_DEADLINE)
    ]
    assert world.hub.deadline() is None


def test_metadata_past_its_bound_does_not_register(world: World) -> None:
    huge = PeerMetadata(properties={"a": "x" * MAX_METADATA_BYTES})
    instructions = world.register(world.connect(), "client-1", metadata=huge)
    refusal(instructions, "bad_request")


def test_a_room_is_bounded(world: World) -> None:
    for n in range(MAX_PEERS_PER_ROOM):
        world.join(f"client-{n}")
    refusal(world.register(world.connect(), "one-more"), "too_many")
    # Whoever is in already may still come back on another socket.
    assert world.join("client-7")


def test_reserved_ids_are_bounded_and_never_pushed_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MAX_RESERVED_IDS_PER_ROOM", 3)
    world.leave(world.join("worker-1", "worker"))
    world.leave(world.join("client-1"))
    world.leave(world.join("client-2"))
    refusal(world.register(world.connect(), "client-3"), "too_many")
    taken = world.register(world.connect(), "worker-1", resume_key=key("eve"))
    refusal(taken, "peer_id_taken")
    assert world.join("worker-1", "worker")


# -- peer ids --------------------


def test_nobody_else_takes_a_peer_id(world: World) -> None:
    worker = world.join("worker-1", "worker")
    thief = world.connect()
    instructions = world.register(thief, "worker-1", "worker", resume_key=key("eve"))
    refusal(instructions, "peer_id_taken")
    assert instructions[1] == Disconnect(thief, CloseCode.REGISTRATION_REFUSED)
    assert world.say(worker, Ping(id="p")) == [Reply(worker, Pong(id="p", time=0.0))]


def test_the_same_key_replaces_the_old_socket(world: World) -> None:
    old = world.join("worker-1", "worker")
    new = world.connect()
    instructions = world.register(new, "worker-1", "worker")
    assert instructions[0] == Disconnect(old, CloseCode.REPLACED)
    assert isinstance(instructions[1].message, Registered)
    assert world.say(old, Ping(id="p")) == []
    world.leave(old)  # the news of the old socket's end comes late
    assert world.listed(new) == ["worker-1"]


def test_a_peer_id_stays_reserved_for_its_key(world: World) -> None:
    world.join("client-1")
    world.leave(world.join("worker-1", "worker"))
    world.now = PEER_ID_RESERVED_S - 0.1
    world.hub.expire(world.now)
    taken = world.register(world.connect(), "worker-1", resume_key=key("eve"))
    refusal(taken, "peer_id_taken")
    assert world.join("worker-1", "worker")


def test_a_reservation_ends(world: World) -> None:
    world.join("client-1")
    world.leave(world.join("worker-1", "worker"))
    assert world.hub.deadline() == PEER_ID_RESERVED_S
    world.now = PEER_ID_RESERVED_S
    world.hub.expire(world.now)
    assert world.join("worker-1", "worker", resume_key=key("bob"))


def test_ids_are_scoped_by_room(world: World) -> None:
    one = world.join("worker-1", "worker")
    two = world.join("worker-1", "worker", room_id="room-2", resume_key=key("eve"))
    assert world.listed(one) == world.listed(two) == ["worker-1"]


# -- relaying --------------------


def test_what_is_relayed_carries_the_senders_registered_id(world: World) -> None:
    worker = world.join("worker-1", "worker")
    client = world.join("client-1")
    payload = Raw(b'{"type":"from-the-future","from":"worker-1"}')
    cases = [
        (
            Offer(id="1", to="worker-1", sdp="v=0"),
            RelayedOffer(id="1", from_="client-1", sdp="v=0"),
        ),
        (
            Answer(id="2", to="worker-1", sdp="v=0", offer_id="o"),
            RelayedAnswer(id="2", from_="client-1", sdp="v=0", offer_id="o"),
        ),
        (
            Candidate(id="3", to="worker-1", candidate="c", offer_id="o"),
            RelayedCandidate(id="3", from_="client-1", candidate="c", offer_id="o"),
        ),
        (
            PeerMessage(id="4", to="worker-1", payload=payload),
            RelayedPeerMessage(id="4", from_="client-1", payload=payload),
        ),
    ]
    for sent, relayed in cases:
        assert world.say(client, sent) == [
            Deliver(worker, relayed),
            Reply(client, Delivered(id=sent.id)),
        ]


def test_another_room_is_out_of_reach(world: World) -> None:
    world.join("worker-1", "worker", room_id="room-2")
    client = world.join("client-1")
    absent = world.say(client, Offer(id="1", to="nobody", sdp="v=0"))
    foreign = world.say(client, Offer(id="1", to="worker-1", sdp="v=0"))
    assert len(foreign) == 1
    refusal(foreign, "peer_not_found")
    # The same words for a peer elsewhere and for none at all.
    elsewhere = foreign[0].message.message
    assert elsewhere == absent[0].message.message.replace("nobody", "worker-1")
    assert world.listed(client) == ["client-1"]


def test_a_payload_is_bounded(world: World) -> None:
    world.join("worker-1", "worker")
    client = world.join("client-1")
    payload = Raw(b'"' + b"x" * MAX_PEER_MESSAGE_BYTES + b'"')
    message = PeerMessage(id="1", to="worker-1", payload=payload)
    refusal(world.say(client, message), "bad_request")


def test_what_grows_past_the_bound_by_its_stamp_is_refused(world: World) -> None:
    world.join("w", "worker")
    client = world.join("c" * 64)
    message = Offer(id="1", to="w", sdp="")
    room = MAX_SIGNALING_MESSAGE_BYTES - len(msgspec.json.encode(message))
    # Two bytes a character, so that the text stays within its own bound.
    sdp = "é" * (room // 2)
    message = Offer(id="1", to="w", sdp=sdp)
    assert codec.decode_client_message(codec.encode_signaling(message)) == message
    refusal(world.say(client, message), "bad_request")


# -- discovery --------------------


def test_discovery_filters_and_shows_the_newest_connection_last(world: World) -> None:
    metadata = PeerMetadata(tags=["gpu"], properties={"gpu": {"memory_mb": 24_000}})
    world.join("worker-1", "worker", metadata=metadata)
    world.now = 5.0
    world.join("worker-2", "worker")
    client = world.join("client-1")
    assert world.listed(client) == ["worker-1", "worker-2", "client-1"]
    query = DiscoverPeers(
        id="d", role="worker", properties={"gpu.memory_mb": {"$gte": 8_192}}
    )
    (reply,) = world.say(client, query)
    (info,) = reply.message.peers
    assert (info.peer_id, info.metadata, info.connected_at) == (
        "worker-1",
        metadata,
        0.0,
    )


def test_updated_metadata_is_what_is_found(world: World) -> None:
    worker = world.join("worker-1", "worker")
    metadata = PeerMetadata(properties={"busy": True})
    update = UpdateMetadata(id="u", metadata=metadata)
    assert world.say(worker, update) == [Reply(worker, MetadataUpdated(id="u"))]
    (reply,) = world.say(worker, DiscoverPeers(id="d", properties={"busy": True}))
    assert [info.peer_id for info in reply.message.peers] == ["worker-1"]
    huge = PeerMetadata(properties={"a": "x" * MAX_METADATA_BYTES})
    refusal(world.say(worker, UpdateMetadata(id="u", metadata=huge)), "bad_request")
    (reply,) = world.say(worker, DiscoverPeers(id="d"))
    assert reply.message.peers[0].metadata == metadata


def test_a_senseless_filter_is_answered(world: World) -> None:
    client = world.join("client-1")
    query = DiscoverPeers(id="d", properties={"a": {"$where": "1"}})
    assert refusal(world.say(client, query), "bad_request").id == "d"


def test_a_full_list_fits_one_message_and_leaves_nobody_out(world: World) -> None:
    large = PeerMetadata(properties={"a": "x" * (MAX_METADATA_BYTES - 100)})
    first = world.join("worker-1", "worker", metadata=large)
    for n in range(MAX_PEERS_PER_ROOM - 1):
        world.join(f"{'c' * 60}-{n}", metadata=large)
    (reply,) = world.say(first, DiscoverPeers(id="d" * 64))
    text = codec.encode_signaling(reply.message)
    listed = codec.decode_server_message(text)
    assert isinstance(listed, PeerList)
    assert len(listed.peers) == MAX_PEERS_PER_ROOM
    assert listed.peers[0].metadata == large
    assert listed.peers[-1].metadata == PeerMetadata()


# -- peers on their way back --------------------


def offer_to(peer_id: str, command_id: str = "o") -> Offer:
    return Offer(id=command_id, to=peer_id, sdp="v=0")


def test_what_is_said_to_a_lost_peer_waits_for_it(world: World) -> None:
    worker = world.join("worker-1", "worker")
    client = world.join("client-1")
    world.hub.disconnected(worker, world.now, is_lost=True)
    assert world.say(client, offer_to("worker-1", "o-1")) == []
    assert world.say(client, offer_to("worker-1", "o-2")) == []
    world.now += HELD_MESSAGE_S - 1
    back = world.connect()
    instructions = world.register(back, "worker-1", "worker")
    assert instructions[1:] == [
        Deliver(back, RelayedOffer(id="o-1", from_="client-1", sdp="v=0")),
        Reply(client, Delivered(id="o-1")),
        Deliver(back, RelayedOffer(id="o-2", from_="client-1", sdp="v=0")),
        Reply(client, Delivered(id="o-2")),
    ]
    assert world.hub.expire(world.now + HELD_MESSAGE_S) == []


def test_it_waits_after_a_restart_too(world: World) -> None:
    world.hub.restore(kept("worker-1"), ROOM_ENDS, world.now)
    client = world.join("client-1")
    assert world.say(client, offer_to("worker-1")) == []
    back = world.connect()
    assert Reply(client, Delivered(id="o")) in world.register(
        back, "worker-1", "worker"
    )


def test_it_does_not_wait_for_ever(world: World) -> None:
    worker = world.join("worker-1", "worker")
    client = world.join("client-1")
    world.hub.disconnected(worker, world.now, is_lost=True)
    assert world.say(client, offer_to("worker-1")) == []
    assert world.hub.deadline() == world.now + HELD_MESSAGE_S
    world.now += HELD_MESSAGE_S
    refusal(world.hub.expire(world.now), "peer_not_found")
    # Nor is there any waiting for one that has been away for long.
    world.now += HELD_AFTER_LOSS_S
    refusal(world.say(client, offer_to("worker-1")), "peer_not_found")


def test_nobody_waits_for_a_peer_that_said_good_bye(world: World) -> None:
    worker = world.join("worker-1", "worker")
    client = world.join("client-1")
    world.leave(worker)
    refusal(world.say(client, offer_to("worker-1")), "peer_not_found")
    refusal(world.say(client, offer_to("worker-2")), "peer_not_found")


def test_what_a_lost_sender_said_is_forgotten(world: World) -> None:
    worker = world.join("worker-1", "worker")
    client = world.join("client-1")
    world.hub.disconnected(worker, world.now, is_lost=True)
    world.say(client, offer_to("worker-1"))
    world.hub.disconnected(client, world.now, is_lost=True)
    assert len(world.register(world.connect(), "worker-1", "worker")) == 1


def test_what_was_said_in_a_room_ends_with_it(world: World) -> None:
    worker = world.join("worker-1", "worker")
    client = world.join("client-1")
    world.hub.disconnected(worker, world.now, is_lost=True)
    world.say(client, offer_to("worker-1"))
    world.hub.close_room("room-1", world.now)
    assert world.hub.expire(world.now + HELD_MESSAGE_S) == []


def test_few_messages_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_module, "MAX_HELD_MESSAGES", 1)
    worker = world.join("worker-1", "worker")
    client = world.join("client-1")
    world.hub.disconnected(worker, world.now, is_lost=True)
    assert world.say(client, offer_to("worker-1")) == []
    refusal(world.say(client, offer_to("worker-1")), "peer_not_found")


# -- rooms --------------------


def test_a_room_without_a_worker_ends(world: World) -> None:
    client = world.join("client-1")
    assert world.hub.deadline() == ROOM_ENDS
    assert world.hub.expire(ROOM_ENDS - 1) == []
    assert world.hub.expire(ROOM_ENDS) == [
        Disconnect(client, CloseCode.ROOM_ENDED),
        RoomEnded("room-1"),
    ]
    assert world.say(client, Ping(id="p")) == []
    assert world.hub.counts().rooms == 0


def test_who_is_in_a_room_is_known(world: World) -> None:
    assert not world.hub.has_room("room-1")
    worker = world.join("worker-1", "worker")
    assert world.hub.has_peer("room-1", "worker-1")
    assert not world.hub.has_peer("room-1", "worker-2")
    assert not world.hub.has_peer("room-2", "worker-1")
    world.leave(worker)
    # It may come back to its id, but it is not there.
    assert not world.hub.has_peer("room-1", "worker-1")
    assert world.hub.has_room("room-1")


def test_a_room_with_a_worker_is_renewed(world: World) -> None:
    worker = world.join("worker-1", "worker")
    assert world.hub.deadline() == ROOM_LIFETIME_S / 2
    world.now = ROOM_LIFETIME_S / 2
    ends = world.now + ROOM_LIFETIME_S
    assert world.hub.expire(world.now) == [RenewRoom("room-1", ends)]
    assert world.hub.expire(world.now) == []
    # Also when the machine slept for longer than the room had.
    world.now = ends + 5
    assert world.hub.expire(world.now) == [
        RenewRoom("room-1", world.now + ROOM_LIFETIME_S)
    ]
    world.leave(worker)
    assert world.hub.expire(world.now + ROOM_LIFETIME_S) == [
        DropPeerId("room-1", "worker-1"),
        RoomEnded("room-1"),
    ]
    assert world.hub.deadline() is None


def test_a_deleted_room_is_emptied_and_stays_closed(world: World) -> None:
    worker = world.join("worker-1", "worker")
    client = world.join("client-1")
    other = world.join("client-1", room_id="room-2")
    assert world.hub.close_room("room-1", world.now) == [
        Disconnect(worker, CloseCode.ROOM_ENDED),
        Disconnect(client, CloseCode.ROOM_ENDED),
        RoomEnded("room-1"),
    ]
    # A registration whose token was verified before the room was deleted.
    refusal(world.register(world.connect(), "client-9"), "room_gone")
    assert world.listed(other) == ["client-1"]
    world.leave(worker)
    # What hangs on a room ends with it, be there peers in it or not.
    assert world.hub.close_room("room-1", world.now) == [RoomEnded("room-1")]


def test_counts(world: World) -> None:
    world.join("worker-1", "worker")
    world.join("client-1")
    world.join("client-1", room_id="room-2")
    world.connect()
    counts = world.hub.counts()
    assert (counts.rooms, counts.peers, counts.unregistered) == (
        2,
        {"worker": 1, "client": 2},
        1,
    )


# -- misbehaviour --------------------


def test_a_few_malformed_messages_close_a_peer(world: World) -> None:
    client = world.join("client-1")
    error = RemoteProtocolError(detail="not JSON")
    for _ in range(MAX_MALFORMED_MESSAGES - 1):
        instructions = world.hub.malformed(client, error, 0.0)
        assert refusal(instructions, "protocol").id == ""
        assert len(instructions) == 1
    last = world.hub.malformed(client, error, 0.0)
    assert last[1] == Disconnect(client, CloseCode.PROTOCOL_BROKEN)
    assert world.hub.malformed(client, error, 0.0) == []


def test_one_malformed_message_closes_a_stranger(world: World) -> None:
    stranger = world.connect()
    error = RemoteProtocolError(detail="not JSON")
    instructions = world.hub.malformed(stranger, error, 0.0)
    assert instructions[1:] == [Disconnect(stranger, CloseCode.PROTOCOL_BROKEN)]


def test_the_switchboard_may_refuse_and_drop(world: World) -> None:
    client = world.join("client-1")
    error = RateLimited(retry_after_s="1.0")
    assert refusal(world.hub.refuse(client, "x", error), "rate_limited").fields == {
        "retry_after_s": "1.0"
    }
    assert world.hub.drop(client, CloseCode.RATE_LIMITED, 0.0) == [
        Disconnect(client, CloseCode.RATE_LIMITED)
    ]
    assert world.hub.drop(client, CloseCode.RATE_LIMITED, 0.0) == []
    assert world.hub.refuse(client, "x", error) == []


def test_a_resume_key_is_not_kept(world: World) -> None:
    world.join("client-1", resume_key="this-is-the-resume-key-of-client-1")
    assert "this-is-the-resume-key" not in repr(vars(world.hub))

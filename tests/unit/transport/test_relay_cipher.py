"""What the relay can do to what it carries: nothing that goes unnoticed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import (
    LocalProtocolError,
    PeerNotAuthenticated,
    RemoteProtocolError,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_CONTROL_FRAME_BYTES,
    MAX_RELAY_FRAME_BYTES,
    MAX_TRANSFER_FRAME_BYTES,
    RELAY_ACK_BYTES,
    RELAY_PIECE_BYTES,
    RELAY_WINDOW_BYTES,
)
from sleap_rtc_plugin.transport.relay_cipher import (
    HELLO_BYTES,
    Record,
    RecordKind,
    RelayCipher,
)
from sleap_rtc_plugin.transport.relay_queues import (
    CONTROL_RESERVE_BYTES,
    RelayInbox,
    RelayOutbox,
)

SECRET = b"s" * 32
RELAY_ID = "relay-" + "0a" * 16
PIECE = Record(RecordKind.CONTROL, b"a stop command")


def cipher(role: Any, **other: Any) -> RelayCipher:
    known = {
        "secret": SECRET,
        "relay_id": RELAY_ID,
        "private_key": role[0].encode() * 32,
    }
    return RelayCipher(role=role, **(known | other))


def met(
    one: RelayCipher | None = None, other: RelayCipher | None = None
) -> tuple[RelayCipher, RelayCipher]:
    """Let two ends exchange their first frames and the confirmations."""
    client, worker = one or cipher("client"), other or cipher("worker")
    from_client = client.take_hello(worker.hello)
    from_worker = worker.take_hello(client.hello)
    assert client.open(from_worker) == worker.open(from_client)
    return client, worker


def test_what_is_sealed_is_opened() -> None:
    client, worker = met()
    for sender, receiver in [(client, worker), (worker, client)]:
        for payload in (b"", b"x", b"y" * RELAY_PIECE_BYTES):
            record = Record(RecordKind.TRANSFER, payload)
            frame = sender.seal(record)
            assert len(payload) < 16 or payload not in frame
            assert receiver.open(frame) == record


def test_the_bindings_are_those_of_both_and_of_this_meeting_alone() -> None:
    client, worker = met()
    assert client.local_fingerprint == worker.remote_fingerprint
    assert client.remote_fingerprint == worker.local_fingerprint
    assert client.local_fingerprint != client.remote_fingerprint
    again, _ = met(cipher("client", private_key=b"z" * 32))
    elsewhere, _ = met(
        cipher("client", relay_id="relay-1"), cipher("worker", relay_id="relay-1")
    )
    prints = {one.local_fingerprint for one in (client, again, elsewhere)}
    assert len(prints) == 3
    assert len(client.local_fingerprint) == 32 * 3 - 1


def test_each_direction_has_its_own_key() -> None:
    client, worker = met()
    with pytest.raises(RemoteProtocolError):
        client.open(client.seal(PIECE))
    frame = worker.seal(PIECE)
    with pytest.raises(RemoteProtocolError):
        worker.open(frame)


def test_another_secret_is_found_out_at_the_first_frame() -> None:
    client, worker = cipher("client"), cipher("worker", secret=b"t" * 32)
    client.take_hello(worker.hello)
    with pytest.raises(PeerNotAuthenticated):
        client.open(worker.take_hello(client.hello))


def test_somebody_in_between_is_found_out() -> None:
    """With keys of its own on both sides, but without the secret."""
    client, worker = cipher("client"), cipher("worker")
    for end, role in [(client, "worker"), (worker, "client")]:
        between = cipher(role, secret=b"?" * 32, private_key=b"m" * 32)
        end.take_hello(between.hello)
        with pytest.raises(PeerNotAuthenticated):
            end.open(between.take_hello(end.hello))


def test_public_keys_that_are_passed_on_to_another_meeting_do_not_fit() -> None:
    client, worker = cipher("client"), cipher("worker", relay_id="relay-2")
    client.take_hello(worker.hello)
    with pytest.raises(PeerNotAuthenticated):
        client.open(worker.take_hello(client.hello))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"SRR1w" + b"k" * 31,
        b"SRR1w" + b"k" * 33,
        b"SRR1c" + b"k" * 32,
        b"SRR2w" + b"k" * 32,
        b"SRR1w" + bytes(32),
        b"SRR1w" + bytes([1]) + bytes(31),
    ],
)
def test_first_frames_of_no_use(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        cipher("client").take_hello(frame)


def test_a_reflected_first_frame_is_refused() -> None:
    client = cipher("client")
    with pytest.raises(RemoteProtocolError):
        client.take_hello(client.hello)
    assert len(client.hello) == HELLO_BYTES


def test_a_second_first_frame_is_refused() -> None:
    client, worker = met()
    with pytest.raises(RemoteProtocolError):
        client.take_hello(worker.hello)


@given(st.data())
def test_any_change_of_a_frame_is_noticed(data: Any) -> None:
    client, worker = met()
    frame = bytearray(client.seal(PIECE))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        worker.open(bytes(frame))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_any_other_order_is_noticed(order: list[int]) -> None:
    """Repeated, left out or in another place: the first that differs ends it."""
    client, worker = met()
    records = [Record(RecordKind.CONTROL, bytes([i])) for i in range(10)]
    frames = [client.seal(record) for record in records]
    for place, number in enumerate(order):
        if number == place:
            assert worker.open(frames[number]) == records[number]
            continue
        with pytest.raises(RemoteProtocolError):
            worker.open(frames[number])
        return


@given(st.binary(max_size=200))
def test_what_was_never_sealed_is_noticed(frame: bytes) -> None:
    _, worker = met()
    with pytest.raises(RemoteProtocolError):
        worker.open(frame)


def test_nothing_follows_the_end() -> None:
    client, worker = met()
    assert worker.open(client.seal(Record(RecordKind.END))).kind is RecordKind.END
    with pytest.raises(RemoteProtocolError):
        worker.open(client.seal(PIECE))


@pytest.mark.parametrize("payload", [b"", bytes([99]) + b"x"])
def test_records_of_no_known_kind(payload: bytes) -> None:
    client, worker = met()
    nonce = (1).to_bytes(12, "big")
    assert client._sealing is not None
    with pytest.raises(RemoteProtocolError):
        worker.open(client._sealing.encrypt(nonce, payload, None))


def test_confirmations_come_first_and_once() -> None:
    client, worker = met()
    with pytest.raises(RemoteProtocolError):
        worker.open(client.seal(Record(RecordKind.CONFIRM)))
    one, other = cipher("client"), cipher("worker")
    one.take_hello(other.hello)
    other.take_hello(one.hello)
    nonce = bytes(12)
    assert other._sealing is not None
    with pytest.raises(RemoteProtocolError):
        one.open(other._sealing.encrypt(nonce, bytes([RecordKind.CONTROL]), None))


def test_frames_out_of_place_and_out_of_bounds() -> None:
    with pytest.raises(LocalProtocolError):
        cipher("client").seal(PIECE)
    with pytest.raises(RemoteProtocolError):
        cipher("client").open(b"x" * 40)
    _, worker = met()
    with pytest.raises(RemoteProtocolError):
        worker.open(bytes(MAX_RELAY_FRAME_BYTES + 1))
    with pytest.raises(LocalProtocolError):
        cipher("client", secret=b"short")
    with pytest.raises(LocalProtocolError):
        cipher("client", private_key=b"short")


# -- what waits, and what comes in pieces ---------------------------------------------


def through(outbox: RelayOutbox, inbox: RelayInbox) -> list[bytes | str]:
    """Carry everything over, acknowledgements back, and return what arrives."""
    arrived: list[bytes | str] = []
    while (record := outbox.next()) is not None:
        assert len(record.payload) <= RELAY_PIECE_BYTES
        message = inbox.take(record)
        if message is not None:
            arrived.append(message)
        if (told := inbox.acknowledgement()) is not None:
            outbox.taken(told.payload)
    return arrived


@given(st.lists(st.tuples(st.booleans(), st.integers(0, MAX_TRANSFER_FRAME_BYTES))))
def test_messages_arrive_whole_and_in_the_order_of_their_channel(sizes: Any) -> None:
    outbox, inbox = RelayOutbox(), RelayInbox()
    texts = [
        str(i).ljust(size, "c") for i, (is_text, size) in enumerate(sizes) if is_text
    ]
    frames = [
        str(i).encode().ljust(size, b"t")
        for i, (is_text, size) in enumerate(sizes)
        if not is_text
    ]
    for text in texts:
        outbox.control.put(text.encode())
    for frame in frames:
        outbox.transfer.put(frame)
    arrived = through(outbox, inbox)
    assert [one for one in arrived if isinstance(one, str)] == texts
    assert [one for one in arrived if isinstance(one, bytes)] == frames
    assert outbox.control.buffered_bytes == outbox.transfer.buffered_bytes == 0


def test_control_overtakes_transfer_even_where_the_window_is_full() -> None:
    outbox = RelayOutbox()
    for _ in range(10):
        outbox.transfer.put(bytes(MAX_TRANSFER_FRAME_BYTES))
    sent = 0
    while (record := outbox.next()) is not None:
        sent += len(record.payload)
    assert sent == RELAY_WINDOW_BYTES
    outbox.control.put(b"stop")
    assert outbox.next() == Record(RecordKind.CONTROL, b"stop")
    outbox.control.put(bytes(2 * CONTROL_RESERVE_BYTES))
    while (record := outbox.next()) is not None:
        sent += len(record.payload)
    assert sent <= RELAY_WINDOW_BYTES + CONTROL_RESERVE_BYTES + RELAY_PIECE_BYTES


@pytest.mark.parametrize(
    "payload", [b"", bytes(7), (11).to_bytes(8, "big"), b"\xff" * 8]
)
def test_acknowledgements_that_cannot_be(payload: bytes) -> None:
    outbox = RelayOutbox()
    outbox.transfer.put(b"x" * 10)
    outbox.next()
    with pytest.raises(RemoteProtocolError):
        outbox.taken(payload)


def test_an_acknowledgement_does_not_go_back() -> None:
    outbox = RelayOutbox()
    outbox.transfer.put(b"x" * 10)
    outbox.next()
    outbox.taken((10).to_bytes(8, "big"))
    with pytest.raises(RemoteProtocolError):
        outbox.taken((9).to_bytes(8, "big"))


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (RecordKind.CONTROL_PIECE, MAX_CONTROL_FRAME_BYTES),
        (RecordKind.TRANSFER_PIECE, MAX_TRANSFER_FRAME_BYTES),
    ],
)
def test_a_message_without_end_is_refused(kind: RecordKind, limit: int) -> None:
    inbox, piece = RelayInbox(), bytes(RELAY_PIECE_BYTES)
    for _ in range(limit // len(piece)):
        assert inbox.take(Record(kind, piece)) is None
    with pytest.raises(RemoteProtocolError):
        inbox.take(Record(kind, b"x"))


def test_pieces_of_nothing_and_text_that_is_none() -> None:
    with pytest.raises(RemoteProtocolError):
        RelayInbox().take(Record(RecordKind.CONTROL_PIECE))
    with pytest.raises(RemoteProtocolError):
        RelayInbox().take(Record(RecordKind.CONTROL, b"\xff\xfe"))


def test_arrivals_are_told_now_and_then() -> None:
    inbox = RelayInbox()
    inbox.take(Record(RecordKind.TRANSFER, bytes(RELAY_ACK_BYTES - 1)))
    assert inbox.acknowledgement() is None
    inbox.take(Record(RecordKind.TRANSFER, b"x"))
    told = inbox.acknowledgement()
    assert told == Record(RecordKind.TAKEN, RELAY_ACK_BYTES.to_bytes(8, "big"))
    assert inbox.acknowledgement() is None

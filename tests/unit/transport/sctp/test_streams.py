"""Whose message is next (RFC 8260 section 3)."""

from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage, StreamScheduler


def scheduler(*entries: tuple[int, bytes]) -> StreamScheduler:
    made = StreamScheduler()
    for stream_id, data in entries:
        made.push(OutboundMessage(stream_id, 53, data))
    return made


def order(made: StreamScheduler) -> list[bytes]:
    return [message.data for message in iter(made.pop, None)]


def test_streams_take_turns_and_keep_their_order() -> None:
    made = scheduler((1, b"a1"), (1, b"a2"), (1, b"a3"), (2, b"b1"), (3, b"c1"))
    assert order(made) == [b"a1", b"b1", b"c1", b"a2", b"a3"]


def test_an_urgent_stream_goes_first() -> None:
    made = StreamScheduler()
    made.set_urgent(7)
    for entry in [(1, b"bulk 1"), (1, b"bulk 2"), (7, b"control 1"), (7, b"control 2")]:
        made.push(OutboundMessage(entry[0], 53, entry[1]))
    assert order(made) == [b"control 1", b"control 2", b"bulk 1", b"bulk 2"]


def test_what_waits_already_becomes_urgent_with_its_stream() -> None:
    made = scheduler((1, b"bulk"), (7, b"control"))
    made.set_urgent(7)
    assert order(made) == [b"control", b"bulk"]


def test_what_is_queued_is_known_by_stream() -> None:
    made = scheduler((1, b"12345"), (2, b"123"))
    assert (made.has_queued(1), made.has_queued(3)) == (True, False)
    assert made.pop() is not None
    assert (made.has_queued(1), made.has_queued(2)) == (False, True)
    assert made
    assert made.pop() is not None
    assert made.pop() is None
    assert not made

"""Whatever a client or a worker sends as live frames: bounded, and never a crash."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.limits import MAX_LIVE_MESSAGE_BYTES
from sleap_rtc_plugin.protocol.live_messages import (
    FRAME_HEADER_BYTES,
    FramePart,
    LiveInstance,
    LiveInstances,
    decode_instances,
    decode_part,
    encode_instances,
    encode_part,
    split_frame,
)
from sleap_rtc_worker.limits import MAX_PARTIAL_FRAMES
from sleap_rtc_worker.live_inbox import FrameInbox, LiveFrame

MOST_BYTES = 3_000

headers = st.builds(
    lambda *fields: struct.pack("!BBHHIQ", *fields),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 300) | st.integers(0, 65_535),
    st.integers(0, 300) | st.integers(0, 65_535),
    st.integers(0, 20) | st.integers(0, 2**32 - 1),
    st.integers(0, 3) | st.integers(0, 2**64 - 1),
)
messages = st.builds(lambda head, tail: head + tail, headers, st.binary(max_size=2_000))


@given(st.lists(messages | st.binary(max_size=100), max_size=60))
def test_hostile_messages_bloat_nothing(sent: list[bytes]) -> None:
    inbox = FrameInbox(max_frame_bytes=MOST_BYTES)
    for message in sent:
        part = decode_part(message)
        if part is None:
            continue
        assert 0 <= part.part < part.parts
        assert part.data == message[FRAME_HEADER_BYTES:]
        inbox.add(part, 0.0)
        assert len(inbox._partials) <= MAX_PARTIAL_FRAMES
        assert inbox.held_bytes <= (MAX_PARTIAL_FRAMES + 1) * MOST_BYTES
    frame = inbox.take()
    if frame is not None:
        assert len(frame.data) <= MOST_BYTES
    # A sender makes one frame of a message at most.
    assert inbox.received + inbox.incomplete <= len(sent)


@given(st.binary(max_size=300))
def test_any_bytes_are_instances_or_nothing(message: bytes) -> None:
    for candidate in (message, b"\x02" + message):
        found = decode_instances(candidate)
        assert found is None or isinstance(found, LiveInstances)


instances = st.builds(
    LiveInstance,
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        max_size=50,
    ),
)


@given(st.lists(instances, max_size=60))
def test_instances_fit_a_message_and_come_back(found: list[LiveInstance]) -> None:
    message = encode_instances(LiveInstances(1, 2, 3, 4, found))
    assert len(message) <= MAX_LIVE_MESSAGE_BYTES
    back = decode_instances(message)
    assert back is not None
    assert back.instances == found[: len(back.instances)]


@given(
    st.lists(st.binary(min_size=1, max_size=200_000), min_size=1, max_size=6),
    st.data(),
)
def test_frames_in_any_order_with_losses(images: list[bytes], data: st.DataObject):
    """What comes out is a frame that went in, never older than the one before."""
    parts = [
        encode_part(part)
        for number, image in enumerate(images)
        for part in split_frame(number, number, image, "png")
    ]
    order = data.draw(st.permutations(parts))
    arriving = order[: data.draw(st.integers(0, len(order)))]
    inbox = FrameInbox(max_frame_bytes=1_000_000)
    last = -1
    for message in arriving:
        part = decode_part(message)
        assert isinstance(part, FramePart)
        inbox.add(part, 0.0)
        if data.draw(st.booleans()):
            frame = inbox.take()
            if frame is not None:
                assert isinstance(frame, LiveFrame)
                assert frame.frame > last
                assert frame.data == images[frame.frame]
                last = frame.frame
    assert inbox.received + inbox.incomplete <= len(images)
    if len(arriving) == len(parts):
        assert inbox._done == len(images) - 1

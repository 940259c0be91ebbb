"""Frames are put together from parts; only the newest whole one is kept."""

import pytest

from sleap_rtc_plugin.protocol.limits import MAX_LIVE_FRAME_BYTES
from sleap_rtc_plugin.protocol.live_messages import FramePart, split_frame
from sleap_rtc_worker.limits import MAX_PARTIAL_FRAMES
from sleap_rtc_worker.live_inbox import FrameInbox, most_image_bytes

LARGE = bytes(range(256)) * 600  # three parts


def inbox() -> FrameInbox:
    return FrameInbox(max_frame_bytes=1_000_000)


def parts(frame: int, data: bytes = b"image") -> list[FramePart]:
    return split_frame(frame, frame * 10, data, "png")


def counts(box: FrameInbox) -> tuple[int, int, int]:
    return box.received, box.incomplete, box.superseded


def test_a_frame_in_one_part() -> None:
    box = inbox()
    box.add(parts(0)[0], 1.5)
    frame = box.take()
    assert frame is not None
    assert (frame.frame, frame.taken_us, frame.data) == (0, 0, b"image")
    assert (frame.format, frame.arrived) == ("png", 1.5)
    assert box.take() is None
    assert counts(box) == (1, 0, 0)


def test_parts_come_in_any_order_and_twice() -> None:
    box = inbox()
    first, second, third = parts(4, LARGE)
    for part in (third, first, third, first):
        box.add(part, 0.0)
        assert box.take() is None
    box.add(second, 0.0)
    frame = box.take()
    assert frame is not None
    assert frame.data == LARGE
    # A part that comes again belongs to nothing any more.
    box.add(first, 0.0)
    assert box.held_bytes == 0
    assert counts(box) == (1, 0, 0)


def test_the_newest_frame_wins() -> None:
    box = inbox()
    for number in range(5):
        box.add(parts(number)[0], 0.0)
    frame = box.take()
    assert frame is not None
    assert frame.frame == 4
    assert counts(box) == (5, 0, 4)


def test_a_frame_that_was_overtaken_is_not_taken_up() -> None:
    box = inbox()
    box.add(parts(2)[0], 0.0)
    assert box.take() is not None
    box.add(parts(1)[0], 0.0)
    assert box.take() is None
    assert counts(box) == (2, 0, 1)


def test_a_whole_frame_ends_the_wait_for_older_ones() -> None:
    box = inbox()
    box.add(parts(0, LARGE)[0], 0.0)
    box.add(parts(1, LARGE)[0], 0.0)
    box.add(parts(3, LARGE)[0], 0.0)
    box.add(parts(2)[0], 0.0)
    assert counts(box) == (1, 2, 0)
    for part in parts(3, LARGE)[1:]:
        box.add(part, 0.0)
    assert counts(box) == (2, 2, 1)


def test_few_frames_are_put_together_at_once() -> None:
    box = inbox()
    most = 0
    for number in range(100):
        box.add(parts(number, LARGE)[0], 0.0)
        most = max(most, box.held_bytes)
    assert most == MAX_PARTIAL_FRAMES * len(parts(0, LARGE)[0].data)
    assert counts(box) == (0, 100 - MAX_PARTIAL_FRAMES, 0)
    # One that was given up is not begun again.
    box.add(parts(0, LARGE)[1], 0.0)
    assert counts(box) == (0, 100 - MAX_PARTIAL_FRAMES, 0)


def test_the_oldest_of_too_many_may_be_the_one_that_came_last() -> None:
    box = inbox()
    for number in range(10, 10 + MAX_PARTIAL_FRAMES):
        box.add(parts(number, LARGE)[0], 0.0)
    for _ in range(3):
        box.add(parts(5, LARGE)[0], 0.0)
    assert counts(box) == (0, 1, 0)


def test_a_frame_is_no_larger_than_its_session_says() -> None:
    box = FrameInbox(max_frame_bytes=100_000)
    for part in parts(0, LARGE):
        box.add(part, 0.0)
    assert box.take() is None
    assert box.held_bytes == 0
    assert counts(box) == (0, 1, 0)


@pytest.mark.parametrize(
    "changed",
    [
        FramePart(7, 1, 2, 70, "png", b"x"),
        FramePart(7, 1, 3, 71, "png", b"x"),
        FramePart(7, 1, 3, 70, "jpeg", b"x"),
    ],
    ids=["parts", "time", "format"],
)
def test_parts_that_contradict_the_first_are_dropped(changed: FramePart) -> None:
    box = inbox()
    first, second, third = parts(7, LARGE)
    for part in (first, changed, second, third):
        box.add(part, 0.0)
    frame = box.take()
    assert frame is not None
    assert frame.data == LARGE


def test_how_large_an_image_may_be() -> None:
    assert 384 * 384 < most_image_bytes(384, 384, 1) < 2 * 384 * 384 + 100_000
    assert most_image_bytes(8192, 8192, 3) == MAX_LIVE_FRAME_BYTES

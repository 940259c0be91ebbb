"""What the channel of live frames carries, and what is dropped from it."""

import math
import struct

import msgspec
import pytest

from sleap_rtc_plugin.protocol.errors import OptionRefused
from sleap_rtc_plugin.protocol.limits import (
    MAX_LIVE_FRAME_BYTES,
    MAX_LIVE_MESSAGE_BYTES,
)
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
from sleap_rtc_plugin.protocol.live_options import check_live_options, live_values

FOUND = LiveInstances(3, 4, 5, 6, [LiveInstance(0.5, "a", [(1.0, None, 0.25)])])


def test_a_frame_is_cut_into_messages() -> None:
    image = bytes(200_000)
    parts = split_frame(9, 1234, image, "jpeg")
    messages = [encode_part(part) for part in parts]
    assert max(map(len, messages)) == MAX_LIVE_MESSAGE_BYTES
    assert [decode_part(message) for message in messages] == parts
    assert b"".join(part.data for part in parts) == image
    assert len(split_frame(0, 0, bytes(MAX_LIVE_FRAME_BYTES), "png")) > 200


@pytest.mark.parametrize("size", [0, MAX_LIVE_FRAME_BYTES + 1])
def test_an_image_of_no_possible_size_is_not_cut(size: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        split_frame(0, 0, bytes(size), "png")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01" * (FRAME_HEADER_BYTES - 1),
        encode_part(FramePart(1, 0, 1, 1, "png", b"")),
        encode_part(FramePart(1, 1, 1, 1, "png", b"x")),
        encode_part(FramePart(1, 0, 0, 1, "png", b"x")),
        encode_part(FramePart(1, 0, 60_000, 1, "png", b"x")),
        b"\x02" + encode_part(FramePart(1, 0, 1, 1, "png", b"x"))[1:],
        b"\x01\x02" + encode_part(FramePart(1, 0, 1, 1, "png", b"x"))[2:],
        encode_part(FramePart(1, 0, 1, 1, "png", bytes(MAX_LIVE_MESSAGE_BYTES))),
    ],
)
def test_what_is_no_part_is_dropped(message: bytes) -> None:
    assert decode_part(message) is None


def test_instances_there_and_back() -> None:
    assert decode_instances(encode_instances(FOUND)) == FOUND


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["score", "x", "point score"])
def test_instances_hold_only_numbers(number: float, place: str) -> None:
    score = number if place == "score" else 0.5
    point = (
        number if place == "x" else 1.0,
        None,
        number if place == "point score" else 0.5,
    )
    found = LiveInstances(0, 0, 0, 0, [LiveInstance(score, "", [point])])
    assert decode_instances(encode_instances(found)) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x02",
        b"\x01" + encode_instances(FOUND)[1:],
        encode_instances(FOUND)[:-1],
        encode_instances(FOUND) + b"\0",
        b"\x02" + msgspec.msgpack.encode([-1, 0, 0, 0, []]),
        b"\x02" + msgspec.msgpack.encode([0, 0, 0, 0, [[0.5, "a" * 200, []]]]),
        b"\x02" + struct.pack("!BI", 0xDD, 2**32 - 1),
        bytes(MAX_LIVE_MESSAGE_BYTES + 1),
    ],
)
def test_what_are_no_instances_is_dropped(message: bytes) -> None:
    assert decode_instances(message) is None


@pytest.mark.parametrize(("count", "nodes"), [(200, 24), (200, 1000), (1, 1000)])
def test_more_instances_than_fit_are_left_out(count: int, nodes: int) -> None:
    points: list[tuple[float | None, float | None, float]] = [(1.1, 2.2, 0.3)] * nodes
    instances = [LiveInstance(1.0 / (i + 1), "", points) for i in range(count)]
    message = encode_instances(LiveInstances(0, 0, 0, 0, instances))
    assert len(message) <= MAX_LIVE_MESSAGE_BYTES
    found = decode_instances(message)
    assert found is not None
    assert found.instances == instances[: len(found.instances)]
    assert len(found.instances) >= min(count, 90 if nodes == 24 else 1)


def test_options_of_live_frames() -> None:
    options = {"peak_threshold": "0.1", "max_instances": "2", "no-ensure_rgb": ""}
    assert check_live_options(options) == options
    assert live_values(options | {"filter_overlapping": ""}) == {
        "peak_threshold": 0.1,
        "max_instances": 2,
        "ensure_rgb": False,
        "filter_overlapping": True,
    }
    assert live_values({"integral_refinement": "none"}) == {
        "integral_refinement": "none"
    }


@pytest.mark.parametrize(
    "options",
    [{"frames": "0-9"}, {"tracking": ""}, {"embed": "true"}, {"batch_size": "4"}],
)
def test_options_without_meaning_for_single_frames(options: dict[str, str]) -> None:
    with pytest.raises(OptionRefused, match="no meaning for live frames"):
        check_live_options(options)


def test_options_are_checked_as_everywhere() -> None:
    with pytest.raises(OptionRefused):
        live_values({"peak_threshold": "high"})
    with pytest.raises(OptionRefused):
        check_live_options({"data_path": "/etc/passwd"})

"""Live frames: the frames that begin and end them, and what their channel carries.

Sent on a link where both sides named the feature `live`. Frames go to the worker and
instances come back over one more data channel, `live`, which is unordered and sends
nothing twice: a frame that is late is worth nothing. Every message of that channel is
one datagram of the format below; whatever does not parse is dropped and counted.

    to the worker    kind 1 | format | parts | part | frame number | taken at | bytes
    to the client    kind 2 | msgpack of `LiveInstances`

All integers are unsigned and big-endian. Part of `messages.ControlMessage`.
"""

import math
import struct
from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from sleap_rtc_plugin.protocol.frames import CommandId, Count, Frame, Name
from sleap_rtc_plugin.protocol.limits import (
    MAX_LIVE_FRAME_BYTES,
    MAX_LIVE_INSTANCES,
    MAX_LIVE_MESSAGE_BYTES,
    MAX_LIVE_NODES,
    MAX_LIVE_SIDE_PIXELS,
    MAX_OPTION_CHARS,
    MAX_STEP_OPTIONS,
)
from sleap_rtc_plugin.protocol.model_records import ModelRef

__all__ = [
    "FRAME_HEADER_BYTES",
    "FramePart",
    "ImageFormat",
    "LiveInstance",
    "LiveInstances",
    "LiveMessage",
    "LiveReport",
    "LiveStart",
    "LiveStarted",
    "LiveStop",
    "decode_instances",
    "decode_part",
    "encode_instances",
    "encode_part",
    "split_frame",
]

ImageFormat = Literal["png", "jpeg"]
_FORMATS: Final[tuple[ImageFormat, ...]] = ("png", "jpeg")
_FRAME: Final = 1
_INSTANCES: Final = 2
# kind, format, parts, part, frame number, taken at (microseconds of the client's clock)
_HEADER: Final = struct.Struct("!BBHHIQ")
FRAME_HEADER_BYTES: Final = _HEADER.size
_PART_BYTES: Final = MAX_LIVE_MESSAGE_BYTES - FRAME_HEADER_BYTES
_MAX_PARTS: Final = -(-MAX_LIVE_FRAME_BYTES // _PART_BYTES)

Coordinate = float | None


class LiveStart(Frame, frozen=True):
    """Load a published model and make ready for frames; answered by `LIVE_STARTED`.

    Attributes:
        model: its alias or id.
        width: of every frame, in pixels.
        height: the same.
        channels: 1 for gray, 3 for RGB.
        options: inference options of sleap-nn by name, without the dashes.
    """

    NAME: ClassVar[str] = "LIVE_START"
    command_id: CommandId
    model: ModelRef
    width: Annotated[int, Meta(ge=1, le=MAX_LIVE_SIDE_PIXELS)]
    height: Annotated[int, Meta(ge=1, le=MAX_LIVE_SIDE_PIXELS)]
    channels: Literal[1, 3]
    options: Annotated[
        dict[Name, Annotated[str, Meta(max_length=MAX_OPTION_CHARS)]],
        Meta(max_length=MAX_STEP_OPTIONS),
    ] = field(default_factory=dict)


class LiveStarted(Frame, frozen=True):
    """The model is loaded; frames may come.

    Attributes:
        nodes: the skeleton's node names: the order of an instance's points.
        edges: pairs of indices of nodes.
        device: what it runs on, such as `cuda` or `cpu`.
    """

    NAME: ClassVar[str] = "LIVE_STARTED"
    command_id: CommandId
    nodes: Annotated[list[Name], Meta(max_length=MAX_LIVE_NODES)]
    edges: Annotated[list[tuple[Count, Count]], Meta(max_length=MAX_LIVE_NODES)] = (
        field(default_factory=list)
    )
    device: Name = ""


class LiveStop(Frame, frozen=True):
    """No more frames come; answered by `LIVE_REPORT`."""

    NAME: ClassVar[str] = "LIVE_STOP"
    command_id: CommandId


class LiveReport(Frame, frozen=True):
    """What became of the frames at the worker; `command_id` is empty when it ended it.

    Attributes:
        received: frames that arrived whole.
        incomplete: frames of which a part was lost.
        superseded: frames that a newer one replaced before their turn.
        predicted: frames whose instances were sent.
        reason: why the worker ended it, or empty.
    """

    NAME: ClassVar[str] = "LIVE_REPORT"
    command_id: CommandId | Literal[""] = ""
    received: Count = 0
    incomplete: Count = 0
    superseded: Count = 0
    predicted: Count = 0
    reason: Name = ""


LiveMessage = LiveStart | LiveStarted | LiveStop | LiveReport


# -- the channel -------------------------------------------------------------------


class FramePart(Struct, frozen=True):
    """A frame, or a part of one that is too large for one message.

    Attributes:
        frame: its number, counted from 0 by the client.
        part: which part, from 0.
        parts: how many there are.
        taken_us: when the frame was taken: the client's own clock, in microseconds.
        format: how the image is encoded.
        data: the image, or this part of it.
    """

    frame: int
    part: int
    parts: int
    taken_us: int
    format: ImageFormat
    data: bytes


class LiveInstance(Struct, frozen=True, array_like=True):
    """One instance: its score, its track or an empty name, and `[x, y, score]` a node.

    Coordinates are pixels of the frame; those of a node that was not found are None.
    """

    score: float
    track: Name
    points: Annotated[
        list[tuple[Coordinate, Coordinate, float]], Meta(max_length=MAX_LIVE_NODES)
    ]


class LiveInstances(Struct, frozen=True, array_like=True):
    """What was found in a frame.

    Attributes:
        frame: the frame's number.
        taken_us: as it came with the frame.
        waited_us: how long it waited at the worker.
        predicted_us: how long the prediction took.
        instances: the instances.
    """

    frame: Count
    taken_us: Count
    waited_us: Count
    predicted_us: Count
    instances: Annotated[list[LiveInstance], Meta(max_length=MAX_LIVE_INSTANCES)]


_decoder: Final = msgspec.msgpack.Decoder(LiveInstances)


def split_frame(
    frame: int, taken_us: int, image: bytes, image_format: ImageFormat
) -> list[FramePart]:
    """Cut an encoded image into parts that fit a message each.

    Raises:
        ValueError: it is empty or larger than `MAX_LIVE_FRAME_BYTES`.
    """
    if not 0 < len(image) <= MAX_LIVE_FRAME_BYTES:
        raise ValueError(f"an image of {len(image)} bytes")
    pieces = [image[i : i + _PART_BYTES] for i in range(0, len(image), _PART_BYTES)]
    return [
        FramePart(frame, index, len(pieces), taken_us, image_format, piece)
        for index, piece in enumerate(pieces)
    ]


def encode_part(part: FramePart) -> bytes:
    """Return a part as a message of the channel."""
    return (
        _HEADER.pack(
            _FRAME,
            _FORMATS.index(part.format),
            part.parts,
            part.part,
            part.frame,
            part.taken_us,
        )
        + part.data
    )


def decode_part(message: bytes) -> FramePart | None:
    """Return the part that a message of a client is, or None where it is none."""
    if not FRAME_HEADER_BYTES < len(message) <= MAX_LIVE_MESSAGE_BYTES:
        return None
    kind, image_format, parts, part, frame, taken_us = _HEADER.unpack_from(message)
    if kind != _FRAME or image_format >= len(_FORMATS):
        return None
    if not part < parts <= _MAX_PARTS:
        return None
    data = message[FRAME_HEADER_BYTES:]
    return FramePart(frame, part, parts, taken_us, _FORMATS[image_format], data)


def encode_instances(found: LiveInstances) -> bytes:
    """Return instances as a message of the channel; the last ones may not fit."""
    instances = found.instances
    while True:
        body = msgspec.msgpack.encode(
            msgspec.structs.replace(found, instances=instances)
        )
        if len(body) < MAX_LIVE_MESSAGE_BYTES or not instances:
            return bytes([_INSTANCES]) + body
        fit = len(instances) * MAX_LIVE_MESSAGE_BYTES // (len(body) + 1)
        instances = instances[: min(fit, len(instances) - 1)]


def decode_instances(message: bytes) -> LiveInstances | None:
    """Return what a worker found, or None where the message is no such thing."""
    if not 2 <= len(message) <= MAX_LIVE_MESSAGE_BYTES or message[0] != _INSTANCES:
        return None
    try:
        found = _decoder.decode(memoryview(message)[1:])
    except msgspec.MsgspecError:
        return None
    return found if all(map(_is_finite, found.instances)) else None


def _is_finite(instance: LiveInstance) -> bool:
    """Tell whether every number is one; msgpack has others."""
    numbers = (number for point in instance.points for number in point)
    return math.isfinite(instance.score) and all(
        number is None or math.isfinite(number) for number in numbers
    )

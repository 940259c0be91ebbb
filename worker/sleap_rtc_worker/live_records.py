"""What the worker and the process with a live session's model say to each other.

Each message is four bytes of length, big-endian, and that much msgpack, on the pipes
of `live_runner`. The worker takes what comes from there as it takes what a client
says: bounded and checked.
"""

import struct
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.frames import Count, Name
from sleap_rtc_plugin.protocol.limits import (
    KIB,
    MAX_LIVE_FRAME_BYTES,
    MAX_LIVE_INSTANCES,
    MAX_LIVE_NODES,
)
from sleap_rtc_plugin.protocol.live_messages import ImageFormat, LiveInstance
from sleap_rtc_worker.limits import MAX_LIVE_ANSWER_BYTES

__all__ = [
    "LENGTH",
    "MAX_ORDER_BYTES",
    "Failed",
    "Found",
    "LoadModel",
    "Loaded",
    "PredictFrame",
    "RunnerAnswer",
    "RunnerOrder",
    "decode_answer",
    "decode_order",
    "encode_record",
]

LENGTH: Final = struct.Struct("!I")
MAX_ORDER_BYTES: Final = MAX_LIVE_FRAME_BYTES + 256 * KIB


class LoadModel(Struct, frozen=True, tag="load"):
    """Load a model, once.

    Attributes:
        folders: of its parts.
        width: of every frame to come, in pixels.
        height: the same.
        channels: 1 for gray, 3 for RGB.
        options: checked inference options.
    """

    folders: list[str]
    width: int
    height: int
    channels: int
    options: dict[str, str]


class PredictFrame(Struct, frozen=True, tag="predict"):
    """Decode an image and say what is in it."""

    frame: int
    format: ImageFormat
    data: bytes


class Loaded(Struct, frozen=True, tag="loaded"):
    """The model is loaded; see `LiveStarted`."""

    nodes: Annotated[list[Name], Meta(max_length=MAX_LIVE_NODES)]
    edges: Annotated[list[tuple[Count, Count]], Meta(max_length=MAX_LIVE_NODES)]
    device: Name


class Failed(Struct, frozen=True, tag="failed"):
    """It cannot be done, and the process ends."""

    reason: str


class Found(Struct, frozen=True, tag="found"):
    """What is in a frame, the best instance first."""

    frame: Count
    instances: Annotated[list[LiveInstance], Meta(max_length=MAX_LIVE_INSTANCES)]


RunnerOrder = LoadModel | PredictFrame
RunnerAnswer = Loaded | Failed | Found
_orders: Final[msgspec.msgpack.Decoder[RunnerOrder]] = msgspec.msgpack.Decoder(
    RunnerOrder
)
_answers: Final[msgspec.msgpack.Decoder[RunnerAnswer]] = msgspec.msgpack.Decoder(
    RunnerAnswer
)


def encode_record(record: RunnerOrder | RunnerAnswer) -> bytes:
    """Return a message with its length before it."""
    body = msgspec.msgpack.encode(record)
    return LENGTH.pack(len(body)) + body


def decode_order(body: bytes) -> RunnerOrder:
    """Return what the worker wants.

    Raises:
        msgspec.MsgspecError: it is no such message.
    """
    return _orders.decode(body)


def decode_answer(body: bytes) -> RunnerAnswer:
    """Return what the process says.

    Raises:
        ValueError: it is no such message, or too long.
    """
    if len(body) > MAX_LIVE_ANSWER_BYTES:
        raise ValueError(f"an answer of {len(body)} bytes")
    try:
        return _answers.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None

"""Frames on the pipe: whole, in order, bounded, and the end is always noticed."""

import os
import queue
import struct
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec
import pytest

from sleap_rtc_plugin.companion.messages import (
    Done,
    FromCompanion,
    ListRooms,
    Request,
    Response,
    ToCompanion,
)
from sleap_rtc_plugin.companion.pipe import MAX_FRAME_BYTES, PipeEnd

WAIT_S = 10.0


class Ends:
    """Two ends joined by real pipes, and what each was told."""

    def __init__(self) -> None:
        self.heard: queue.Queue[Any] = queue.Queue()
        self.ended = threading.Event()
        to_child, self.from_parent = self._pipe()
        to_parent, from_child = self._pipe()
        self.parent: PipeEnd[FromCompanion] = PipeEnd(
            to_parent, self.from_parent, FromCompanion, self.heard.put, self.ended.set
        )
        self.child: PipeEnd[ToCompanion] = PipeEnd(
            to_child, from_child, ToCompanion, self._answer, self._leave
        )

    @staticmethod
    def _pipe() -> tuple[BinaryIO, BinaryIO]:
        reading, writing = os.pipe()
        return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")

    def _answer(self, request: Request) -> None:
        self.child.send(Response(id=request.id, result=Done()))

    def _leave(self) -> None:
        self.child.finish()

    def close(self) -> None:
        self.parent.finish()
        self.child.finish()
        for end in (self.parent, self.child):
            end.join(WAIT_S)
            end._incoming.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    made.parent.start()
    made.child.start()
    yield made
    made.close()


def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    for number in range(300):
        assert ends.parent.send(Request(id=number, command=ListRooms()))
    answers = [ends.heard.get(timeout=WAIT_S) for _ in range(300)]
    assert [answer.id for answer in answers] == list(range(300))


def test_the_other_end_learns_of_the_end(ends: Ends) -> None:
    ends.parent.send(Request(id=1, command=ListRooms()))
    assert ends.heard.get(timeout=WAIT_S).id == 1
    ends.parent.finish()
    assert ends.ended.wait(WAIT_S)


@pytest.mark.parametrize(
    "bytes_sent",
    [
        struct.pack(">I", MAX_FRAME_BYTES + 1),
        struct.pack(">I", 3) + b"\xc1\xc1\xc1",
        struct.pack(">I", 10) + b"cut",
        struct.pack(">I", 5) + msgspec.msgpack.encode({"a": 1}) + b"\x00",
    ],
    ids=["too large", "no msgpack", "cut off", "another value"],
)
def test_what_is_no_frame_ends_the_pipe(ends: Ends, bytes_sent: bytes) -> None:
    ends.from_parent.write(bytes_sent)
    ends.from_parent.close()
    assert ends.ended.wait(WAIT_S)
    assert ends.heard.empty()

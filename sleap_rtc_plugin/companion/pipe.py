"""Frames on the pipe between SLEAP's side and the companion, and the two ends of it.

A frame is a length of four bytes, big-endian, and a msgpack value of
`companion.messages`. Each end reads and writes in threads of its own, so neither event
loop waits for the other process, whatever kind of loop and system it is.
"""

import queue
import struct
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, Final, Generic, TypeVar

import msgspec

from sleap_rtc_plugin.protocol.limits import MIB

__all__ = ["MAX_FRAME_BYTES", "PipeEnd", "read_frame", "write_frame"]

MAX_FRAME_BYTES: Final = 16 * MIB
MAX_FRAMES_WAITING: Final = 10_000
CLOSE_TIMEOUT_S: Final = 1.0
_LENGTH: Final = struct.Struct(">I")

In = TypeVar("In")


def read_frame(stream: BinaryIO) -> bytes | None:
    """Read one frame, or None where the stream ends or holds no frame."""
    head = _read_exactly(stream, _LENGTH.size)
    if head is None:
        return None
    (size,) = _LENGTH.unpack(head)
    return _read_exactly(stream, size) if size <= MAX_FRAME_BYTES else None


def write_frame(stream: BinaryIO, frame: bytes) -> None:
    """Write one frame and flush it.

    Raises:
        OSError: the other end is gone.
        ValueError: the stream is closed, or the frame is too large.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(frame)} bytes")
    stream.write(_LENGTH.pack(len(frame)) + frame)
    stream.flush()


def _read_exactly(stream: BinaryIO, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size > 0:
        try:
            part = stream.read(size)
        except (OSError, ValueError):
            return None
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class PipeEnd(Generic[In]):
    """One end: what comes in is handed over, what goes out never waits.

    `on_message` and `on_end` are called on the reading thread; `on_end` once, when the
    other end is gone or broke the format.
    """

    def __init__(
        self,
        incoming: BinaryIO,
        outgoing: BinaryIO,
        message_type: Any,
        on_message: Callable[[In], None],
        on_end: Callable[[], None],
    ) -> None:
        """Take two streams; nothing is read before `start`."""
        self._incoming = incoming
        self._outgoing = outgoing
        self._decoder = msgspec.msgpack.Decoder(message_type)
        self._on_message = on_message
        self._on_end = on_end
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MAX_FRAMES_WAITING)
        self._reader = threading.Thread(
            target=self._read, name="companion-reader", daemon=True
        )
        self._writer = threading.Thread(
            target=self._write, name="companion-writer", daemon=True
        )

    def start(self) -> None:
        """Begin to read and write."""
        self._reader.start()
        self._writer.start()

    def send(self, message: Any) -> bool:
        """Queue a message; False where the other end stopped reading long ago."""
        try:
            self._waiting.put_nowait(msgspec.msgpack.encode(message))
        except queue.Full:
            return False
        return True

    def finish(self) -> None:
        """Write what is queued, close the outgoing stream, and end the writer."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            self._close_outgoing()

    def join(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Wait for both threads, once the other end is gone."""
        for thread in (self._writer, self._reader):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout_s)

    def _read(self) -> None:
        while (frame := read_frame(self._incoming)) is not None:
            try:
                message = self._decoder.decode(frame)
            except msgspec.MsgspecError:
                break
            self._on_message(message)
        self._on_end()

    def _write(self) -> None:
        while (frame := self._waiting.get()) is not None:
            try:
                write_frame(self._outgoing, frame)
            except (OSError, ValueError):
                break
        self._close_outgoing()

    def _close_outgoing(self) -> None:
        try:
            self._outgoing.close()
        except (OSError, ValueError):
            return

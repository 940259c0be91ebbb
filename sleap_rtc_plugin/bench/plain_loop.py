"""The baseline of `bench transfer`: files in a plain loop, as the existing system does.

64 KB messages, a pause of 100 ms whenever 16 MB wait, every file in memory where it
arrives, and nothing checked. Only for comparing; nothing else may use it.
"""

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.limits import KIB, MIB
from sleap_rtc_plugin.transport.link import Channel

__all__ = ["PlainReceiver", "send_plainly"]

MESSAGE_BYTES: Final = 64 * KIB
HIGH_WATER_BYTES: Final = 16 * MIB
PAUSE_S: Final = 0.1
_END: Final = "END_OF_FILE"


async def send_plainly(channel: Channel, root: Path, paths: Iterable[str]) -> None:
    """Queue files below `root`, one after another; the last ones may still wait."""
    for message in _messages(root, paths):
        while channel.bufferedAmount > HIGH_WATER_BYTES:  # noqa: ASYNC110 - the point
            await asyncio.sleep(PAUSE_S)
        channel.send(message)


def _messages(root: Path, paths: Iterable[str]) -> Iterator[str | bytes]:
    for path in paths:
        yield path
        with (root / path).open("rb") as file:
            while data := file.read(MESSAGE_BYTES):
                yield data
        yield _END


class PlainReceiver:
    """Collects files in memory and writes each below `root` when it is complete."""

    def __init__(self, root: Path, file_count: int) -> None:
        """Expect as many files; `complete` is set when they are there."""
        self.complete = asyncio.Event()
        self._root = root
        self._missing = file_count
        self._path = ""
        self._pieces: list[bytes] = []

    def receive(self, message: bytes | str) -> None:
        """Take a message of the channel."""
        if isinstance(message, bytes):
            self._pieces.append(message)
        elif message != _END:
            self._path = message
        else:
            place = self._root / self._path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"".join(self._pieces))
            self._pieces.clear()
            self._missing -= 1
            if not self._missing:
                self.complete.set()

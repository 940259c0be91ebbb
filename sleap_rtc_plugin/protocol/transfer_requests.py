"""What a receiver still has to ask for: each chunk once, however often it occurs.

Counts what every file lacks. Holes are never asked for, and of equal chunks only the
first; the others are its copies. Pure; a part of `TransferReceiver`.
"""

from array import array
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sleap_rtc_plugin.protocol.manifest import DIGEST_BYTES, HOLE, Manifest

__all__ = ["TransferRequests"]

_SIZE_BYTES = 4


@dataclass
class _Copies:
    """The chunks that wait for the bytes of another one, and how many in which file."""

    numbers: "array[int]" = field(default_factory=lambda: array("I"))
    in_file: Counter[int] = field(default_factory=Counter)


class TransferRequests:
    """The chunks of one manifest that are wanted, in the order of asking."""

    def __init__(self, manifest: Manifest) -> None:
        """Want nothing yet."""
        self._manifest = manifest
        self._copies: dict[int, _Copies] = {}
        self._missing_in_file: dict[int, int] = {}
        self.wanted: deque[int] = deque()

    def want(
        self, file: int, present: Collection[int], seen: dict[bytes, int]
    ) -> tuple[int, int]:
        """Want what a file lacks.

        Reads the packed lists, since this is done for a whole package at once.

        Args:
            file: which one.
            present: the chunks that are here.
            seen: the chunks wanted with this one already, by size and digest.

        Returns:
            How many bytes the file lacks, and how many of them are asked for.
        """
        sizes = self._manifest.files[file].chunk_sizes
        digests = self._manifest.files[file].chunk_digests
        missing = missing_bytes = asked_bytes = 0
        for local, number in enumerate(self._manifest.chunks_of(file)):
            digest = digests[local * DIGEST_BYTES : (local + 1) * DIGEST_BYTES]
            if number in present or digest == HOLE:
                continue
            size = sizes[local * _SIZE_BYTES : (local + 1) * _SIZE_BYTES]
            size_bytes = int.from_bytes(size, "big")
            missing += 1
            missing_bytes += size_bytes
            # A digest that claims two sizes is wrong once, and found out as such.
            first = seen.setdefault(size + digest, number)
            if first == number:
                self.wanted.append(number)
                asked_bytes += size_bytes
            else:
                copies = self._copies.setdefault(first, _Copies())
                copies.numbers.append(number)
                copies.in_file[file] += 1
        self._missing_in_file[file] = missing
        return missing_bytes, asked_bytes

    def copies_of(self, number: int) -> Sequence[int]:
        """Return the chunks that hold the same bytes as `number` and wait for it."""
        copies = self._copies.get(number)
        return copies.numbers if copies else ()

    def stored(self, number: int) -> tuple[int, list[int]]:
        """A chunk was written, with its copies.

        Returns:
            How many chunks that are, and the files that lack nothing any more.
        """
        copies = self._copies.pop(number, None) or _Copies()
        copies.in_file[self._manifest.chunk(number).file] += 1
        complete: list[int] = []
        for file, stored in copies.in_file.items():
            self._missing_in_file[file] -= stored
            if self._missing_in_file[file] == 0:
                complete.append(file)
        return copies.in_file.total(), complete

"""What a receiver still has to ask for: each chunk once, however often it occurs.

Counts what every file lacks. Holes are never asked for, and of equal chunks only the
first; the others are its copies. Pure; a part of `TransferReceiver`.
"""

from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence

from sleap_rtc_plugin.protocol.manifest import DIGEST_BYTES, HOLE, Manifest

__all__ = ["TransferRequests"]

_SIZE_BYTES = 4


class TransferRequests:
    """The chunks of one manifest that are wanted, in the order of asking.

    Attributes:
        wanted: the chunks to ask for.
        missing_bytes: what the files lacked when they were looked through.
        asked_bytes: how many of these are asked for.
    """

    def __init__(self, manifest: Manifest) -> None:
        """Want nothing yet."""
        self._manifest = manifest
        # Of a chunk that is asked for: the chunks that wait for its bytes, ascending.
        self._copies: dict[int, array[int]] = {}
        self._missing_in_file: dict[int, int] = {}
        self.wanted: deque[int] = deque()
        self.missing_bytes = 0
        self.asked_bytes = 0

    @classmethod
    def of(
        cls, manifest: Manifest, files: Iterable[int], present: Collection[int]
    ) -> "TransferRequests":
        """Want what some files lack. A million chunks take seconds.

        Args:
            manifest: what they are files of.
            files: which ones.
            present: the chunks that are here.
        """
        made = cls(manifest)
        seen: dict[bytes, int] = {}
        for file in files:
            made._want(file, present, seen)
        return made

    @classmethod
    def missing(
        cls, manifest: Manifest, chunks: frozenset[int], files: frozenset[int]
    ) -> "TransferRequests":
        """Want all but the `chunks` that are here and the `files` in place."""
        lacking = (file for file in range(len(manifest.files)) if file not in files)
        return cls.of(manifest, lacking, chunks)

    def _want(
        self, file: int, present: Collection[int], seen: dict[bytes, int]
    ) -> None:
        # Reads the packed lists: an object per chunk would take as long again.
        sizes = self._manifest.files[file].chunk_sizes
        digests = self._manifest.files[file].chunk_digests
        missing = 0
        for local, number in enumerate(self._manifest.chunks_of(file)):
            digest = digests[local * DIGEST_BYTES : (local + 1) * DIGEST_BYTES]
            if number in present or digest == HOLE:
                continue
            size = sizes[local * _SIZE_BYTES : (local + 1) * _SIZE_BYTES]
            size_bytes = int.from_bytes(size, "big")
            missing += 1
            self.missing_bytes += size_bytes
            # A digest that claims two sizes is wrong once, and found out as such.
            first = seen.setdefault(size + digest, number)
            if first == number:
                self.wanted.append(number)
                self.asked_bytes += size_bytes
            else:
                self._copies.setdefault(first, array("I")).append(number)
        self._missing_in_file[file] = missing

    def add(self, again: "TransferRequests") -> None:
        """Want what files lack that were discarded, each of them once more."""
        self.wanted += again.wanted
        self._copies.update(again._copies)
        self._missing_in_file.update(again._missing_in_file)

    def lacks(self, file: int) -> bool:
        """Tell whether a file that was looked through lacks anything."""
        return self._missing_in_file[file] > 0

    def copies_of(self, number: int) -> Sequence[int]:
        """Return the chunks that hold the same bytes as `number` and wait for it."""
        return self._copies.get(number, ())

    def stored(self, number: int) -> tuple[int, list[int]]:
        """A chunk was written, with its copies.

        Returns:
            How many chunks that are, and the files that lack nothing any more.
        """
        in_file = Counter([self._manifest.chunk(number).file])
        copies = self._copies.pop(number, ())
        begin = 0
        while begin < len(copies):
            file = self._manifest.chunk(copies[begin]).file
            end = bisect_left(copies, self._manifest.chunks_of(file).stop, begin)
            in_file[file] += end - begin
            begin = end
        complete: list[int] = []
        for file, stored in in_file.items():
            self._missing_in_file[file] -= stored
            if self._missing_in_file[file] == 0:
                complete.append(file)
        return in_file.total(), complete

"""The digest of a few stretches of a file, by which two files are taken for the same.

Equal samples are a good reason not to look further, and no proof: what comes out of a
package is checked chunk by chunk all the same. Blocking; used by both ends.
"""

import os
from pathlib import Path

from blake3 import blake3

from sleap_rtc_plugin.protocol.mounts import sample_ranges

__all__ = ["sample_descriptor", "sample_file"]


def sample_file(path: Path) -> tuple[int, str]:
    """Return a file's size in bytes and the digest of its samples, in hex.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        return size_bytes, sample_descriptor(file.fileno(), size_bytes)


def sample_descriptor(descriptor: int, size_bytes: int) -> str:
    """Return the digest of the samples of an open file of that size, in hex.

    Raises:
        OSError: it cannot be read.
    """
    digest = blake3(size_bytes.to_bytes(8, "big"))
    for offset, length in sample_ranges(size_bytes):
        os.lseek(descriptor, offset, os.SEEK_SET)
        while length > 0:
            data = os.read(descriptor, length)
            if not data:
                break
            digest.update(data)
            length -= len(data)
    return digest.hexdigest()

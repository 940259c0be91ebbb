"""Labels that were embedded before, kept for a while for the same command again.

Embedding takes minutes, and the file it makes is another one each time; a submission
that was cut off has to find the very package that it began to send. A cache: what it
cannot do is left undone. Blocking; called by `inference_package`.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import platformdirs

from sleap_rtc_plugin.protocol.limits import GIB

__all__ = ["EmbeddedCache", "cache_key"]

MAX_AGE_S: Final = 24 * 3600.0
MAX_BYTES: Final = 16 * GIB
_SUFFIX: Final = ".slp"


class EmbeddedCache:
    """Files by what they were made of."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep them in `folder`, or in the user's own cache."""
        base = platformdirs.user_cache_path("sleap-remote")
        self._folder = folder or base / "embedded"

    def get(self, key: str, write: Callable[[Path], None]) -> Path:
        """Return the file of this key; `write` makes it where there is none.

        Raises:
            OSError: the disk failed; and whatever `write` raises.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{key}{_SUFFIX}"
        if path.is_file():
            with contextlib.suppress(OSError):
                os.utime(path)
            return path
        self._tidy()
        with tempfile.TemporaryDirectory(
            dir=self._folder, ignore_cleanup_errors=True
        ) as place:
            made = Path(place) / f"labels{_SUFFIX}"
            write(made)
            made.replace(path)
        return path

    def _tidy(self) -> None:
        """Remove what is old, then the oldest until there is room for more."""
        entries: list[tuple[float, int, Path]] = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                status = path.stat()
                entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for modified, size, path in sorted(entries):
            if modified < time.time() - MAX_AGE_S or total > MAX_BYTES:
                total -= size
                with contextlib.suppress(OSError):
                    path.unlink()


def cache_key(*parts: object) -> str:
    """Return a file name for what a file is made of."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(repr(part).encode()).digest())
    return whole.hexdigest()[:40]

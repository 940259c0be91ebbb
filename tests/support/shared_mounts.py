"""Two views of one shared folder, and calls that hang as in a dead network mount."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc_plugin.transport import chunk_reader, shared_storage


def two_mounts(folder: Path) -> tuple[Path, Path]:
    """Return two mount points, in two places, of the same storage."""
    exported = folder / "exported"
    exported.mkdir()
    views = folder / "laptop" / "lab", folder / "gpu" / "mnt" / "lab"
    for view in views:
        view.parent.mkdir(parents=True)
        view.symlink_to(exported, target_is_directory=True)
    return views


class Hang:
    """Makes calls below one mount point hang from the moment that it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self._monkeypatch = monkeypatch
        self._root = root
        self._released = threading.Event()
        self.is_hanging = threading.Event()

    def begin(self, *names: str) -> None:
        """Let these functions of the storage's module hang."""
        for name in names:
            real = getattr(shared_storage, name)
            self._monkeypatch.setattr(shared_storage, name, self._hanging(real))

    def begin_reading(self, after_calls: int = 0) -> None:
        """Let reading and writing of open files hang, after some calls."""
        left = iter(range(after_calls))
        for module, name in (
            (chunk_reader, "_read_at"),
            (shared_storage, "_write_at"),
        ):
            real = getattr(module, name)

            def slow(*args: Any, real: Any = real) -> Any:
                if next(left, None) is None:
                    self.is_hanging.set()
                    self._released.wait()
                return real(*args)

            self._monkeypatch.setattr(module, name, slow)

    def _hanging(self, real: Any) -> Any:
        def call(root: Path, *args: Any) -> Any:
            if root == self._root:
                self.is_hanging.set()
                self._released.wait()
            return real(root, *args)

        return call

    def end(self) -> None:
        """Let everything that hangs go on."""
        self._released.set()


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[Hang]:
    """Yield what makes calls hang; in the end none does."""
    hang = Hang(monkeypatch, root)
    try:
        yield hang
    finally:
        hang.end()


def names_below(folder: Path) -> set[str]:
    """Return everything below a folder, as relative paths."""
    return {
        os.path.relpath(Path(above) / name, folder)
        for above, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }

"""What a model registry asks of the store below it.

An `ObjectStore` keeps bytes under keys; one of them, the manifest, is replaced only
where it still is what was read. `directory_store` and `remote_store` are such stores,
and `store_address` opens one.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sleap_rtc_plugin.registry.remote_store import RemoteStore

__all__ = ["Entry", "Found", "ObjectMissing", "ObjectStore", "memory_store"]


class ObjectMissing(Exception):
    """There is nothing under this key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key in use. `modified_at` is in Unix seconds by the store's own clock."""

    key: str
    size_bytes: int
    modified_at: float


@dataclass(frozen=True, slots=True)
class Found:
    """What lies under a key: its bytes, None where they are the known version's."""

    data: bytes | None
    version: str


class ObjectStore(Protocol):
    """Bytes under keys such as `room-1/manifest.json`; every key was checked.

    Every call ends: with an answer, or with `StoreUnreachable`, `StoreReadOnly` or
    `StoreFull` within a time that has a bound. None blocks the event loop.
    """

    @property
    def name(self) -> str:
        """What to call the store before people: its address, without credentials."""

    async def read(
        self, key: str, limit_bytes: int, known: str | None = None
    ) -> Found | None:
        """Return what lies under a key, or None; `known` is a version not to send."""

    async def replace(self, key: str, data: bytes, expected: str | None) -> str | None:
        """Put bytes where the `expected` version lies, None: where nothing does.

        Returns:
            Their version, or None where something else lies there by now. All or
            nothing, and on the disk when it returns.
        """

    async def write(
        self, key: str, size_bytes: int, pieces: AsyncIterator[bytes]
    ) -> None:
        """Put a file under a key, whatever lies there; seen whole or not at all.

        What `pieces` raises goes through, and leaves nothing under the key.
        """

    def pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        """Yield a file in order, no more than `size_bytes` of it.

        Raises:
            ObjectMissing: there is none.
        """

    async def look(self, key: str) -> Entry | None:
        """Return what is known of a key without its bytes."""

    def entries(self, folder: str) -> AsyncIterator[Entry]:
        """Yield the keys directly below `folder/`, in no order, at most a bound."""

    async def remove_old(self, key: str, before: float) -> bool:
        """Remove what was last written before a time; tell whether it was.

        Somebody who writes it anew at the same moment must find it again, or find it
        missing right afterwards.
        """


def memory_store() -> "RemoteStore":
    """Return a store in memory that ends with the program; for tests."""
    from obstore.store import MemoryStore

    from sleap_rtc_plugin.registry.remote_store import RemoteStore

    return RemoteStore(MemoryStore(), "memory")

"""What a model registry asks of the store below it, and the stores that are remote.

An `ObjectStore` keeps bytes under keys; one of them, the manifest, is replaced only
where it still is what was read. `RemoteStore` does that over obstore: S3, and memory
for tests. Directories are in `directory_store`; `store_address` opens either.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from sleap_rtc_plugin.protocol.errors import (
    RtcError,
    StoreFull,
    StoreInvalid,
    StoreReadOnly,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_STORE_ENTRIES,
    REGISTRY_TIMEOUT_S,
    STORE_PIECE_BYTES,
    STORE_PIECE_TIMEOUT_S,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Backend

__all__ = [
    "Entry",
    "Found",
    "ObjectMissing",
    "ObjectStore",
    "RemoteStore",
    "memory_store",
]


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


# -- over obstore ----------------------------------------------------------------


def memory_store() -> "RemoteStore":
    """Return a store in memory that ends with the program; for tests."""
    from obstore.store import MemoryStore

    return RemoteStore(MemoryStore(), "memory")


class RemoteStore:
    """A store behind obstore. It is told to give up long before its defaults do."""

    def __init__(self, backend: "Backend", name: str, prefix: str = "") -> None:
        """Use `backend`, with every key below `prefix`."""
        self._backend = backend
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        self._has_conditions = False

    @property
    def name(self) -> str:
        """What to call the store before people."""
        return self._name

    async def read(
        self, key: str, limit_bytes: int, known: str | None = None
    ) -> Found | None:
        """See `ObjectStore.read`."""
        import obstore
        from obstore.exceptions import NotModifiedError

        options: Any = {"if_none_match": known} if known else {}
        try:
            async with self._asking():
                answer = await obstore.get_async(
                    self._backend, self._prefix + key, options=options
                )
                version = answer.meta["e_tag"] or ""
                if answer.meta["size"] > limit_bytes:
                    # One byte too many tells the reader.
                    part = await obstore.get_range_async(
                        self._backend, self._prefix + key, start=0, end=limit_bytes + 1
                    )
                    return Found(bytes(part), version)
                return Found(bytes(await answer.bytes_async()), version)
        except NotModifiedError:
            return Found(None, known or "")
        except FileNotFoundError as error:
            self._need_bucket(error)
            return None

    async def replace(self, key: str, data: bytes, expected: str | None) -> str | None:
        """See `ObjectStore.replace`."""
        await self._check_conditions(key)
        return await self._put(key, data, expected)

    async def _put(self, key: str, data: bytes, expected: str | None) -> str | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if expected is None else {"e_tag": expected}
        try:
            async with self._asking(is_writing=True):
                done = await obstore.put_async(
                    self._backend,
                    self._prefix + key,
                    data,
                    mode=mode,
                    use_multipart=False,
                )
        # 404, 409 and 412 all say that somebody else was there first.
        except (AlreadyExistsError, PreconditionError):
            return None
        except FileNotFoundError as error:
            self._need_bucket(error)
            return None
        return done["e_tag"] or ""

    async def _check_conditions(self, key: str) -> None:
        """Look once whether the store keeps conditions: some servers ignore them.

        There, of two people who publish at once one would lose his model.
        """
        if self._has_conditions:
            return
        probe = f"{key.rpartition('/')[0]}/conditions"
        first = await self._put(probe, b"1", None)
        if first is not None:
            # It was not there, so this is what "there already" has to look like.
            first = None if await self._put(probe, b"2", None) is None else first
        wrong = None
        if first is None:
            wrong = await self._put(probe, b"3", '"00000000000000000000000000000000"')
        if first is not None or wrong is not None:
            raise StoreInvalid(
                store=self._name,
                reason="it ignores the conditions If-Match and If-None-Match, without "
                "which two who publish at once lose models",
            )
        self._has_conditions = True

    async def write(
        self, key: str, size_bytes: int, pieces: AsyncIterator[bytes]
    ) -> None:
        """See `ObjectStore.write`."""
        import obstore

        if size_bytes <= STORE_PIECE_BYTES:
            data = b"".join([piece async for piece in pieces])
            async with self._moving(is_writing=True):
                await obstore.put_async(
                    self._backend, self._prefix + key, data, use_multipart=False
                )
            return
        fault: list[BaseException] = []

        async def watched() -> AsyncIterator[bytes]:
            try:
                async for piece in pieces:
                    yield piece
            except BaseException as error:
                fault.append(error)
                raise

        try:
            async with self._moving(size_bytes, is_writing=True):
                await obstore.put_async(
                    self._backend,
                    self._prefix + key,
                    watched(),
                    use_multipart=True,
                    chunk_size=STORE_PIECE_BYTES,
                    max_concurrency=2,
                )
        except RtcError:
            if fault:
                raise fault[0] from None
            raise

    async def pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        """See `ObjectStore.pieces`."""
        import obstore

        for start in range(0, size_bytes, STORE_PIECE_BYTES):
            end = min(start + STORE_PIECE_BYTES, size_bytes)
            try:
                async with self._moving():
                    piece = await obstore.get_range_async(
                        self._backend, self._prefix + key, start=start, end=end
                    )
            except FileNotFoundError as error:
                self._need_bucket(error)
                raise ObjectMissing(key) from None
            yield bytes(piece)

    async def look(self, key: str) -> Entry | None:
        """See `ObjectStore.look`."""
        import obstore

        try:
            async with self._asking():
                meta = await obstore.head_async(self._backend, self._prefix + key)
        except FileNotFoundError:
            return None
        return Entry(key, meta["size"], meta["last_modified"].timestamp())

    async def entries(self, folder: str) -> AsyncIterator[Entry]:
        """See `ObjectStore.entries`."""
        import obstore

        count = 0
        stream = obstore.list(self._backend, f"{self._prefix}{folder}/")
        while True:
            try:
                async with self._asking():
                    batch: Sequence[Any] = await anext(stream)
            except StopAsyncIteration:
                return
            for meta in batch:
                key = str(meta["path"]).removeprefix(self._prefix)
                if key.rpartition("/")[0] == folder:
                    count += 1
                    yield Entry(key, meta["size"], meta["last_modified"].timestamp())
                if count >= MAX_STORE_ENTRIES:
                    return

    async def remove_old(self, key: str, before: float) -> bool:
        """See `ObjectStore.remove_old`."""
        import obstore

        entry = await self.look(key)
        if entry is None or entry.modified_at >= before:
            return False
        with contextlib.suppress(FileNotFoundError):
            async with self._asking(is_writing=True):
                await obstore.delete_async(self._backend, self._prefix + key)
        return True

    # -- what went wrong -----------------------------------------------------------

    def _asking(self, *, is_writing: bool = False) -> Any:
        return self._bounded(REGISTRY_TIMEOUT_S, is_writing)

    def _moving(self, size_bytes: int = 0, *, is_writing: bool = False) -> Any:
        pieces = 1 + size_bytes // STORE_PIECE_BYTES
        return self._bounded(pieces * STORE_PIECE_TIMEOUT_S, is_writing)

    @contextlib.asynccontextmanager
    async def _bounded(self, timeout_s: float, is_writing: bool) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                with self._words(is_writing):
                    yield
        except TimeoutError:
            raise StoreUnreachable(
                store=self._name, reason="it did not answer in time"
            ) from None

    @contextlib.contextmanager
    def _words(self, is_writing: bool) -> Iterator[None]:
        from obstore import exceptions as told

        try:
            yield
        except (
            told.AlreadyExistsError,
            told.PreconditionError,
            told.NotModifiedError,
        ):
            raise
        except told.BaseError as error:
            raise store_error(self._name, error, is_writing) from None

    def _need_bucket(self, error: FileNotFoundError) -> None:
        """Tell a bucket that is not there from a key that is not there."""
        if "NoSuchBucket" in str(error):
            raise StoreUnreachable(
                store=self._name, reason="it has no bucket of this name"
            ) from None


_STATUS: Final = re.compile(r"status:? (\d{3})|HTTP status \w+ \w+ \((\d{3})")
_FULL: Final = ("StorageFull", "QuotaExceeded", "InsufficientStorage", "507")
_WORDS: Final[Sequence[tuple[Callable[[str], bool], str]]] = (
    (lambda text: "onnection refused" in text, "nothing listens there"),
    (lambda text: "dns error" in text, "its name leads nowhere"),
    (lambda text: "certificate" in text, "its certificate is not trusted"),
    (lambda text: "imed out" in text or "imeout" in text, "it did not answer in time"),
    (lambda text: "NoSuchBucket" in text, "it has no bucket of this name"),
    (lambda text: "error sending request" in text, "the connection broke"),
)


def store_error(name: str, error: Exception, is_writing: bool) -> RtcError:
    """Return the words for what obstore says, of whose text nothing is passed on.

    It is long, meant for programmers, and holds what the server wrote.
    """
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    text = str(error)
    if isinstance(error, PermissionDeniedError) or "AccessDenied" in text:
        if is_writing:
            return StoreReadOnly(store=name, reason="it refuses these credentials")
        return StoreUnreachable(store=name, reason="it refuses these credentials")
    if isinstance(error, UnauthenticatedError):
        return StoreUnreachable(store=name, reason="it does not know the credentials")
    if is_writing and any(word in text for word in _FULL):
        return StoreFull(store=name, reason="it says that it is full")
    for applies, words in _WORDS:
        if applies(text):
            return StoreUnreachable(store=name, reason=words)
    status = _STATUS.search(text)
    number = next((group for group in status.groups() if group), "") if status else ""
    words = f"it answers {number}" if number else "it does not answer as a store does"
    return StoreUnreachable(store=name, reason=words)

"""A store at an S3 server, or in memory, over obstore.

Every request is bounded in time and tries, since obstore's own patience would outlast
that of whoever waits. What a server writes is never passed on: failures have words of
our own. Opened by `store_address`.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

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
from sleap_rtc_plugin.registry.object_store import Entry, Found, ObjectMissing
from sleap_rtc_plugin.registry.store_calls import NoAnswer, StoreCalls

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Backend

__all__ = ["RemoteStore"]

P = ParamSpec("P")
T = TypeVar("T")

_NO_VERSION: Final = '"00000000000000000000000000000000"'
_IN_TIME: Final = "it did not answer in time"
_NO_BUCKET: Final = "it has no bucket of this name"
# How many parts of a file are on their way at once.
_PARTS_AT_ONCE: Final = 2


class RemoteStore:
    """A store behind obstore as an `ObjectStore`."""

    def __init__(self, backend: "Backend", name: str, prefix: str = "") -> None:
        """Use `backend`, with every key below `prefix`."""
        self._backend = backend
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        self._calls = StoreCalls()
        self._has_conditions = False

    @property
    def name(self) -> str:
        """What to call the store before people."""
        return self._name

    async def read(
        self, key: str, limit_bytes: int, known: str | None = None
    ) -> Found | None:
        """See `ObjectStore.read`."""
        from obstore.exceptions import NotModifiedError

        try:
            return await self._ask(partial(self._read, key, limit_bytes, known))
        except NotModifiedError:
            return Found(None, known or "")
        except FileNotFoundError:
            return None

    def _read(self, key: str, limit_bytes: int, known: str | None) -> Found:
        import obstore

        path = self._prefix + key
        options: Any = {"if_none_match": known} if known else {}
        answer = obstore.get(self._backend, path, options=options)
        version = answer.meta["e_tag"] or ""
        if answer.meta["size"] > limit_bytes:
            # One byte too many tells the reader.
            end = limit_bytes + 1
            part = obstore.get_range(self._backend, path, start=0, end=end)
            return Found(bytes(part), version)
        return Found(bytes(answer.bytes()), version)

    async def replace(self, key: str, data: bytes, expected: str | None) -> str | None:
        """See `ObjectStore.replace`."""
        await self._check_conditions(key)
        return await self._put(key, data, expected)

    async def _put(self, key: str, data: bytes, expected: str | None) -> str | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if expected is None else {"e_tag": expected}
        put = partial(
            obstore.put,
            self._backend,
            self._prefix + key,
            data,
            mode=mode,
            use_multipart=False,
        )
        try:
            done = await self._ask(put, is_writing=True)
        # 404, 409 and 412 all say that somebody else was there first.
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
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
        # Where it was not there yet, this is what "there already" has to look like.
        ignored = first is not None and await self._put(probe, b"2", None) is not None
        if ignored or await self._put(probe, b"3", _NO_VERSION) is not None:
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

        path = self._prefix + key
        if size_bytes <= STORE_PIECE_BYTES:
            data = b"".join([piece async for piece in pieces])
            put = partial(obstore.put, self._backend, path, data, use_multipart=False)
            await self._move(put, is_writing=True)
            return
        # Seen once it is closed; one that is not closed leaves nothing to see.
        writer = obstore.open_writer(
            self._backend,
            path,
            buffer_size=STORE_PIECE_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )
        async for piece in pieces:
            await self._move(partial(writer.write, piece), is_writing=True)
        await self._move(writer.close, is_writing=True)

    async def pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        """See `ObjectStore.pieces`."""
        import obstore

        path = self._prefix + key
        for start in range(0, size_bytes, STORE_PIECE_BYTES):
            end = min(start + STORE_PIECE_BYTES, size_bytes)
            get = partial(obstore.get_range, self._backend, path, start=start, end=end)
            try:
                piece = await self._move(get)
            except FileNotFoundError:
                raise ObjectMissing(key) from None
            yield bytes(piece)

    async def look(self, key: str) -> Entry | None:
        """See `ObjectStore.look`."""
        import obstore

        head = partial(obstore.head, self._backend, self._prefix + key)
        try:
            meta = await self._ask(head)
        except FileNotFoundError:
            return None
        return Entry(key, meta["size"], meta["last_modified"].timestamp())

    async def entries(self, folder: str) -> AsyncIterator[Entry]:
        """See `ObjectStore.entries`."""
        import obstore

        count = 0
        stream = obstore.list(self._backend, f"{self._prefix}{folder}/")
        none: Sequence[Any] = ()
        while batch := await self._ask(partial(next, stream, none)):
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
        delete = partial(obstore.delete, self._backend, self._prefix + key)
        try:
            await self._ask(delete, is_writing=True)
        except FileNotFoundError:
            return False
        return True

    # -- what went wrong -----------------------------------------------------------

    async def _ask(self, function: Callable[[], T], *, is_writing: bool = False) -> T:
        return await self._call(REGISTRY_TIMEOUT_S, function, is_writing)

    async def _move(self, function: Callable[[], T], *, is_writing: bool = False) -> T:
        return await self._call(STORE_PIECE_TIMEOUT_S, function, is_writing)

    async def _call(
        self, timeout_s: float, function: Callable[[], T], is_writing: bool
    ) -> T:
        from obstore import exceptions as told

        try:
            return await self._calls.call(timeout_s, function)
        except NoAnswer:
            raise StoreUnreachable(store=self._name, reason=_IN_TIME) from None
        except FileNotFoundError as error:
            # A bucket that is not there is another thing than a key that is not.
            if "NoSuchBucket" in str(error):
                raise StoreUnreachable(store=self._name, reason=_NO_BUCKET) from None
            raise
        except (
            told.AlreadyExistsError,
            told.PreconditionError,
            told.NotModifiedError,
        ):
            raise
        except (told.BaseError, OSError, ValueError) as error:
            raise store_error(self._name, error, is_writing) from None


_STATUS: Final = re.compile(r"status code: (\d{3})")
_FULL: Final = ("StorageFull", "QuotaExceeded", "InsufficientStorage")
_FULL_STATUS: Final = "507"
_WORDS: Final = (
    ("onnection refused", "nothing listens there"),
    ("dns error", "its name leads nowhere"),
    ("certificate", "its certificate is not trusted"),
    ("NoSuchBucket", _NO_BUCKET),
    ("kind: Timeout", _IN_TIME),
    ("timed out", _IN_TIME),
    ("error sending request", "the connection broke"),
)


def store_error(name: str, error: Exception, is_writing: bool) -> RtcError:
    """Return the words for what obstore says, of whose text nothing is passed on.

    It is long, meant for programmers, and holds what the server wrote.
    """
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    text = str(error)
    if isinstance(error, PermissionDeniedError):
        if is_writing:
            return StoreReadOnly(store=name, reason="it refuses these credentials")
        return StoreUnreachable(store=name, reason="it refuses these credentials")
    if isinstance(error, UnauthenticatedError):
        return StoreUnreachable(store=name, reason="it does not know the credentials")
    found = _STATUS.search(text)
    status = found.group(1) if found else ""
    if is_writing and (status == _FULL_STATUS or any(word in text for word in _FULL)):
        return StoreFull(store=name, reason="it says that it is full")
    for sign, words in _WORDS:
        if sign in text:
            return StoreUnreachable(store=name, reason=words)
    words = f"it answers {status}" if status else "it does not answer as a store does"
    return StoreUnreachable(store=name, reason=words)

"""What a room's page shows, as it changes: server-sent events.

One task looks at a room, however many browsers watch it, and a browser is sent only
what is new. A stream ends when what let the person in has ended, when the browser does
not read, and when the server stops. Called by the room's pages.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sleap_rtc_plugin.protocol.errors import RtcError, TooMany
from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo
from sleap_rtc_signaling.dashboard.site import HEADERS
from sleap_rtc_signaling.dashboard.views import RoomView, room_view
from sleap_rtc_signaling.limits import (
    LIVE_ACCESS_CHECK_S,
    LIVE_COMMENT_S,
    LIVE_INTERVAL_S,
    LIVE_SEND_DEADLINE_S,
    MAX_LIVE_STREAMS,
    MAX_LIVE_STREAMS_PER_LOGIN,
)

__all__ = ["GONE", "Live"]

_log = logging.getLogger(__name__)

GONE: Final = "gone"
"""The event that says that there is nothing more to see."""

Peers = Callable[[str], Awaitable[list[PeerInfo]]]
Draw = Callable[[RoomView], Mapping[str, str]]
MayWatch = Callable[[], Awaitable[bool]]


class _Watch:
    """A room that somebody watches."""

    def __init__(self) -> None:
        self.parts: Mapping[str, str] = {}
        self.listeners: set[asyncio.Event] = set()
        self.task: asyncio.Task[None] | None = None


class Live:
    """All streams of one server.

    Args:
        peers: says who is in a room.
        draw: makes the parts of a page, by name.
        clock: Unix time in seconds.
    """

    def __init__(self, peers: Peers, draw: Draw, clock: Callable[[], float]) -> None:
        self._peers = peers
        self._draw = draw
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._streams: dict[str, int] = {}
        self._is_closing = False

    async def parts(self, room_id: str) -> Mapping[str, str]:
        """Return the parts of a room's page as they are now."""
        return self._draw(room_view(await self._peers(room_id), self._clock()))

    def stream(self, room_id: str, login: str, may_watch: MayWatch) -> Response:
        """Answer with the events of a room.

        Args:
            room_id: which one.
            login: who watches; a browser has a few streams and not many.
            may_watch: says whether that person still may.

        Raises:
            TooMany: there are as many streams as there may be.
        """
        if self._streams.get(login, 0) >= MAX_LIVE_STREAMS_PER_LOGIN:
            raise TooMany(what="live pages", limit=str(MAX_LIVE_STREAMS_PER_LOGIN))
        if sum(self._streams.values()) >= MAX_LIVE_STREAMS:
            raise TooMany(what="live pages", limit=str(MAX_LIVE_STREAMS))
        return _EventStream(self, room_id, login, may_watch)

    def close(self) -> None:
        """End every stream."""
        self._is_closing = True
        for watch in self._watches.values():
            for listener in watch.listeners:
                listener.set()

    async def run(
        self,
        room_id: str,
        login: str,
        may_watch: MayWatch,
        end: "_End",
    ) -> None:
        """Send events until either side has enough."""
        loop = asyncio.get_running_loop()
        sent: dict[str, str] = {}
        check_at = loop.time() + LIVE_ACCESS_CHECK_S
        comment_at = loop.time() + LIVE_COMMENT_S
        async with self._listening(room_id, login, end.woken) as watch:
            while not (self._is_closing or end.is_gone):
                end.woken.clear()
                for name, html in watch.parts.items():
                    if sent.get(name) != html:
                        await end.send(_event(name, html))
                        sent[name] = html
                now = loop.time()
                if check_at <= now:
                    if not await may_watch():
                        await end.send(_event(GONE, ""))
                        return
                    check_at = now + LIVE_ACCESS_CHECK_S
                if comment_at <= now:
                    # Else nobody would notice that the browser has left.
                    await end.send(":\n\n")
                    comment_at = now + LIVE_COMMENT_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(check_at, comment_at) - now):
                        await end.woken.wait()

    @asynccontextmanager
    async def _listening(
        self, room_id: str, login: str, listener: asyncio.Event
    ) -> AsyncIterator[_Watch]:
        watch = self._watches.setdefault(room_id, _Watch())
        watch.listeners.add(listener)
        self._streams[login] = self._streams.get(login, 0) + 1
        if watch.task is None:
            watch.task = asyncio.create_task(self._look(room_id, watch))
        try:
            yield watch
        finally:
            self._streams[login] -= 1
            if not self._streams[login]:
                del self._streams[login]
            watch.listeners.discard(listener)
            if not watch.listeners:
                del self._watches[room_id]
                watch.task.cancel()

    async def _look(self, room_id: str, watch: _Watch) -> None:
        while True:
            try:
                parts = await self.parts(room_id)
            except RtcError as error:
                _log.warning("a room could not be shown: %s", error)
            else:
                if parts != watch.parts:
                    watch.parts = parts
                    for listener in watch.listeners:
                        listener.set()
            await asyncio.sleep(LIVE_INTERVAL_S)


class _End:
    """The browser's end of a stream.

    Args:
        receive: as ASGI has it.
        send: the same.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self.woken = asyncio.Event()
        self.is_gone = False
        self._receive = receive
        self._send = send

    async def send(self, text: str) -> None:
        """Send a piece.

        Raises:
            TimeoutError: the browser does not read.
        """
        async with asyncio.timeout(LIVE_SEND_DEADLINE_S):
            await self._send(
                {
                    "type": "http.response.body",
                    "body": text.encode(),
                    "more_body": True,
                }
            )

    async def watch(self) -> None:
        """Notice that the browser leaves."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self.woken.set()


class _EventStream(Response):
    """An answer that goes on (WHATWG HTML section 9.2)."""

    def __init__(
        self, live: Live, room_id: str, login: str, may_watch: MayWatch
    ) -> None:
        headers = {
            **HEADERS,
            # nginx would otherwise hold events back until it has a page of them.
            "x-accel-buffering": "no",
        }
        super().__init__(media_type="text/event-stream", headers=headers)
        del self.headers["content-length"]
        self._live = live
        self._room_id = room_id
        self._login = login
        self._may_watch = may_watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until either side has enough."""
        end = _End(receive, send)
        watching = asyncio.create_task(end.watch())
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            with contextlib.suppress(TimeoutError):
                await self._live.run(self._room_id, self._login, self._may_watch, end)
            await send({"type": "http.response.body", "body": b""})
        finally:
            watching.cancel()


def _event(name: str, html: str) -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n"

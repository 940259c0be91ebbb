"""A room that is entered again by itself, with one link to each worker.

`RemoteSession` is one stay in a room: it survives a lost signaling server, but not a
server that ends it. A steady room enters anew where that may help, and opens a link
again once the one before it is gone. Used by the commands, and below `Lab`.
"""

import asyncio
import logging
import random
from types import TracebackType
from typing import Self

from sleap_rtc_plugin.protocol.errors import (
    RtcError,
    SignalingUnreachable,
    WorkerNotFound,
)
from sleap_rtc_plugin.protocol.retries import Retries, is_passing, may_enter_again
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["SteadyRoom"]

logger = logging.getLogger(__name__)


class SteadyRoom:
    """One room for as long as it is needed. Use as an async context manager.

    Args:
        session: the room and its secret.
        owner: shown to the room.
        shared_storage: a folder that workers may mount as well.
        transport: how data channels go; the environment's choice by default.
    """

    def __init__(
        self,
        session: Session,
        *,
        owner: str = "",
        shared_storage: SharedStorage | None = None,
        transport: TransportOptions | None = None,
    ) -> None:
        self.session = session
        self._owner = owner
        self._shared_storage = shared_storage
        self._transport = transport
        self._stay: RemoteSession | None = None
        self._links: dict[str, WorkerLink] = {}
        self._linking: dict[str, asyncio.Lock] = {}
        self._entering = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Enter; raises the `RtcError` that says why it cannot be entered."""
        self._stay = await self._enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every link and leave."""
        for link in self._links.values():
            link.link.close("the room was left")
        self._links.clear()
        stay, self._stay = self._stay, None
        if stay is not None:
            await stay.__aexit__(None, None, None)

    # -- the stay --------------------------------------------------------------------

    async def stay(self) -> RemoteSession:
        """Return the stay in the room, a new one where the server ended the last.

        Raises:
            RtcError: the room cannot be entered again, now or ever.
        """
        async with self._entering:
            stay = self._stay
            if stay is None:
                raise SignalingUnreachable(
                    server=self.session.url, reason="the room was left"
                )
            ended_with = stay.ended_with
            if ended_with is None:
                return stay
            if not may_enter_again(ended_with):
                raise ended_with
            entered = await self._enter()
            logger.info("The room was entered again after: %s", ended_with)
            self._stay = entered
            await stay.__aexit__(None, None, None)
            return entered

    @property
    def ended_with(self) -> RtcError | None:
        """Why the server ended the newest stay, or None while it lasts."""
        return self._stay.ended_with if self._stay is not None else None

    async def _enter(self) -> RemoteSession:
        stay = RemoteSession(
            self.session,
            owner=self._owner,
            shared_storage=self._shared_storage,
            transport=self._transport,
        )
        return await stay.__aenter__()

    # -- its workers -----------------------------------------------------------------

    async def workers(self) -> list[WorkerInfo]:
        """List the room's workers."""
        return await (await self.stay()).workers()

    async def worker(self, worker_id: str) -> WorkerInfo:
        """Return a worker of the room.

        Raises:
            WorkerNotFound: it is not in the room now.
            RtcError: the room cannot be asked.
        """
        workers = await self.workers()
        for worker in workers:
            if worker.peer_id == worker_id:
                return worker
        names = ", ".join(worker.name for worker in workers) or "nobody"
        raise WorkerNotFound(worker=worker_id, online=names)

    async def wait_for(self, worker_id: str, retries: Retries) -> WorkerInfo | None:
        """Wait until a worker is in the room; None where `retries` give up.

        Raises:
            RtcError: waiting does not help.
        """
        while True:
            try:
                return await self.worker(worker_id)
            except RtcError as error:
                if not is_passing(error):
                    raise
            # No secret: it only keeps clients from coming back all at once.
            delay_s = retries.failed(monotonic(), random.random())  # noqa: S311
            if delay_s is None:
                return None
            await asyncio.sleep(delay_s)

    async def link(
        self, worker_id: str, transport: TransportOptions | None = None
    ) -> WorkerLink:
        """Return the link to a worker; opens it where there is none.

        Args:
            worker_id: whose.
            transport: how data channels go if it is opened now; by default as for the
                whole room.

        Raises:
            RtcError: no link came about.
        """
        async with self._linking.setdefault(worker_id, asyncio.Lock()):
            known = self._links.get(worker_id)
            if known is not None and not known.link.closed.is_set():
                return known
            worker = await self.worker(worker_id)
            link = await (await self.stay()).connect(worker, transport)
            self._links[worker_id] = link
            return link

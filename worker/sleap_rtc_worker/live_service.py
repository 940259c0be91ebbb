"""Live frames of one client: a model loaded once, and the newest frame predicted next.

One `LiveService` for each link, and one `LiveSessions` of the worker that bounds how
many run. Frames wait in one slot; while the model is busy a newer one takes the place
of the one that waits. Used by `link_service`.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    LiveRefused,
    RemoteProtocolError,
    RtcError,
)
from sleap_rtc_plugin.protocol.features import LIVE
from sleap_rtc_plugin.protocol.limits import (
    LIVE_IDLE_TIMEOUT_S,
    MAX_LIVE_SESSIONS,
)
from sleap_rtc_plugin.protocol.live_messages import (
    LiveInstances,
    LiveReport,
    LiveStart,
    LiveStarted,
    LiveStop,
    decode_part,
    encode_instances,
)
from sleap_rtc_plugin.protocol.live_options import check_live_options
from sleap_rtc_plugin.protocol.messages import CommandFailed
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_worker.gpu_slots import Slot
from sleap_rtc_worker.live_inbox import FrameInbox, LiveFrame, most_image_bytes
from sleap_rtc_worker.live_process import RUNNER, LiveProcess, RunnerFailed
from sleap_rtc_worker.live_records import Found, LoadModel, PredictFrame
from sleap_rtc_worker.trainer_environment import trainer_environment

__all__ = ["LiveModels", "LiveService", "LiveSessions", "live_environment"]

logger = logging.getLogger(__name__)


class LiveModels(Protocol):
    """Where the folders of published models come from."""

    def using(self, ref: str) -> AbstractAsyncContextManager[Sequence[Path]]:
        """Yield the folders of a model's parts, verified, and keep them meanwhile.

        Raises:
            ModelError: there is no such model, or its files cannot be had.
        """


def live_environment(slots: Sequence[Slot]) -> dict[str, str]:
    """Return the variables of processes with models: they see the first GPU."""
    return trainer_environment(
        os.environ,
        slots[0].variables if slots else {},
        allow_wandb=False,
        allow_downloads=False,
    )


class LiveSessions:
    """What all live sessions of a worker share."""

    def __init__(
        self,
        *,
        worker_name: str = "",
        models: LiveModels | None = None,
        environment: Mapping[str, str] | None = None,
        runner: Sequence[str] = RUNNER,
        idle_timeout_s: float = LIVE_IDLE_TIMEOUT_S,
    ) -> None:
        """Begin with no session.

        Args:
            worker_name: for refusals.
            models: where models come from; without, every session is refused.
            environment: of the processes with the models.
            runner: the words that start one.
            idle_timeout_s: a session without frames for so long ends.
        """
        self.worker_name = worker_name
        self.models = models
        self.environment = dict(environment or {})
        self.runner = tuple(runner)
        self.idle_timeout_s = idle_timeout_s
        self._running = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[LiveModels]:
        """Count one session while it runs; yields where its model comes from.

        Raises:
            LiveRefused: there may be no more, or no models.
        """
        if self.models is None:
            raise self.refusal("it has no store of models")
        if self._running >= MAX_LIVE_SESSIONS:
            raise self.refusal(f"it serves {self._running} live sessions already")
        self._running += 1
        try:
            yield self.models
        finally:
            self._running -= 1

    def refusal(self, reason: str) -> LiveRefused:
        """Return the error for a session that is not to be."""
        return LiveRefused(worker=self.worker_name, reason=reason)


class LiveService:
    """The live frames of one link, one session after another."""

    def __init__(self, link: Link, sessions: LiveSessions) -> None:
        """Listen on the channel of `link`, once the client opens it."""
        self._link = link
        self._sessions = sessions
        self._session: _Session | None = None
        link.on_live = self._on_message

    async def run(self, message: LiveStart) -> None:
        """Carry out a session, from its start to its report.

        Raises:
            RemoteProtocolError: the client may not ask for one.
        """
        if LIVE not in self._link.features:
            raise RemoteProtocolError(detail="live frames without their channel")
        session = _Session(message, self._sessions, self._link)
        try:
            if self._session is not None:
                raise self._sessions.refusal("this client has a live session already")
            self._session = session
            await session.run()
        except RtcError as error:
            logger.info("No live frames of %s: %s", self._link.peer_id, error)
            self._link.send(
                CommandFailed(command_id=message.command_id, error=error.to_wire())
            )
        finally:
            if self._session is session:
                self._session = None

    def stop(self, message: LiveStop) -> None:
        """End the session, which then reports; refused where there is none."""
        if self._session is None:
            error = BadRequest(reason="no live session runs")
            self._link.send(
                CommandFailed(command_id=message.command_id, error=error.to_wire())
            )
        else:
            self._session.stop(message.command_id)

    def _on_message(self, message: bytes) -> None:
        # What belongs to no session was sent before its end was heard of.
        if self._session is not None:
            self._session.take(message)


class _Session:
    """One session: a model in a process of its own, and the frames for it."""

    def __init__(self, start: LiveStart, sessions: LiveSessions, link: Link) -> None:
        self._start = start
        self._sessions = sessions
        self._link = link
        self._inbox = FrameInbox(
            most_image_bytes(start.width, start.height, start.channels)
        )
        self._news = asyncio.Event()
        self._stopped_by: str | None = None
        self._predicted = 0
        self._process = LiveProcess()

    def take(self, message: bytes) -> None:
        """A message came on the channel; what is no part of a frame is dropped."""
        part = decode_part(message)
        if part is not None:
            self._inbox.add(part, monotonic())
            self._news.set()

    def stop(self, command_id: str) -> None:
        """The client wants it to end."""
        self._stopped_by = command_id
        self._news.set()

    async def run(self) -> None:
        """Load the model, predict frames, report.

        Raises:
            RtcError: it cannot begin.
        """
        options = check_live_options(self._start.options)
        with self._sessions.one() as models:
            async with models.using(self._start.model) as folders:
                try:
                    await self._load(folders, options)
                    reason = await self._predict()
                finally:
                    await self._process.end()
        self._link.send(
            LiveReport(
                command_id=self._stopped_by or "",
                received=self._inbox.received,
                incomplete=self._inbox.incomplete,
                superseded=self._inbox.superseded,
                predicted=self._predicted,
                reason=reason,
            )
        )

    async def _load(self, folders: Sequence[Path], options: dict[str, str]) -> None:
        start = self._start
        order = LoadModel(
            folders=[str(folder) for folder in folders],
            width=start.width,
            height=start.height,
            channels=start.channels,
            options=options,
        )
        try:
            loaded = await self._process.load(
                order,
                runner=self._sessions.runner,
                environment=self._sessions.environment,
            )
        except RunnerFailed as error:
            raise self._sessions.refusal(error.reason) from None
        self._link.send(
            LiveStarted(
                command_id=start.command_id,
                nodes=loaded.nodes,
                edges=loaded.edges,
                device=loaded.device,
            )
        )

    async def _predict(self) -> str:
        """Predict frames until the session ends; return why, or nothing."""
        while self._stopped_by is None:
            frame = self._inbox.take()
            if frame is None:
                self._news.clear()
                try:
                    async with asyncio.timeout(self._sessions.idle_timeout_s):
                        await self._news.wait()
                except TimeoutError:
                    idle_s = self._sessions.idle_timeout_s
                    return f"no frame came for {idle_s:.0f} s"
                continue
            taken_up = monotonic()
            order = PredictFrame(frame.frame, frame.format, frame.data)
            try:
                found = await self._process.predict(order)
            except RunnerFailed as error:
                return error.reason
            self._answer(frame, found, taken_up)
        return ""

    def _answer(self, frame: LiveFrame, found: Found, taken_up: float) -> None:
        """Send what was found, or nothing where older answers are still waiting."""
        channel = self._link.live
        message = encode_instances(
            LiveInstances(
                frame=frame.frame,
                taken_us=frame.taken_us,
                waited_us=int(max(0.0, taken_up - frame.arrived) * 1_000_000),
                predicted_us=int(max(0.0, monotonic() - taken_up) * 1_000_000),
                instances=found.instances,
            )
        )
        if channel is not None and channel.has_room:
            channel.send(message)
            self._predicted += 1

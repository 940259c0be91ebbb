"""Live frames from here to a worker, and what is found in them back.

A session loads a model at the worker once. Then frames are taken at their pace, the
newest is sent when the channel has room, and answers are handed on as they come; a
frame that is late is dropped, never queued. Used by the command `live`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import (
    LiveEnded,
    LiveRefused,
    RtcError,
    VideoUnreadable,
)
from sleap_rtc_plugin.protocol.features import LIVE
from sleap_rtc_plugin.protocol.ids import clean_text, new_command_id
from sleap_rtc_plugin.protocol.limits import MAX_LIVE_FRAME_BYTES
from sleap_rtc_plugin.protocol.live_messages import (
    ImageFormat,
    LiveInstances,
    LiveReport,
    LiveStart,
    LiveStarted,
    LiveStop,
    decode_instances,
    encode_part,
    split_frame,
)
from sleap_rtc_plugin.session.live_figures import LiveFigures
from sleap_rtc_plugin.session.live_frames import FrameSource, encode_image
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread, monotonic
from sleap_rtc_plugin.transport.link import LinkClosed

__all__ = ["LiveStream", "start_live"]

logger = logging.getLogger(__name__)

# Of a video that does not say how fast it is, as images in a row do not.
DEFAULT_FPS: Final = 15.0
# How long the last frames' answers are waited for: this, or some times the longest.
MIN_DRAIN_S: Final = 1.0
MAX_DRAIN_S: Final = 15.0
_DRAIN_FACTOR: Final = 3.0


async def start_live(
    link: WorkerLink,
    model: str,
    source: FrameSource,
    *,
    options: Mapping[str, str],
    encoding: ImageFormat = "png",
) -> "LiveStream":
    """Have a worker load a model, and open the channel for frames.

    Raises:
        LiveRefused: the worker does not take live frames, or not these.
        RtcError: the worker's refusal, no reply in time, or a lost link.
    """
    if link.link.kind == "relay":
        reason = "they need a direct connection, and this one goes over the relay"
        raise LiveRefused(worker=link.worker_name, reason=reason)
    if LIVE not in link.link.features:
        reason = "its version of sleap-rtc-plugin does not know them"
        raise LiveRefused(worker=link.worker_name, reason=reason)
    start = LiveStart(
        command_id=new_command_id(),
        model=model,
        width=source.width,
        height=source.height,
        channels=1 if source.channels == 1 else 3,
        options=dict(options),
    )
    started = await link.ask(start)
    if not isinstance(started, LiveStarted):
        raise LiveRefused(worker=link.worker_name, reason="it answered nonsense")
    return LiveStream(link, source, started, encoding)


class LiveStream:
    """One live session that has begun. `run` it once."""

    def __init__(
        self,
        link: WorkerLink,
        source: FrameSource,
        started: LiveStarted,
        encoding: ImageFormat,
    ) -> None:
        """Prepare to stream `source`; see `start_live`."""
        self.nodes = [clean_text(node) for node in started.nodes]
        self.edges = [
            (a, b) for a, b in started.edges if max(a, b) < len(started.nodes)
        ]
        self.device = clean_text(started.device)
        self.figures = LiveFigures()
        self.error: RtcError | None = None
        self._link = link
        self._source = source
        self._encoding: ImageFormat = encoding
        self._newest: tuple[int, int, Any] | None = None
        self._news = asyncio.Event()
        self._no_more = False
        self._stopped = asyncio.Event()
        self._is_hurried = False
        self._answered = asyncio.Event()
        self._last_sent = -1
        self._newest_answer = -1
        self._on_found: Callable[[LiveInstances, float], None] = lambda *_: None

    def stop(self) -> None:
        """Take no more frames; `run` then ends as it would by itself.

        Called again, it does not wait for the last answers either.
        """
        self._is_hurried = self._stopped.is_set()
        self._stopped.set()
        self._answered.set()
        self._news.set()

    async def run(
        self,
        *,
        fps: float | None = None,
        frames: int | None = None,
        on_found: Callable[[LiveInstances, float], None] = lambda *_: None,
    ) -> None:
        """Stream until the frames end, `stop` is called, or the worker ends it.

        Why it ended too early is in `error`; the figures hold either way.

        Args:
            fps: frames a second; a video's own, or what a camera gives, by default.
            frames: how many at most.
            on_found: told of each answer, with its latency in milliseconds.
        """
        self._on_found = on_found
        self._link.on_live_ended = self._ended
        self._link.link.on_live = self._received
        try:
            taking = asyncio.ensure_future(self._take(fps, frames))
            try:
                await self._send()
            finally:
                self._stopped.set()
                await taking
            if self._newest is not None:
                self._newest = None
                self.figures.dropped += 1
            await self._drain()
            await self._close()
        except LinkClosed:
            self.error = self.error or self._link.vanished("frames were on their way")
        except RtcError as error:
            self.error = self.error or error
        finally:
            self._link.on_live_ended = None
            self._link.link.on_live = None

    # -- frames out --------------------------------------------------------------------

    async def _take(self, fps: float | None, frames: int | None) -> None:
        """Take frames at their pace; what is not sent yet is replaced."""
        source, count = self._source, self._source.count
        limit = min(n for n in (count, frames, 2**32) if n is not None)
        # A camera has a pace of its own.
        own = None if count is None else source.fps or DEFAULT_FPS
        rate = fps or own
        begun, index = monotonic(), 0
        try:
            while index < limit and not self._stopped.is_set():
                if rate is not None:
                    due = int((monotonic() - begun) * rate)
                    skipped = min(max(0, due - index), limit - 1 - index)
                    self.figures.missed += skipped
                    index += skipped
                    await self._pause(begun + index / rate - monotonic())
                    if self._stopped.is_set():
                        return
                image = await in_thread(None, source.read, index)
                self.figures.taken += 1
                if self._newest is not None:
                    self.figures.dropped += 1
                self._newest = (index, int(monotonic() * 1_000_000), image)
                self._news.set()
                index += 1
        except VideoUnreadable as error:
            self.error = error
        finally:
            self._no_more = True
            self._news.set()

    async def _pause(self, wait_s: float) -> None:
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), wait_s)

    async def _send(self) -> None:
        """Send the newest frame whenever there is room for one."""
        channel = await self._link.link.open_live()
        while not self._stopped.is_set():
            await channel.until_room()
            if channel.closed.is_set():
                raise LinkClosed("the channel for live frames was closed")
            if self._newest is None:
                if self._no_more:
                    return
                self._news.clear()
                await self._news.wait()
                continue
            (index, taken_us, image), self._newest = self._newest, None
            data = await in_thread(None, encode_image, image, self._encoding)
            if len(data) > MAX_LIVE_FRAME_BYTES:
                raise VideoUnreadable(
                    video=self._source.name,
                    reason=f"a frame takes {len(data)} bytes, too many to be sent "
                    "live; --encoding jpeg makes them smaller",
                )
            for part in split_frame(index, taken_us, data, self._encoding):
                channel.send(encode_part(part))
            self.figures.sent += 1
            self.figures.sent_bytes += len(data)
            self._last_sent = index

    # -- answers in ------------------------------------------------------------------

    def _received(self, message: bytes) -> None:
        """A message of the worker's; what is no answer to us is dropped."""
        found = decode_instances(message)
        if (
            found is None
            or not self._newest_answer < found.frame <= self._last_sent
            or any(len(one.points) != len(self.nodes) for one in found.instances)
        ):
            return
        self._newest_answer = found.frame
        latency_ms = self.figures.answer(found, monotonic())
        self._answered.set()
        self._on_found(found, latency_ms)

    def _ended(self, report: LiveReport) -> None:
        """The worker ended the session by itself."""
        self.figures.report = report
        reason = clean_text(report.reason) or "it gives no reason"
        self.error = LiveEnded(worker=self._link.worker_name, reason=reason)
        self.stop()
        self._answered.set()

    async def _drain(self) -> None:
        """Wait for the last frame's answer, which may also be lost."""
        spread = self.figures.latency.spread()
        longest_s = spread.max / 1_000 if spread is not None else MAX_DRAIN_S
        wait_s = min(max(MIN_DRAIN_S, _DRAIN_FACTOR * longest_s), MAX_DRAIN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._newest_answer < self._last_sent and self.error is None:
                    self._answered.clear()
                    if self._is_hurried:
                        return
                    await self._answered.wait()

    async def _close(self) -> None:
        """Have the worker say what it counted."""
        if self.figures.report is not None:
            return
        report = await self._link.ask(LiveStop(command_id=new_command_id()))
        if isinstance(report, LiveReport):
            self.figures.report = report

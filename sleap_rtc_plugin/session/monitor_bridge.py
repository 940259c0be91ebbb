"""Feeds one SLEAP LossViewer over ZMQ, and hears its Stop Early button.

The viewer binds, in SLEAP's process; this connects, from the companion or from the same
process. Polls on short timers, so it runs on any asyncio loop: selector, proactor or
qasync. Called by the session that follows a job.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import zmq

from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_plugin.session.monitor_messages import (
    MonitorHistory,
    Outbox,
    Thinner,
    to_message,
)

__all__ = ["MonitorBridge"]

# The viewer reads up to 11 messages at once and draws after them, which takes 50 ms
# and more. So they are sent in bursts: 110 a second cost it half its time.
TICK_S: Final = 0.2
MESSAGES_PER_TICK: Final = 22
MAX_COMMANDS_PER_TICK: Final = 10
MAX_COMMAND_BYTES: Final = 256
_HOST: Final = "127.0.0.1"
_SUBSCRIBED: Final = b"\x01"
_UNSUBSCRIBED: Final = b"\x00"


class _Command(msgspec.Struct, frozen=True):
    """What LossViewer's controller socket says."""

    command: str


class _Sockets:
    """The two sockets to a viewer, in a context of their own."""

    def __init__(self, publish_address: str, controller_address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.publisher = self._connect(zmq.XPUB, publish_address)
        # Refuse what a viewer that hangs cannot take, so that it can wait with us.
        self.publisher.setsockopt(zmq.XPUB_NODROP, 1)
        self.controller = self._connect(zmq.SUB, controller_address)
        self.controller.subscribe(b"")

    def _connect(self, kind: int, address: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_COMMAND_BYTES)
        # Without it a publisher is not told that its subscriber went.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.connect(address)
        return socket

    def close(self) -> None:
        self.publisher.close()
        self.controller.close()
        self._context.term()


class MonitorBridge:
    """One viewer's feed.

    Nothing is sent before the viewer has subscribed, since it would be lost. Once
    the viewer is gone the bridge ends by itself: the next one on these ports may
    belong to another training.

    Args:
        publish_port: where the viewer listens for progress.
        controller_port: where the viewer says what the user clicked.
        what: the head name that the viewer was reset to.
        on_stop: called on the loop, once per click on Stop Early.
    """

    def __init__(
        self,
        publish_port: int,
        controller_port: int,
        what: str,
        on_stop: Callable[[], None],
    ) -> None:
        self._publish_address = f"tcp://{_HOST}:{publish_port}"
        self._controller_address = f"tcp://{_HOST}:{controller_port}"
        self._what = what
        self._on_stop = on_stop
        self._thinner = Thinner()
        self._outbox = Outbox()
        self._refused = 0
        self._has_viewer = False
        self._sockets: _Sockets | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def dropped(self) -> int:
        """How many messages were thinned out, refused, or had no room."""
        return self._thinner.dropped + self._outbox.dropped + self._refused

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent."""
        return len(self._outbox)

    @property
    def is_open(self) -> bool:
        """Whether it was started, and neither closed nor left by its viewer."""
        return self._sockets is not None

    def start(self) -> None:
        """Connect to the viewer; it need not be there yet. Needs a running loop."""
        if self._sockets is None:
            self._sockets = _Sockets(self._publish_address, self._controller_address)
            self._tick(self._sockets)

    def feed(self, report: ProgressReport) -> None:
        """Pass a report on, soon, if it is one for the viewer."""
        message = to_message(report)
        if message is None:
            self._refused += report.kind != "predict"
            return
        for ready in self._thinner.take(message, self._now()):
            self._outbox.put(ready)

    def replay(self, history: MonitorHistory) -> None:
        """Send what was before, ahead of all that is fed from now on."""
        self._outbox.put_all(history.messages())

    async def close(self) -> None:
        """Release sockets and threads at once; what was not sent is dropped."""
        self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _tick(self, sockets: _Sockets) -> None:
        if self._is_viewer_gone(sockets.publisher):
            self._release()
            return
        self._read_commands(sockets.controller)
        if self._has_viewer:
            self._send(sockets.publisher)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TICK_S, self._tick, sockets)

    def _is_viewer_gone(self, publisher: "zmq.Socket[bytes]") -> bool:
        while (change := _receive(publisher)) is not None:
            if change == _UNSUBSCRIBED:
                return True
            self._has_viewer = self._has_viewer or change == _SUBSCRIBED
        return False

    def _read_commands(self, controller: "zmq.Socket[bytes]") -> None:
        for _ in range(MAX_COMMANDS_PER_TICK):
            data = _receive(controller)
            if data is None:
                return
            if _is_stop(data):
                # Not from here: what it does must not keep the ticks from going on.
                asyncio.get_running_loop().call_soon(self._on_stop)

    def _send(self, publisher: "zmq.Socket[bytes]") -> None:
        now = self._now()
        for _ in range(MESSAGES_PER_TICK):
            message = self._outbox.next(now)
            if message is None:
                return
            try:
                publisher.send(message.encode(self._what), zmq.NOBLOCK)
            except zmq.Again:
                return
            self._outbox.sent(message, now)


def _receive(socket: "zmq.Socket[bytes]") -> bytes | None:
    try:
        return socket.recv(zmq.NOBLOCK)
    except zmq.Again:
        return None


def _is_stop(data: bytes) -> bool:
    try:
        return msgspec.json.decode(data, type=_Command).command == "stop"
    except msgspec.MsgspecError:
        return False

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

from sleap_rtc_plugin.protocol.limits import KIB
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
# What says more than this is no viewer; ZMQ hangs up on it for good.
MAX_CONTROLLER_BYTES: Final = 64 * KIB
_HOST: Final = "127.0.0.1"
_SUBSCRIBED: Final = b"\x01"


class _Command(msgspec.Struct, frozen=True):
    """What LossViewer's controller socket says."""

    command: str


class _Sockets:
    """The two sockets to a viewer, in a context of their own."""

    def __init__(self, publish_address: str, controller_address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.publisher = self._context.socket(zmq.XPUB)
        self.publisher.setsockopt(zmq.LINGER, 0)
        # Refuse what a viewer that hangs cannot take, so that it can wait with us.
        self.publisher.setsockopt(zmq.XPUB_NODROP, 1)
        self._departures = self.publisher.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.publisher.connect(publish_address)
        self.controller = self._context.socket(zmq.SUB)
        self.controller.setsockopt(zmq.LINGER, 0)
        self.controller.setsockopt(zmq.MAXMSGSIZE, MAX_CONTROLLER_BYTES)
        self.controller.connect(controller_address)
        self.controller.subscribe(b"")

    def is_viewer_gone(self) -> bool:
        """Tell whether there was a viewer and it has closed its socket.

        The end of its subscription does not tell: it goes unseen where the next
        viewer has bound the port meanwhile.
        """
        return bool(self._departures.poll(0))

    def close(self) -> None:
        self.publisher.disable_monitor()
        for socket in (self._departures, self.publisher, self.controller):
            socket.close(linger=0)
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
        if sockets.is_viewer_gone():
            self._release()
            return
        self._read_commands(sockets.controller)
        while (change := _receive(sockets.publisher)) is not None:
            self._has_viewer = self._has_viewer or change == _SUBSCRIBED
        if self._has_viewer:
            self._send(sockets.publisher)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(TICK_S, self._tick, sockets)

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
    if len(data) > MAX_COMMAND_BYTES:
        return False
    try:
        return msgspec.json.decode(data, type=_Command).command == "stop"
    except msgspec.MsgspecError:
        return False

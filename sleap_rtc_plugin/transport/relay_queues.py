"""What waits to go through the relay, and what has come in pieces.

Control goes before transfer, piece by piece, and only so much is on its way at once:
what waits in the server or in sockets cannot be overtaken any more. Pure; driven by
`transport.relay_link`.
"""

from collections import deque

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import (
    MAX_CONTROL_FRAME_BYTES,
    MAX_TRANSFER_FRAME_BYTES,
    RELAY_ACK_BYTES,
    RELAY_PIECE_BYTES,
    RELAY_WINDOW_BYTES,
)
from sleap_rtc_plugin.transport.relay_cipher import Record, RecordKind

__all__ = ["RelayInbox", "RelayOutbox"]

# What control may have on its way beyond the window, so that it need not wait for it.
CONTROL_RESERVE_BYTES = 4 * RELAY_PIECE_BYTES
_PIECES = {
    RecordKind.CONTROL: RecordKind.CONTROL_PIECE,
    RecordKind.TRANSFER: RecordKind.TRANSFER_PIECE,
}


class _Lane:
    """The messages of one channel that wait, the first of them perhaps begun."""

    def __init__(self, kind: RecordKind) -> None:
        self._kind = kind
        self._messages: deque[bytes] = deque()
        self._offset = 0
        self.buffered_bytes = 0

    def put(self, message: bytes) -> None:
        self._messages.append(message)
        self.buffered_bytes += len(message)

    def has_next(self) -> bool:
        return bool(self._messages)

    def take(self) -> Record:
        message = self._messages[0]
        piece = message[self._offset : self._offset + RELAY_PIECE_BYTES]
        self._offset += len(piece)
        self.buffered_bytes -= len(piece)
        if self._offset < len(message):
            return Record(_PIECES[self._kind], piece)
        self._messages.popleft()
        self._offset = 0
        return Record(self._kind, piece)


class RelayOutbox:
    """What is to be sent, in the order in which it should go."""

    def __init__(self) -> None:
        """Begin with nothing to send."""
        self.control = _Lane(RecordKind.CONTROL)
        self.transfer = _Lane(RecordKind.TRANSFER)
        self._sent_bytes = 0
        self._taken_bytes = 0

    def next(self) -> Record | None:
        """Return the record to send now, or None while nothing may be sent."""
        on_the_way = self._sent_bytes - self._taken_bytes
        if (
            self.control.has_next()
            and on_the_way < RELAY_WINDOW_BYTES + CONTROL_RESERVE_BYTES
        ):
            record = self.control.take()
        elif self.transfer.has_next() and on_the_way < RELAY_WINDOW_BYTES:
            record = self.transfer.take()
        else:
            return None
        self._sent_bytes += len(record.payload)
        return record

    def taken(self, payload: bytes) -> None:
        """The peer says how much has arrived in all.

        Raises:
            RemoteProtocolError: it cannot be so.
        """
        total = int.from_bytes(payload, "big")
        if len(payload) != 8 or not self._taken_bytes <= total <= self._sent_bytes:
            raise RemoteProtocolError(detail="an acknowledgement of what was not sent")
        self._taken_bytes = total


class RelayInbox:
    """Puts pieces together, and says when to acknowledge them."""

    def __init__(self) -> None:
        """Begin with nothing received."""
        self._parts: dict[RecordKind, bytearray] = {
            RecordKind.CONTROL: bytearray(),
            RecordKind.TRANSFER: bytearray(),
        }
        self._arrived_bytes = 0
        self._told_bytes = 0

    def take(self, record: Record) -> bytes | str | None:
        """Take a piece; return the message that it completes, text if of control.

        Raises:
            RemoteProtocolError: a message that is too long, or no text.
        """
        is_control = record.kind in (RecordKind.CONTROL, RecordKind.CONTROL_PIECE)
        kind = RecordKind.CONTROL if is_control else RecordKind.TRANSFER
        limit = MAX_CONTROL_FRAME_BYTES if is_control else MAX_TRANSFER_FRAME_BYTES
        parts = self._parts[kind]
        parts += record.payload
        self._arrived_bytes += len(record.payload)
        if len(parts) > limit or (record.kind is not kind and not record.payload):
            raise RemoteProtocolError(detail="a relayed message past its bound")
        if record.kind is not kind:
            return None
        message = bytes(parts)
        parts.clear()
        if not is_control:
            return message
        try:
            return message.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError(
                detail="a control frame that is no text"
            ) from None

    def acknowledgement(self) -> Record | None:
        """Return what to tell the sender now, if it is time."""
        if self._arrived_bytes - self._told_bytes < RELAY_ACK_BYTES:
            return None
        self._told_bytes = self._arrived_bytes
        return Record(RecordKind.TAKEN, self._told_bytes.to_bytes(8, "big"))

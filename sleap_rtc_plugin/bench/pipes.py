"""What `bench transfer --paths` sends through: a link between peers, or TCP with TLS.

Both carry large messages, as fast as the other end takes them, and small words beside
them. TCP has two connections for that, as a link has two channels, and cubic, whatever
the machine prefers. Used by `bench.path_end`; nothing else may use it.
"""

import asyncio
import contextlib
import datetime
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

from sleap_rtc_plugin.protocol.limits import KIB, LINK_CONNECT_TIMEOUT_S, MIB
from sleap_rtc_plugin.protocol.messages import Acknowledged, ControlMessage
from sleap_rtc_plugin.transport.data_channels import engine_of
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.peer import PeerConnection
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["ENGINES", "TCP_TLS", "Courier", "Engine", "Pipe", "Role", "open_pipe"]

Engine = Literal["stock", "fast", "fast+rate", "TCP+TLS"]
ENGINES: Final[tuple[Engine, ...]] = ("stock", "fast", "fast+rate", "TCP+TLS")
TCP_TLS: Final[Engine] = "TCP+TLS"
Role = Literal["client", "worker"]

_SECRET: Final = bytes(32)
_TCP_MESSAGE_BYTES: Final = 64 * KIB
_TCP_READ_BYTES: Final = 1 * MIB
_LENGTH: Final = struct.Struct("!I")
_CONGESTION: Final = b"cubic"
_WORDS: Final = b"w"
_MESSAGES: Final = b"m"


class Courier(Protocol):
    """Carries descriptions between both ends before there is a pipe."""

    def tell(self, description: str) -> None:
        """Bring the other end a description."""

    async def hear(self) -> str:
        """Wait for one of the other end's."""


class Pipe(Protocol):
    """What both ends measure. `closed` is set when it ended.

    Attributes:
        on_message: called with every large message.
        on_word: called with every word: lower-case letters, digits and dashes.
    """

    closed: asyncio.Event
    on_message: Callable[[bytes], None]
    on_word: Callable[[str], None]

    @property
    def engine(self) -> str:
        """What moves the messages now, as the connection itself says."""

    @property
    def message_bytes(self) -> int:
        """How long the next message should be."""

    async def send(self, message: bytes) -> None:
        """Send a message, as fast as the other end takes them."""

    def say(self, word: str) -> None:
        """Send a word."""

    async def close(self) -> None:
        """End it."""


async def open_pipe(engine: Engine, role: Role, address: str, courier: Courier) -> Pipe:
    """Connect to the other end, which does the same.

    Args:
        engine: what moves the messages.
        role: the client sends and the worker receives.
        address: this end's; TCP listens there.
        courier: carries the descriptions.

    Raises:
        RtcError: no connection came about.
        OSError: the same, of TCP.
    """
    if engine == TCP_TLS:
        if role == "worker":
            return await _accept(address, courier)
        return await _connect(courier)
    return await _open_link(engine, role, courier)


def _nobody(what: object) -> None:
    """Take what comes before anybody wants it."""


# -- a link ----------------------------------------------------------------------------


def _options(engine: Engine) -> TransportOptions:
    """Say how data channels go."""
    return TransportOptions(
        engine="stock" if engine == "stock" else "fast",
        congestion="rate" if engine == "fast+rate" else "loss",
    )


class _LinkPipe:
    """A link: messages in the transfer channel, words in the control channel."""

    def __init__(self, connection: PeerConnection, link: Link) -> None:
        self.closed = link.closed
        self.on_message: Callable[[bytes], None] = _nobody
        self.on_word: Callable[[str], None] = _nobody
        self._connection = connection
        self._link = link
        link.on_control = self._on_control
        link.on_fragment = self._on_fragment

    @property
    def engine(self) -> str:
        """What moves the messages now: the fast way is left for good on a fault."""
        return engine_of(self._connection._pc)

    @property
    def message_bytes(self) -> int:
        """How long the next message should be: as in a transfer of files."""
        return self._link.fragment_bytes

    async def send(self, message: bytes) -> None:
        """Send a message."""
        await self._link.send_fragment(message)

    def say(self, word: str) -> None:
        """Send a word: the name of a command that was carried out."""
        self._link.send(Acknowledged(command_id=word))

    def _on_control(self, message: ControlMessage) -> None:
        if isinstance(message, Acknowledged):
            self.on_word(message.command_id)

    def _on_fragment(self, frame: bytes | str) -> None:
        if isinstance(frame, bytes):
            self.on_message(frame)

    async def close(self) -> None:
        """End the connection."""
        await self._connection.close()


async def _open_link(engine: Engine, role: Role, courier: Courier) -> _LinkPipe:
    other = "worker" if role == "client" else "client"
    connection = PeerConnection(
        role=role, peer_id=f"{other}-1", secret=_SECRET, options=_options(engine)
    )
    try:
        if role == "client":
            courier.tell(await connection.make_offer())
            await connection.take_answer(await courier.hear())
        else:
            courier.tell(await connection.make_answer(await courier.hear()))
        return _LinkPipe(connection, await connection.authenticate())
    except BaseException:
        await connection.close()
        raise


# -- TCP with TLS ----------------------------------------------------------------------


class _Listening(Struct):
    """Where the worker's end listens, and its certificate."""

    address: str
    port: int
    certificate: str


class _Stream:
    """Frames on one connection: their length in four bytes, then they themselves."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self.writer = writer
        self.kind = b""

    def write(self, frame: bytes) -> None:
        """Queue a frame."""
        self.writer.write(_LENGTH.pack(len(frame)) + frame)

    async def read(self) -> bytes:
        """Return the next frame."""
        (size_bytes,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
        return await self._reader.readexactly(size_bytes)

    async def close(self) -> None:
        """Drop the connection, and what waits in it."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class _TcpPipe:
    """Two connections: one for the messages, one for the words."""

    engine = TCP_TLS

    def __init__(self, words: _Stream, messages: _Stream) -> None:
        self.closed = asyncio.Event()
        self.on_message: Callable[[bytes], None] = _nobody
        self.on_word: Callable[[str], None] = _nobody
        self._words = words
        self._messages = messages
        loop = asyncio.get_running_loop()
        self._readers = [
            loop.create_task(self._read(words, lambda frame: self._hear(frame))),
            loop.create_task(
                self._read(messages, lambda frame: self.on_message(frame))
            ),
        ]

    @property
    def message_bytes(self) -> int:
        """How long the next message should be."""
        return _TCP_MESSAGE_BYTES

    async def send(self, message: bytes) -> None:
        """Send a message."""
        self._messages.write(message)
        await self._messages.writer.drain()
        # While the kernel takes everything, drain does not let anybody else run.
        await asyncio.sleep(0)

    def say(self, word: str) -> None:
        """Send a word."""
        self._words.write(word.encode())

    def _hear(self, frame: bytes) -> None:
        self.on_word(frame.decode())

    async def _read(self, stream: _Stream, take: Callable[[bytes], None]) -> None:
        try:
            while True:
                take(await stream.read())
        except (OSError, asyncio.IncompleteReadError):
            self.closed.set()

    async def close(self) -> None:
        """End both connections."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for stream in (self._words, self._messages):
            await stream.close()
        self.closed.set()


async def _accept(address: str, courier: Courier) -> _TcpPipe:
    """Listen, tell the other end where, and wait for its two connections."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        both = Path(folder) / "both.pem"
        both.touch(mode=0o600)
        both.write_bytes(_private(key) + certificate)
        context.load_cert_chain(both)
    arrived: asyncio.Queue[_Stream] = asyncio.Queue()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = _Stream(reader, writer)
        stream.kind = await stream.read()
        arrived.put_nowait(stream)

    listener = socket.create_server((address, 0))
    _prepare(listener)
    server = await asyncio.start_server(
        greet, sock=listener, ssl=context, limit=_TCP_READ_BYTES
    )
    port = listener.getsockname()[1]
    where = _Listening(address, port, certificate.decode())
    courier.tell(msgspec.json.encode(where).decode())
    async with asyncio.timeout(LINK_CONNECT_TIMEOUT_S):
        streams = [await arrived.get(), await arrived.get()]
    server.close()
    kinds = {stream.kind: stream for stream in streams}
    return _TcpPipe(kinds[_WORDS], kinds[_MESSAGES])


async def _connect(courier: Courier) -> _TcpPipe:
    """Connect twice to where the other end listens."""
    where = msgspec.json.decode(await courier.hear(), type=_Listening)
    context = ssl.create_default_context(cadata=where.certificate)
    # The certificate is compared as a whole; it names no host.
    context.check_hostname = False
    async with asyncio.timeout(LINK_CONNECT_TIMEOUT_S):
        words = await _dial(where, context, _WORDS)
        messages = await _dial(where, context, _MESSAGES)
    return _TcpPipe(words, messages)


async def _dial(where: _Listening, context: ssl.SSLContext, kind: bytes) -> _Stream:
    dialed = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        _prepare(dialed)
        dialed.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(dialed, (where.address, where.port))
        stream = _Stream(
            *await asyncio.open_connection(
                sock=dialed, ssl=context, server_hostname="", limit=_TCP_READ_BYTES
            )
        )
    except BaseException:
        dialed.close()
        raise
    stream.write(kind)
    return stream


def _prepare(sock: socket.socket) -> None:
    """Let words go at once, under the congestion control that is everywhere.

    What a listening socket is told holds for the connections that it accepts.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    option = getattr(socket, "TCP_CONGESTION", None)
    if option is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, _CONGESTION)


def _self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a certificate for a day, as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

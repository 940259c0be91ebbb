"""Faults for `sleap-remote doctor` to find: certificates, clocks, TURN servers, disks.

Everything is real: certificates of an authority of the test's own, TLS in front of a
real signaling server, coturn, and a small disk.
"""

import asyncio
import contextlib
import datetime
import ipaddress
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.programs import Program, Programs, wait_for
from support.turn_server import RELAY_PORTS

from sleap_rtc_plugin.protocol.session_string import Session

HOST = "127.0.0.1"
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate, its key, and the authority that a client has to trust."""

    chain: Path
    key: Path
    authority: Path


def make_certificate(
    folder: Path, name: str = "localhost", *, days: int = 90
) -> Certificate:
    """Make a certificate for `name` that ends in so many days, or ended before."""
    now = datetime.datetime.now(datetime.UTC)
    ends = now + days * DAY
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A lab's own")])
    begins = min(now, ends) - 30 * DAY

    def begun(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> object:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
        )

    root = (
        begun(authority, authority_key.public_key())  # type: ignore[attr-defined]
        .not_valid_after(now + 900 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    alternative: x509.GeneralName = x509.DNSName(name)
    with contextlib.suppress(ValueError):
        alternative = x509.IPAddress(ipaddress.ip_address(name))
    leaf = (
        begun(  # type: ignore[attr-defined]
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key()
        )
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority_key.public_key()
            ),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    made = Certificate(folder / "leaf.pem", folder / "leaf.key", folder / "ca.pem")
    pem = serialization.Encoding.PEM
    made.authority.write_bytes(root.public_bytes(pem))
    made.chain.write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem))
    made.key.write_bytes(
        key.private_bytes(
            pem,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


@asynccontextmanager
async def tls_front(server: str, certificate: Certificate) -> AsyncIterator[int]:
    """Speak TLS in front of a server at `http://HOST:PORT`; yield the port."""
    backend = int(server.rpartition(":")[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, backend)
        for pair in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(pass_on(*pair))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    front = await asyncio.start_server(serve, HOST, 0, ssl=context)
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def moved_to(session: str, url: str) -> str:
    """Return a session string that leads to another address."""
    return msgspec.structs.replace(Session.parse(session), url=url).encode()


def free_port() -> int:
    """Return a port that nobody listens on, over TCP or UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind((HOST, port))
                return port


@dataclass(frozen=True)
class Turn:
    """Where a coturn listens."""

    port: int
    tls_port: int
    program: Program


def start_turn(
    programs: Programs,
    secret: str,
    certificate: Certificate | None = None,
    port: int | None = None,
) -> Turn:
    """Start coturn with a shared secret; skips where it is missing.

    `port` is that of one that was there before, or None for a free one.
    """
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("there is no TURN server: apt-get install coturn")
    port, tls_port = port or free_port(), free_port()
    folder = programs.folder
    tls = ["--no-tls"]
    if certificate is not None:
        tls = ["--tls-listening-port", str(tls_port)]
        tls += ["--cert", str(certificate.chain), "--pkey", str(certificate.key)]
    argv = [
        *(program, "-n", "--listening-ip", HOST, "--relay-ip", HOST),
        *("--listening-port", str(port), "--realm", "test", *RELAY_PORTS),
        *("--use-auth-secret", "--static-auth-secret", secret),
        *("--userdb", str(folder / "users.db"), "--pidfile", str(folder / "turn.pid")),
        *("--log-file", "stdout", "--simple-log"),
        *("--no-dtls", "--no-cli", "--allow-loopback-peers", "--no-rfc5780"),
        *tls,
    ]
    turn = Program(argv, cwd=folder, environment=programs.environment)
    programs.adopt(turn)
    wait_for(lambda: _answers(port), "the TURN server listens")
    if certificate is not None:
        wait_for(lambda: _answers(tls_port), "the TURN server listens for TLS")
    return Turn(port, tls_port, turn)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


@contextmanager
def small_disk(folder: Path, *, mib: int) -> Iterator[Path]:
    """Mount a small disk at `folder`; skips where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux":
        pytest.skip("a small disk needs Linux")
    options = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder)]
    done = subprocess.run(options, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607

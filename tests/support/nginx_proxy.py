"""A real nginx with TLS in front of a server on this machine, as README describes it.

It runs as whoever runs the tests, with all its files in the test's folder, and ends
with the test.
"""

import asyncio
import datetime
import ipaddress
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Proxy", "make_certificate", "nginx_proxy"]

HOST = "127.0.0.1"
START_TIMEOUT_S = 20
END_TIMEOUT_S = 10

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        location / {{
            proxy_pass http://{host}:{target};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """Where it listens, and whom a client must trust."""

    port: int
    trust: ssl.SSLContext

    @property
    def netloc(self) -> str:
        """The address without a scheme."""
        return f"{HOST}:{self.port}"


@asynccontextmanager
async def nginx_proxy(folder: Path, target: int) -> AsyncIterator[Proxy]:
    """Run nginx in front of port `target`; skips where it is missing."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        pytest.skip("there is no nginx: apt-get install nginx-light")
    folder.mkdir()
    make_certificate(folder)
    with socket.create_server((HOST, 0)) as free:
        port: int = free.getsockname()[1]
    settings = folder / "nginx.conf"
    settings.write_text(
        CONFIGURATION.format(folder=folder, host=HOST, port=port, target=target)
    )
    log = folder / "output.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(program, "-e", str(folder / "error.log"), "-c", str(settings)),
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    try:
        await _listens(port, log)
        trust = ssl.create_default_context(cafile=folder / "certificate.pem")
        yield Proxy(port, trust)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def make_certificate(folder: Path) -> None:
    """Write `certificate.pem`, good for this machine, and its `key.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


async def _listens(port: int, log: Path) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_TIMEOUT_S
    while loop.time() < deadline:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        await writer.wait_closed()
        return
    raise AssertionError(f"nginx does not listen: {log.read_text()}")

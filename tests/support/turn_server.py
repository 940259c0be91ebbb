"""A real TURN server on this machine, coturn, for the tests that need a relay.

It runs as whoever runs the tests, on 127.0.0.1 with ports of its own, and ends with the
test.
"""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy

__all__ = ["HOST", "RELAY_PORTS", "TurnServer", "turn_server"]

HOST = "127.0.0.1"
# Above those that Linux gives to sockets that ask for any port: coturn's own range
# overlaps them, and an allocation is refused where its port is taken.
RELAY_PORTS = ("--min-port", "61000", "--max-port", "65535")
USER = "sleap"
PASSWORD = "of a test"
START_TIMEOUT_S = 10
END_TIMEOUT_S = 5


@dataclass(frozen=True)
class TurnServer:
    """Where it listens, and what it says."""

    port: int
    log: Path

    def configuration(
        self, transport: str = "udp", password: str = PASSWORD
    ) -> RTCConfiguration:
        """Return a configuration that uses this relay and no other way."""
        server = RTCIceServer(
            urls=f"turn:{HOST}:{self.port}?transport={transport}",
            username=USER,
            credential=password,
        )
        return RTCConfiguration(
            iceServers=[server], iceTransportPolicy=RTCIceTransportPolicy.RELAY
        )


def _free_port() -> int:
    """Return a port that UDP and TCP both have free."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind((HOST, 0))
            port: int = udp.getsockname()[1]
            with suppress(OSError):
                tcp.bind((HOST, port))
                return port


@asynccontextmanager
async def turn_server(
    folder: Path, *, channel_lifetime_s: int = 600, secret: str = ""
) -> AsyncIterator[TurnServer]:
    """Run a server whose files lie in `folder`; skips where coturn is missing.

    With a `secret` it takes time-limited credentials in place of a user of its own.
    """
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("there is no TURN server: apt-get install coturn")
    port = _free_port()
    log = folder / "turn.log"
    options = [
        "-n",  # no configuration file
        *("--listening-ip", HOST, "--relay-ip", HOST),
        *("--listening-port", str(port), *RELAY_PORTS),
        *("--realm", "test"),
        *(
            ("--use-auth-secret", "--static-auth-secret", secret)
            if secret
            else ("--user", f"{USER}:{PASSWORD}", "--lt-cred-mech")
        ),
        f"--channel-lifetime={channel_lifetime_s}",
        f"--permission-lifetime={channel_lifetime_s}",
        *("--userdb", str(folder / "users.db"), "--pidfile", str(folder / "turn.pid")),
        *("--log-file", "stdout", "--simple-log", "--verbose"),
        *(
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--allow-loopback-peers",
            "--no-rfc5780",
        ),
    ]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program, *options, stdout=output, stderr=output, cwd=folder
        )
    try:
        await _listens(port, log)
        yield TurnServer(port, log)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


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
    raise AssertionError(f"the TURN server does not listen: {log.read_text()}")

"""Real S3 servers on this machine: SeaweedFS, and moto as a second implementation.

Both check conditions on writing; SeaweedFS checks signatures too. They listen on
loopback only and speak to nobody else.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ACCESS_KEY: Final = "lab-key"
SECRET_KEY: Final = "lab-secret-of-the-tests"
BUCKET: Final = "lab"
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
}
_START_S: Final = 60.0
_POLL_S: Final = 0.05
_WEED: Final = Path(sys.executable).with_name("weed")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


@contextlib.contextmanager
def _running(argv: list[str], folder: Path, url: str) -> Iterator[None]:
    """Run a server until it is no more needed; it answers `url` when this yields."""
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **CREDENTIALS, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )
        try:
            _wait(process, url, folder)
            yield
        finally:
            # What it keeps goes with the test; an orderly end takes 10 s.
            process.kill()
            process.wait(10)


def _wait(process: "subprocess.Popen[bytes]", url: str, folder: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5.0).close()  # noqa: S310 - our own
        except urllib.error.HTTPError:
            return  # It refuses who has no signature, so it is up.
        except OSError:
            time.sleep(_POLL_S)
        else:
            return
    log = (folder / "server.log").read_text(errors="replace")
    raise AssertionError(f"the server did not start\n{log[-4000:]}")


def _make_bucket(endpoint: str) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()


def address_of(endpoint: str, prefix: str = "models") -> str:
    """Return the address of a store at a server."""
    return f"s3://{BUCKET}/{prefix}?endpoint={endpoint}&region=us-east-1"


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Run SeaweedFS with its S3 gateway and yield the gateway's URL."""
    if not _WEED.exists():
        pytest.skip("SeaweedFS has no wheel for this system")
    folder.mkdir(parents=True, exist_ok=True)
    names = ["master", "volume", "filer", "s3"]
    ports = _free_ports(2 * len(names))
    identities = {
        "identities": [
            {
                "name": "lab",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "List", "Write"],
            },
            {
                "name": "reader",
                "credentials": [
                    {"accessKey": "reader-key", "secretKey": "reader-secret"}
                ],
                "actions": ["Read", "List"],
            },
        ]
    }
    (folder / "identities.json").write_text(json.dumps(identities))
    argv = [
        str(_WEED),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=20",
        "-filer",
        "-s3",
        f"-s3.config={folder / 'identities.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-filer.localSocket={folder / 'filer.sock'}",
        f"-s3.localSocket={folder / 's3.sock'}",
        *(
            f"-{name}.port{kind}={ports[2 * number + offset]}"
            for number, name in enumerate(names)
            for offset, kind in enumerate(("", ".grpc"))
        ),
    ]
    endpoint = f"http://127.0.0.1:{ports[6]}"
    with _running(argv, folder, endpoint):
        until = time.monotonic() + _START_S
        while True:
            try:
                _make_bucket(endpoint)
                break
            except Exception:
                # The gateway answers before the parts behind it have met.
                if time.monotonic() > until:
                    raise
                time.sleep(_POLL_S)
        yield endpoint


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[str]:
    """Run moto's server and yield its URL."""
    server = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    if server is None:
        pytest.skip("moto's server is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = _free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    with _running([server, "-H", "127.0.0.1", "-p", str(port)], folder, endpoint):
        _make_bucket(endpoint)
        yield endpoint

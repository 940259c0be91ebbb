"""A server that behaves as DynamoDB, on a free port of this machine, and its tables.

It runs in a thread of the test's process (moto). Without it the tests are skipped.
"""

import contextlib
import secrets
from collections.abc import Iterator

import pytest

from sleap_rtc_signaling.config import StoreConfig
from sleap_rtc_signaling.stores.dynamodb import create_table


class Tables:
    """New, empty tables."""

    def __init__(self, endpoint: str) -> None:
        boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
        self.endpoint = endpoint
        self.client = boto3.client("dynamodb", endpoint_url=endpoint)

    def make(self) -> StoreConfig:
        """Make a table, and return the settings of a server that uses it."""
        name = f"table-{secrets.token_hex(8)}"  # moto keeps those of before
        create_table(self.client, name)
        return StoreConfig(kind="dynamodb", table=name, endpoint=self.endpoint)


@contextlib.contextmanager
def dynamodb_tables() -> Iterator[Tables]:
    """Run the server."""
    moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        try:
            host, port = server.get_host_and_port()
            tables = Tables(f"http://{host}:{port}")
            yield tables
            tables.client.close()
        finally:
            server.stop()

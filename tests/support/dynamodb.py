"""A server that behaves as DynamoDB, on a free port of this machine, and its tables.

It runs in a thread of the test's process (moto). Without it the tests are skipped.
"""

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterator
from typing import Any

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
    from werkzeug.serving import make_server

    answer = moto_server.DomainDispatcherApplication(moto_server.create_backend_app)
    lock = threading.Lock()

    def one_at_a_time(environ: Any, start_response: Any) -> Any:
        # DynamoDB changes an item as a whole; moto loses changes between threads.
        with lock:
            return answer(environ, start_response)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        # It writes a line for each request, into whatever log a test looks at.
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            tables = Tables(f"http://127.0.0.1:{server.server_port}")
            yield tables
            tables.client.close()
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

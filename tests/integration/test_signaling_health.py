"""The server's check of itself, asked as a container's health check asks."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sleap_rtc_signaling.config import SignalingConfig
from sleap_rtc_signaling.self_probe import local_address, probe


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - compared
        ("::", "::1"),
        ("", "127.0.0.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("signal.lab.example", "signal.lab.example"),
    ],
)
def test_where_a_server_is_asked(host: str, address: str) -> None:
    assert local_address(host) == address


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that has one answer; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_is_well_and_one_that_is_not_ready() -> None:
    with answering(503) as port:
        config = SignalingConfig(host="0.0.0.0", port=port)  # noqa: S104 - asked
        assert probe(config, "/health") == (
            True,
            f"The server at 127.0.0.1:{port} is well.",
        )
        is_ready, sentence = probe(config, "/ready")
    assert not is_ready
    assert "answers 503 to /ready" in sentence
    is_well, sentence = probe(config, "/health")
    assert not is_well
    assert "does not answer" in sentence

"""Which way data channels go: the fast one where it is wanted and can be."""

import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from sleap_rtc_plugin.transport import data_channels
from sleap_rtc_plugin.transport.data_channels import (
    allow_large_packets,
    engine_of,
    make_congestion,
    make_peer_connection,
    put_first,
)
from sleap_rtc_plugin.transport.sctp.fast_transport import FastSctpTransport
from sleap_rtc_plugin.transport.sctp.loss_based import LossBased
from sleap_rtc_plugin.transport.sctp.rate_based import RateBased
from sleap_rtc_plugin.transport.transport_options import (
    ENGINE_VARIABLE,
    TransportOptions,
)


@pytest.fixture
async def connections() -> AsyncIterator[list[RTCPeerConnection]]:
    opened: list[RTCPeerConnection] = []
    yield opened
    for connection in opened:
        await connection.close()


def connect(
    opened: list[RTCPeerConnection], options: TransportOptions
) -> RTCPeerConnection:
    """Make a connection with a channel, so that it has an SCTP transport."""
    connection = make_peer_connection(RTCConfiguration(iceServers=[]), options)
    opened.append(connection)
    channel = connection.createDataChannel("data")
    put_first(connection, channel)
    allow_large_packets(connection)
    return connection


async def test_the_fast_way_is_taken(connections: list[RTCPeerConnection]) -> None:
    connection = connect(connections, TransportOptions())
    assert isinstance(connection.sctp, FastSctpTransport)
    # Not before the association stands.
    assert engine_of(connection) == "aiortc"


async def test_a_setting_turns_it_off(connections: list[RTCPeerConnection]) -> None:
    connection = connect(connections, TransportOptions(engine="stock"))
    assert type(connection) is RTCPeerConnection
    assert not isinstance(connection.sctp, FastSctpTransport)
    assert engine_of(connection) == "aiortc"


def test_the_environment_turns_it_off() -> None:
    for word, engine in [("stock", "stock"), ("fast", "fast"), ("", "fast")]:
        options = TransportOptions.from_environment({ENGINE_VARIABLE: word})
        assert options.engine == engine


async def test_an_unknown_aiortc_goes_its_own_way_and_a_warning_says_so(
    connections: list[RTCPeerConnection],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(
        data_channels, "fault_of_installation", lambda: "aiortc 9.0 was not verified"
    )
    connection = connect(connections, TransportOptions())
    assert type(connection) is RTCPeerConnection
    assert engine_of(connection) == "aiortc"
    [warning] = caplog.records
    assert warning.levelname == "WARNING"
    assert "aiortc 9.0 was not verified" in warning.getMessage()


@pytest.mark.parametrize(("name", "kind"), [("loss", LossBased), ("rate", RateBased)])
def test_the_congestion_control_is_the_chosen_one(name: str, kind: type) -> None:
    assert isinstance(make_congestion(TransportOptions(congestion=name)), kind)


def test_nothing_of_the_fast_path_is_imported_before_it_is_checked() -> None:
    """Or an aiortc that lacks a name would stop the program, and not the fast way."""
    program = (
        "import sys\n"
        "from sleap_rtc_plugin.transport import data_channels\n"
        "print([name for name in sys.modules if name.endswith('fast_transport')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

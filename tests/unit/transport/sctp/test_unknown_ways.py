"""Where packets travel in a way that is not known, aiortc goes on alone."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aioice.ice import StunProtocol
from aioice.turn import TurnClientTcpProtocol, TurnClientUdpProtocol, TurnTransport
from support.link_emulator import random_loss
from support.simulated_loop import simulate
from support.simulated_transports import Inbox, SimulatedDtls, connected_pair, stock

from sleap_rtc_plugin.transport.sctp import fast_transport
from sleap_rtc_plugin.transport.sctp.datagrams import Datagrams
from sleap_rtc_plugin.transport.sctp.fast_transport import FastSctpTransport
from sleap_rtc_plugin.transport.sctp.leg import Leg, UnknownPath
from sleap_rtc_plugin.transport.sctp.loss_based import LossBased
from sleap_rtc_plugin.transport.sctp.path_mtu import BASE_PAYLOAD_BYTES

PEER = ("192.0.2.7", 5000)
CHANNEL = 0x4001


def over_ice(dtls: SimulatedDtls) -> FastSctpTransport:
    """A transport as the product makes it, which looks for the sockets itself."""
    return FastSctpTransport.adopt(stock(dtls), lambda: LossBased(BASE_PAYLOAD_BYTES))


def test_on_an_event_loop_of_another_kind_data_goes_the_slow_way_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, fast_transport.__name__)

    async def main() -> None:
        async with connected_pair(make=(over_ice, over_ice)) as pair:
            channel, there = await pair.open_channel(label="data")
            here = Inbox(channel)
            pair.link.change(faults=[random_loss(0.05)])
            sent = [bytes([n]) * 5000 for n in range(20)]
            for message in sent:
                channel.send(message)
                there.channel.send(message)
            assert await there.until(len(sent)) == sent
            assert await here.until(len(sent)) == sent
            assert [sctp.is_fast for sctp in pair.sctp] == [False, False]

    simulate(main)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "Data channels go the slow way: an event loop of SimulatedLoop."
    ] * len(lines)
    assert len(lines) == 2


async def test_before_a_pair_is_nominated_there_is_no_way() -> None:
    connection = SimpleNamespace(_nominated={})
    dtls: Any = SimpleNamespace(
        transport=SimpleNamespace(_connection=connection), _ssl=object()
    )
    assert isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    with pytest.raises(UnknownPath, match="no nominated pair"):
        Datagrams(
            dtls,
            on_packets=lambda packets: None,
            on_room=lambda: None,
            on_new_path=lambda: None,
            on_too_large=lambda size: None,
            run=lambda work, *args: work(*args),
        )


# -- pairs of candidates ---------------------------------------------------------------


class SocketTransport(asyncio.DatagramTransport):
    """What an event loop gives a protocol, with a socket or without."""

    def __init__(self, sock: socket.socket | None, *, is_closing: bool = False) -> None:
        super().__init__({"socket": sock})
        self._is_closing = is_closing

    def is_closing(self) -> bool:
        return self._is_closing


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


def pair_over(transport: Any, kind: type = StunProtocol) -> Any:
    protocol = kind.__new__(kind)
    protocol.transport = transport
    return SimpleNamespace(protocol=protocol, remote_addr=PEER)


def relay(kind: type, channels: dict[tuple[str, int], int], sock: Any) -> Any:
    inner = kind.__new__(kind)
    inner.peer_to_channel = channels
    inner.transport = SocketTransport(sock)
    transport = TurnTransport.__new__(TurnTransport)
    vars(transport)["_TurnTransport__inner_protocol"] = inner
    return pair_over(transport)


def refused(pair: Any) -> str:
    with pytest.raises(UnknownPath) as caught:
        Leg(pair)
    return str(caught.value)


def test_a_pair_over_udp_is_known(udp: socket.socket) -> None:
    leg = Leg(pair_over(SocketTransport(udp)))
    assert leg.socket.fileno() != udp.fileno()
    leg.close()


def test_a_relay_over_udp_with_a_channel_is_known(udp: socket.socket) -> None:
    leg = Leg(relay(TurnClientUdpProtocol, {PEER: CHANNEL}, udp))
    content = b"record"
    header = CHANNEL.to_bytes(2, "big") + len(content).to_bytes(2, "big")
    assert leg.unwrap(memoryview(header + content)) == content
    assert leg.unwrap(memoryview(header + content[:-1])) == b""
    assert leg.unwrap(memoryview(b"\x40\x02" + header[2:] + content)) == b""
    leg.close()


def test_other_pairs_are_not(udp: socket.socket, tcp: socket.socket) -> None:
    class OtherStun(StunProtocol):
        """aioice may come to have such a one."""

    assert refused(relay(TurnClientTcpProtocol, {PEER: CHANNEL}, tcp)) == (
        "a relay over TCP"
    )
    assert refused(relay(TurnClientUdpProtocol, {}, udp)) == "a relay without a channel"
    assert refused(pair_over(SocketTransport(None))) == "no socket"
    assert refused(pair_over(SocketTransport(tcp))) == "no socket"
    assert refused(pair_over(SocketTransport(udp, is_closing=True))) == "no socket"
    assert refused(pair_over(SocketTransport(udp), OtherStun)) == (
        "a transport of SocketTransport"
    )

"""Whether the aiortc that is installed is one that the fast path knows from inside.

The fast path uses what aiortc and aioice keep to themselves, verified with the versions
named here. Anything else, and connections go aiortc's own way. Looks, and changes
nothing; asked once by `transport.data_channels`.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from aioice import turn
from aioice.ice import CandidatePair, Connection, StunProtocol
from aiortc import RTCDataChannel, RTCDtlsTransport, RTCPeerConnection, rtcsctptransport
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcsctptransport import DataChunk, InboundStream, RTCSctpTransport
from OpenSSL import SSL

__all__ = ["fault_of_installation", "find_fault"]

# Distribution and the beginning of the versions that were verified.
VERIFIED: Final = {"aiortc": "1.16.", "aioice": "0.13."}

# Attributes that these classes set when they are made.
_FIELDS: Final[dict[type, tuple[str, ...]]] = {
    RTCSctpTransport: (
        "_advanced_peer_ack_tsn",
        "_advertised_rwnd",
        "_association_state",
        "_cwnd",
        "_data_channel_queue",
        "_data_channels",
        "_fast_recovery_exit",
        "_fast_recovery_transmit",
        "_flight_size",
        "_inbound_streams",
        "_last_received_tsn",
        "_last_sacked_tsn",
        "_local_port",
        "_local_tsn",
        "_local_verification_tag",
        "_outbound_queue",
        "_outbound_stream_seq",
        "_partial_bytes_acked",
        "_reconfig_deferred",
        "_reconfig_queue",
        "_remote_partial_reliability",
        "_remote_port",
        "_remote_verification_tag",
        "_rto",
        "_sack_duplicates",
        "_sack_misordered",
        "_sack_needed",
        "_sent_queue",
    ),
    RTCDtlsTransport: ("_data_receiver", "_role", "_ssl", "_state"),
    RTCIceTransport: ("_connection",),
    Connection: ("_nominated", "_queue"),
    CandidatePair: ("protocol", "remote_candidate"),
    InboundStream: ("reassembly", "sequence_number"),
    turn.TurnClientMixin: ("peer_to_channel",),
    turn.TurnTransport: ("_TurnTransport__inner_protocol",),
}

# Methods that are called or overridden, with their parameters.
_METHODS: Final[tuple[tuple[Callable[..., Any], str], ...]] = (
    (RTCSctpTransport.__init__, "self transport port"),
    (RTCSctpTransport.stop, "self"),
    (RTCSctpTransport._data_channel_close, "self channel"),
    (RTCSctpTransport._data_channel_flush, "self"),
    (RTCSctpTransport._data_channel_receive, "self stream_id pp_id data"),
    (RTCSctpTransport._handle_data, "self data"),
    (RTCSctpTransport._receive_chunk, "self chunk"),
    (RTCSctpTransport._receive_data_chunk, "self chunk"),
    (RTCSctpTransport._reset_deferred_streams, "self"),
    (RTCSctpTransport._send_chunk, "self chunk"),
    (RTCSctpTransport._send_sack, "self"),
    (RTCSctpTransport._set_state, "self state"),
    (RTCSctpTransport._transmit, "self"),
    (RTCSctpTransport._transmit_reconfig, "self"),
    (RTCSctpTransport._update_advanced_peer_ack_point, "self"),
    (RTCDataChannel._addBufferedAmount, "self amount"),
    (RTCPeerConnection._RTCPeerConnection__createSctpTransport, "self"),  # type: ignore[attr-defined]
    (Connection.data_received, "self data component"),
    (StunProtocol.datagram_received, "self data addr"),
    (turn.TurnClientUdpProtocol.datagram_received, "self data addr"),
    (SSL.Connection.bio_read, "self bufsiz"),
    (SSL.Connection.bio_write, "self buf"),
    (SSL.Connection.get_shutdown, "self"),
    (SSL.Connection.send, "self buf flags"),
    (SSL.Connection.recv, "self bufsiz flags"),
)

_FUNCTIONS: Final = ("tsn_minus_one", "crc32c")
_CHUNK_FIELDS: Final = ("_abandoned", "_acked", "_book_size", "_in_flight")


@cache
def fault_of_installation() -> str | None:
    """Return why the fast path cannot be used here, or None if it can."""
    try:
        return find_fault(VERIFIED, _FIELDS, _METHODS)
    except Exception as error:  # whatever it trips over is a reason not to go on
        return f"the check itself failed ({error!r})"


def find_fault(
    versions: dict[str, str],
    fields: dict[type, tuple[str, ...]],
    methods: Iterable[tuple[Callable[..., Any], str]],
) -> str | None:
    """Return the first thing that is not as it was verified, or None."""
    for name, verified in versions.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            return f"{name} is not installed as a package"
        if not f"{installed}.".startswith(verified):
            return f"{name} {installed} was not verified, {verified}* was"
    for owner, names in fields.items():
        known = _names_set_by(owner)
        for field in names:
            if field not in known:
                return f"{owner.__name__} has no {field}"
    for method, parameters in methods:
        found = " ".join(inspect.signature(method).parameters)
        if found != parameters:
            return f"{method.__qualname__} takes ({found})"
    for function in _FUNCTIONS:
        if not hasattr(rtcsctptransport, function):
            return f"aiortc's SCTP has no {function}"
    for field in _CHUNK_FIELDS:
        if field not in DataChunk.__annotations__:
            return f"a data chunk has no {field}"
    return None


def _names_set_by(owner: type) -> set[str]:
    """Return the attributes that a class sets in its `__init__`, or has itself."""
    code = getattr(owner.__init__, "__code__", None)  # type: ignore[misc]
    return {*dir(owner), *(code.co_names if code is not None else ())}

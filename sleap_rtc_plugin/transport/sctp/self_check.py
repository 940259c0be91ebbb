"""Whether the aiortc that is installed is one that the fast path knows from inside.

The fast path uses what aiortc and aioice keep to themselves, verified with the versions
named here. Anything else, and connections go aiortc's own way. Looks, and changes
nothing; asked by `transport.data_channels` before it imports the fast path.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, Final

__all__ = [
    "EXPECTED",
    "NAMES",
    "VERIFIED",
    "Class",
    "fault_of_installation",
    "find_fault",
]

# Distribution and the beginning of the versions that were verified.
VERIFIED: Final = MappingProxyType({"aiortc": "1.16.", "aioice": "0.13."})


@dataclasses.dataclass(frozen=True)
class Class:
    """What the fast path expects of a class.

    Attributes:
        name: its module and its own name.
        fields: attributes that it has, or sets when an object is made.
        methods: those called or overridden, with the names of their parameters.
        made_elsewhere: methods, of whatever class, and attributes that they set.
    """

    name: str
    fields: tuple[str, ...] = ()
    methods: Mapping[str, str] = dataclasses.field(default_factory=dict)
    made_elsewhere: Mapping[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )


EXPECTED: Final = (
    Class(
        "aiortc.rtcsctptransport:RTCSctpTransport",
        fields=(
            "_advanced_peer_ack_tsn",
            "_advertised_rwnd",
            "_association_state",
            "_cwnd",
            "_data_channel_id",
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
            "_reconfig_request_seq",
            "_reconfig_response_seq",
            "_remote_partial_reliability",
            "_remote_port",
            "_remote_verification_tag",
            "_rto",
            "_sack_duplicates",
            "_sack_misordered",
            "_sack_needed",
            "_sent_queue",
            "_t3_handle",
        ),
        methods={
            "__init__": "self transport port",
            "_abort": "self",
            "_data_channel_close": "self channel",
            "_data_channel_flush": "self",
            "_data_channel_receive": "self stream_id pp_id data",
            "_handle_data": "self data",
            "_receive_chunk": "self chunk",
            "_receive_data_chunk": "self chunk",
            "_reset_deferred_streams": "self",
            "_send_chunk": "self chunk",
            "_send_sack": "self",
            "_set_state": "self state",
            "_t3_start": "self",
            "_transmit": "self",
            "_transmit_reconfig": "self",
            "_update_advanced_peer_ack_point": "self",
            "stop": "self",
        },
        made_elsewhere={
            "aiortc.rtcsctptransport:RTCSctpTransport._receive_chunk": ("_ssthresh",)
        },
    ),
    Class(
        "aiortc.rtcsctptransport:DataChunk",
        fields=("flags", "protocol", "stream_id", "stream_seq", "tsn", "user_data"),
        methods={"__init__": "self flags body"},
        made_elsewhere={
            "aiortc.rtcsctptransport:RTCSctpTransport._send": (
                "_abandoned",
                "_acked",
                "_book_size",
                "_expiry",
                "_in_flight",
                "_max_retransmits",
                "_misses",
                "_retransmit",
                "_sent_count",
                "_sent_time",
            )
        },
    ),
    Class(
        "aiortc.rtcsctptransport:InboundStream",
        fields=("reassembly", "sequence_number"),
        methods={"pop_messages": "self"},
    ),
    Class(
        "aiortc:RTCDataChannel",
        methods={"_addBufferedAmount": "self amount", "_setId": "self id"},
    ),
    Class(
        "aiortc:RTCPeerConnection",
        methods={"_RTCPeerConnection__createSctpTransport": "self"},
    ),
    Class("aiortc:RTCDtlsTransport", ("_data_receiver", "_role", "_ssl", "_state")),
    Class("aiortc.rtcicetransport:RTCIceTransport", ("_connection",)),
    Class(
        "aioice.ice:Connection",
        ("_nominated", "_queue"),
        {"data_received": "self data component"},
    ),
    Class("aioice.ice:CandidatePair", ("protocol", "remote_candidate")),
    Class("aioice.ice:StunProtocol", methods={"datagram_received": "self data addr"}),
    Class("aioice.turn:TurnClientMixin", ("peer_to_channel",)),
    Class(
        "aioice.turn:TurnClientUdpProtocol",
        methods={"datagram_received": "self data addr"},
    ),
    Class("aioice.turn:TurnTransport", ("_TurnTransport__inner_protocol",)),
    Class(
        "OpenSSL.SSL:Connection",
        methods={
            "bio_read": "self bufsiz",
            "bio_write": "self buf",
            "get_shutdown": "self",
            "recv": "self bufsiz flags",
            "send": "self buf flags",
        },
    ),
)

# What is imported besides.
NAMES: Final = (
    "aiortc.rtcsctptransport:CHUNK_TYPES",
    "aiortc.rtcsctptransport:USERDATA_MAX_LENGTH",
    "aiortc.rtcsctptransport:WEBRTC_BINARY",
    "aiortc.rtcsctptransport:WEBRTC_BINARY_EMPTY",
    "aiortc.rtcsctptransport:WEBRTC_DCEP",
    "aiortc.rtcsctptransport:WEBRTC_STRING",
    "aiortc.rtcsctptransport:WEBRTC_STRING_EMPTY",
)


@cache
def fault_of_installation() -> str | None:
    """Return why the fast path cannot be used here, or None if it can."""
    try:
        return find_fault(VERIFIED, EXPECTED, NAMES)
    except Exception as error:  # whatever it trips over is a reason not to go on
        return f"the check itself failed ({error!r})"


def find_fault(
    versions: Mapping[str, str], expected: Iterable[Class], names: Iterable[str]
) -> str | None:
    """Return the first thing that is not as it was verified, or None."""
    for name, verified in versions.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            return f"{name} is not installed as a package"
        if not f"{installed}.".startswith(verified):
            return f"{name} {installed} was not verified, {verified}* was"
    for one in expected:
        fault = _fault_of_class(one)
        if fault is not None:
            return fault
    for name in names:
        if _find(name) is None:
            return f"there is no {name}"
    return None


def _find(name: str) -> Any:
    try:
        return resolve_name(name)
    except (ImportError, AttributeError):
        return None


def _fault_of_class(expected: Class) -> str | None:
    owner = _find(expected.name)
    if owner is None:
        return f"there is no {expected.name}"
    for method, parameters in expected.methods.items():
        function = getattr(owner, method, None)
        if function is None:
            return f"{expected.name} has no {method}()"
        found = " ".join(inspect.signature(function).parameters)
        if found != parameters:
            return f"{expected.name}.{method} takes ({found})"
    known = {*dir(owner), *_names_used_by(owner.__init__)}
    for field in expected.fields:
        if field not in known:
            return f"{expected.name} has no {field}"
    for maker, fields in expected.made_elsewhere.items():
        known = set(_names_used_by(_find(maker)))
        for field in fields:
            if field not in known:
                return f"{expected.name} gets no {field} in {maker}"
    return None


def _names_used_by(function: Any) -> tuple[str, ...]:
    code = getattr(inspect.unwrap(function), "__code__", None) if function else None
    return () if code is None else code.co_names

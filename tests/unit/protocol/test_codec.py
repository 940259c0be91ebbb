"""Every message comes back as it went, in its own direction only."""

import msgspec
import pytest
from msgspec import Raw
from support import wire_samples as samples

from sleap_rtc_plugin.protocol import codec, messages, signaling_messages
from sleap_rtc_plugin.protocol.errors import LocalProtocolError, RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import (
    MAX_CONTROL_FRAME_BYTES,
    MAX_PEER_MESSAGE_BYTES,
    MAX_SIGNALING_MESSAGE_BYTES,
)

SUMMARY = msgspec.to_builtins(samples.SUMMARY)


def name_of(message: object) -> str:
    return type(message).__name__


# -- control frames -----------------------------------------------------------------


def test_there_is_a_sample_of_every_message() -> None:
    assert {type(m) for m in samples.CONTROL} == set(messages.CONTROL_TYPES)
    assert set(messages.ControlMessage.__args__) == set(messages.CONTROL_TYPES)
    for union, made in (
        (signaling_messages.ClientMessage, samples.FROM_CLIENT),
        (signaling_messages.ServerMessage, samples.FROM_SERVER),
        (signaling_messages.PeerPayload, samples.PAYLOADS),
    ):
        assert {type(message) for message in made} == set(union.__args__)


def test_every_control_frame_has_its_own_name() -> None:
    names = [kind.NAME for kind in messages.CONTROL_TYPES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("message", samples.CONTROL, ids=name_of)
def test_control_there_and_back(message: messages.ControlMessage) -> None:
    frame = codec.encode_control(message)
    assert frame.startswith(f"{message.NAME}::{{")
    assert codec.decode_control(frame) == message


def test_fields_of_a_newer_version_are_passed_over() -> None:
    frame = 'KEEP_ALIVE::{"echo":true,"from_the_future":[1,{"x":null}]}'
    assert codec.decode_control(frame) == messages.KeepAlive(echo=True)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "::",
        "::{}",
        "KEEP_ALIVE",
        "KEEP_ALIVE:{}",
        "KEEP_ALIVE::",
        "KEEP_ALIVE::{",
        "KEEP_ALIVE::[]",
        "KEEP_ALIVE::null",
        "KEEP_ALIVE::{}{}",
        'KEEP_ALIVE::{"echo":1}',
        "keep_alive::{}",
        " KEEP_ALIVE::{}",
        "KEEP_ALIVE\n::{}",
        "KEEP-ALIVE::{}",
        "UNKNOWN::{}",
        "FILE_META::{}",
        "HELLO" * 20 + "::{}",
        "KEEP_ALIVE::{\ud800}",
        "\ud800::{}",
        "FILE_NEED::" + "[" * 50_000,
        b"KEEP_ALIVE::{}",
        b"",
    ],
    ids=lambda frame: repr(frame[:24]),
)
def test_what_is_no_control_frame(frame: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        codec.decode_control(frame)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        (samples.CONTROL[0], "nonce", "01" * 31),
        (samples.CONTROL[0], "nonce", "0G" * 32),
        (samples.CONTROL[0], "nonce", "01" * 32 + "\n"),
        (samples.CONTROL[0], "role", "server"),
        (samples.CONTROL[0], "protocol_min", 0),
        (samples.CONTROL[0], "features", ["x"] * 33),
        (samples.CONTROL[2], "mac", "AB" * 32),
        (samples.CONTROL[5], "job_id", "../x"),
        (samples.CONTROL[5], "package_bytes", -1),
        (samples.CONTROL[5], "package_bytes", 1.5),
        (samples.CONTROL[5], "command_id", "c" * 65),
        (samples.CONTROL[5], "command_id", ""),
        (samples.CONTROL[16], "chunks", [[0, 2**32]]),
        (samples.CONTROL[16], "chunks", [[0]]),
        (samples.CONTROL[16], "chunks", [[0, 0]] * 2001),
        (samples.CONTROL[20], "seq", 0),
        (samples.CONTROL[20], "at", None),
        (samples.CONTROL[22], "kind", "anything"),
        (samples.CONTROL[22], "losses", {"a": None}),
        (samples.CONTROL[22], "losses", {str(i): 0.0 for i in range(17)}),
        (samples.CONTROL[24], "lines", ["x"] * 51),
        (samples.CONTROL[24], "lines", ["x" * 501]),
        (samples.CONTROL[25], "part", "anything"),
        (samples.CONTROL[25], "step", -1),
        (samples.CONTROL[27], "after", "../x"),
        (samples.CONTROL[28], "jobs", [SUMMARY] * 101),
        (samples.CONTROL[28], "jobs", [{**SUMMARY, "job_id": "../x"}]),
        (samples.CONTROL[28], "jobs", [{**SUMMARY, "started_at": 1e300}]),
        (samples.CONTROL[28], "jobs", [{**SUMMARY, "ended_at": -1.0}]),
        (samples.CONTROL[28], "jobs", [{**SUMMARY, "steps": 0}]),
        (samples.CONTROL[28], "jobs", [{**SUMMARY, "name": "x" * 121}]),
        (samples.CONTROL[31], "spec", {}),
    ],
)
def test_fields_are_held_to_their_bounds(
    message: messages.ControlMessage, field: str, value: object
) -> None:
    body = {**msgspec.to_builtins(message), field: value}
    frame = f"{message.NAME}::{msgspec.json.encode(body).decode()}"
    with pytest.raises(RemoteProtocolError):
        codec.decode_control(frame)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" * 5000])
def test_numbers_beyond_all_bounds(number: str) -> None:
    frame = (
        f'PROGRESS_REPORT::{{"job_id":"{samples.JOB}","seq":1,"at":{number},'
        '"step":0,"kind":"predict"}'
    )
    with pytest.raises(RemoteProtocolError):
        codec.decode_control(frame)


def test_a_frame_larger_than_a_peer_accepts_is_not_sent() -> None:
    message = messages.TrainLog(
        job_id=samples.JOB, seq=1, at=0.0, step=0, lines=["x" * 500] * 300
    )
    with pytest.raises(LocalProtocolError):
        codec.encode_control(message)


def test_a_frame_that_is_too_large_is_refused_before_it_is_read() -> None:
    for padding in ("x" * MAX_CONTROL_FRAME_BYTES, "é" * (MAX_CONTROL_FRAME_BYTES - 9)):
        with pytest.raises(RemoteProtocolError, match="of more than"):
            codec.decode_control(f"HELLO::{padding}")


def test_the_largest_log_frame_fits() -> None:
    message = messages.TrainLog(
        job_id=samples.JOB, seq=2**53 - 1, at=1.0, step=0, lines=["é" * 500] * 50
    )
    assert codec.decode_control(codec.encode_control(message)) == message


# -- signaling ----------------------------------------------------------------------


@pytest.mark.parametrize("message", samples.FROM_CLIENT, ids=name_of)
def test_client_messages_there_and_back(message) -> None:
    text = codec.encode_signaling(message)
    assert codec.decode_client_message(text) == message
    assert codec.decode_client_message(text.encode()) == message


@pytest.mark.parametrize("message", samples.FROM_SERVER, ids=name_of)
def test_server_messages_there_and_back(message) -> None:
    text = codec.encode_signaling(message)
    assert codec.decode_server_message(text) == message


def test_a_sender_never_says_who_it_is() -> None:
    for message in samples.FROM_CLIENT:
        assert '"from"' not in codec.encode_signaling(message)
    for message in samples.FROM_SERVER:
        text = codec.encode_signaling(message)
        assert "from_" not in text
        assert ('"from":' in text) == hasattr(message, "from_")


def test_each_direction_refuses_the_other() -> None:
    only_client = ("register", "discover_peers", "update_metadata", "ping")
    for message in samples.FROM_CLIENT:
        text = codec.encode_signaling(message)
        if any(f'"type":"{name}"' in text for name in only_client):
            with pytest.raises(RemoteProtocolError):
                codec.decode_server_message(text)
    for message in samples.FROM_SERVER:
        # A relayed message lacks `to`, everything else has another type.
        with pytest.raises(RemoteProtocolError):
            codec.decode_client_message(codec.encode_signaling(message))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"type":null}',
        '{"type":"register"}',
        '{"type":"nothing","id":"c-1"}',
        '{"type":"ping","id":"../x"}',
        '{"type":"ping","id":"c-1\\n"}',
        '{"type":"ping","id":"c-1"}{"type":"ping","id":"c-2"}',
        '{"type":"ping","id":"\\ud800"}',
        '{"type":"ping","id":"\ud800"}',
        '{"type":"update_metadata","id":"c-1","metadata":{"properties":{"a":%s}}}'
        % ("[" * 20_000 + "]" * 20_000),
        '{"type":"discover_peers","id":"c-1","properties":{"a":%s}}' % ("9" * 5000),
        b"\xff\xfe",
        b'{"type":"\x80"}',
        b'{"\x80":1}',
        b'{"type":"peer_message","id":"c-1","to":"p","payload":{"a":"\x80"}}',
        b'{"type":"ping","id":"\x80"}',
        "x" * (MAX_SIGNALING_MESSAGE_BYTES + 1),
        "é" * (MAX_SIGNALING_MESSAGE_BYTES // 2 + 1),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_client_message(data: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        codec.decode_client_message(data)
    assert str(refused.value).isprintable()


# -- payloads -----------------------------------------------------------------------


@pytest.mark.parametrize("payload", samples.PAYLOADS, ids=name_of)
def test_payloads_there_and_back(payload) -> None:
    raw = codec.encode_peer_payload(payload)
    relayed = signaling_messages.PeerMessage(id="c-1", to="peer", payload=raw)
    through = codec.decode_client_message(codec.encode_signaling(relayed))
    assert isinstance(through, signaling_messages.PeerMessage)
    assert codec.decode_peer_payload(through.payload) == payload


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b'{"type":"\x80"}',
        b'{"type":"ping","id":"c-1"}',
        b'{"type":"job_request","request_id":"r","package_bytes":-1,"steps":1}',
        b'{"type":"job_request","request_id":"r","package_bytes":1,"steps":10000}',
        b'{"type":"job_complete","job_id":"x","state":"y","x":"'
        + b"x" * MAX_PEER_MESSAGE_BYTES
        + b'"}',
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_payload(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.decode_peer_payload(Raw(data))

"""The conformance vectors, replayed by the side that submits jobs."""

import json
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from msgspec import Raw
from support import machines
from support.make_vectors import VECTORS, build

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.authentication import (
    Authenticated,
    Handshake,
    SendFrame,
)
from sleap_rtc_plugin.protocol.errors import (
    ErrorInfo,
    RemoteProtocolError,
    RtcError,
    error_types,
    from_wire,
)
from sleap_rtc_plugin.protocol.fragments import Pack, decode_frame
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import EventApplied, JobMirror
from sleap_rtc_plugin.protocol.manifest import Manifest
from sleap_rtc_plugin.protocol.messages import (
    CONTROL_TYPES,
    FileDone,
    FileMeta,
    FileNeed,
    JobSubmit,
    NumberedEvent,
)
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.transfer_sender import (
    Delivered,
    NeedReceived,
    Offer,
    ReceiverEnded,
    TransferSender,
)


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", build())
def test_the_files_are_those_that_the_script_writes(name: str) -> None:
    assert (VECTORS / name).read_text(encoding="utf-8") == build()[name]


def test_there_is_nothing_else() -> None:
    assert {path.name for path in VECTORS.iterdir()} == set(build())


def test_control_frames() -> None:
    kinds = {kind.NAME: kind for kind in CONTROL_TYPES}
    vectors = load("control")
    assert {vector["name"] for vector in vectors} == set(kinds)
    for vector in vectors:
        message = codec.decode_control(vector["frame"])
        assert message == msgspec.convert(vector["body"], kinds[vector["name"]])
        assert codec.encode_control(message) == vector["frame"]


def test_signaling_texts() -> None:
    vectors = load("signaling")
    for direction, decode in (
        ("from_peer", codec.decode_client_message),
        ("from_server", codec.decode_server_message),
    ):
        for vector in vectors[direction]:
            message = decode(vector["text"])
            assert json.loads(vector["text"]) == vector["message"]
            assert codec.encode_signaling(message) == vector["text"]
    for vector in vectors["payload"]:
        payload = codec.decode_peer_payload(Raw(vector["text"].encode()))
        assert bytes(codec.encode_peer_payload(payload)).decode() == vector["text"]


def test_fragments() -> None:
    vectors = load("fragments")
    for vector in vectors["accepted"]:
        fragment = decode_frame(bytes.fromhex(vector["frame"]))
        expected = {**vector, "data": bytes.fromhex(vector["data"])}
        del expected["frame"]
        assert fragment._asdict() == expected
    for vector in vectors["packed"]:
        pack = decode_frame(bytes.fromhex(vector["frame"]))
        assert isinstance(pack, Pack)
        assert pack.stream == vector["stream"]
        assert [[n, data.hex()] for n, data in pack.chunks] == vector["chunks"]
    for vector in vectors["refused"]:
        with pytest.raises(RemoteProtocolError):
            decode_frame(bytes.fromhex(vector["frame"]))


def test_a_manifest() -> None:
    vector = load("manifest")
    data = bytes.fromhex(vector["encoded"])
    manifest = Manifest.decode(data)
    assert blake3(data).hexdigest() == vector["digest"]
    for entry, expected, text in zip(
        manifest.files, vector["files"], vector["contents"], strict=True
    ):
        assert entry.path == expected["path"]
        assert entry.digest.hex() == expected["digest"]
        assert blake3(text.encode()).digest() == entry.digest
        assert entry.chunk_sizes.hex() == expected["chunk_sizes"]
        assert entry.chunk_digests.hex() == expected["chunk_digests"]
    assert manifest.encode() == data


def test_session_strings() -> None:
    vector = load("session_string")
    session = Session.parse(vector["text"])
    fields = {**vector["fields"], "secret": bytes.fromhex(vector["fields"]["secret"])}
    assert session == Session(**fields)
    assert session.encode() == vector["text"]
    for refused in vector["refused"]:
        with pytest.raises(RtcError) as raised:
            Session.parse(refused["text"])
        assert raised.value.code == refused["code"]


def test_errors() -> None:
    vectors = load("errors")
    assert {vector["code"] for vector in vectors} <= set(error_types())
    for vector in vectors:
        error = from_wire(ErrorInfo(code=vector["code"], fields=vector["fields"]))
        assert error.code == vector["code"]
        assert str(error) == vector["sentence"]
        assert error.exit_code == vector["exit_code"]
        assert error.retryable == vector["retryable"]


@pytest.mark.parametrize("role", ["client", "worker"])
def test_an_authentication(role: Any) -> None:
    vector = load("authentication")
    other = "worker" if role == "client" else "client"
    handshake = Handshake(
        role=role,
        secret=bytes.fromhex(vector["secret"]),
        nonce=bytes.fromhex(vector["nonces"][role]),
        local_fingerprint=vector["fingerprints"][role],
        remote_fingerprint=vector["fingerprints"][other],
        software=vector["software"],
    )
    instructions = handshake.start(0.0)
    for step in vector["frames"]:
        if step["from"] == other:
            frame = step["frame"]
            instructions += handshake.handle(frame, codec.decode_control(frame))
    ours = [step["frame"] for step in vector["frames"] if step["from"] == role]
    assert [i.frame for i in instructions if isinstance(i, SendFrame)] == ours
    assert isinstance(instructions[-1], Authenticated)


@pytest.mark.parametrize(
    ("name", "manifest"),
    [
        ("transfer", machines.MANIFEST),
        ("known_manifest", machines.MANIFEST),
        ("packed", machines.MANIFEST),
        ("hole", machines.HOLED_MANIFEST),
    ],
)
def test_a_transfer_from_the_sender(name: str, manifest: Manifest) -> None:
    vector = load(f"conversation_{name}")
    assert bytes.fromhex(vector["manifest"]) == manifest.encode()
    steps = vector["steps"]
    meta = codec.decode_control(steps[0]["control"])
    assert isinstance(meta, FileMeta)
    sender = TransferSender(meta, manifest)
    sender.handle(Offer(), 0.0)
    instructions: list[Any] = []
    to_send = [bytes.fromhex(s["transfer"]) for s in steps if "transfer" in s]
    sent: list[int] = []
    for step in steps:
        if step["from"] != "receiver":
            continue
        message = codec.decode_control(step["control"])
        assert isinstance(message, FileNeed | FileDone)
        event = NeedReceived if isinstance(message, FileNeed) else ReceiverEnded
        instructions += sender.handle(event(message), 0.0)
        while (work := sender.next_work()) is not None:
            sent.append(-1 if isinstance(work, Manifest) else work.number)
    arrived: list[int] = []
    for piece in map(decode_frame, to_send):
        if isinstance(piece, Pack):
            arrived += [number for number, _ in piece.chunks]
        else:
            arrived.append(-1 if piece.is_manifest else piece.chunk)
    assert sent == arrived
    assert not set(vector["already_stored_chunks"]) & set(sent)
    assert (-1 in sent) != vector["manifest_is_known"]
    assert instructions[-1] == Delivered()


def test_a_job_as_its_client_sees_it() -> None:
    steps = load("conversation_job")
    submit = codec.decode_control(steps[0]["frame"])
    assert isinstance(submit, JobSubmit)
    mirror = JobMirror(submit.job_id, submit.spec)
    for step in steps:
        message = codec.decode_control(step["frame"])
        if isinstance(message, NumberedEvent):
            assert step["from"] == "worker"
            assert isinstance(mirror.handle(message), EventApplied)
    assert mirror.state is JobState.SUCCEEDED
    assert mirror.steps[0].epoch == 0
    assert mirror.steps[0].losses == {"train/loss": 0.5, "val/loss": 0.75}

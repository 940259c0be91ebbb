"""Writes the conformance vectors: what any implementation must send and understand.

From the folder `tests`: `python -m support.make_vectors`. The same input gives the
same files, byte for byte; a test compares them with what stands in `resources`.
"""

import base64
import binascii
import json
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import msgspec
from blake3 import blake3
from support import machines, wire_samples

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol import messages as m
from sleap_rtc_plugin.protocol import signaling_messages as s
from sleap_rtc_plugin.protocol import transfer_receiver as receiving
from sleap_rtc_plugin.protocol import transfer_sender as sending
from sleap_rtc_plugin.protocol.authentication import Handshake, SendFrame
from sleap_rtc_plugin.protocol.errors import error_types
from sleap_rtc_plugin.protocol.fragments import (
    Fragment,
    Pack,
    decode_frame,
    encode_fragment,
    encode_pack,
    fragments_of,
)
from sleap_rtc_plugin.protocol.limits import FRAGMENT_BYTES
from sleap_rtc_plugin.protocol.manifest import Manifest
from sleap_rtc_plugin.protocol.relay_messages import (
    RelayJoin,
    RelayJoined,
    encode_relay,
)
from sleap_rtc_plugin.protocol.session_string import SCHEME, Session

VECTORS: Final = Path(__file__).parents[2] / "resources" / "vectors"
SECRET: Final = bytes(range(32))


def plain(message: Any) -> Any:
    """Return a message as JSON values, the payload of a relayed one included."""
    return json.loads(msgspec.json.encode(message))


def control() -> list[dict[str, Any]]:
    """Return every control message and its frame."""
    return [
        {
            "name": message.NAME,
            "body": plain(message),
            "frame": codec.encode_control(message),
        }
        for message in wire_samples.CONTROL
    ]


def signaling() -> dict[str, list[dict[str, Any]]]:
    """Return every signaling message and its text, by direction."""
    return {
        direction: [
            {"message": plain(message), "text": codec.encode_signaling(message)}
            for message in messages
        ]
        for direction, messages in (
            ("from_peer", wire_samples.FROM_CLIENT),
            ("from_server", wire_samples.FROM_SERVER),
            ("payload", wire_samples.PAYLOADS),
        )
    }


def relay() -> dict[str, Any]:
    """Return the two frames of a relay, and joins that a server must refuse."""
    relay_id = "relay-" + "0123456789abcdef" * 2
    join = RelayJoin(relay_id=relay_id, peer_id="client-1")
    sound = encode_relay(join)
    return {
        "from_peer": [{"message": plain(join), "text": sound}],
        "from_server": [{"message": {}, "text": encode_relay(RelayJoined())}],
        "refused": [
            sound.replace("relay_join", "relay_joined"),
            sound.replace("relay-0", "relay-"),
            sound.replace("abcdef", "ABCDEF"),
            sound.replace("client-1", "Client 1"),
            sound.replace('"type":"relay_join",', ""),
            sound + " " * 1_024,
        ],
    }


def fragments() -> dict[str, Any]:
    """Return transfer frames, sound ones and some that must be refused."""
    samples = [
        Fragment(1, 0, 0, b"\x00", is_manifest=True),
        Fragment(1, 2, 61440, b"data", is_manifest=False),
        Fragment(2**32 - 1, 2**32 - 1, 2**32 - 1, b"\xff" * 3, is_manifest=False),
    ]
    sound = encode_fragment(samples[0])
    pack = Pack(1, ((3, b"aaaa"), (2**32 - 1, b"\x00"), (4, b"bb")))
    packed = encode_pack(pack)
    return {
        "accepted": [
            {**f._asdict(), "data": f.data.hex(), "frame": encode_fragment(f).hex()}
            for f in samples
        ],
        "packed": [
            {
                "stream": pack.stream,
                "chunks": [[number, data.hex()] for number, data in pack.chunks],
                "frame": packed.hex(),
            }
        ],
        "refused": [
            {"frame": frame.hex(), "because": because}
            for frame, because in (
                (b"", "nothing"),
                (sound[:16], "a header without data"),
                (b"\x02" + sound[1:], "another version"),
                (sound[:1] + b"\x04" + sound[2:], "an unknown flag"),
                (packed[:1] + b"\x03" + packed[2:], "a packed manifest"),
                (packed[:11] + b"\x01" + packed[12:], "a packed frame with a number"),
                (packed[:15] + b"\x01" + packed[16:], "a packed frame with an offset"),
                (packed[:-1], "a packed chunk that is cut"),
                (packed + b"\x00" * 7, "a packed chunk without its size"),
                (packed + b"\x00" * 8, "a packed chunk of nothing"),
                (sound[:2] + b"\x00\x01" + sound[4:], "reserved bits"),
            )
        ],
    }


def manifest() -> dict[str, Any]:
    """Return a manifest of four files, one with a hole, and its bytes."""
    holed = machines.entry("holed", b"ddd", bytes(5), holes=[1])
    made = Manifest([*machines.MANIFEST.files, holed])
    encoded = made.encode()
    return {
        "files": [
            {
                "path": entry.path,
                "size_bytes": entry.size_bytes,
                "digest": entry.digest.hex(),
                "chunk_sizes": entry.chunk_sizes.hex(),
                "chunk_digests": entry.chunk_digests.hex(),
            }
            for entry in made.files
        ],
        "contents": ["aaaabb", "ccc", "", "ddd" + 5 * "\0"],
        "encoded": encoded.hex(),
        "digest": blake3(encoded).hexdigest(),
    }


def session_string() -> dict[str, Any]:
    """Return a session string, and some that must be refused."""
    session = Session(
        url="http://gpu-1.lab:8080",
        room_id="room-1",
        token="header.body.signature",
        peer_id="worker-gpu-1",
        secret=SECRET,
    )
    line = session.encode()
    newer = b'{"v":2}'
    raw = newer + binascii.crc32(newer).to_bytes(4, "big")
    return {
        "fields": {
            "url": session.url,
            "room_id": session.room_id,
            "token": session.token,
            "peer_id": session.peer_id,
            "secret": SECRET.hex(),
        },
        "text": line,
        "refused": [
            {"text": line[:-1], "code": "session_string_invalid"},
            {"text": line[:40] + "A" + line[41:], "code": "session_string_invalid"},
            {"text": line.removeprefix("sleap-"), "code": "session_string_invalid"},
            {
                "text": SCHEME + base64.urlsafe_b64encode(raw).decode().rstrip("="),
                "code": "session_string_too_new",
            },
        ],
    }


def errors() -> list[dict[str, Any]]:
    """Return every error code with its fields and its sentence."""
    leaves = sorted(error_types().values(), key=lambda leaf: leaf.code)
    made = [
        leaf(**{f.name: f"<{f.name}>" for f in fields(leaf)})
        for leaf in leaves
        if ".protocol.errors." in leaf.__module__
    ]
    return [
        {
            "code": error.code,
            "fields": error.to_wire().fields,
            "sentence": str(error),
            "exit_code": error.exit_code,
            "retryable": error.retryable,
        }
        for error in made
    ]


def authentication() -> dict[str, Any]:
    """Return one handshake, frame by frame."""
    nonces = {"client": b"\x01" * 32, "worker": b"\x02" * 32}
    prints = {"client": ":".join(["C1"] * 32), "worker": ":".join(["D2"] * 32)}
    sides = {
        role: Handshake(
            role=role,
            secret=SECRET,
            nonce=nonces[role],
            local_fingerprint=prints[role],
            remote_fingerprint=prints[other],
            software="vectors 1",
        )
        for role, other in (("client", "worker"), ("worker", "client"))
    }
    frames: list[dict[str, str]] = []
    for role, side in sides.items():
        frames += [
            {"from": role, "frame": i.frame}
            for i in side.start(0.0)
            if isinstance(i, SendFrame)
        ]
    hellos = {step["from"]: step["frame"] for step in frames}
    for role, other in (("client", "worker"), ("worker", "client")):
        hello = hellos[other]
        frames += [
            {"from": role, "frame": i.frame}
            for i in sides[role].handle(hello, codec.decode_control(hello))
            if isinstance(i, SendFrame)
        ]
    return {
        "secret": SECRET.hex(),
        "nonces": {role: nonce.hex() for role, nonce in nonces.items()},
        "fingerprints": prints,
        "software": "vectors 1",
        "frames": frames,
    }


def registration() -> list[dict[str, Any]]:
    """Return a worker and a client that meet and exchange descriptions."""
    worker, client = "worker-gpu-1", "client-1"

    def register(peer_id: str, role: Any) -> s.Register:
        return s.Register(
            id="c-1",
            room_id="room-1",
            token="a.b.c",
            peer_id=peer_id,
            role=role,
            resume_key=(peer_id * 32)[:32],
            metadata=wire_samples.METADATA if role == "worker" else s.PeerMetadata(),
        )

    def registered(peer_id: str) -> s.Registered:
        return s.Registered(
            id="c-1", peer_id=peer_id, room_id="room-1", expires_at=7200.0
        )

    info = s.PeerInfo(
        peer_id=worker,
        role="worker",
        metadata=wire_samples.METADATA,
        connected_at=0.0,
    )
    sdp = wire_samples.SDP
    steps: list[tuple[str, str, Any]] = [
        (worker, "says", register(worker, "worker")),
        (worker, "hears", registered(worker)),
        (client, "says", register(client, "client")),
        (client, "hears", registered(client)),
        (client, "says", s.DiscoverPeers(id="c-2", role="worker")),
        (client, "hears", s.PeerList(id="c-2", peers=[info])),
        (client, "says", s.Offer(id="c-3", to=worker, sdp=sdp)),
        (worker, "hears", s.RelayedOffer(id="c-3", from_=client, sdp=sdp)),
        (client, "hears", s.Delivered(id="c-3")),
        (worker, "says", s.Answer(id="c-2", to=client, sdp=sdp, offer_id="c-3")),
        (
            client,
            "hears",
            s.RelayedAnswer(id="c-2", from_=worker, sdp=sdp, offer_id="c-3"),
        ),
        (worker, "hears", s.Delivered(id="c-2")),
    ]
    return [
        {"peer": peer, verb: codec.encode_signaling(message)}
        for peer, verb, message in steps
    ]


def transfer(
    manifest: Manifest = machines.MANIFEST,
    chunks: Sequence[bytes] = machines.CHUNKS,
    *,
    here: Collection[int] = (0,),
    is_known: bool = False,
    is_packed: bool = False,
) -> dict[str, Any]:
    """Return a transfer from its offer to its end.

    Args:
        manifest: what is offered.
        chunks: the bytes of each of its chunks.
        here: the chunks that the receiver has already.
        is_known: whether the receiver has the manifest already.
        is_packed: whether chunks travel together.
    """
    meta = machines.meta_of(manifest)
    sender = sending.TransferSender(meta, manifest)
    receiver = receiving.TransferReceiver(meta)
    steps: list[dict[str, str]] = []
    to_sender: list[m.FileNeed | m.FileDone] = []

    def tell(events: list[Any]) -> None:
        while events:
            for instruction in receiver.handle(events.pop(0), 0.0):
                match instruction:
                    case receiving.SendControl(message):
                        frame = codec.encode_control(message)
                        steps.append({"from": "receiver", "control": frame})
                        to_sender.append(message)
                    case receiving.CheckManifest(data):
                        made = receiving.ManifestAccepted(Manifest.decode(data))
                        events.append(made)
                    case receiving.TakeInventory():
                        taken = receiving.InventoryTaken(frozenset(here), frozenset())
                        events.append(taken)
                    case receiving.StoreChunk(number):
                        events.append(receiving.ChunkStored(number))
                    case receiving.FinishFile(file):
                        events.append(receiving.FileFinished(file))

    for instruction in sender.handle(sending.Offer(), 0.0):
        frame = codec.encode_control(instruction.message)
        steps.append({"from": "sender", "control": frame})
    tell([receiving.Begin(manifest.encode() if is_known else b"")])
    while to_sender:
        message = to_sender.pop(0)
        is_need = isinstance(message, m.FileNeed)
        event = sending.NeedReceived if is_need else sending.ReceiverEnded
        sender.handle(event(message), 0.0)
        while (work := sender.next_work()) is not None:
            if isinstance(work, Manifest):
                frames = fragments_of(1, 0, work.encode(), is_manifest=True)
            elif is_packed:
                together = sender.pack_with(work, FRAGMENT_BYTES)
                pack = Pack(1, tuple((c.number, chunks[c.number]) for c in together))
                frames = [encode_pack(pack)]
            else:
                frames = fragments_of(1, work.number, chunks[work.number])
            for frame in frames:
                steps.append({"from": "sender", "transfer": frame.hex()})
                arrived = decode_frame(frame)
                if isinstance(arrived, Pack):
                    tell([receiving.PackReceived(arrived)])
                else:
                    tell([receiving.FragmentReceived(arrived)])
    return {
        "files": {
            entry.path: b"".join(chunks[n] for n in manifest.chunks_of(file)).decode()
            for file, entry in enumerate(manifest.files)
        },
        "manifest": manifest.encode().hex(),
        "manifest_is_known": is_known,
        "already_stored_chunks": list(here),
        "steps": steps,
    }


def job() -> list[dict[str, str]]:
    """Return a job of one step from its submission to its success."""
    job_id = wire_samples.JOB
    spec = msgspec.structs.replace(
        wire_samples.SPEC, steps=list(wire_samples.SPEC.steps[:1])
    )

    def state(seq: int, name: str, step: int | None = None) -> m.JobEvent:
        return m.JobEvent(job_id=job_id, seq=seq, at=float(seq), state=name, step=step)

    def progress(seq: int, kind: Any, **more: Any) -> m.ProgressReport:
        return m.ProgressReport(
            job_id=job_id, seq=seq, at=float(seq), step=0, kind=kind, **more
        )

    losses = {"train/loss": 0.5, "val/loss": 0.75}
    said: list[tuple[str, m.ControlMessage]] = [
        (
            "client",
            m.JobSubmit(
                command_id="c-1",
                job_id=job_id,
                spec=spec,
                package_digest=machines.META.manifest_digest,
                package_bytes=machines.META.total_bytes,
            ),
        ),
        ("worker", m.JobAccepted(command_id="c-1", job_id=job_id, state="staging")),
        ("client", m.JobAttach(command_id="c-2", job_id=job_id)),
        ("worker", m.Acknowledged(command_id="c-2", last_seq=1)),
        ("worker", state(1, "staging")),
        ("worker", state(2, "queued")),
        ("worker", state(3, "starting", 0)),
        ("worker", state(4, "running", 0)),
        ("worker", progress(5, "train_begin")),
        ("worker", progress(6, "epoch_end", epoch=0, losses=losses)),
        (
            "worker",
            m.TrainLog(job_id=job_id, seq=7, at=7.0, step=0, lines=["epoch 0"]),
        ),
        ("client", m.KeepAlive()),
        ("client", m.ZmqCtrl(command_id="c-3", job_id=job_id, command="stop")),
        ("worker", m.Acknowledged(command_id="c-3", last_seq=7)),
        ("worker", state(8, "stopping", 0)),
        ("worker", progress(9, "train_end")),
        ("worker", state(10, "collecting", 0)),
        ("worker", state(11, "succeeded", 0)),
        ("client", m.JobFetch(command_id="c-4", job_id=job_id)),
        ("client", m.JobList(command_id="c-5")),
        (
            "worker",
            m.JobListed(
                command_id="c-5",
                jobs=[
                    m.JobSummary(
                        job_id=job_id,
                        name=spec.name,
                        owner=spec.owner,
                        state="succeeded",
                        steps=1,
                        step=0,
                        epoch=0,
                        created_at=0.5,
                        started_at=3.0,
                        ended_at=11.0,
                        last_seq=11,
                    )
                ],
            ),
        ),
    ]
    return [
        {"from": role, "frame": codec.encode_control(message)} for role, message in said
    ]


def build() -> dict[str, str]:
    """Return every file of vectors by its name."""
    contents = {
        "control": control(),
        "signaling": signaling(),
        "relay": relay(),
        "fragments": fragments(),
        "manifest": manifest(),
        "session_string": session_string(),
        "errors": errors(),
        "authentication": authentication(),
        "conversation_registration": registration(),
        "conversation_transfer": transfer(),
        "conversation_known_manifest": transfer(is_known=True),
        "conversation_packed": transfer(here=(), is_packed=True),
        "conversation_hole": transfer(
            machines.HOLED_MANIFEST, machines.HOLED_CHUNKS, here=()
        ),
        "conversation_job": job(),
    }
    return {
        f"{name}.json": json.dumps(data, indent=1, ensure_ascii=True) + "\n"
        for name, data in contents.items()
    }


def main() -> None:
    """Write them all."""
    VECTORS.mkdir(parents=True, exist_ok=True)
    for name, text in build().items():
        (VECTORS / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

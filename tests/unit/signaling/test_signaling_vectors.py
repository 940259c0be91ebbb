"""The conformance vectors, replayed by the signaling server's hub."""

import json
from pathlib import Path
from typing import Any

from sleap_rtc_plugin.protocol.signaling_messages import Register
from sleap_rtc_signaling import switchboard
from sleap_rtc_signaling.hub import Hub
from sleap_rtc_signaling.instructions import Admission, Deliver, Reply

codec = switchboard.codec
VECTORS = Path(__file__).parents[3] / "resources" / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def test_what_peers_say_is_understood() -> None:
    for vector in load("signaling")["from_peer"]:
        message = codec.decode_client_message(vector["text"])
        assert codec.encode_signaling(message) == vector["text"]


def test_two_peers_meet() -> None:
    hub = Hub("http://server")
    connections: dict[str, int] = {}
    heard: dict[str, list[str]] = {}
    expected: dict[str, list[str]] = {}
    for step in load("conversation_registration"):
        peer = step["peer"]
        if "hears" in step:
            expected.setdefault(peer, []).append(step["hears"])
            continue
        message = codec.decode_client_message(step["says"])
        if isinstance(message, Register):
            connections[peer] = len(connections) + 1
            hub.connected(connections[peer], 0.0)
            admission = Admission(message.room_id, 7200.0)
            instructions = hub.handle(connections[peer], message, 0.0, admission)
        else:
            instructions = hub.handle(connections[peer], message, 0.0)
        names = {number: name for name, number in connections.items()}
        for instruction in instructions:
            if isinstance(instruction, Reply | Deliver):
                text = codec.encode_signaling(instruction.message)
                heard.setdefault(names[instruction.connection], []).append(text)
    assert heard == expected

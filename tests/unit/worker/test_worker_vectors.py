"""The conformance vectors, replayed by the worker's link and by its pump."""

import asyncio
import json
from pathlib import Path
from typing import Any

from sleap_rtc_plugin.protocol.authentication import Authenticated
from sleap_rtc_worker import file_manager, link_service, room_service

VECTORS = Path(__file__).parents[3] / "resources" / "vectors"
PATIENCE_S = 10


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


class FakeChannel:
    """A data channel that keeps what it is given."""

    bufferedAmount = 0

    def __init__(self) -> None:
        self.sent: asyncio.Queue[str | bytes] = asyncio.Queue()

    def send(self, data: str | bytes) -> None:
        self.sent.put_nowait(data)


def link_over(control: FakeChannel) -> link_service.Link:
    return link_service.Link(
        peer_id="client-1",
        control=control,
        transfer=FakeChannel(),
        authenticated=Authenticated(1, frozenset(), "vectors 1"),
        kind="direct",
        close=lambda: None,
    )


async def test_a_job_as_its_worker_hears_and_tells_it() -> None:
    control = FakeChannel()
    link = link_over(control)
    heard: list[Any] = []
    link.on_control = heard.append
    try:
        for step in load("conversation_job"):
            link.control_received(step["frame"])
            if not heard:
                assert step["frame"] == "KEEP_ALIVE::{}"
                continue
            link.send(heard.pop())
            assert await control.sent.get() == step["frame"]
        assert not link.closed.is_set()
    finally:
        link.close("the test is over")


async def test_a_package_with_a_chunk_that_is_here_already(tmp_path: Path) -> None:
    vector = load("conversation_transfer")
    here = b"aaaa"
    area = file_manager.StagingArea(tmp_path)
    manifest = load("manifest")
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / f"{manifest['files'][0]['digest']}.part").write_bytes(here)
    control = FakeChannel()
    link = link_over(control)
    pump = link_service.TransferPump(link)
    offers: list[Any] = []
    link.on_control = offers.append
    try:
        steps = vector["steps"]
        link.control_received(steps[0]["control"])
        receiving = asyncio.ensure_future(pump.receive(offers[0], area))
        async with asyncio.timeout(PATIENCE_S):
            for step in steps[1:]:
                if step["from"] == "sender":
                    link.fragment_received(bytes.fromhex(step["transfer"]))
                else:
                    assert await control.sent.get() == step["control"]
            totals = await receiving
    finally:
        link.close("the test is over")
    assert totals.reused_bytes == len(here)
    for name, text in vector["files"].items():
        assert (area.files / name).read_text() == text


def test_payloads_that_a_worker_is_sent() -> None:
    for vector in load("signaling")["payload"]:
        payload = room_service.decode_peer_payload(vector["text"].encode())
        assert (
            bytes(room_service.encode_peer_payload(payload)).decode() == vector["text"]
        )

"""The conformance vectors, replayed by the worker's link and by its pump."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc_plugin.protocol.authentication import Authenticated
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.protocol.manifest import Manifest
from sleap_rtc_plugin.transport.staging_area import StagingArea
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
        engine="aiortc",
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


@pytest.mark.parametrize("name", ["transfer", "known_manifest", "packed", "hole"])
async def test_a_package(tmp_path: Path, name: str) -> None:
    vector = load(f"conversation_{name}")
    data = bytes.fromhex(vector["manifest"])
    manifest = Manifest.decode(data)
    store = file_manager.ChunkStore(tmp_path, max_bytes=MIB)
    if vector["manifest_is_known"]:
        store.keep_manifest(data, 0.0)
    area = file_manager.StagingArea(tmp_path / "package", store=store)
    here = bring(area, manifest, vector)
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
        store.close()
    assert totals.reused_bytes >= here
    assert totals.reused_bytes + totals.moved_bytes == manifest.total_bytes
    for path, text in vector["files"].items():
        assert (area.files / path).read_text() == text


def bring(area: StagingArea, manifest: Manifest, vector: dict[str, Any]) -> int:
    """Put the chunks where they are said to be already; return their bytes."""
    area.inventory(manifest)
    chunks = [manifest.chunk(n) for n in vector["already_stored_chunks"]]
    for chunk in chunks:
        text = vector["files"][manifest.files[chunk.file].path].encode()
        data = text[chunk.offset : chunk.offset + chunk.size_bytes]
        assert area.store(chunk.number, data)
    area.close()
    return sum(chunk.size_bytes for chunk in chunks)


def test_payloads_that_a_worker_is_sent() -> None:
    for vector in load("signaling")["payload"]:
        payload = room_service.decode_peer_payload(vector["text"].encode())
        assert (
            bytes(room_service.encode_peer_payload(payload)).decode() == vector["text"]
        )

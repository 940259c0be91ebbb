"""What the server logs while it is used: everything that happened, and no secret."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from support.signaling_lab import Lab, registration

from sleap_rtc_plugin.protocol.signaling_messages import Offer, PeerMessage
from sleap_rtc_signaling import event_log

MARK = "marked-secret-of-a-test"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    event_log.set_up("json", logging.DEBUG, stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("sleap_rtc_plugin", "sleap_rtc_signaling"):
        logging.getLogger(name).setLevel(logging.NOTSET)


async def test_a_room_from_its_making_to_its_end(log: io.StringIO, lab: Lab) -> None:
    account = await lab.account()
    room = await lab.room(account)
    worker = await lab.join(room, "worker-1", "worker")
    client = await lab.join(room, "client-1")
    await client.send(Offer(id="o-1", to="worker-1", sdp=f"v=0 {MARK}"))
    await worker.receive()
    await client.send(PeerMessage(id="p-1", to="worker-1", payload={"x": MARK}))
    await worker.receive()
    stranger = await lab.connect()
    await stranger.ask(registration((room[0], f"{MARK}.x.y"), "client-2"))
    await lab.get("/ice-servers", room[1])
    await lab.get(f"/ice-servers?token={MARK}")
    await lab.get(f"/{MARK}")
    await lab.post("/delete-peers-and-room", account, json={"room_id": room[0]})
    await worker.closed()

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    events = {line["event"] for line in lines}
    assert {"request", "peer registered", "registration refused"} <= events
    assert {line["peer"] for line in lines if "peer" in line} == {
        *("worker-1", "client-1", "client-2")
    }
    routes = {(line["route"], line["status"]) for line in lines if "route" in line}
    assert ("/create-room", 200) in routes
    assert ("/ice-servers", 401) in routes
    for secret in (account, room[1], MARK, "127.0.0.1", "k" * 32):
        assert secret not in log.getvalue()


async def test_the_metrics_know_how_long_requests_took(lab: Lab) -> None:
    await lab.post("/create-room")
    text = (await lab.get("/metrics")).text
    assert (
        'sleap_signaling_request_seconds_count{method="POST",'
        'route="/create-room",status="401"} 1.0' in text
    )

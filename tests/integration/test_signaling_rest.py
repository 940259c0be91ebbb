"""The signaling server's REST routes on a free port, with a real HTTP client."""

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import websockets
from support.signaling_lab import ICE, Lab, bearer
from websockets.asyncio.client import connect

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.protocol.limits import MAX_ROOMS_PER_ACCOUNT, ROOM_LIFETIME_S
from sleap_rtc_signaling.limits import MAX_BODY_BYTES, SIGN_IN_RATE


async def test_rest_on_both_ports(lab: Lab) -> None:
    assert lab.server.rest_port not in (None, lab.server.port)
    for port in (lab.server.port, lab.server.rest_port):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            signed_in = await http.post("/anonymous-signin")
            assert signed_in.status_code == 200
            assert signed_in.headers["cache-control"] == "no-store"
            assert "server" not in signed_in.headers
            account = signed_in.json()
            assert set(account) == {
                *("account_id", "token", "expires_at"),
                *("refresh_token", "name", "method"),
            }
            assert account["method"] == "anonymous"
            assert account["expires_at"] > lab.clock.now
            headers = bearer(account["token"])

            room = (await http.post("/create-room", headers=headers)).json()
            assert set(room) == {"room_id", "token", "expires_at"}
            assert room["expires_at"] == lab.clock.now + ROOM_LIFETIME_S

            for token in (account["token"], room["token"]):
                ice = await http.get("/ice-servers", headers=bearer(token))
                assert ice.json() == {
                    "ice_servers": [
                        {"urls": ICE.urls, "username": "u", "credential": "c"}
                    ],
                    "expires_at": None,
                    "relay": None,
                }
            body = {"room_id": room["room_id"]}
            gone = await http.post("/delete-peers-and-room", headers=headers, json=body)
            assert gone.json() == body
            ice = await http.get("/ice-servers", headers=bearer(room["token"]))
            assert (ice.status_code, ice.json()["code"]) == (404, "room_gone")

            assert (await http.get("/health")).json()["status"] == "ok"
            assert (await http.get("/ready")).json() == {"status": "ready"}
            metrics = await http.get("/metrics")
            assert metrics.headers["content-type"].startswith("text/plain")
            assert "sleap_signaling_rooms 0.0" in metrics.text


async def test_the_rest_port_has_no_websocket(lab: Lab) -> None:
    url = f"ws://127.0.0.1:{lab.server.rest_port}/ws"
    with pytest.raises(websockets.InvalidStatus):
        async with connect(url):
            pass


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/anonymous-signin", 405),
        ("DELETE", "/health", 405),
        ("POST", "/create-room", 401),
        ("POST", "/delete-peers-and-room", 401),
        ("GET", "/ice-servers", 401),
    ],
)
async def test_errors_are_json_with_a_code(
    lab: Lab, method: str, path: str, status: int
) -> None:
    response = await lab.http.request(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"code", "message", "fields"}
    assert "access-control-allow-origin" not in response.headers


async def test_rooms_of_an_account_are_bounded(lab: Lab) -> None:
    account = await lab.account()
    for _ in range(MAX_ROOMS_PER_ACCOUNT):
        await lab.room(account)
    refused = await lab.post("/create-room", account)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many")
    assert refused.json()["fields"]["limit"] == str(MAX_ROOMS_PER_ACCOUNT)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[1]", 400),
        (b'{"room_id": 5}', 400),
        (b"\xff\xfe", 400),
        (b"[" * MAX_BODY_BYTES, 400),
        (b'{"room_id": "' + b"x" * MAX_BODY_BYTES + b'"}', 413),
    ],
)
async def test_a_bad_body_is_refused(lab: Lab, content: bytes, status: int) -> None:
    account = await lab.account()
    response = await lab.post("/delete-peers-and-room", account, content=content)
    assert (response.status_code, response.json()["code"]) == (status, "bad_request")


async def test_a_huge_body_is_not_read_to_its_end(lab: Lab) -> None:
    account = await lab.account()
    # The answer may be lost to the reset that cuts the upload short.
    with contextlib.suppress(httpx.TransportError):
        content = b"x" * 20_000_000
        response = await lab.post("/delete-peers-and-room", account, content=content)
        assert response.status_code == 413
    assert (await lab.get("/health")).status_code == 200


async def test_a_body_without_a_length_is_bounded_too(lab: Lab) -> None:
    account = await lab.account()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 1_024

    response = await lab.post("/delete-peers-and-room", account, content=parts())
    assert response.status_code == 413


async def test_signing_in_is_limited_and_says_when_to_come_back(lab: Lab) -> None:
    statuses = []
    for _ in range(SIGN_IN_RATE.burst + 20):
        response = await lab.post("/anonymous-signin")
        statuses.append(response.status_code)
        if response.status_code == 429:
            break
    assert statuses[: SIGN_IN_RATE.burst] == [200] * SIGN_IN_RATE.burst
    assert response.json()["code"] == "rate_limited"
    assert int(response.headers["retry-after"]) >= 1
    # The other routes have a larger allowance.
    assert (await lab.get("/health")).status_code == 200


async def test_a_broken_store_shows_in_ready_and_nothing_of_it_outside(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise StorageFailed(place="/secret/place/db", reason="disk I/O error")

    monkeypatch.setattr("sleap_rtc_signaling.stores.Store.check", fail)
    response = await lab.get("/ready")
    assert (response.status_code, response.json()["code"]) == (503, "storage_failed")
    assert "/secret" not in response.text
    assert (await lab.get("/health")).status_code == 200


async def test_a_fault_of_the_server_is_json_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sleap_rtc_signaling.stores.Store.check", fail)
    response = await lab.get("/ready")
    assert (response.status_code, response.json()["code"]) == (500, "remote_failure")
    assert "ZeroDivisionError" in caplog.text

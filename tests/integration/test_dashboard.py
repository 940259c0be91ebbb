"""The dashboard over HTTP, without a browser: who gets in, what leaves, what ends."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support.dashboard_lab import (
    Visitor,
    dashboard_lab,
    join_worker,
    tell,
    training,
    visitor,
)
from support.signaling_lab import WAIT_S, Lab, bearer

from sleap_rtc_signaling.config import DashboardConfig
from sleap_rtc_signaling.limits import (
    LIVE_ACCESS_CHECK_S,
    MAX_LIVE_STREAMS_PER_LOGIN,
    STOP_DEADLINE_S,
)

HOSTILE = '<script>alert("name")</script>\u202e<img src=x onerror=alert(2)>'


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with dashboard_lab(tmp_path, rest_port=0) as opened:
        yield opened


@pytest.fixture
async def ann(lab: Lab) -> AsyncIterator[Visitor]:
    async with visitor(lab) as one:
        await one.sign_in()
        yield one


def cookie_of(one: Visitor) -> dict[str, str]:
    pairs = (f"{name}={value}" for name, value in dict(one.http.cookies).items())
    return {"cookie": "; ".join(pairs)}


class Events:
    """The events of a stream, read one after the other."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def one(self) -> tuple[str, str]:
        """The next event: its name and its data."""
        kind, data = "", []
        async with asyncio.timeout(WAIT_S + LIVE_ACCESS_CHECK_S):
            async for line in self._lines:
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data:"):
                    data.append(line.removeprefix("data:").strip())
                elif not line and kind:
                    return kind, "\n".join(data)
        raise EOFError

    async def next(self, name: str) -> str:
        """The data of the next event of this name."""
        while (event := await self.one())[0] != name:
            pass
        return event[1]

    async def until(self, name: str, words: str) -> str:
        while words not in (data := await self.next(name)):
            pass
        return data


@contextlib.asynccontextmanager
async def events(one: Visitor, room_id: str) -> AsyncIterator[Events]:
    path = f"/dashboard/rooms/{room_id}/live"
    async with one.http.stream("GET", path, timeout=WAIT_S * 2) as answer:
        assert answer.status_code == 200
        yield Events(answer)


# -- who gets in ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/dashboard/rooms/room-1",
        "/dashboard/rooms/room-1/live",
        "/dashboard/rooms/room-1/models",
        "/dashboard/rooms/room-1/people",
        "/dashboard/new-room",
    ],
)
async def test_whoever_has_not_signed_in_is_asked_to(lab: Lab, path: str) -> None:
    answer = await lab.http.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/dashboard/sign-in"


async def test_the_cookie_is_the_browser_s_alone(lab: Lab) -> None:
    async with visitor(lab) as one:
        await one.get("/dashboard/sign-in")
        answer = await one.post("/dashboard/sign-in", method="anonymous")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "secure" not in cookie


async def test_under_https_the_cookie_is_secure(tmp_path: Path) -> None:
    async with (
        dashboard_lab(tmp_path, trusted_proxies=("127.0.0.1",)) as lab,
        visitor(lab) as one,
    ):
        one.http.headers["x-forwarded-proto"] = "https"
        await one.get("/dashboard/sign-in")
        answer = await one.post("/dashboard/sign-in", method="anonymous")
        assert answer.headers["set-cookie"].startswith("__Host-")
        assert "secure" in answer.headers["set-cookie"].lower()


async def test_behind_a_proxy_that_is_named_the_cookie_is_secure_too(
    tmp_path: Path,
) -> None:
    async with (
        dashboard_lab(tmp_path, public_url="https://lab.example") as lab,
        visitor(lab) as one,
    ):
        here = f"http://127.0.0.1:{lab.server.port}"
        for host, is_secure in (("lab.example", True), ("other.example", False)):
            answer = await one.http.post(
                f"{here}/dashboard/sign-in",
                data={"method": "anonymous"},
                headers={"host": host, "origin": "https://lab.example"},
            )
            assert answer.status_code == 303
            assert ("__Host-" in answer.headers["set-cookie"]) is is_secure


async def test_signing_out_ends_the_session_for_good(ann: Visitor) -> None:
    before = cookie_of(ann)
    answer = await ann.post("/dashboard/sign-out")
    assert answer.status_code == 303
    again = await ann.lab.http.get("/", headers=before)
    assert again.status_code == 303


async def test_a_new_login_has_a_new_cookie(ann: Visitor) -> None:
    before = cookie_of(ann)
    assert (await ann.lab.http.get("/", headers=before)).status_code == 200
    await ann.post("/dashboard/sign-in", method="anonymous")
    assert cookie_of(ann) != before
    assert (await ann.lab.http.get("/", headers=before)).status_code == 303


async def test_a_login_ends_with_its_account(ann: Visitor) -> None:
    ann.lab.advance(24 * 3600 + 1)
    assert (await ann.get("/")).status_code == 303


async def test_a_way_to_sign_in_that_there_is_not(lab: Lab) -> None:
    async with visitor(lab) as one:
        await one.get("/dashboard/sign-in")
        answer = await one.post("/dashboard/sign-in", method="../rooms")
        assert answer.status_code == 400
        assert "no such way to sign in" in answer.text


async def test_a_room_that_is_another_s_is_not_shown(lab: Lab, ann: Visitor) -> None:
    foreign, _ = await lab.room()
    for path in ("", "/live", "/people", "/models"):
        answer = await ann.get(f"/dashboard/rooms/{foreign}{path}")
        missing = await ann.get(f"/dashboard/rooms/room-none{path}")
        assert answer.status_code == missing.status_code >= 400
        assert answer.text == missing.text


# -- forms ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "HOST"},
    ],
)
async def test_a_form_of_another_site_is_refused(
    ann: Visitor, headers: dict[str, str]
) -> None:
    server = ann.lab.server.url
    sent = {name: server if v == "HOST" else v for name, v in headers.items()}
    form = {"form_token": ann.form_token}
    answer = await ann.http.post("/dashboard/sign-out", data=form, headers=sent)
    assert answer.status_code == 400
    assert "another site" in answer.text
    assert (await ann.get("/")).status_code == 200


async def test_an_older_browser_is_known_by_its_origin(ann: Visitor) -> None:
    origin = {"origin": ann.lab.server.url}
    form = {"form_token": ann.form_token}
    answer = await ann.http.post("/dashboard/sign-out", data=form, headers=origin)
    assert answer.status_code == 303


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
async def test_a_form_without_its_token_is_refused(ann: Visitor, token: str) -> None:
    ann.form_token = token
    answer = await ann.post("/dashboard/new-room", name="x", access="open")
    assert answer.status_code == 400


async def test_a_form_of_another_session_is_refused(lab: Lab, ann: Visitor) -> None:
    async with visitor(lab) as ben:
        await ben.sign_in()
        ben.form_token = ann.form_token
        answer = await ben.post("/dashboard/new-room", name="x", access="open")
        assert answer.status_code == 400


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"a=%ff%fe", b"&".join(b"a=b" for _ in range(50))]
)
async def test_a_form_that_cannot_be_read(ann: Visitor, body: bytes) -> None:
    answer = await ann.http.post(
        "/dashboard/new-room", content=body, headers={"sec-fetch-site": "same-origin"}
    )
    assert answer.status_code == 400


async def test_a_form_that_is_too_large(ann: Visitor) -> None:
    answer = await ann.post("/dashboard/new-room", name="x" * 20_000)
    assert answer.status_code == 413


# -- what leaves ----------------------------------------------------------------------


async def test_every_page_has_a_strict_policy(ann: Visitor) -> None:
    for path in ("/", "/dashboard/new-room", "/dashboard/rooms/room-1"):
        answer = await ann.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "nonce" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<style|style=|<script>|\son\w+=", answer.text)


async def test_files_keep_for_good_and_nothing_else_is_served(ann: Visitor) -> None:
    page = (await ann.get("/")).text
    paths = re.findall(r'(?:src|href)="(/dashboard/static/[^"]+)"', page)
    assert len(paths) == 5
    for path in paths:
        answer = await ann.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert not re.search(rb"https?://(?!www\.w3\.org|127)", answer.content[:200])
    for path in ("NOTICE", "../site.py", "%2e%2e%2fsite.py", "htmx.min.js"):
        assert (await ann.get(f"/dashboard/static/{path}")).status_code == 404


async def test_what_peers_write_is_text(ann: Visitor) -> None:
    room = await ann.room(HOSTILE)
    await join_worker(
        ann.lab,
        room,
        name=HOSTILE,
        gpu_model=HOSTILE,
        sleap_nn_version="</td>" * 200,
        status=HOSTILE,
        jobs=[training(head=HOSTILE[:60]), {"id": HOSTILE}],
    )
    for path in ("/", f"/dashboard/rooms/{room[0]}"):
        text = (await ann.get(path)).text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "\u202e" not in text
        assert "&lt;script&gt;alert" in text


async def test_nothing_secret_is_logged(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with visitor(lab) as one:
        await one.sign_in()
        room_id, token = await one.room("Flies")
        await one.get(f"/dashboard/rooms/{room_id}")
        cookie = next(iter(dict(one.http.cookies).values()))
        form_token = one.form_token
        await one.post("/dashboard/sign-out")
    said = "\n".join(
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("httpcore", "httpx", "websockets"))
    )
    for secret in (cookie, token, form_token):
        assert secret[:20] not in said


async def test_rest_is_as_it_was(lab: Lab) -> None:
    answer = await lab.http.get("/no-such-route")
    assert answer.status_code == 404
    assert answer.json()["code"] == "bad_request"
    account = await lab.account()
    assert (await lab.post("/create-room", account)).status_code == 200


async def test_the_port_of_rest_has_no_pages(lab: Lab) -> None:
    url = f"http://127.0.0.1:{lab.server.rest_port}"
    assert (await lab.http.get(f"{url}/")).status_code == 404
    assert (await lab.http.get(f"{url}/health")).status_code == 200


async def test_without_a_dashboard_there_is_none(tmp_path: Path) -> None:
    fields = {"dashboard": DashboardConfig(enabled=False)}
    async with dashboard_lab(tmp_path, **fields) as lab:
        assert (await lab.http.get("/")).status_code == 404
        assert (await lab.http.get("/health")).status_code == 200


# -- live ------------------------------------------------------------------------------


async def test_a_room_is_shown_as_it_changes(ann: Visitor) -> None:
    room = await ann.room("Flies")
    async with events(ann, room[0]) as live:
        assert "No worker is here" in await live.next("workers")
        worker = await join_worker(ann.lab, room, jobs=[training()])
        began = time.monotonic()
        await live.until("workers", "gpu-1")
        assert time.monotonic() - began < 2
        await live.until("jobs", "epoch 12 of 100")
        await tell(worker, jobs=[training(epoch=12, loss=0.0099)])
        began = time.monotonic()
        assert "0.00990" in await live.until("jobs", "epoch 13 of 100")
        assert time.monotonic() - began < 2
        await tell(worker, jobs=[training(state="succeeded")])
        await live.until("ended", "Succeeded")


async def test_what_does_not_change_is_not_sent_again(ann: Visitor) -> None:
    room = await ann.room("Flies")
    worker = await join_worker(ann.lab, room, jobs=[training()])
    async with events(ann, room[0]) as live:
        first = {(await live.one())[0] for _ in range(3)}
        assert first == {"workers", "jobs", "ended"}
        await tell(worker, jobs=[training(epoch=30)])
        name, data = await live.one()
        assert (name, "epoch 31" in data) == ("jobs", True)


async def test_signing_out_ends_what_is_live(ann: Visitor) -> None:
    room = await ann.room("Flies")
    async with events(ann, room[0]) as live:
        await live.next("workers")
        await ann.post("/dashboard/sign-out")
        await live.next("gone")


async def test_a_deleted_room_is_live_no_more(ann: Visitor) -> None:
    room = await ann.room("Flies")
    async with events(ann, room[0]) as live:
        await live.next("workers")
        answer = await ann.post(f"/dashboard/rooms/{room[0]}/delete", sure="yes")
        assert answer.status_code == 303
        await live.next("gone")


async def test_a_login_has_a_bounded_number_of_live_pages(ann: Visitor) -> None:
    room = await ann.room("Flies")
    path = f"/dashboard/rooms/{room[0]}/live"
    async with contextlib.AsyncExitStack() as stack:
        opened = []  # held, or the collector would close them
        for _ in range(MAX_LIVE_STREAMS_PER_LOGIN):
            opened.append(await stack.enter_async_context(events(ann, room[0])))
            await opened[-1].next("workers")
        assert (await ann.get(path)).status_code == 409
    async with asyncio.timeout(WAIT_S):
        while True:
            async with ann.http.stream("GET", path) as answer:
                if answer.status_code == 200:
                    break


async def test_the_server_stops_while_somebody_looks(tmp_path: Path) -> None:
    async with dashboard_lab(tmp_path) as lab, visitor(lab) as one:
        await one.sign_in()
        room = await one.room("Flies")
        async with events(one, room[0]) as live:
            await live.next("workers")
            began = time.monotonic()
            await lab.server.stop()
            assert time.monotonic() - began < STOP_DEADLINE_S / 2
            with contextlib.suppress(EOFError, httpx.HTTPError):
                await live.next("never")


async def test_a_token_of_a_rest_client_opens_no_page(lab: Lab) -> None:
    account = await lab.account()
    answer = await lab.http.get("/", headers=bearer(account))
    assert answer.status_code == 303

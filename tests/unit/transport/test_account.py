"""The REST client against answers that the test makes up: no socket, no server."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sleap_rtc_plugin.protocol.account_messages import (
    Account,
    DeviceFlow,
    DevicePending,
    InviteMember,
)
from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    InvitationRefused,
    RemoteProtocolError,
    SignalingUnreachable,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.limits import MAX_REST_ANSWER_BYTES
from sleap_rtc_plugin.transport.account import AccountClient, is_sign_in_page

SERVER = "http://lab.example:8080"
ACCOUNT = {
    "account_id": "github-1",
    "token": "secret-token",
    "expires_at": 10.0,
    "refresh_token": "secret-refresh",
    "name": "Ada",
    "method": "github",
}
FLOW = {
    "flow_id": "secret-flow",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://provider.example/device",
    "expires_at": 900.0,
}

Handler = Callable[[httpx.Request], httpx.Response]


class Talk:
    """A client whose questions the test answers."""

    def __init__(self, handler: Handler) -> None:
        self.asked: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            return handler(request)

        self.client = AccountClient(SERVER)
        self.client._http = httpx.AsyncClient(
            base_url=SERVER, transport=httpx.MockTransport(handle)
        )

    @property
    def body(self) -> Any:
        return json.loads(self.asked[-1].content)


def answering(value: object, status: int = 200) -> Talk:
    return Talk(lambda request: httpx.Response(status, json=value))


def refusing(code: str, status: int, **fields: str) -> Talk:
    return answering({"code": code, "message": "no", "fields": fields}, status)


async def test_an_older_server_signs_in_without_a_name() -> None:
    talk = refusing("bad_request", 404, reason="no such route")
    assert [m.name for m in await talk.client.sign_in_methods()] == ["anonymous"]


async def test_a_device_flow_is_started_and_asked_for() -> None:
    talk = answering(FLOW)
    flow = await talk.client.start_device_flow("github")
    assert flow.user_code == "ABCD-EFGH"
    assert talk.asked[-1].url.path == "/sign-in/github"
    waiting = answering({"interval_s": 7}, 202)
    assert await waiting.client.poll_device_flow("github", flow) == DevicePending(
        interval_s=7.0
    )
    assert waiting.body == {"flow_id": "secret-flow"}
    done = answering(ACCOUNT)
    account = await done.client.poll_device_flow("github", flow)
    assert isinstance(account, Account)
    assert account.name == "Ada"


@pytest.mark.parametrize("field", ["verification_uri", "verification_uri_complete"])
@pytest.mark.parametrize(
    "page", ["http://provider.example/", "file:///etc/passwd", "javascript:alert(1)"]
)
async def test_a_page_that_is_not_safe_is_refused(field: str, page: str) -> None:
    talk = answering({**FLOW, field: page})
    with pytest.raises(RemoteProtocolError):
        await talk.client.start_device_flow("github")


@pytest.mark.parametrize(
    ("page", "is_safe"),
    [
        ("https://github.com/login/device", True),
        ("http://127.0.0.1:8081/device?user_code=A", True),
        ("http://localhost/device", True),
        ("http://127.0.0.1.evil.example/", False),
        ("https://user@github.com/", False),
        ("https:///nowhere", False),
        ("https://a b/", False),
        ("https://a/\n", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_which_pages_are_opened(page: str, is_safe: bool) -> None:
    assert is_sign_in_page(page) is is_safe


async def test_an_open_room_is_asked_for_without_a_body() -> None:
    made = {"room_id": "room-1", "token": "t", "expires_at": 1.0}
    talk = answering(made)
    await talk.client.create_room("a")
    assert talk.asked[-1].content == b""
    await talk.client.create_room("a", name="Flies", access="members")
    assert talk.body == {"name": "Flies", "access": "members"}
    assert talk.asked[-1].headers["authorization"] == "Bearer a"


async def test_what_the_server_says_is_raised_with_its_address() -> None:
    talk = refusing("invitation_refused", 403, reason="it was used", server="x")
    with pytest.raises(InvitationRefused) as raised:
        await talk.client.accept_invitation("a", "sleap-invite:x")
    assert raised.value.server == SERVER
    talk = refusing("token_refused", 401, reason="it has expired", server="x")
    with pytest.raises(TokenRefused):
        await talk.client.invite("a", "room-1", InviteMember())


@pytest.mark.parametrize("room", ["../accounts", "room-1/members", "", "Room", "a?b"])
async def test_what_is_no_id_never_becomes_a_path(room: str) -> None:
    talk = answering({})
    with pytest.raises(BadRequest):
        await talk.client.room("a", room)
    assert talk.asked == []


async def test_answers_are_bounded_and_read_with_care() -> None:
    talk = Talk(lambda request: httpx.Response(200, content=b"[" * 100_000))
    with pytest.raises(RemoteProtocolError):
        await talk.client.rooms("a")
    long = b"x" * (MAX_REST_ANSWER_BYTES + 1)
    talk = Talk(lambda request: httpx.Response(200, content=long))
    with pytest.raises(RemoteProtocolError):
        await talk.client.rooms("a")
    talk = Talk(lambda request: httpx.Response(502, content=b"<html>"))
    with pytest.raises(SignalingUnreachable):
        await talk.client.rooms("a")


def test_nothing_secret_is_shown() -> None:
    shown = repr([Account(**ACCOUNT), DeviceFlow(**FLOW)])  # type: ignore[arg-type]
    assert "secret" not in shown

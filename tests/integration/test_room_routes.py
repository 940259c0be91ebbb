"""Members, invitations and credentials over REST and WebSockets of a real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.dynamodb import Tables, dynamodb_tables
from support.signaling_lab import ICE, Clock, Lab, Peer, bearer, config
from websockets.asyncio.client import connect

from sleap_rtc_plugin.protocol.close_codes import CloseCode, RelayCloseCode
from sleap_rtc_plugin.protocol.relay_messages import RelayJoin, encode_relay
from sleap_rtc_plugin.protocol.signaling_messages import Registered, ServerError
from sleap_rtc_signaling.admission import Admissions
from sleap_rtc_signaling.config import RelayConfig, StoreConfig
from sleap_rtc_signaling.limits import ACCEPT_RATE
from sleap_rtc_signaling.server import SignalingServer
from sleap_rtc_signaling.tokens import Tokens, load_or_make_key


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    with dynamodb_tables() as found:
        yield found


@pytest.fixture(params=["sqlite", "dynamodb"])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    store = StoreConfig()
    if request.param == "dynamodb":
        store = request.getfixturevalue("tables").make()
    clock = Clock()
    settings = config(tmp_path, store=store, ice_servers=(ICE,))
    async with SignalingServer(settings, clock=clock) as server:
        opened = Lab(server, clock)
        try:
            yield opened
        finally:
            await opened.close()


async def made(lab: Lab, account: str, **fields: str) -> tuple[str, str]:
    room = (await lab.post("/create-room", account, json=fields)).json()
    return room["room_id"], room["token"]


async def call(lab: Lab, account: str, path: str, **fields: Any) -> Any:
    response = await lab.post(path, account, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def joined(lab: Lab, owner: str, room_id: str, role: str = "member") -> str:
    """Make an account a member by an invitation; return its token."""
    invited = await call(lab, owner, f"/rooms/{room_id}/invitations", role=role)
    account = await lab.account()
    info = await call(lab, account, "/accept-invitation", code=invited["code"])
    assert (info["room_id"], info["role"]) == (room_id, role)
    return account


async def account_id(lab: Lab, account: str, room_id: str) -> str:
    details = (await lab.get(f"/rooms/{room_id}", account)).json()
    ids = [member["account_id"] for member in details["members"]]
    return str(ids[-1])


async def code_of(peer_and_reply: tuple[Peer, Any]) -> str:
    peer, reply = peer_and_reply
    assert isinstance(reply, ServerError), reply
    assert await peer.closed() == CloseCode.REGISTRATION_REFUSED
    return reply.code


# -- who may ask for what --------------------

ROUTES = {
    "details": ("GET", "", {}, {"owner": 200, "member": 200, "guest": 200}),
    "change": ("POST", "", {"name": "Flies"}, {"owner": 200}),
    "members": (
        "POST",
        "/members",
        {"account_id": "nobody", "role": "guest"},
        {"owner": 403},
    ),
    "invite": ("POST", "/invitations", {"role": "guest"}, {"owner": 200}),
    "uninvite": ("POST", "/invitations/revoke", {"id": "none"}, {"owner": 403}),
    "session": ("POST", "/credentials", {"kind": "session"}, {"owner": 200}),
    "worker": (
        "POST",
        "/credentials",
        {"kind": "worker"},
        {"owner": 200, "member": 200},
    ),
    "revoke": ("POST", "/credentials/revoke", {"id": "none"}, {}),
}


@pytest.mark.parametrize("name", ROUTES)
async def test_every_role_on_every_route(lab: Lab, name: str) -> None:
    method, path, body, allowed = ROUTES[name]
    owner = await lab.account()
    room_id, token = await made(lab, owner)
    accounts = {
        "owner": owner,
        "member": await joined(lab, owner, room_id),
        "guest": await joined(lab, owner, room_id, "guest"),
    }
    url = f"/rooms/{room_id}{path}"
    options = {} if method == "GET" else {"json": body}
    for role, account in accounts.items():
        response = await lab.http.request(
            method, url, headers=bearer(account), **options
        )
        assert response.status_code == allowed.get(role, 403), (role, response.text)
    # A stranger learns no more of this room than of one that is not there.
    stranger = bearer(await lab.account())
    answers = [
        await lab.http.request(method, place, headers=stranger, **options)
        for place in (url, f"/rooms/room-none{path}", f"/rooms/R%20%00{path}")
    ]
    assert {response.status_code for response in answers} == {404}
    assert len({response.text for response in answers}) == 1
    # A room's token is not an account's, and nobody is nobody.
    for wrong in (token, ""):
        response = await lab.http.request(method, url, headers=bearer(wrong), **options)
        assert response.status_code == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"access": "everybody"}),
        ("", {"name": "x" * 121}),
        ("/members", {}),
        ("/members", {"account_id": "x", "role": "king"}),
        ("/invitations", {"expires_in_s": 0}),
        ("/invitations", {"role": "owner", "member_for_s": 5.0}),
        ("/credentials", {"kind": "master"}),
        ("/credentials/revoke", {"id": "../../etc"}),
    ],
)
async def test_bad_bodies(lab: Lab, path: str, body: dict[str, Any]) -> None:
    owner = await lab.account()
    room_id, _ = await made(lab, owner)
    response = await lab.post(f"/rooms/{room_id}{path}", owner, json=body)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


async def test_accepting_is_limited(lab: Lab) -> None:
    account = await lab.account()
    statuses = [
        (
            await lab.post("/accept-invitation", account, json={"code": f"x{n}"})
        ).status_code
        for n in range(ACCEPT_RATE.burst + 5)
    ]
    assert statuses[: ACCEPT_RATE.burst] == [403] * ACCEPT_RATE.burst
    assert 429 in statuses


# -- a room for its members --------------------


async def test_a_room_for_its_members(lab: Lab) -> None:
    owner = await lab.account()
    room = await made(lab, owner, name="Flies", access="members")
    listed = (await lab.get("/rooms", owner)).json()["rooms"]
    assert [(r["room_id"], r["name"], r["access"]) for r in listed] == [
        (room[0], "Flies", "members")
    ]
    # The session string alone is not enough, neither for a worker nor for a client.
    for role in ("worker", "client"):
        refused = await lab.register(room, "somebody", role)
        assert await code_of(refused) == "sign_in_required"
    stranger = await lab.account()
    refused = await lab.register(room, "eve", account=stranger)
    assert await code_of(refused) == "not_allowed"
    refused = await lab.register((room[0], ""), "eve", account=stranger)
    assert await code_of(refused) == "room_gone"
    refused = await lab.register(("room-none", ""), "eve", account=stranger)
    assert await code_of(refused) == "room_gone"
    bent = owner[:-10] + ("A" if owner[-10] != "A" else "B") + owner[-9:]
    for text in ("", "x", bent):
        refused = await lab.register((room[0], ""), "eve", account=text)
        assert await code_of(refused) == "token_refused"
    member = await joined(lab, owner, room[0])
    guest = await joined(lab, owner, room[0], "guest")
    await lab.join(room, "ann", account=owner)
    await lab.join((room[0], ""), "bob", account=member)
    await lab.join((room[0], ""), "worker-bob", "worker", account=member)
    await lab.join((room[0], ""), "cat", account=guest)
    refused = await lab.register((room[0], ""), "worker-cat", "worker", account=guest)
    assert await code_of(refused) == "not_allowed"


async def test_a_worker_credential_is_for_a_worker_in_its_room_alone(
    lab: Lab,
) -> None:
    owner = await lab.account()
    room = await made(lab, owner, access="members")
    other = await made(lab, owner)
    path = f"/rooms/{room[0]}/credentials"
    token = (await call(lab, owner, path, kind="worker", label="rig"))["token"]
    await lab.join((room[0], token), "worker-1", "worker")
    refused = await lab.register((room[0], token), "somebody", "client")
    assert await code_of(refused) == "not_allowed"
    refused = await lab.register((other[0], token), "worker-2", "worker")
    assert await code_of(refused) == "token_refused"
    # It is no account either.
    assert (await lab.get("/rooms", token)).status_code == 401
    assert (await lab.post("/create-room", token)).status_code == 401


async def test_a_credential_that_ends_ends_its_worker(lab: Lab) -> None:
    owner = await lab.account()
    room = await made(lab, owner)
    path = f"/rooms/{room[0]}/credentials"
    token = (await call(lab, owner, path, kind="worker", expires_in_s=60.0))["token"]
    worker = await lab.join((room[0], token), "worker-1", "worker")
    session = await lab.join(room, "worker-2", "worker")
    lab.advance(61.0)
    assert await worker.closed() == CloseCode.REVOKED
    refused = await lab.register((room[0], token), "worker-1", "worker")
    assert await code_of(refused) == "token_refused"
    assert session.socket.close_code is None


# -- taken back --------------------


async def test_what_is_taken_back_ends_open_sockets(lab: Lab) -> None:
    owner = await lab.account()
    room = await made(lab, owner)
    path = f"/rooms/{room[0]}"
    made_worker = await call(lab, owner, f"{path}/credentials", kind="worker")
    worker_token = (room[0], made_worker["token"])
    member = await joined(lab, owner, room[0])
    member_id = await account_id(lab, owner, room[0])

    by_session = await lab.join(room, "by-session")
    by_credential = await lab.join(worker_token, "by-credential", "worker")
    by_account = await lab.join((room[0], ""), "by-account", account=member)
    owners = await lab.join((room[0], ""), "owners", account=owner)

    revoked = made_worker["credential_id"]
    await call(lab, owner, f"{path}/credentials/revoke", id=revoked)
    assert await by_credential.closed() == CloseCode.REVOKED
    refused = await lab.register(worker_token, "by-credential", "worker")
    assert await code_of(refused) == "token_refused"

    await call(lab, owner, f"{path}/members", account_id=member_id, role=None)
    assert await by_account.closed() == CloseCode.REVOKED
    refused = await lab.register((room[0], ""), "by-account", account=member)
    assert await code_of(refused) == "room_gone"

    credentials = (await lab.get(path, owner)).json()["credentials"]
    (session_id,) = [c["credential_id"] for c in credentials]
    await call(lab, owner, f"{path}/credentials/revoke", id=session_id)
    assert await by_session.closed() == CloseCode.REVOKED
    refused = await lab.register(room, "by-session")
    assert await code_of(refused) == "token_refused"
    ice = await lab.get("/ice-servers", room[1])
    assert (ice.status_code, ice.json()["code"]) == (401, "token_refused")
    assert "taken back" in ice.text
    assert owners.socket.close_code is None


async def test_what_is_taken_back_while_a_peer_registers(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await lab.account()
    room = await made(lab, owner)
    path = f"/rooms/{room[0]}/credentials"
    credential = await call(lab, owner, path, kind="worker")
    admit = Admissions.admit
    revoked: list[str] = []

    async def slow(*args: Any) -> Any:
        admission = await admit(*args)
        if not revoked:
            revoked.append(credential["credential_id"])
            await call(lab, owner, f"{path}/revoke", id=revoked[0])
        return admission

    monkeypatch.setattr(Admissions, "admit", slow)
    refused = await lab.register((room[0], credential["token"]), "late", "worker")
    assert await code_of(refused) == "token_refused"


async def test_a_relay_ends_with_the_peer_that_is_sent_out(
    tmp_path: Path,
) -> None:
    settings = config(tmp_path, relay=RelayConfig(enabled=True))
    async with SignalingServer(settings) as server:
        lab = Lab(server, Clock())
        owner = await lab.account()
        room_id, _ = await made(lab, owner)
        member = await joined(lab, owner, room_id)
        member_id = await account_id(lab, owner, room_id)
        sockets = []
        for peer_id, account in (("owners", owner), ("members", member)):
            await lab.join((room_id, ""), peer_id, account=account)
            url = f"{server.websocket_url.removesuffix('/ws')}/relay?room_id={room_id}"
            socket = await lab.stack.enter_async_context(
                connect(url, additional_headers=bearer(account), compression=None)
            )
            relay_id = "relay-" + "0" * 32
            await socket.send(
                encode_relay(RelayJoin(relay_id=relay_id, peer_id=peer_id))
            )
            sockets.append(socket)
        async with asyncio.timeout(10):
            for socket in sockets:
                await socket.recv()
        path = f"/rooms/{room_id}/members"
        await call(lab, owner, path, account_id=member_id, role=None)
        async with asyncio.timeout(10):
            for socket in sockets:
                await socket.wait_closed()
        assert [socket.close_code for socket in sockets] == [
            RelayCloseCode.PARTNER_LEFT,
            RelayCloseCode.REFUSED,
        ]
        await lab.close()


async def test_closing_a_room_to_all_but_members(lab: Lab) -> None:
    owner = await lab.account()
    room = await made(lab, owner)
    by_session = await lab.join(room, "by-session")
    by_account = await lab.join((room[0], ""), "by-account", account=owner)
    await call(lab, owner, f"/rooms/{room[0]}", access="members")
    assert await by_session.closed() == CloseCode.REVOKED
    assert by_account.socket.close_code is None


async def test_tokens_of_older_versions_stay_good(lab: Lab, tmp_path: Path) -> None:
    owner = await lab.account()
    room_id, _ = await made(lab, owner)
    folder = lab.server._config.data_dir
    tokens = Tokens(load_or_make_key(folder), lab.server.url)
    old = tokens.issue("room", room_id, lab.clock.now, lab.clock.now + 60.0)
    peer = await lab.join((room_id, old), "old")
    assert (await lab.get("/ice-servers", old)).status_code == 200
    await call(lab, owner, f"/rooms/{room_id}", access="members")
    assert await peer.closed() == CloseCode.REVOKED
    refused = await lab.register((room_id, old), "old")
    assert await code_of(refused) == "sign_in_required"


async def test_an_invitation_used_by_two_at_once(lab: Lab) -> None:
    owner = await lab.account()
    room_id, _ = await made(lab, owner)
    invited = await call(lab, owner, f"/rooms/{room_id}/invitations")
    accounts = [await lab.account() for _ in range(4)]
    answers = await asyncio.gather(
        *(
            lab.post("/accept-invitation", account, json={"code": invited["code"]})
            for account in accounts
        )
    )
    assert sorted(each.status_code for each in answers) == [200, 403, 403, 403]
    refused = next(answer for answer in answers if answer.status_code == 403)
    assert refused.json()["code"] == "invitation_refused"
    assert invited["code"] not in refused.text


async def test_ice_servers_for_a_member(lab: Lab) -> None:
    owner, stranger = await lab.account(), await lab.account()
    room_id, _ = await made(lab, owner, access="members")
    found = await lab.get(f"/ice-servers?room_id={room_id}", owner)
    assert found.status_code == 200
    for place in (room_id, "room-none"):
        refused = await lab.get(f"/ice-servers?room_id={place}", stranger)
        assert (refused.status_code, refused.json()["code"]) == (404, "room_gone")


async def test_any_owner_deletes_a_room(lab: Lab) -> None:
    owner = await lab.account()
    room = await made(lab, owner)
    member = await joined(lab, owner, room[0])
    peer = await lab.join(room, "somebody")
    body = {"room_id": room[0]}
    refused = await lab.post("/delete-peers-and-room", member, json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    assert (await lab.get("/rooms", member)).json()["rooms"][0]["room_id"] == room[0]
    await call(lab, owner, "/delete-peers-and-room", room_id=room[0])
    assert await peer.closed() == CloseCode.ROOM_ENDED
    assert (await lab.get("/rooms", member)).json() == {"rooms": []}
    assert (await lab.get("/rooms", owner)).json() == {"rooms": []}


async def test_an_account_that_is_not_good_keeps_nobody_out(lab: Lab) -> None:
    room = await lab.room()
    _, reply = await lab.register(room, "somebody", account="spoiled")
    assert isinstance(reply, Registered)


@pytest.mark.parametrize("kind", ["sqlite", "dynamodb"])
async def test_two_servers_on_one_store(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    store = StoreConfig()
    if kind == "dynamodb":
        store = request.getfixturevalue("tables").make()
    settings = config(tmp_path, store=store)
    async with SignalingServer(settings) as one, SignalingServer(settings) as other:
        here, there = Lab(one, Clock()), Lab(other, Clock())
        owner = await here.account()
        room = await made(here, owner, access="members", name="Flies")
        invited = await call(here, owner, f"/rooms/{room[0]}/invitations")
        body = {"code": invited["code"]}
        # The same code at both, at once: one of them takes it.
        answers = await asyncio.gather(
            here.post("/accept-invitation", await there.account(), json=body),
            there.post("/accept-invitation", await there.account(), json=body),
        )
        assert sorted(each.status_code for each in answers) == [200, 403]
        assert len((await there.get("/rooms", owner)).json()["rooms"]) == 1
        path = f"/rooms/{room[0]}/credentials"
        worker = await call(there, owner, path, kind="worker")
        await here.join((room[0], worker["token"]), "worker-1", "worker")
        await call(here, owner, f"{path}/revoke", id=worker["credential_id"])
        refused = await there.register((room[0], worker["token"]), "w", "worker")
        assert await code_of(refused) == "token_refused"
        for each in (here, there):
            await each.close()

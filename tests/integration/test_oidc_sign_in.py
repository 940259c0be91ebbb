"""Signing in at a real OpenID provider on this machine, through a real server."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from support.oidc_provider import (
    CLIENT_ID,
    OidcProvider,
    Person,
    SigningKey,
    unsigned,
    with_shared_secret,
)
from support.signaling_lab import Clock, Lab, config

from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_signaling.accounts_config import AccountsConfig, OidcConfig
from sleap_rtc_signaling.limits import (
    JWKS_FRESH_S,
    JWKS_RETRY_S,
    REFRESH_LIFETIME_S,
    SIGN_IN_LIFETIME_S,
    SIGN_IN_TOKEN_S,
)
from sleap_rtc_signaling.sections import ConfigError
from sleap_rtc_signaling.server import SignalingServer

BOB = Person(subject="bob-2", name="Bob \u202eevil", email="bob@else.example")


class World:
    """A provider, a server that knows it, and people."""

    def __init__(self, lab: Lab, provider: OidcProvider) -> None:
        self.lab = lab
        self.provider = provider

    async def begin(self, name: str = "lab") -> dict[str, Any]:
        response = await self.lab.post(f"/sign-in/{name}")
        assert response.status_code == 200, response.text
        flow: dict[str, Any] = response.json()
        return flow

    async def poll(self, flow: dict[str, Any], name: str = "lab") -> httpx.Response:
        body = {"flow_id": flow["flow_id"]}
        return await self.lab.post(f"/sign-in/{name}/poll", json=body)

    async def finish(
        self, person: Person | None = None, name: str = "lab"
    ) -> httpx.Response:
        flow = await self.begin(name)
        self.provider.approve(flow["user_code"], person)
        return await self.poll(flow, name)

    async def signed_in(
        self, person: Person | None = None, name: str = "lab"
    ) -> dict[str, Any]:
        response = await self.finish(person, name)
        assert response.status_code == 200, response.text
        account: dict[str, Any] = response.json()
        return account

    async def refresh(self, account: dict[str, Any]) -> httpx.Response:
        body = {"refresh_token": account["refresh_token"]}
        return await self.lab.post("/refresh", json=body)


def settings(provider: OidcProvider, **fields: Any) -> OidcConfig:
    return OidcConfig(
        **{
            "name": "lab",
            "label": "The Lab",
            "issuer": provider.issuer,
            "client_id": CLIENT_ID,
            **fields,
        }
    )


def github(provider: OidcProvider, **fields: Any) -> OidcConfig:
    return settings(
        provider,
        **{"name": "github", "kind": "github", "label": "", "api_url": provider.issuer},
        **fields,
    )


@pytest.fixture
async def provider() -> AsyncIterator[OidcProvider]:
    async with OidcProvider() as running:
        yield running


@pytest.fixture
async def world(provider: OidcProvider, tmp_path: Path) -> AsyncIterator[World]:
    accounts = AccountsConfig(oidc=(settings(provider), github(provider)))
    async for made in serve(provider, tmp_path, accounts):
        yield made


async def serve(
    provider: OidcProvider, folder: Path, accounts: AccountsConfig
) -> AsyncIterator[World]:
    clock = Clock()
    provider.clock = clock
    async with SignalingServer(
        config(folder, accounts=accounts), clock=clock
    ) as server:
        lab = Lab(server, clock)
        yield World(lab, provider)
        await lab.close()


def refused(response: httpx.Response, status: int, code: str) -> str:
    assert (response.status_code, response.json()["code"]) == (status, code)
    return str(response.json()["message"])


# -- a person signs in --------------------


async def test_the_ways_are_told_persons_first(world: World) -> None:
    methods = (await world.lab.get("/sign-in")).json()["methods"]
    assert [(way["name"], way["kind"], way["label"]) for way in methods] == [
        ("lab", "device", "The Lab"),
        ("github", "device", "GitHub"),
        ("anonymous", "direct", "Without a name"),
    ]
    assert [way["is_named"] for way in methods] == [True, True, False]


@pytest.mark.parametrize("name", ["lab", "github"])
async def test_a_person_signs_in_and_is_the_same_each_time(
    world: World, name: str
) -> None:
    flow = await world.begin(name)
    assert flow["verification_uri"] == f"{world.provider.issuer}/activate"
    waiting = await world.poll(flow, name)
    assert (waiting.status_code, waiting.json()) == (202, {"interval_s": 1.0})
    async with httpx.AsyncClient() as browser:
        form = {"code": flow["user_code"], "answer": "yes"}
        await browser.post(flow["verification_uri"], data=form)
    world.lab.advance(1.0)
    account = (await world.poll(flow, name)).json()
    assert (account["name"], account["method"]) == ("Alice", name)
    assert is_id(account["account_id"])
    assert account["account_id"].startswith("user-")
    again = await world.signed_in(name=name)
    assert again["account_id"] == account["account_id"]
    other = await world.signed_in(
        Person(subject="bob-2", name="Bob", number=2), name=name
    )
    assert other["account_id"] != account["account_id"]
    who = (await world.lab.get("/account", account["token"])).json()
    assert who == {
        "account_id": account["account_id"],
        "name": "Alice",
        "method": name,
        "expires_at": account["expires_at"],
    }
    room = await world.lab.room(account["token"])
    await world.lab.join(room, "worker-1", "worker")


async def test_nothing_of_the_providers_leaves_the_server(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="sleap_rtc_signaling")
    flow = await world.begin()
    world.provider.approve(flow["user_code"])
    text = (await world.poll(flow)).text
    account = json.loads(text)
    assert "alice-1" not in text + caplog.text
    assert "alice@lab.example" not in text + caplog.text
    for secret in (account["token"], account["refresh_token"], flow["flow_id"]):
        assert secret not in caplog.text
    claims = jwt.decode(account["token"], options={"verify_signature": False})
    assert claims["iss"] == "sleap-rtc-signaling"


async def test_names_are_cleaned(world: World) -> None:
    account = await world.signed_in(BOB)
    assert account["name"] == "Bob  evil"
    long = await world.signed_in(Person(subject="c", name="x" * 5_000))
    assert len(long["name"]) == 120


async def test_a_flow_gives_one_account(world: World) -> None:
    flow = await world.begin()
    world.provider.approve(flow["user_code"])
    assert (await world.poll(flow)).status_code == 200
    world.lab.advance(2.0)
    refused(await world.poll(flow), 403, "sign_in_refused")


async def test_the_provider_is_asked_at_its_own_pace(world: World) -> None:
    flow = await world.begin()
    answers = await asyncio.gather(*(world.poll(flow) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert world.provider.asked["/token"] == 1
    world.provider.slow_down = 1
    world.lab.advance(1.0)
    slower = await world.poll(flow)
    assert (slower.status_code, slower.json()["interval_s"]) == (202, 6.0)
    world.provider.approve(flow["user_code"])
    world.lab.advance(5.0)
    assert (await world.poll(flow)).status_code == 202
    assert world.provider.asked["/token"] == 2
    world.lab.advance(1.0)
    assert (await world.poll(flow)).status_code == 200


@pytest.mark.parametrize(
    ("act", "reason"),
    [(OidcProvider.deny, "refused at the provider"), (OidcProvider.expire, "too long")],
)
@pytest.mark.parametrize("name", ["lab", "github"])
async def test_a_no_is_a_no(
    world: World, act: Callable[[OidcProvider, str], None], reason: str, name: str
) -> None:
    flow = await world.begin(name)
    act(world.provider, flow["user_code"])
    assert reason in refused(await world.poll(flow, name), 403, "sign_in_refused")
    refused(await world.poll(flow, name), 403, "sign_in_refused")


async def test_a_flow_ends_and_is_of_one_way(world: World) -> None:
    flow = await world.begin()
    world.provider.approve(flow["user_code"])
    refused(await world.poll(flow, "github"), 403, "sign_in_refused")
    refused(await world.poll({"flow_id": "x"}), 403, "sign_in_refused")
    world.lab.advance(600.0)
    refused(await world.poll(flow), 403, "sign_in_refused")


async def test_ways_that_are_not_there(world: World) -> None:
    for path in ("/sign-in/other", "/sign-in/..x", "/sign-in/other/poll"):
        body = {"flow_id": "x"}
        refused(await world.lab.post(path, json=body), 400, "bad_request")
    refused(
        await world.lab.post("/sign-in/anonymous/poll", json={"flow_id": "x"}),
        400,
        "bad_request",
    )
    anonymous = (await world.lab.post("/sign-in/anonymous")).json()
    assert anonymous["account_id"].startswith("anonymous-")


# -- staying signed in, and not --------------------


async def test_a_refresh_token_is_good_once_and_a_spent_one_ends_the_sign_in(
    world: World,
) -> None:
    first = await world.signed_in()
    world.lab.advance(SIGN_IN_TOKEN_S)
    expired = await world.lab.get("/account", first["token"])
    assert "expired" in refused(expired, 401, "token_refused")
    second = (await world.refresh(first)).json()
    assert second["account_id"] == first["account_id"]
    assert (await world.lab.get("/account", second["token"])).status_code == 200
    refused(await world.refresh(first), 401, "token_refused")
    refused(await world.refresh(second), 401, "token_refused")
    refused(await world.lab.get("/account", second["token"]), 401, "token_refused")


async def test_of_two_who_refresh_at_once_one_succeeds(world: World) -> None:
    account = await world.signed_in()
    answers = await asyncio.gather(*(world.refresh(account) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_a_sign_in_ends_however_often_it_is_refreshed(world: World) -> None:
    account = await world.signed_in()
    left_s = SIGN_IN_LIFETIME_S
    while left_s > 0:
        step_s = min(REFRESH_LIFETIME_S - 1.0, left_s)
        world.lab.advance(step_s)
        left_s -= step_s
        answer = await world.refresh(account)
        if left_s > 0:
            account = answer.json()
    refused(answer, 401, "token_refused")


async def test_a_refresh_token_that_waits_too_long_has_ended(world: World) -> None:
    account = await world.signed_in()
    world.lab.advance(REFRESH_LIFETIME_S)
    refused(await world.refresh(account), 401, "token_refused")


async def test_signing_out_takes_both_tokens_back(world: World) -> None:
    account, other = await world.signed_in(), await world.signed_in()
    body = {"refresh_token": account["refresh_token"]}
    gone = await world.lab.post("/sign-out", account["token"], json=body)
    assert gone.json() == {"account_id": account["account_id"]}
    for path in ("/account", "/ice-servers"):
        refused(await world.lab.get(path, account["token"]), 401, "token_refused")
    refused(
        await world.lab.post("/create-room", account["token"]), 401, "token_refused"
    )
    refused(await world.refresh(account), 401, "token_refused")
    again = await world.lab.post("/sign-out", account["token"], json=body)
    refused(again, 401, "token_refused")
    # The same person's other machine stays signed in.
    assert (await world.lab.get("/account", other["token"])).status_code == 200


async def test_signing_out_works_after_the_hour_too(world: World) -> None:
    account = await world.signed_in()
    world.lab.advance(SIGN_IN_TOKEN_S + 1)
    body = {"refresh_token": account["refresh_token"]}
    gone = await world.lab.post("/sign-out", account["token"], json=body)
    assert gone.status_code == 200
    refused(await world.refresh(account), 401, "token_refused")


@pytest.mark.parametrize(
    "text", ["", "x", "signin-", "signin-0.x", "signin-../.x", "é.é", "a" * 5_000]
)
async def test_what_is_no_refresh_token(world: World, text: str) -> None:
    answer = await world.refresh({"refresh_token": text})
    assert answer.status_code in (400, 401)


async def test_a_way_that_was_taken_out_ends_what_came_of_it(
    provider: OidcProvider, tmp_path: Path
) -> None:
    accounts = AccountsConfig(oidc=(settings(provider),))
    async for world in serve(provider, tmp_path, accounts):
        account = await world.signed_in()
    async for world in serve(
        provider, tmp_path, AccountsConfig(oidc=(github(provider),))
    ):
        refused(await world.lab.get("/account", account["token"]), 401, "token_refused")
        refused(await world.refresh(account), 401, "token_refused")


async def test_a_room_for_members_asks_for_the_person(world: World) -> None:
    account = await world.signed_in()
    made = await world.lab.post(
        "/create-room", account["token"], json={"access": "members"}
    )
    room = (made.json()["room_id"], "")
    await world.lab.join(room, "client-1", account=account["token"])
    other = await world.signed_in(BOB)
    _, reply = await world.lab.register(room, "client-2", account=other["token"])
    assert reply.code == "room_gone"
    claims = jwt.decode(account["token"], options={"verify_signature": False})
    head = {"typ": "sleap-rtc-account+jwt"}
    kid = jwt.get_unverified_header(account["token"])["kid"]
    bad = [
        unsigned(claims, alg="none", kid=kid, **head),
        unsigned(claims, alg="EdDSA", kid=kid, **head),
        SigningKey.make(kid).sign(claims, **head),
        world.provider.keys[0].sign(claims, **head),
        # The provider's own token, as good as it may be, is for this server alone.
        world.provider.keys[0].sign(world.provider.claims(Person())),
        account["token"][:-4],
        account["refresh_token"],
    ]
    for number, token in enumerate(bad):
        answer = await world.lab.get("/account", token)
        refused(answer, 401, "token_refused")
        peer, reply = await world.lab.register(room, f"thief-{number}", account=token)
        assert reply.code == "token_refused"
        assert await peer.closed() == CloseCode.REGISTRATION_REFUSED
    await world.lab.post("/sign-out", account["token"])
    _, reply = await world.lab.register(room, "client-3", account=account["token"])
    assert reply.code == "token_refused"


# -- who is let in --------------------


@pytest.mark.parametrize(
    ("fields", "person", "good"),
    [
        ({"allowed_subjects": ("alice-1",)}, Person(), True),
        ({"allowed_subjects": ("alice",)}, Person(), False),
        ({"allowed_domains": ("LAB.example",)}, Person(), True),
        ({"allowed_domains": ("lab.example",)}, BOB, False),
        ({"allowed_domains": ("lab.example",)}, Person(email_verified=False), False),
        ({"allowed_domains": ("example",)}, Person(), False),
        (
            {"allowed_domains": ("lab.example",)},
            Person(email="a@lab.example@evil.example"),
            False,
        ),
        ({"allowed_domains": ("lab.example",)}, Person(email="lab.example"), False),
    ],
)
async def test_who_is_on_no_list_is_refused(
    provider: OidcProvider,
    tmp_path: Path,
    fields: dict[str, Any],
    person: Person,
    good: bool,
) -> None:
    accounts = AccountsConfig(oidc=(settings(provider, **fields),))
    async for world in serve(provider, tmp_path, accounts):
        answer = await world.finish(person)
        if good:
            assert answer.status_code == 200
        else:
            assert "list" in refused(answer, 403, "sign_in_refused")


@pytest.mark.parametrize(
    ("fields", "person", "good"),
    [
        ({"allowed_subjects": ("ALICE-1",)}, Person(), True),
        ({"allowed_subjects": ("bob",)}, Person(), False),
        (
            {"allowed_organisations": ("talmo",)},
            Person(organisations=["Talmo", "x"]),
            True,
        ),
        ({"allowed_organisations": ("talmo",)}, Person(organisations=["other"]), False),
    ],
)
async def test_who_is_on_no_list_of_github_is_refused(
    provider: OidcProvider,
    tmp_path: Path,
    fields: dict[str, Any],
    person: Person,
    good: bool,
) -> None:
    accounts = AccountsConfig(oidc=(github(provider, **fields),))
    async for world in serve(provider, tmp_path, accounts):
        answer = await world.finish(person, "github")
        assert answer.status_code == (200 if good else 403)


async def test_without_an_anonymous_way_nobody_is_anonymous(
    provider: OidcProvider, tmp_path: Path
) -> None:
    accounts = AccountsConfig(anonymous=False, oidc=(settings(provider),))
    async for world in serve(provider, tmp_path, accounts):
        refused(await world.lab.post("/anonymous-signin"), 403, "not_allowed")
        refused(await world.lab.post("/sign-in/anonymous"), 403, "not_allowed")
        methods = (await world.lab.get("/sign-in")).json()["methods"]
        assert [way["name"] for way in methods] == ["lab"]


@pytest.mark.parametrize(
    "accounts",
    [
        AccountsConfig(anonymous=False),
        AccountsConfig(oidc=(OidcConfig(name="a", client_id="c"),)),
        AccountsConfig(
            oidc=(OidcConfig(name="a", client_id="c", issuer="http://a.example"),)
        ),
        AccountsConfig(
            oidc=(OidcConfig(name="anonymous", client_id="c", kind="github"),)
        ),
        AccountsConfig(
            oidc=(
                OidcConfig(
                    name="a", client_id="c", kind="github", allowed_domains=("x.y",)
                ),
            )
        ),
        AccountsConfig(
            oidc=(
                OidcConfig(
                    name="a",
                    client_id="c",
                    issuer="https://a.example",
                    allowed_organisations=("x",),
                ),
            )
        ),
    ],
)
async def test_settings_that_make_no_sense_are_told(
    tmp_path: Path, accounts: AccountsConfig
) -> None:
    with pytest.raises(ConfigError):
        await SignalingServer(config(tmp_path, accounts=accounts)).start()


async def test_a_sign_in_goes_on_at_another_instance_and_after_a_restart(
    provider: OidcProvider, tmp_path: Path
) -> None:
    accounts = AccountsConfig(oidc=(settings(provider),))
    async for first in serve(provider, tmp_path, accounts):
        async for second in serve(provider, tmp_path, accounts):
            flow = await first.begin()
            provider.approve(flow["user_code"])
            answers = await asyncio.gather(first.poll(flow), second.poll(flow))
            assert sorted(answer.status_code for answer in answers)[0] == 200
            assert sum(answer.status_code == 200 for answer in answers) == 1
            (account,) = (a.json() for a in answers if a.status_code == 200)
            other = await second.lab.get("/account", account["token"])
            assert other.status_code == 200
    async for again in serve(provider, tmp_path, accounts):
        assert (await again.lab.get("/account", account["token"])).status_code == 200
        account = (await again.refresh(account)).json()
        assert account["name"] == "Alice"


# -- bad ID tokens --------------------


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "expired": lambda c: c.update(exp=c["iat"]),
    "without an end": lambda c: c.pop("exp"),
    "with a strange end": lambda c: c.update(exp="never"),
    "of tomorrow": lambda c: c.update(iat=c["iat"] + 3600),
    "not yet good": lambda c: c.update(nbf=c["iat"] + 3600),
    "of another issuer": lambda c: c.update(iss="https://evil.example"),
    "for another audience": lambda c: c.update(aud="another"),
    "for two without a party": lambda c: c.update(aud=[CLIENT_ID, "another"]),
    "for another party": lambda c: c.update(aud=[CLIENT_ID, "x"], azp="x"),
    "without an audience": lambda c: c.pop("aud"),
    "without a subject": lambda c: c.pop("sub"),
    "with an empty subject": lambda c: c.update(sub=""),
    "with a long subject": lambda c: c.update(sub="x" * 300),
    "of another sign-in": lambda c: c.update(nonce="another"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_id_tokens_that_are_not_good(
    world: World, change: Callable[[dict[str, Any]], Any]
) -> None:
    world.provider.change = change
    refused(await world.finish(), 403, "sign_in_refused")


@pytest.mark.parametrize(
    "forge",
    [
        lambda provider: partial(unsigned, alg="none", kid="first"),
        lambda provider: partial(
            with_shared_secret,
            json.dumps(provider.keys[0].public()).encode(),
            key_id="first",
        ),
        lambda provider: partial(
            with_shared_secret,
            provider.keys[0]
            .private.public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            key_id="first",
        ),
        lambda provider: SigningKey.make("first").sign,
        lambda provider: SigningKey.make("first", "RS256").sign,
        lambda provider: SigningKey.make("nobody").sign,
        lambda provider: lambda claims: "x" * 100,
        lambda provider: lambda claims: provider.keys[0].sign(claims) + "x" * 40_000,
        lambda provider: lambda claims: provider.keys[0].sign(claims, crit=["exp"]),
        lambda provider: lambda claims: provider.keys[0].sign(claims, kid="é"),
    ],
    ids=[
        "alg none",
        "HS256 with the public key",
        "HS256 with the public key in PEM",
        "another key of the same id",
        "another algorithm",
        "an unknown key id",
        "no token",
        "too long",
        "critical",
        "a strange key id",
    ],
)
async def test_id_tokens_of_somebody_else(
    world: World,
    forge: Callable[[OidcProvider], Callable[[dict[str, Any]], str]],
) -> None:
    world.provider.forge = forge(world.provider)
    refused(await world.finish(), 403, "sign_in_refused")


async def test_two_algorithms_and_rotated_keys(world: World) -> None:
    await world.signed_in()
    world.provider.rotate("second", "RS256")
    world.lab.advance(61.0)
    await world.signed_in()
    # A key that the provider has taken out is not good for longer than an hour.
    gone = world.provider.keys.pop(0)
    world.lab.advance(JWKS_FRESH_S)
    world.provider.forge = gone.sign
    refused(await world.finish(), 403, "sign_in_refused")


# -- a provider that is ill --------------------


async def test_a_provider_that_is_away_is_told_and_comes_back(world: World) -> None:
    account = await world.signed_in()
    await world.provider.stop()
    message = refused(await world.lab.post("/sign-in/lab"), 503, "accounts_unavailable")
    assert "The Lab" in message
    # Who is signed in does not notice.
    assert (await world.lab.get("/account", account["token"])).status_code == 200
    second = (await world.refresh(account)).json()
    await world.provider.start()
    assert (await world.lab.get("/account", second["token"])).status_code == 200
    await world.signed_in()


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("not json"),
        PlainTextResponse("x" * 300_000),
        JSONResponse({"error": "x"}, 500),
        JSONResponse([1, 2]),
        JSONResponse({}),
        RedirectResponse("http://127.0.0.1:1/"),
        PlainTextResponse("[" * 100_000),
    ],
)
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/device"])
async def test_a_provider_that_makes_no_sense(
    world: World, path: str, answer: Any
) -> None:
    world.provider.fault[path] = answer
    refused(await world.lab.post("/sign-in/lab"), 503, "accounts_unavailable")
    world.provider.fault.clear()
    world.lab.advance(JWKS_RETRY_S)
    await world.signed_in()


async def test_keys_that_cannot_be_had_are_no_bad_token(world: World) -> None:
    world.provider.fault["/jwks"] = JSONResponse({}, 500)
    flow = await world.begin()
    world.provider.approve(flow["user_code"])
    refused(await world.poll(flow), 503, "accounts_unavailable")


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"device_authorization_endpoint": None},
    ],
)
async def test_a_description_that_leads_astray(
    world: World, change: dict[str, Any]
) -> None:
    world.provider.describe = lambda answer: answer.update(change)
    refused(await world.lab.post("/sign-in/lab"), 503, "accounts_unavailable")


@pytest.mark.parametrize(
    "change",
    [
        {"verification_uri": "http://evil.example/"},
        {"verification_uri": "javascript:alert(1)"},
        {"user_code": "\u202eABCD"},
        {"user_code": "x" * 65},
        {"device_code": "x" * 3_000},
        {"expires_in": 0},
        {"expires_in": "soon"},
        {"interval": -1},
    ],
)
async def test_a_code_that_leads_astray(world: World, change: dict[str, Any]) -> None:
    world.provider.begun = lambda answer: answer.update(change)
    refused(await world.lab.post("/sign-in/lab"), 503, "accounts_unavailable")


async def test_an_address_that_leads_astray_is_left_out(world: World) -> None:
    change = {"verification_uri_complete": "http://evil.example/", "expires_in": 1e9}
    world.provider.begun = lambda answer: answer.update(change)
    flow = await world.begin()
    assert flow["verification_uri_complete"] == ""
    assert flow["expires_at"] == world.lab.clock.now + 1800


async def test_flows_are_few(world: World) -> None:
    for _ in range(20):
        await world.begin()
    refused(await world.lab.post("/sign-in/lab"), 429, "rate_limited")

"""Accounts of a Cognito user pool, on moto's server, through a real server of ours."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from support.cognito_pool import (
    REGION,
    Gate,
    Pool,
    aws_credentials,
    make_pool,
    public_keys,
    sign_as_pool,
)
from support.oidc_provider import unsigned, with_shared_secret
from support.signaling_lab import Clock, Lab, config
from support.store_servers import moto

from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.ids import is_id
from sleap_rtc_plugin.protocol.limits import MAX_TOKEN_CHARS
from sleap_rtc_signaling.accounts.cognito import CognitoAccounts
from sleap_rtc_signaling.accounts_config import AccountsConfig, CognitoConfig
from sleap_rtc_signaling.limits import JWKS_FRESH_S, JWKS_RETRY_S, JWKS_STALE_S
from sleap_rtc_signaling.server import SignalingServer
from sleap_rtc_signaling.stores.memory import MemoryRecords

pytest.importorskip("boto3")
DAY_S = 24 * 3600.0


class World:
    """A pool, a server that uses it, and the way between them."""

    def __init__(self, lab: Lab, pool: Pool, gate: Gate) -> None:
        self.lab = lab
        self.pool = pool
        self.gate = gate

    async def sign_in(self) -> dict[str, Any]:
        response = await self.lab.post("/anonymous-signin")
        assert response.status_code == 200, response.text
        account: dict[str, Any] = response.json()
        return account

    async def refresh(self, account: dict[str, Any]) -> httpx.Response:
        body = {"refresh_token": account["refresh_token"]}
        return await self.lab.post("/refresh", json=body)

    async def sign_out(self, account: dict[str, Any]) -> httpx.Response:
        body = {"refresh_token": account["refresh_token"]}
        return await self.lab.post("/sign-out", account["token"], json=body)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with aws_credentials(), moto(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture(scope="module")
def pool(endpoint: str) -> Iterator[Pool]:
    made = make_pool(endpoint)
    yield made
    made.aws.close()


def cognito(pool: Pool, endpoint: str, **fields: Any) -> CognitoConfig:
    return CognitoConfig(
        region=REGION,
        user_pool_id=pool.pool_id,
        client_id=pool.client_id,
        endpoint_url=endpoint,
        **fields,
    )


@pytest.fixture
async def world(pool: Pool, tmp_path: Path) -> AsyncIterator[World]:
    gate = Gate(pool.endpoint)
    await gate.open()
    accounts = AccountsConfig(cognito=cognito(pool, gate.url))
    clock = Clock()
    async with SignalingServer(
        config(tmp_path, accounts=accounts), clock=clock
    ) as server:
        lab = Lab(server, clock)
        yield World(lab, pool, gate)
        await lab.close()
    await gate.shut()


def refused(response: httpx.Response, status: int, code: str) -> str:
    assert (response.status_code, response.json()["code"]) == (status, code)
    return str(response.json()["message"])


async def test_an_ephemeral_user_opens_a_room(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="sleap_rtc_signaling")
    before = world.pool.users()
    account = await world.sign_in()
    (user,) = set(world.pool.users()) - set(before)
    assert user.startswith("anonymous-")
    assert is_id(account["account_id"])
    claims = jwt.decode(account["token"], options={"verify_signature": False})
    assert claims["iss"] == world.pool.issuer
    assert claims["exp"] == account["expires_at"]
    room = await world.lab.room(account["token"])
    await world.lab.join(room, "worker-1", "worker")
    who = (await world.lab.get("/account", account["token"])).json()
    assert who["account_id"] == account["account_id"]
    for secret in (account["token"], account["refresh_token"], user, claims["sub"]):
        assert secret not in caplog.text


async def test_two_users_are_two_accounts(world: World) -> None:
    first, second = await asyncio.gather(world.sign_in(), world.sign_in())
    assert first["account_id"] != second["account_id"]
    room_id, _ = await world.lab.room(first["token"])
    answer = await world.lab.post(
        "/delete-peers-and-room", second["token"], json={"room_id": room_id}
    )
    refused(answer, 403, "not_allowed")


async def test_a_refreshed_account_is_the_same(world: World) -> None:
    account = await world.sign_in()
    again = (await world.refresh(account)).json()
    assert again["account_id"] == account["account_id"]
    assert again["token"] != account["token"]
    assert (await world.lab.get("/account", again["token"])).status_code == 200
    invented = await world.refresh({"refresh_token": "nobody"})
    refused(invented, 401, "token_refused")


async def test_signing_out_ends_all_tokens_of_the_sign_in(world: World) -> None:
    account = await world.sign_in()
    again = (await world.refresh(account)).json()
    other = await world.sign_in()
    # moto cannot take a token back, so this is our denial alone.
    gone = await world.sign_out(account)
    assert gone.json() == {"account_id": account["account_id"]}
    for token in (account["token"], again["token"]):
        refused(await world.lab.get("/account", token), 401, "token_refused")
        refused(await world.lab.post("/create-room", token), 401, "token_refused")
    refused(await world.refresh(account), 401, "token_refused")
    refused(await world.sign_out(account), 401, "token_refused")
    assert (await world.lab.get("/account", other["token"])).status_code == 200


async def test_a_token_ends(world: World) -> None:
    account = await world.sign_in()
    world.lab.advance(account["expires_at"] - world.lab.clock.now)
    answer = await world.lab.get("/account", account["token"])
    assert "expired" in refused(answer, 401, "token_refused")


# -- bad tokens --------------------


def of(world: World, account: dict[str, Any]) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        account["token"], options={"verify_signature": False}
    )
    return claims


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "expired": lambda c: c.update(exp=1),
    "without an end": lambda c: c.pop("exp"),
    "of another issuer": lambda c: c.update(iss=c["iss"] + "x"),
    "of another region": lambda c: c.update(
        iss=c["iss"].replace("us-east-1.amazonaws", "eu-west-1.amazonaws")
    ),
    "without an issuer": lambda c: c.pop("iss"),
    "for another client": lambda c: c.update(client_id="another"),
    "without a client": lambda c: c.pop("client_id"),
    "an ID token": lambda c: c.update(token_use="id", aud=c["client_id"]),
    "without a use": lambda c: c.pop("token_use"),
    "without a subject": lambda c: c.pop("sub"),
    "with a strange subject": lambda c: c.update(sub=7),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_tokens_that_are_not_good(
    world: World, change: Callable[[dict[str, Any]], Any]
) -> None:
    claims = of(world, await world.sign_in())
    good = sign_as_pool(claims)
    assert (await world.lab.get("/account", good)).status_code == 200
    change(claims)
    bad = sign_as_pool(claims)
    for path in ("/account", "/ice-servers"):
        refused(await world.lab.get(path, bad), 401, "token_refused")
    refused(await world.lab.post("/create-room", bad), 401, "token_refused")


async def test_tokens_of_somebody_else(world: World) -> None:
    account = await world.sign_in()
    claims = of(world, account)
    bad = [
        unsigned(claims, alg="none", kid="dummy"),
        unsigned(claims, alg="RS256", kid="dummy"),
        *(with_shared_secret(key, claims, "dummy") for key in public_keys()),
        sign_as_pool(claims, kid="unknown"),
        sign_as_pool(claims, kid="x" * 300),
        account["token"][:-4],
        account["token"] + "x" * 5_000,
        account["token"].rpartition(".")[0] + ".AAAA",
    ]
    room = await world.lab.room(account["token"])
    for number, token in enumerate(bad):
        answer = await world.lab.get("/account", token)
        refused(answer, 401, "token_refused")
        # Nor does an account's token, however good, open the door of a room.
        peer, reply = await world.lab.register((room[0], token), f"client-{number}")
        if len(token) <= MAX_TOKEN_CHARS:
            assert reply.code == "token_refused"
            assert await peer.closed() == CloseCode.REGISTRATION_REFUSED
        else:
            assert reply.code == "protocol"
    _, reply = await world.lab.register((room[0], account["token"]), "client-last")
    assert reply.code == "token_refused"


async def test_a_token_of_another_pool_is_refused_though_its_key_is_the_same(
    world: World, tmp_path: Path
) -> None:
    """moto signs for all pools with one key of one id: the issuer has to be checked."""
    other = make_pool(world.pool.endpoint)
    accounts = CognitoAccounts(
        cognito(other, other.endpoint), MemoryRecords(), "http://server"
    )
    foreign = await accounts.sign_in("anonymous", world.lab.clock.now)
    await accounts.close()
    other.aws.close()
    answer = await world.lab.get("/account", foreign.token)
    refused(answer, 401, "token_refused")
    refused(
        await world.refresh({"refresh_token": foreign.refresh_token}),
        401,
        ("token_refused"),
    )


async def test_a_token_of_ours_is_not_known_to_a_server_with_a_pool(
    world: World, tmp_path: Path
) -> None:
    async with SignalingServer(config(tmp_path / "other")) as plain:
        lab = Lab(plain, world.lab.clock)
        token = await lab.account()
        await lab.close()
    refused(await world.lab.get("/account", token), 401, "token_refused")


async def test_a_room_for_members_asks_for_the_user(world: World) -> None:
    account = await world.sign_in()
    made = await world.lab.post(
        "/create-room", account["token"], json={"access": "members"}
    )
    room = (made.json()["room_id"], "")
    await world.lab.join(room, "client-1", account=account["token"])
    claims = of(world, account)
    for number, token in enumerate(
        [
            unsigned(claims, alg="none", kid="dummy"),
            sign_as_pool(claims | {"exp": 1}),
            sign_as_pool(claims | {"client_id": "another"}),
            sign_as_pool(claims | {"token_use": "id"}),
            sign_as_pool(claims, kid="unknown"),
        ]
    ):
        _, reply = await world.lab.register(room, f"thief-{number}", account=token)
        assert reply.code == "token_refused"
    other = await world.sign_in()
    _, reply = await world.lab.register(room, "client-2", account=other["token"])
    assert reply.code == "room_gone"
    await world.gate.shut()
    world.lab.advance(61.0)
    unknown = sign_as_pool(claims, kid="unknown")
    _, reply = await world.lab.register(room, "client-3", account=unknown)
    assert reply.code == "accounts_unavailable"
    await world.lab.join(room, "client-4", account=account["token"])
    await world.sign_out(account)
    _, reply = await world.lab.register(room, "client-5", account=account["token"])
    assert reply.code == "token_refused"


# -- AWS goes away --------------------


async def test_the_last_known_keys_go_on_while_aws_is_away(world: World) -> None:
    account = await world.sign_in()
    token = account["token"]
    claims = of(world, account) | {"exp": int(world.lab.clock.now + 3 * DAY_S)}
    long, unknown = sign_as_pool(claims), sign_as_pool(claims, kid="unknown")
    await world.gate.shut()
    world.lab.advance(JWKS_FRESH_S)
    assert (await world.lab.get("/account", long)).status_code == 200
    assert (await world.lab.get("/account", long)).status_code == 200
    # Who comes with a key that is not known might be right: nobody can tell.
    answer = await world.lab.get("/account", unknown)
    assert "Cognito" in refused(answer, 503, "accounts_unavailable")
    refused(await world.lab.post("/anonymous-signin"), 503, "accounts_unavailable")
    world.lab.advance(JWKS_STALE_S)
    answer = await world.lab.get("/account", long)
    refused(answer, 503, "accounts_unavailable")
    await world.gate.open()
    world.lab.advance(JWKS_RETRY_S)
    assert (await world.lab.get("/account", long)).status_code == 200
    refused(await world.lab.get("/account", unknown), 401, "token_refused")
    refused(await world.lab.get("/account", token), 401, "token_refused")


async def test_signing_out_needs_no_aws(world: World) -> None:
    account = await world.sign_in()
    await world.gate.shut()
    assert (await world.sign_out(account)).status_code == 200
    refused(await world.lab.get("/account", account["token"]), 401, "token_refused")


# -- old users --------------------


async def test_old_users_are_deleted_and_young_ones_are_not(pool: Pool) -> None:
    records = MemoryRecords()
    accounts = CognitoAccounts(
        cognito(pool, pool.endpoint, user_lifetime_s=DAY_S), records, "http://server"
    )
    now = Clock()()
    before = set(pool.users())
    await accounts.sign_in("anonymous", now)
    await accounts.sign_in("anonymous", now)
    old = set(pool.users()) - before
    gone_already = min(old)
    pool.aws.admin_delete_user(UserPoolId=pool.pool_id, Username=gone_already)
    await accounts.sign_in("anonymous", now + 1_000)
    (young,) = set(pool.users()) - before - old
    assert await accounts.delete_old(now + DAY_S - 10) == 0
    assert await accounts.delete_old(now + DAY_S) == 2
    assert set(pool.users()) - before == {young}
    assert await accounts.delete_old(now + DAY_S) == 0
    await accounts.close()


async def test_a_pool_without_ephemeral_users_knows_those_that_it_has(
    pool: Pool, tmp_path: Path
) -> None:
    helping = CognitoAccounts(
        cognito(pool, pool.endpoint), MemoryRecords(), "http://server"
    )
    clock = Clock()
    account = await helping.sign_in("anonymous", clock())
    await helping.close()
    accounts = AccountsConfig(anonymous=False, cognito=cognito(pool, pool.endpoint))
    async with SignalingServer(
        config(tmp_path, accounts=accounts), clock=clock
    ) as server:
        lab = Lab(server, clock)
        assert (await lab.get("/sign-in")).json() == {"methods": []}
        refused(await lab.post("/anonymous-signin"), 403, "not_allowed")
        assert (await lab.get("/account", account.token)).status_code == 200
        await lab.close()

"""What a signaling server may stand on: its store, its bus, its accounts.

The tests of the server's contract are the same for all of them. Which one they run on
is said by the variable SIGNALING_CONTRACT, such as `dynamodb,local,oidc`; without it,
they run on what a lab gets without settings.
"""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest
from support.cognito_pool import REGION, make_pool
from support.dynamodb import Tables, dynamodb_tables
from support.oidc_provider import CLIENT_ID, OidcProvider, Person
from support.redis_server import RedisServer
from support.signaling_lab import Lab

from sleap_rtc_signaling.accounts_config import (
    AccountsConfig,
    CognitoConfig,
    OidcConfig,
)
from sleap_rtc_signaling.config import BusConfig

VARIABLE = "SIGNALING_CONTRACT"
STORES = ("sqlite", "dynamodb")
BUSES = ("local", "redis")
ACCOUNTS = ("anonymous", "cognito", "oidc")


@dataclass(frozen=True)
class Backing:
    """One choice of each."""

    store: str = "sqlite"
    bus: str = "local"
    accounts: str = "anonymous"

    @classmethod
    def chosen(cls) -> Self:
        """Return what the environment says."""
        backing = cls(*filter(None, os.environ.get(VARIABLE, "").split(",")))
        known = (STORES, BUSES, ACCOUNTS)
        for word, words in zip(backing.words, known, strict=True):
            if word not in words:
                pytest.exit(f"{VARIABLE}: {word} is none of {', '.join(words)}", 4)
        return backing

    @property
    def words(self) -> tuple[str, str, str]:
        return self.store, self.bus, self.accounts

    @property
    def needs_aws(self) -> bool:
        return self.store == "dynamodb" or self.accounts == "cognito"


class OidcLab(Lab):
    """A lab in which people sign in at a provider."""

    provider: OidcProvider

    async def account(self) -> str:
        flow = (await self.post("/sign-in/lab")).json()
        self.provider.approve(flow["user_code"], Person(secrets.token_hex(8)))
        body = {"flow_id": flow["flow_id"]}
        token: str = (await self.post("/sign-in/lab/poll", json=body)).json()["token"]
        return token


@contextlib.contextmanager
def likeness_of_aws(backing: Backing) -> Iterator[Tables | None]:
    """Run what stands in for AWS, where it is needed."""
    if not backing.needs_aws:
        yield None
        return
    with dynamodb_tables() as tables:
        yield tables


@contextlib.asynccontextmanager
async def backed(
    backing: Backing, aws: Tables | None, redis: RedisServer | None = None
) -> AsyncIterator[tuple[dict[str, Any], OidcProvider | None]]:
    """Make a store and accounts of one test's own; yield the server's settings."""
    async with contextlib.AsyncExitStack() as stack:
        settings: dict[str, Any] = {}
        provider = None
        if backing.bus == "redis":
            assert redis is not None
            prefix = f"test-{secrets.token_hex(8)}"
            settings["bus"] = BusConfig(url=redis.url, prefix=prefix)
        if backing.store == "dynamodb":
            assert aws is not None
            settings["store"] = aws.make()
        if backing.accounts == "cognito":
            assert aws is not None
            pool = make_pool(aws.endpoint)
            stack.callback(pool.aws.close)
            settings["accounts"] = AccountsConfig(
                cognito=CognitoConfig(
                    region=REGION,
                    user_pool_id=pool.pool_id,
                    client_id=pool.client_id,
                    endpoint_url=aws.endpoint,
                )
            )
        elif backing.accounts == "oidc":
            provider = await stack.enter_async_context(OidcProvider())
            settings["accounts"] = AccountsConfig(
                oidc=(
                    OidcConfig(name="lab", issuer=provider.issuer, client_id=CLIENT_ID),
                )
            )
        yield settings, provider

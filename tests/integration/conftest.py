"""What the integration tests share: a signaling server with its clock."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.backings import Backing, OidcLab, backed, likeness_of_aws
from support.dynamodb import Tables
from support.redis_server import RedisServer, redis_server
from support.signaling_lab import ICE, Clock, Lab, config, free_port

from sleap_rtc_signaling.server import SignalingServer


@pytest.fixture(scope="session")
def backing() -> Backing:
    """What the server of these tests stands on."""
    return Backing.chosen()


@pytest.fixture(scope="session")
def likeness(backing: Backing) -> Iterator[Tables | None]:
    with likeness_of_aws(backing) as running:
        yield running


@pytest.fixture(scope="session")
def redis(
    backing: Backing, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer | None]:
    if backing.bus != "redis":
        yield None
        return
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def lab(
    tmp_path: Path,
    backing: Backing,
    likeness: Tables | None,
    redis: RedisServer | None,
) -> AsyncIterator[Lab]:
    clock = Clock()
    async with contextlib.AsyncExitStack() as stack:
        stands_on, provider = await stack.enter_async_context(
            backed(backing, likeness, redis)
        )
        options: dict[str, Any] = {"rest_port": 0, "ice_servers": (ICE,), **stands_on}
        instances = 1
        if backing.bus == "redis":
            # Both have one name, as behind a load balancer.
            port = free_port()
            options |= {"port": port, "public_url": f"http://127.0.0.1:{port}"}
            instances = 2
        servers = []
        for _ in range(instances):
            server = SignalingServer(config(tmp_path, **options), clock=clock)
            servers.append(await stack.enter_async_context(server))
            options["port"] = 0
        kind = Lab if provider is None else OidcLab
        opened = kind(servers[0], clock, *servers[1:])
        if isinstance(opened, OidcLab) and provider is not None:
            opened.provider = provider
        try:
            yield opened
        finally:
            await opened.close()

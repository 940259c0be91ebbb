"""What the integration tests share: a signaling server with its clock."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.backings import Backing, OidcLab, backed, likeness_of_aws
from support.dynamodb import Tables
from support.signaling_lab import ICE, Clock, Lab, config

from sleap_rtc_signaling.server import SignalingServer


@pytest.fixture(scope="session")
def backing() -> Backing:
    """What the server of these tests stands on."""
    return Backing.chosen()


@pytest.fixture(scope="session")
def likeness(backing: Backing) -> Iterator[Tables | None]:
    with likeness_of_aws(backing) as running:
        yield running


@pytest.fixture
async def lab(
    tmp_path: Path, backing: Backing, likeness: Tables | None
) -> AsyncIterator[Lab]:
    clock = Clock()
    async with backed(backing, likeness) as (stands_on, provider):
        settings = config(tmp_path, rest_port=0, ice_servers=(ICE,), **stands_on)
        async with SignalingServer(settings, clock=clock) as server:
            opened = Lab(server, clock) if provider is None else OidcLab(server, clock)
            if isinstance(opened, OidcLab) and provider is not None:
                opened.provider = provider
            try:
                yield opened
            finally:
                await opened.close()

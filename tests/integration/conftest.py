"""What the integration tests share: a signaling server with its clock."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.signaling_lab import ICE, Clock, Lab, config

from sleap_rtc_signaling.server import SignalingServer


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    clock = Clock()
    settings = config(tmp_path, rest_port=0, ice_servers=(ICE,))
    async with SignalingServer(settings, clock=clock) as server:
        opened = Lab(server, clock)
        try:
            yield opened
        finally:
            await opened.close()

"""Live frames over an emulated link that loses packets: late is dropped, not queued."""

import asyncio

import pytest
from support.link_emulator import Conditions, random_loss
from support.simulated_loop import simulate
from support.simulated_transports import connected_pair, fast, stock

from sleap_rtc_plugin.protocol.limits import LIVE_SEND_BUFFER_BYTES
from sleap_rtc_plugin.protocol.live_messages import (
    decode_part,
    encode_part,
    split_frame,
)
from sleap_rtc_worker.live_inbox import FrameInbox

FRAMES = 300
FPS = 30
RTT_S = 0.04
LOSS = 0.01


@pytest.mark.parametrize(
    "pairing", [(fast(), fast()), (fast(), stock)], ids=["fast-fast", "fast-stock"]
)
def test_frames_over_a_lossy_path(pairing: tuple) -> None:
    """Each frame is 24 KB, as the flies' are: 21 packets, of which none may be lost."""
    ages: list[float] = []
    sent: list[int] = []

    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        async with connected_pair(Conditions(RTT_S / 2), make=pairing) as pair:
            channel, there = await pair.open_channel(ordered=False, maxRetransmits=0)
            inbox = FrameInbox(max_frame_bytes=100_000)

            def arrived(message: bytes) -> None:
                part = decode_part(message)
                assert part is not None
                inbox.add(part, loop.time())
                frame = inbox.take()
                if frame is not None:
                    ages.append(loop.time() - frame.taken_us / 1e6)

            there.channel.on("message", arrived)
            pair.link.change(faults=[random_loss(LOSS)])
            for number in range(FRAMES):
                taken_us = int(loop.time() * 1e6)
                if channel.bufferedAmount <= LIVE_SEND_BUFFER_BYTES:
                    sent.append(number)
                    for part in split_frame(number, taken_us, bytes(24_000), "png"):
                        channel.send(encode_part(part))
                await asyncio.sleep(1 / FPS)
            await asyncio.sleep(1)
            # The last of them are given up as well, so nothing waits any more.
            assert channel.bufferedAmount == 0
            return inbox.received, len(ages)

    received, taken = simulate(main)
    # The path carries two thirds of them at this loss; 0.99 ** 21 arrive whole.
    assert FRAMES / 3 < len(sent) <= FRAMES
    assert 0.6 * len(sent) < received < len(sent)
    assert taken == received
    ages.sort()
    assert ages[len(ages) // 2] < 5 * RTT_S
    assert ages[-1] < 0.5

"""What the fast transport does beside its data path: the order of things, and ends."""

import asyncio

from aiortc import RTCDataChannel
from support.link_emulator import Conditions
from support.simulated_loop import simulate
from support.simulated_transports import connected_pair, fast


async def have_drained(channel: RTCDataChannel) -> None:
    """Wait until nothing waits in a channel, which has something now."""
    drained = asyncio.get_running_loop().create_future()
    channel.once("bufferedamountlow", lambda: drained.set_result(None))
    await drained


def test_what_was_sent_before_the_end_is_delivered_before_it() -> None:
    """A message and the ABORT behind it may arrive in one batch."""

    async def main() -> None:
        async with connected_pair(make=(fast(), fast())) as pair:
            channel, there = await pair.open_channel(label="data")
            ended = asyncio.get_running_loop().create_future()
            there.channel.once("close", lambda: ended.set_result(None))
            channel.send(b"why it ends")
            await have_drained(channel)
            await pair.sctp[0].stop()
            await ended
            assert there.messages == [b"why it ends"]

    simulate(main)


def test_what_is_too_old_to_be_sent_no_longer_counts_as_buffered() -> None:
    async def main() -> None:
        narrow = Conditions(rate_bytes_per_s=20_000)
        async with connected_pair(narrow, make=(fast(), fast())) as pair:
            channel, there = await pair.open_channel(label="data", maxPacketLifeTime=50)
            for _ in range(100):
                channel.send(bytes(1000))
            await have_drained(channel)
            assert channel.bufferedAmount == 0
            assert len(there.messages) < 100

    simulate(main)


def test_numbers_wrap_only_after_terabytes() -> None:
    """aiortc, as the peer, does not get over a gap in which they do."""

    async def main() -> None:
        for _ in range(20):
            async with connected_pair(make=(fast(), fast())) as pair:
                for sctp in pair.sctp:
                    assert sctp._local_tsn <= 2**31 + 100

    simulate(main)

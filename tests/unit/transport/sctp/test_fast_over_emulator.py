"""The fast transport and aiortc's own, in every pairing, over an emulated link."""

import asyncio

import pytest
from aiortc.rtcsctptransport import InitChunk
from support.link_emulator import (
    Conditions,
    Fault,
    bursts,
    corruption,
    duplication,
    each,
    random_loss,
    reordering,
)
from support.sctp_invariants import check_data_path
from support.simulated_loop import simulate
from support.simulated_transports import (
    Inbox,
    SimulatedPair,
    connected_pair,
    fast,
    start_below_wrap,
    stock,
)

SIZES = [0, 1, 1159, 1160, 1161, 1372, 1373, 70_000, 262_144, 5]
MESSAGES = [(bytes([n]) * size) for n, size in enumerate(SIZES)] + ["", "äöü"]
PAIRINGS = [(fast(), fast()), (fast(), stock), (stock, fast())]
NAMES = ["fast-fast", "fast-stock", "stock-fast"]


async def exchange(pair: SimulatedPair, *faults: Fault) -> None:
    """Every message both ways, over an ordered and an unordered channel."""
    inboxes = []
    for ordered in (True, False):
        channel, there = await pair.open_channel(label=str(ordered), ordered=ordered)
        there.channel.on("message", there.channel.send)
        inboxes.append((channel, there, Inbox(channel)))
    pair.link.change(faults=faults)
    for channel, _, _ in inboxes:
        for message in MESSAGES:
            channel.send(message)
    for channel, there, here in inboxes:
        for inbox in (there, here):
            messages = await inbox.until(len(MESSAGES))
            if channel.ordered:
                assert messages == MESSAGES
            else:
                assert sorted(messages, key=repr) == sorted(MESSAGES, key=repr)
        assert channel.bufferedAmount == 0


def run(pairing: tuple, *faults: Fault, **options: object) -> None:
    async def main() -> None:
        async with connected_pair(make=pairing, **options) as pair:
            await exchange(pair, *faults)
            for make, sctp in zip(pairing, pair.sctp, strict=True):
                if make is not stock:
                    assert sctp.is_fast
                    check_data_path(sctp._path)

    simulate(main)


@pytest.mark.parametrize("pairing", PAIRINGS, ids=NAMES)
def test_a_clean_link(pairing: tuple) -> None:
    run(pairing, conditions=Conditions(latency_s=0.04))


@pytest.mark.parametrize("pairing", PAIRINGS, ids=NAMES)
@pytest.mark.parametrize("is_protected", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        random_loss(0.1),
        bursts(0.1, mean_datagrams=4),
        each(7),
        reordering(0.2, 0.03),
        duplication(0.3, copies=3),
        corruption(0.05),
    ],
    ids=["random", "bursts", "periodic", "reordering", "duplication", "corruption"],
)
def test_a_bad_link(pairing: tuple, fault: Fault, is_protected: bool) -> None:
    run(pairing, fault, is_protected=is_protected)


@pytest.mark.parametrize("pairing", PAIRINGS, ids=NAMES)
def test_numbers_wrap(pairing: tuple) -> None:
    def before_start(pair: SimulatedPair) -> None:
        for at, sctp in enumerate(pair.sctp):
            start_below_wrap(
                sctp,
                tsn=2**32 - 3 - at,
                stream_seq={0: 65534},
                peer_stream_seq={0: 65534},
            )

    run(pairing, random_loss(0.05), before_start=before_start)


@pytest.mark.parametrize("pairing", PAIRINGS, ids=NAMES)
@pytest.mark.parametrize(
    "limits", [{"maxRetransmits": 0}, {"maxPacketLifeTime": 150}], ids=["times", "life"]
)
@pytest.mark.parametrize("ordered", [True, False])
def test_a_channel_that_gives_up_holds_no_other_one_up(
    pairing: tuple, limits: dict[str, int], ordered: bool
) -> None:
    messages = [bytes([number]) * 3000 for number in range(60)]

    async def main() -> int:
        async with connected_pair(Conditions(0.02), make=pairing) as pair:
            channel, there = await pair.open_channel(ordered=ordered, **limits)
            reliable, all_there = await pair.open_channel()
            pair.link.change(faults=[random_loss(0.15)])
            for message in messages:
                channel.send(message)
                reliable.send(message)
            assert await all_there.until(len(messages)) == messages
            pair.link.change(faults=[])
            if ordered and pairing[1] is stock:
                # aiortc throws a whole message away that came next to a part of one
                # that it is told to skip, and waits for it for ever.
                return len(there.messages)
            # The channel itself goes on as well.
            await asyncio.sleep(1)
            channel.send(b"last")
            while b"last" not in there.messages:
                await there.until(len(there.messages) + 1)
            arrived = there.messages[: there.messages.index(b"last")]
            if not ordered:
                arrived = sorted(arrived)
            assert arrived == [message for message in messages if message in arrived]
            return len(arrived)

    assert 0 < simulate(main) < len(messages)


def test_an_init_that_comes_late_makes_nobody_forget() -> None:
    """Both sides send one; aiortc takes a late one for a new beginning."""

    async def main() -> None:
        async with connected_pair(make=(fast(), fast())) as pair:
            channel, there = await pair.open_channel(label="late", ordered=True)
            inbox = Inbox(channel)
            there.channel.on("message", there.channel.send)
            one, other = pair.sctp
            for _ in range(3):
                channel.send(b"before")
            await inbox.until(3)
            init = InitChunk()
            init.initiate_tag = one._local_verification_tag
            init.initial_tsn = one._reconfig_request_seq
            other._last_received_tsn = other._path.receiver.cumulative % 2**32
            await other._receive_chunk(init)
            assert other._last_received_tsn == other._path.receiver.cumulative % 2**32
            for _ in range(3):
                channel.send(b"after")
            assert await inbox.until(6) == 3 * [b"before"] + 3 * [b"after"]

    simulate(main)

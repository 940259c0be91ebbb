"""aiortc's own transports do over an emulated link what they should."""

import pytest
from support.link_emulator import (
    Conditions,
    Fault,
    Tally,
    bursts,
    corruption,
    duplication,
    each,
    first,
    random_loss,
    reordering,
)
from support.simulated_loop import simulate
from support.simulated_transports import (
    RECORD_OVERHEAD_BYTES,
    Inbox,
    SimulatedPair,
    connected_pair,
    start_below_wrap,
)

MESSAGES = [bytes([n]) * size for n, size in enumerate([1, 1160, 1161, 70_000, 0, 5])]


async def exchange(pair: SimulatedPair, *faults: Fault) -> None:
    """Every message both ways, over one channel, with faults from then on."""
    channel, there = await pair.open_channel(label="data")
    here = Inbox(channel)
    # Not before: aiortc loses an association whose INIT is overtaken by data.
    pair.link.change(faults=faults)
    there.channel.on("message", there.channel.send)
    for message in MESSAGES:
        channel.send(message)
    assert await there.until(len(MESSAGES)) == MESSAGES
    assert await here.until(len(MESSAGES)) == MESSAGES


def run(
    *faults: Fault, latency_s: float = 0.005, **options: object
) -> tuple[Tally, Tally]:
    async def main() -> tuple[Tally, Tally]:
        async with connected_pair(Conditions(latency_s), **options) as pair:
            await exchange(pair, *faults)
            return pair.link.tallies()

    return simulate(main)


def test_a_clean_link_carries_everything_and_no_more_than_it_should() -> None:
    there, back = run()
    assert there.lost == there.dropped == back.lost == 0
    packet_bytes = there.sent_bytes - there.sent * RECORD_OVERHEAD_BYTES
    data_bytes = sum(map(len, MESSAGES))
    assert data_bytes < packet_bytes < data_bytes + 100 * there.sent


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
@pytest.mark.parametrize("is_protected", [True, False])
def test_stock_gets_everything_through_a_bad_link(
    fault: Fault, is_protected: bool
) -> None:
    there, _ = run(fault, is_protected=is_protected)
    assert there.lost + there.harmed > 0


def test_numbers_wrap() -> None:
    def before_start(pair: SimulatedPair) -> None:
        start_below_wrap(pair.sctp[0], tsn=2**32 - 3, stream_seq={0: 65534})
        start_below_wrap(pair.sctp[1], peer_stream_seq={0: 65534})

    run(before_start=before_start)


def test_the_same_seed_makes_the_same_run() -> None:
    faults = [random_loss(0.05), reordering(0.1, 0.02)]
    assert run(*faults, seed=5) == run(*faults, seed=5) != run(*faults, seed=6)


def test_the_set_up_survives_losses() -> None:
    async def main() -> None:
        async with connected_pair(Conditions(faults=[first(2)])) as pair:
            await exchange(pair)

    simulate(main)

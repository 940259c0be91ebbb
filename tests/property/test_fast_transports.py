"""Real transports over a network that does what it likes: ours, and ours with aiortc's."""

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.link_emulator import (
    Conditions,
    blackout,
    corruption,
    duplication,
    random_loss,
    reordering,
)
from support.sctp_invariants import check_data_path
from support.simulated_loop import simulate
from support.simulated_transports import (
    Inbox,
    connected_pair,
    fast,
    start_below_wrap,
    stock,
)

LIMIT_S = 300.0
"""aiortc doubles its wait up to a minute; ours is much less."""

edges = st.sampled_from([0, 1, 1159, 1160, 1161, 1372, 1373, 2320, 2321, 262_144])
sizes = edges | st.integers(0, 5000) | st.integers(0, 262_144)


@dataclass(frozen=True)
class Weather:
    """What the network does to both directions once the channels are open."""

    loss: float
    disorder: float
    copies: float
    damage: float
    dark_s: float
    seed: int

    def faults(self, now: float) -> list[Any]:
        return [
            random_loss(self.loss),
            reordering(self.disorder, 0.05),
            duplication(self.copies),
            corruption(self.damage),
            blackout(now + 0.2, now + 0.2 + self.dark_s),
        ]


weathers = st.builds(
    Weather,
    loss=st.floats(0, 0.2),
    disorder=st.floats(0, 0.3),
    copies=st.floats(0, 0.3),
    damage=st.floats(0, 0.1),
    dark_s=st.sampled_from([0.0, 0.0, 0.5, 8.0]),
    seed=st.integers(0, 10_000),
)
# End, channel (the first is ordered), size.
entries = st.tuples(st.integers(0, 1), st.integers(0, 1), sizes)


@given(
    st.sampled_from([(fast(), fast()), (fast(), stock), (stock, fast())]),
    st.lists(entries, max_size=8),
    weathers,
    st.booleans(),
    st.tuples(st.integers(1, 2**32 - 1), st.integers(2**32 - 40, 2**32 - 1)),
)
@settings(max_examples=40)
def test_every_message_arrives_once_and_in_order(
    pairing: tuple[Any, Any],
    entries: list[tuple[int, int, int]],
    weather: Weather,
    is_protected: bool,
    first_tsns: tuple[int, int],
) -> None:
    async def main() -> None:
        async with connected_pair(
            Conditions(latency_s=0.02),
            make=pairing,
            seed=weather.seed,
            is_protected=is_protected,
            before_start=lambda pair: (
                [
                    start_below_wrap(sctp, tsn=tsn, stream_seq={0: 65530})
                    for sctp, tsn in zip(pair.sctp, first_tsns, strict=True)
                ]
                + [
                    start_below_wrap(sctp, peer_stream_seq={0: 65530})
                    for sctp in pair.sctp
                ]
            ),
        ) as pair:
            ends, inboxes = {}, {}
            for at, ordered in enumerate((True, False)):
                channel, there = await pair.open_channel(label="", ordered=ordered)
                ends[0, at], ends[1, at] = channel, there.channel
                inboxes[0, at], inboxes[1, at] = there, Inbox(channel)
            pair.link.change(faults=weather.faults(pair.sctp[0]._loop.time()))
            sent: dict[tuple[int, int], list[bytes]] = {key: [] for key in ends}
            for number, (end, at, size) in enumerate(entries):
                message = bytes([number]) * size
                sent[end, at].append(message)
                ends[end, at].send(message)
            for key, messages in sent.items():
                got = list(await inboxes[key].until(len(messages)))
                assert (
                    got == messages if key[1] == 0 else sorted(got) == sorted(messages)
                )
            for make, sctp in zip(pairing, pair.sctp, strict=True):
                if make is not stock:
                    assert sctp.is_fast
                    check_data_path(sctp._path)
            for channel in ends.values():
                assert channel.bufferedAmount == 0

    simulate(main, limit_s=LIMIT_S)

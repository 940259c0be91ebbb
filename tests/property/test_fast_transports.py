"""Real transports over a network that does what it likes: ours, and aiortc's too."""

import asyncio
import itertools
from collections.abc import Callable
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
    SimulatedPair,
    connected_pair,
    fast,
    start_below_wrap,
    stock,
)

from sleap_rtc_plugin.transport.sctp.data_path import DataPath

LIMIT_S = 300.0
"""aiortc doubles its wait up to a minute; ours is much less."""

SETTLED_S = 1.0
"""Longer than anything is under way."""

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


Entries = list[tuple[int, int, int]]


async def exchange(
    pair: SimulatedPair, entries: Entries, weather: Weather, begin: Callable[[], None]
) -> None:
    """Send everything through an ordered channel and another one, and look at it."""
    ends, inboxes = {}, {}
    for at, ordered in enumerate((True, False)):
        channel, there = await pair.open_channel(label="", ordered=ordered)
        ends[0, at], ends[1, at] = channel, there.channel
        inboxes[0, at], inboxes[1, at] = there, Inbox(channel)
    begin()
    pair.link.change(faults=weather.faults(asyncio.get_running_loop().time()))
    sent: dict[tuple[int, int], list[bytes]] = {key: [] for key in ends}
    for number, (end, at, size) in enumerate(entries):
        message = bytes([number]) * size
        sent[end, at].append(message)
        ends[end, at].send(message)
    for key, messages in sent.items():
        await inboxes[key].until(len(messages))
    # Whatever is still under way, such as a second copy, arrives meanwhile.
    await asyncio.sleep(SETTLED_S)
    for key, messages in sent.items():
        got = inboxes[key].messages
        if key[1] == 0:
            assert got == messages
        else:
            assert sorted(got) == sorted(messages)
    for channel in ends.values():
        assert channel.bufferedAmount == 0


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
    entries: Entries,
    weather: Weather,
    is_protected: bool,
    first_tsns: tuple[int, int],
) -> None:
    def before_start(pair: SimulatedPair) -> None:
        for at, (sctp, tsn) in enumerate(zip(pair.sctp, first_tsns, strict=True)):
            if pairing[1 - at] is stock:
                # aiortc never gets over a gap in which TSNs wrap.
                tsn = min(tsn, 2**31)
            numbers = {0: 65530}
            start_below_wrap(sctp, tsn=tsn, stream_seq=numbers, peer_stream_seq=numbers)

    async def main() -> None:
        async with connected_pair(
            Conditions(latency_s=0.02),
            make=pairing,
            seed=weather.seed,
            is_protected=is_protected,
            before_start=before_start,
        ) as pair:
            await exchange(pair, entries, weather, begin=lambda: None)
            for make, sctp in zip(pairing, pair.sctp, strict=True):
                if make is not stock:
                    assert sctp.is_fast
                    check_data_path(sctp._path)

    simulate(main, limit_s=LIMIT_S)


class Sabotage(Exception):
    """A fault in the fast path that nobody has thought of."""


def sabotage(path: DataPath, method: str, call: int, *, is_done_first: bool) -> None:
    """Let a method of a path fail at one of its calls, before or after its work."""
    work = getattr(path, method)
    calls = itertools.count()

    def fail(*args: Any) -> Any:
        is_this_one = next(calls) == call
        if is_this_one and not is_done_first:
            raise Sabotage
        result = work(*args)
        if is_this_one:
            raise Sabotage
        return result

    setattr(path, method, fail)


@given(
    st.sampled_from([(fast(), fast()), (fast(), stock), (stock, fast())]),
    st.lists(entries, min_size=1, max_size=8),
    weathers,
    st.sampled_from(["receive_packet", "packets", "handle_timeout"]),
    st.integers(0, 3) | st.integers(0, 100),
    st.booleans(),
)
@settings(max_examples=60)
def test_a_fault_of_the_fast_way_loses_nothing(
    pairing: tuple[Any, Any],
    entries: Entries,
    weather: Weather,
    method: str,
    call: int,
    is_done_first: bool,
) -> None:
    """aiortc goes on where it happens, and the other end does not even notice."""

    async def main() -> None:
        async with connected_pair(
            Conditions(latency_s=0.02), make=pairing, seed=weather.seed
        ) as pair:

            def begin() -> None:
                sctp = pair.sctp[pairing.index(stock) - 1 if stock in pairing else 0]
                sabotage(sctp._path, method, call, is_done_first=is_done_first)

            await exchange(pair, entries, weather, begin)

    simulate(main, limit_s=LIMIT_S)

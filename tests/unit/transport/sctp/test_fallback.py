"""A fault of ours ends the fast way, once: aiortc goes on, and nothing is lost.

Each method fails somewhere in a transfer in both directions over a bad link, before its
work and after it, with small packets and with large ones.
"""

import asyncio
import functools
import random
import zlib
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from aiortc import RTCDataChannel
from support.broken_methods import Place, Trap, broken, counting, places_in
from support.link_emulator import (
    Conditions,
    blackout,
    duplication,
    random_loss,
    reordering,
)
from support.simulated_loop import simulate
from support.simulated_transports import (
    EmulatedDatagrams,
    Inbox,
    SimulatedPair,
    connected_pair,
    fast,
)

from sleap_rtc_plugin.transport.sctp import fast_transport
from sleap_rtc_plugin.transport.sctp.data_path import DataPath
from sleap_rtc_plugin.transport.sctp.delivery_rate import DeliveryRate
from sleap_rtc_plugin.transport.sctp.leg import UnknownPath
from sleap_rtc_plugin.transport.sctp.loss_based import LossBased
from sleap_rtc_plugin.transport.sctp.pacing import Pacer
from sleap_rtc_plugin.transport.sctp.path_mtu import Oversized, PathMtu
from sleap_rtc_plugin.transport.sctp.receiver import Receiver
from sleap_rtc_plugin.transport.sctp.reordering import Reordering
from sleap_rtc_plugin.transport.sctp.round_trip import RoundTrip
from sleap_rtc_plugin.transport.sctp.sender import Sender
from sleap_rtc_plugin.transport.sctp.streams import StreamScheduler
from sleap_rtc_plugin.transport.sctp.tsn_ranges import TsnRanges

OWNERS = (
    DataPath,
    DeliveryRate,
    EmulatedDatagrams,
    LossBased,
    Oversized,
    Pacer,
    PathMtu,
    Receiver,
    Reordering,
    RoundTrip,
    Sender,
    StreamScheduler,
    TsnRanges,
)
PLACES = places_in(OWNERS)
SIZES = [1, 40, 1160, 1161, 5_000, 30_000, 7, 2_400]
SOME_LOST = 100
LIMIT_S = 900
# They hand a message over, and have nothing left to do that could fail.
WITHOUT_AN_AFTER = {"DataPath.send", "StreamScheduler.push", "StreamScheduler.pop"}


def content(end: int, label: str, number: int) -> bytes:
    """A message whose bytes are like those of no other."""
    size = SIZES[number % len(SIZES)]
    name = f"{end} {label} {number} ".encode()
    return (name * (size // len(name) + 1))[:size] + name


async def exchange(channel: RTCDataChannel, there: Inbox, rounds: int) -> None:
    """Send the same number of messages each way; they arrive once, and in order.

    In any order on a channel without one, and some not at all where that is allowed.
    """
    count = rounds * len(SIZES)
    inboxes = (there, Inbox(channel))
    sent = [[content(end, channel.label, n) for n in range(count)] for end in (0, 1)]
    for n in range(count):
        channel.send(sent[0][n])
        there.channel.send(sent[1][n])
        if n % len(SIZES) == 0:
            # So that applications send now and then, and not all at once.
            await asyncio.sleep(0.03)
    if channel.maxRetransmits is None:
        for end, inbox in enumerate(inboxes):
            got = await inbox.until(count)
            assert got == sent[end] if channel.ordered else set(got) == set(sent[end])
    closed = asyncio.get_running_loop().create_future()
    there.channel.once("close", lambda: closed.set_result(None))
    channel.close()
    await closed
    assert channel.bufferedAmount == there.channel.bufferedAmount == 0
    for end, inbox in enumerate(inboxes):
        assert len(set(inbox.messages)) == len(inbox.messages), "something came twice"
        assert set(inbox.messages) <= set(sent[end])


async def transfer(pair: SimulatedPair, packets: str) -> None:
    """Three kinds of channels at once while the path changes; then one more."""
    loop = asyncio.get_running_loop()
    outage = blackout(loop.time() + 0.2, loop.time() + 2.0)
    pair.link.change(
        faults=[random_loss(0.04), reordering(0.1, 0.02), duplication(0.02), outage]
    )
    ordered = await pair.open_channel(label="ordered")
    unordered = await pair.open_channel(label="unordered", ordered=False)
    hasty = await pair.open_channel(label="hasty", maxRetransmits=0)
    pair.sctp[0].set_urgent(ordered[0])
    if packets == "large":
        for sctp in pair.sctp:
            sctp.allow_large_packets()
    loop.call_later(0.05, pair.sctp[0].path_has_changed)
    loop.call_later(0.08, pair.sctp[1].packet_was_too_large, 1400)
    loop.call_later(0.15, pair.sctp[1].path_has_changed)
    await asyncio.gather(
        exchange(*ordered, rounds=2),
        exchange(*unordered, rounds=2),
        exchange(*hasty, rounds=1),
    )
    pair.link.change(faults=())
    await exchange(*await pair.open_channel(label="later"), rounds=1)


def run(packets: str, at_end: Callable[[], None] = lambda: None) -> list[bool]:
    """Do the transfer, and tell which ends are fast when it is over.

    It is the same each time, up to the fault.
    """

    async def main() -> list[bool]:
        clock = SimpleNamespace(time=asyncio.get_running_loop().time)
        patch.setattr(fast_transport, "time", clock)
        async with connected_pair(
            Conditions(latency_s=0.01, rate_bytes_per_s=2e6),
            make=(fast(), fast()),
        ) as pair:
            await transfer(pair, packets)
            at_end()
            return [sctp.is_fast for sctp in pair.sctp]

    with pytest.MonkeyPatch.context() as patch:
        return simulate(main, LIMIT_S)


@functools.cache
def counts(packets: str) -> dict[Place, int]:
    """How often each method is called in the transfer."""
    called: dict[Place, int] = {}
    with counting(PLACES) as counted:
        assert run(packets, at_end=lambda: called.update(counted())) == [True, True]
    return called


def let_fail(
    place: Place, packets: str, chance: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    """Let a method fail at one of its calls in the transfer, if it is called there."""
    calls = counts(packets)[Place(place.owner, place.name)]
    caplog.clear()
    with broken(place, Trap(at_call=chance.randint(1, calls))) as trap:
        are_fast = run(packets)
    assert trap.failures == 1
    assert sorted(are_fast) == [False, True]
    assert [record.name for record in warnings(caplog)] == [fast_transport.__name__]


def warnings(caplog: pytest.LogCaptureFixture) -> list:
    return [record for record in caplog.records if record.levelname == "WARNING"]


def failures(packets: str) -> list[Place]:
    """Every place, before and after its work, that the transfer passes."""
    passed = [place for place in PLACES if counts(packets).get(place)]
    # It belongs to the take-over: see below.
    passed.remove(Place(EmulatedDatagrams, "attach"))
    after = [
        Place(place.owner, place.name, "after")
        for place in passed
        if f"{place.owner.__name__}.{place.name}" not in WITHOUT_AN_AFTER
    ]
    return passed + after


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
@pytest.mark.parametrize(
    ("moment", "packets"), [("before", "small"), ("after", "large")]
)
def test_any_method_may_fail(
    owner: type, moment: str, packets: str, caplog: pytest.LogCaptureFixture
) -> None:
    for place in failures(packets):
        if (place.owner, place.moment) == (owner, moment):
            seed = zlib.crc32(str(place).encode())
            let_fail(place, packets, random.Random(seed), caplog)  # noqa: S311


def test_a_fault_that_lasts_ends_the_fast_way_of_each_end_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with broken(Place(Sender, "on_sack"), Trap(at_call=40, is_lasting=True)):
        assert run("small") == [False, False]
    assert len(warnings(caplog)) == 2


def test_a_fault_while_taking_over_leaves_the_connection_to_aiortc(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with broken(Place(EmulatedDatagrams, "attach"), Trap(at_call=1)):
        assert sorted(run("small")) == [False, True]
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("at_call", [1, 30])
def test_an_unknown_way_is_no_fault(
    at_call: int, caplog: pytest.LogCaptureFixture
) -> None:
    name = "attach" if at_call == 1 else "send"
    trap = Trap(at_call, error=UnknownPath("a pigeon"))
    caplog.set_level("INFO", fast_transport.__name__)
    with broken(Place(EmulatedDatagrams, name), trap):
        assert sorted(run("small")) == [False, True]
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "a pigeon" in caplog.text


@pytest.mark.parametrize(
    "place",
    [
        Place(EmulatedDatagrams, "detach"),
        Place(Receiver, "arrived"),
        Place(Sender, "cut_rest"),
    ],
    ids=str,
)
def test_where_aiortc_cannot_go_on_either_the_connection_ends_on_both_sides(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with connected_pair(make=(fast(), fast())) as pair:
            channel, there = await pair.open_channel(label="data")
            ended = asyncio.get_running_loop().create_future()
            there.channel.once("close", lambda: ended.set_result(None))
            with (
                broken(Place(DataPath, "send"), Trap(at_call=1)),
                broken(place, Trap(at_call=1)),
            ):
                channel.send(b"what breaks it")
                await ended
            assert channel.readyState == "closed"
            assert [sctp.state for sctp in pair.sctp] == ["closed", "closed"]

    simulate(main)
    assert len(warnings(caplog)) == 2


@pytest.mark.parametrize("event", ["message", "bufferedamountlow"])
def test_a_fault_of_the_application_is_none_of_ours(event: str) -> None:
    def fail(*args: object) -> None:
        raise LookupError("a listener")

    async def main() -> None:
        reported = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        async with connected_pair(make=(fast(), fast())) as pair:
            channel, there = await pair.open_channel(label="data")
            (there.channel if event == "message" else channel).once(event, fail)
            for _ in range(2):
                channel.send(b"hello")
                await asyncio.sleep(1)
            assert there.messages == [b"hello", b"hello"]
            assert channel.bufferedAmount == 0
            assert [sctp.is_fast for sctp in pair.sctp] == [True, True]
        assert [type(one["exception"]) for one in reported] == [LookupError]

    simulate(main)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("packets", ["small", "large"])
@pytest.mark.parametrize("series", range(10))
def test_any_method_may_fail_at_any_call(
    packets: str, series: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(series)  # noqa: S311 - chance, not secrecy
    for place in failures(packets):
        let_fail(place, packets, chance, caplog)

"""Congestion control with real transports on emulated paths: full, steady, and back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from support.link_emulator import Conditions, blackout, random_loss
from support.simulated_loop import simulate
from support.simulated_transports import (
    FULL_PAYLOAD_BYTES,
    Inbox,
    SimulatedPair,
    connected_pair,
    fast,
)

from sleap_rtc_plugin.transport.sctp.loss_based import LossBased
from sleap_rtc_plugin.transport.sctp.rate_based import RateBased
from sleap_rtc_plugin.transport.sctp.round_trip import RTO_MAX_S, RTO_MIN_S

RATE = 1_000_000.0
"""Bytes per second of the bottleneck: small, so that a second is soon simulated."""
QUEUE_S = 0.15
MESSAGE = bytes(16 * 1024)
LOW_WATER_BYTES = 256 * 1024
WARM_UP_S = 3.0
MEASURED_S = 4.0


class CountingLossBased(LossBased):
    """Counts the timeouts of T3-rtx."""

    timeouts = 0

    def on_timeout(self, now: float) -> None:
        self.timeouts += 1
        super().on_timeout(now)


class CountingRateBased(RateBased):
    """The same, rate-based."""

    timeouts = 0

    def on_timeout(self, now: float) -> None:
        self.timeouts += 1
        super().on_timeout(now)


CONTROLS = {
    "loss": lambda: CountingLossBased(FULL_PAYLOAD_BYTES),
    "rate": lambda: CountingRateBased(FULL_PAYLOAD_BYTES),
}


@dataclass
class Flow:
    """A channel that always has something to send."""

    pair: SimulatedPair
    inbox: Inbox

    @property
    def received_bytes(self) -> int:
        return len(self.inbox.messages) * len(MESSAGE)

    @property
    def timeouts(self) -> int:
        return self.pair.sctp[0]._path.sender.congestion.timeouts

    async def share(self, seconds: float) -> float:
        """The share of the bottleneck that messages take in a while."""
        before = self.received_bytes
        await asyncio.sleep(seconds)
        return (self.received_bytes - before) / seconds / RATE


async def start_flow(pair: SimulatedPair) -> Flow:
    channel, inbox = await pair.open_channel(label="bulk")
    channel.bufferedAmountLowThreshold = LOW_WATER_BYTES

    def fill() -> None:
        while channel.bufferedAmount <= 2 * LOW_WATER_BYTES:
            channel.send(MESSAGE)

    channel.on("bufferedamountlow", fill)
    fill()
    return Flow(pair, inbox)


def path(rtt_s: float, loss: float = 0.0) -> Conditions:
    return Conditions(
        rtt_s / 2,
        rate_bytes_per_s=RATE,
        queue_s=QUEUE_S,
        mtu_bytes=1472,
        faults=[random_loss(loss)] if loss else [],
    )


def on_path(
    control: str, conditions: Conditions, measure: Callable, **options: object
) -> object:
    """Run a flow from end 0 to end 1, with a bare way back, and measure it."""

    async def main() -> object:
        back = Conditions(conditions.latency_s)
        make = fast(CONTROLS[control])
        async with connected_pair(
            conditions, make=(make, make), backward=back, **options
        ) as pair:
            return await measure(await start_flow(pair))

    return simulate(main)


async def steady(flow: Flow) -> tuple[float, int]:
    await asyncio.sleep(WARM_UP_S)
    return await flow.share(MEASURED_S), flow.timeouts


@pytest.mark.parametrize("control", ["loss", "rate"])
@pytest.mark.parametrize("rtt_s", [0.02, 0.08])
def test_a_clean_path_is_filled(control: str, rtt_s: float) -> None:
    share, timeouts = on_path(control, path(rtt_s), steady)
    assert share > 0.93
    assert timeouts == 0


@pytest.mark.parametrize(
    ("control", "rtt_s", "loss", "least"),
    [
        # A loss is a sign of congestion here: what is left is what TCP would have.
        ("loss", 0.02, 0.005, 0.8),
        ("loss", 0.08, 0.005, 0.2),
        ("loss", 0.02, 0.02, 0.5),
        ("loss", 0.08, 0.02, 0.12),
        ("rate", 0.02, 0.005, 0.9),
        ("rate", 0.08, 0.005, 0.9),
        ("rate", 0.02, 0.02, 0.88),
        ("rate", 0.08, 0.02, 0.88),
    ],
)
def test_random_loss_costs_what_the_control_says_and_no_timeouts(
    control: str, rtt_s: float, loss: float, least: float
) -> None:
    share, timeouts = on_path(control, path(rtt_s, loss), steady)
    assert share > least
    assert timeouts == 0


@pytest.mark.parametrize(
    ("control", "lasts_s"), [("loss", 0.3), ("loss", 20.0), ("rate", 3.0)]
)
def test_after_a_black_out_the_path_is_soon_full_again(
    control: str, lasts_s: float
) -> None:
    """Within the longest wait; what goes into the dark was under way, or asks."""

    async def measure(flow: Flow) -> tuple[float, int, float, float]:
        link = flow.pair.link
        await asyncio.sleep(WARM_UP_S)
        begin = asyncio.get_running_loop().time()
        link.change(faults=[blackout(begin, begin + lasts_s)])
        await asyncio.sleep(lasts_s)
        into_the_dark = link.tallies()[0].lost
        end = begin + lasts_s
        await flow.inbox.until(len(flow.inbox.messages) + 1)
        again_s = asyncio.get_running_loop().time() - end
        await asyncio.sleep(2)
        return again_s, into_the_dark, await flow.share(3), flow.timeouts

    again_s, into_the_dark, share, timeouts = on_path(control, path(0.04), measure)
    assert again_s < min(RTO_MAX_S, lasts_s + RTO_MIN_S) + 0.1
    assert into_the_dark < RATE * 0.1 / FULL_PAYLOAD_BYTES
    assert timeouts <= 4 + lasts_s / RTO_MAX_S
    assert share > 0.9


@pytest.mark.parametrize("control", ["loss", "rate"])
@pytest.mark.parametrize("rtt_s", [0.02, 0.08])
def test_an_urgent_message_overtakes_what_is_queued(control: str, rtt_s: float) -> None:
    async def measure(flow: Flow) -> float:
        loop = asyncio.get_running_loop()
        channel, inbox = await flow.pair.open_channel(label="control")
        flow.pair.sctp[0].set_urgent(channel)
        arrivals: list[float] = []
        inbox.channel.on("message", lambda message: arrivals.append(loop.time()))
        await asyncio.sleep(WARM_UP_S)
        sent = []
        for _ in range(50):
            sent.append(loop.time())
            channel.send(b"urgent")
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        return max(at - then for then, at in zip(sent, arrivals, strict=True))

    late_s = on_path(control, path(rtt_s), measure)
    # A round trip of the message, though the queue alone takes 150 ms when it is full.
    assert late_s + rtt_s / 2 < 3 * rtt_s + 0.02


def test_a_path_that_carries_no_more_than_the_base_size_is_filled() -> None:
    share, _ = on_path("loss", replace(path(0.04), mtu_bytes=1240), steady)
    assert share > 0.9


def test_a_path_that_becomes_narrow_for_packets_goes_on() -> None:
    async def measure(flow: Flow) -> float:
        await asyncio.sleep(WARM_UP_S)
        assert flow.pair.sctp[0]._path.path_mtu.packet_bytes > 1188
        flow.pair.link.change(mtu_bytes=1240)
        await asyncio.sleep(RTO_MAX_S)
        return await flow.share(3)

    assert on_path("loss", path(0.04), measure) > 0.9

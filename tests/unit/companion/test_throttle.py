"""How often SLEAP's side is told of what changes all the time."""

import asyncio

from sleap_rtc_plugin.companion.throttle import Coalescer, RateMeter, Ticker


def test_a_ticker_lets_one_pass_per_interval() -> None:
    ticker = Ticker(1.0)
    assert [ticker.is_due(now) for now in (0.0, 0.5, 0.99, 1.0, 1.5, 2.1)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_a_rate_is_that_of_the_last_seconds() -> None:
    meter = RateMeter()
    assert meter.bytes_per_s == 0.0
    for second in range(10):
        meter.add(float(second), second * 1000)
    for second in range(10, 20):
        meter.add(float(second), 9000 + (second - 9) * 50_000)
    assert meter.bytes_per_s == 50_000


def test_a_rate_is_not_told_too_early() -> None:
    meter = RateMeter()
    meter.add(0.0, 0)
    meter.add(0.01, 1_000_000)
    assert meter.bytes_per_s == 0.0


async def test_a_coalescer_never_forgets_the_last_call() -> None:
    calls: list[float] = []
    done = asyncio.Event()

    def called() -> None:
        calls.append(asyncio.get_running_loop().time())
        if len(calls) == 2:
            done.set()

    coalescer = Coalescer(0.05, called)
    for _ in range(20):
        coalescer.soon()
    async with asyncio.timeout(5):
        await done.wait()
    assert len(calls) == 2
    assert calls[1] - calls[0] >= 0.04

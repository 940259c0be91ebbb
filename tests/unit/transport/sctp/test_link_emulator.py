"""The emulator that tests of transports stand on: simulated time, and the link."""

import asyncio
import itertools

import pytest
from support.link_emulator import (
    Conditions,
    Direction,
    Fate,
    blackout,
    bursts,
    reordering,
    scripted,
)
from support.simulated_loop import SimulationFailed, simulate


def test_a_run_that_cannot_end_fails_and_says_what_waits() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SimulationFailed, match=r"nothing is left.*main"):
        simulate(main)


def test_a_run_that_takes_too_long_fails() -> None:
    async def main() -> None:
        await asyncio.sleep(11)

    with pytest.raises(SimulationFailed, match=r"after 11\.000 simulated s"):
        simulate(main, limit_s=10)


def test_a_run_that_turns_in_place_fails() -> None:
    async def main() -> None:
        def again() -> None:
            loop.call_soon(again)

        loop = asyncio.get_running_loop()
        again()
        await asyncio.sleep(1)

    with pytest.raises(SimulationFailed, match="for ever"):
        simulate(main)


def test_a_failure_that_nobody_awaits_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1, lambda: 1 / 0)
        await asyncio.sleep(2)

    with pytest.raises(SimulationFailed, match="ZeroDivisionError"):
        simulate(main)


def test_threads_are_refused() -> None:
    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(SimulationFailed, match="thread"):
        simulate(main)


def arrivals(direction: Direction, *sends: tuple[float, int]) -> list[float | None]:
    """When datagrams of these sizes arrive that are sent at these times."""
    found = [direction.send(bytes(size), now) for now, size in sends]
    return [deliveries[0].at if deliveries else None for deliveries in found]


def test_the_rate_spaces_datagrams_and_the_queue_drops_what_it_cannot_hold() -> None:
    narrow = Conditions(latency_s=1.0, rate_bytes_per_s=100.0, queue_bytes=250)
    direction = Direction(narrow)
    sends = [(0.0, 100), (0.0, 100), (0.0, 100), (1.0, 100), (9.0, 100)]
    assert arrivals(direction, *sends) == [2.0, 3.0, None, 4.0, 11.0]
    assert (direction.tally.dropped, direction.tally.longest_queue_s) == (1, 1.0)


def test_a_queue_may_be_bounded_by_time() -> None:
    direction = Direction(Conditions(0.0, rate_bytes_per_s=100.0, queue_s=1.5))
    assert arrivals(direction, *[(0.0, 100)] * 3) == [1.0, 2.0, None]


def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    sends = [(0.0001 * n, 10) for n in range(200)]
    jittery = arrivals(Direction(Conditions(jitter_s=0.05)), *sends)
    assert jittery == sorted(jittery)
    mixed = arrivals(Direction(Conditions(faults=[reordering(0.5, 0.05)])), *sends)
    assert mixed != sorted(mixed)


def test_the_mtu_drops_what_is_larger() -> None:
    direction = Direction(Conditions(0.0, mtu_bytes=100))
    assert arrivals(direction, (0.0, 100), (0.0, 101)) == [0.0, None]
    assert direction.tally.oversized == 1


def test_a_blackout_has_a_beginning_and_an_end() -> None:
    direction = Direction(Conditions(0.0, faults=[blackout(1.0, 2.0)]))
    sends = [(0.9, 1), (1.0, 1), (1.9, 1), (2.0, 1)]
    assert arrivals(direction, *sends) == [0.9, None, None, 2.0]


def test_bursts_lose_the_share_and_the_length_that_they_name() -> None:
    direction = Direction(Conditions(0.0, faults=[bursts(0.2, mean_datagrams=5)]))
    lost = [at is None for at in arrivals(direction, *[(0.0, 1)] * 20_000)]
    assert sum(lost) / len(lost) == pytest.approx(0.2, abs=0.03)
    begun = sum(now and not was for was, now in itertools.pairwise(lost))
    assert sum(lost) / begun == pytest.approx(5, abs=0.7)


def test_a_script_says_what_becomes_of_each_and_then_ends() -> None:
    script = [Fate(lost=True), Fate(copies=2), Fate(delay_s=1.0), Fate(flipped_bit=9)]
    direction = Direction(Conditions(0.0, faults=[scripted(script)]))
    found = [
        [(delivery.at, delivery.datagram) for delivery in direction.send(b"\0\0", 0.0)]
        for _ in range(5)
    ]
    assert found == [
        [],
        [(0.0, b"\0\0")] * 2,
        [(1.0, b"\0\0")],
        [(0.0, b"\0\2")],
        [(0.0, b"\0\0")],
    ]

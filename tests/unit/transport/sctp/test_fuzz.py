"""Hostile datagrams into established associations: no exception, no harm, no growth."""

import asyncio
import logging
import random
from dataclasses import replace

import pytest
from support.datagram_fuzz import DatagramFuzz
from support.link_emulator import Conditions, random_loss
from support.path_pair import TAGS, FixedWindow, PathPair, SentMessage
from support.sctp_invariants import check_data_path
from support.simulated_loop import simulate
from support.simulated_transports import connected_pair, fast

from sleap_rtc_plugin.transport.sctp.data_path import DataPath
from sleap_rtc_plugin.transport.sctp.receiver import MAX_HELD_CHUNKS, MessageTooLarge
from sleap_rtc_plugin.transport.sctp.sender import MAX_OUTSTANDING_CHUNKS

STREAMS = (0, 1, 2, 9)
LIFE = 2000
"""Datagrams that one association gets before the next one is set up."""
TRANSPORT_LIFE = 800
CHECK_EACH = 100
WINDOW_BYTES = 64 * 1024
HELD_BYTES = 256 * 1024


class FuzzedPair:
    """Two ends that talk to each other while somebody interferes at both."""

    def __init__(self, seed: int, *, may_give_up: bool = False) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - chance, not secrecy
        self.may_give_up = may_give_up
        pace = self.rng.choice((None, 2e6))
        self.sent: list[SentMessage] = []
        first_tsns = tuple(
            self.rng.choice((1, 2**32 - 500, 2**32 - 1, self.rng.getrandbits(32)))
            for _ in range(2)
        )
        self.pair = PathPair(
            Conditions(0.01, faults=[random_loss(0.02)]),
            seed=seed,
            congestion=lambda: FixedWindow(WINDOW_BYTES, pace),
            first_tsns=first_tsns,
            window_bytes=HELD_BYTES,
            is_checked=False,
        )
        self.fuzz = tuple(DatagramFuzz(self.rng, tag) for tag in TAGS)
        for end in (0, 1):
            self.fuzz[end].aim(lambda end=end: where(self.pair.paths[end]))
        self.pair.on_put = lambda end, packet: self.fuzz[1 - end].observe(packet)

    def talk(self) -> None:
        """Say something, and let some of it arrive."""
        if self.pair.is_quiet():
            for _ in range(4):
                size = self.rng.choice((1, 50, 1160, 5000, 40_000))
                stream = self.rng.choice(STREAMS)
                end = self.rng.randrange(2)
                number = len(self.sent)
                message = SentMessage(end, stream, number, size, stream == 2)
                if self.may_give_up and self.rng.random() < 0.3:
                    message = replace(message, max_retransmits=self.rng.randrange(2))
                self.sent.append(message)
                self.pair.send(message)
        for _ in range(self.rng.randrange(4)):
            if not self.pair.is_quiet():
                self.pair.step()

    def check(self) -> None:
        for path in self.pair.paths:
            check_data_path(path)
            check_size(path)


def where(path: DataPath) -> tuple[int, ...]:
    """The TSNs at which something can be hit."""
    receiver, sender = path.receiver, path.sender
    return (receiver.cumulative, receiver.cumulative, sender.acked, sender.next_serial)


def check_size(path: DataPath) -> None:
    """Nothing that is kept grows beyond its bound."""
    receiver, sender = path.receiver, path.sender
    assert len(receiver._held) <= MAX_HELD_CHUNKS
    assert len(receiver._waiting) <= MAX_HELD_CHUNKS
    assert len(receiver._partial) <= MAX_HELD_CHUNKS
    assert len(receiver.next_seq) <= 65536
    assert len(receiver._beyond) <= len(receiver._held)
    assert len(sender._sent_order) <= 4 * MAX_OUTSTANDING_CHUNKS
    assert len(sender._lost) <= MAX_OUTSTANDING_CHUNKS
    assert len(sender._gap_acked) <= MAX_OUTSTANDING_CHUNKS
    assert not sender._outstanding or len(sender._outstanding) <= MAX_OUTSTANDING_CHUNKS


def harass(datagrams: int, seed: int) -> tuple[int, int]:
    """Put so many hostile datagrams in; return how many associations, and refusals."""
    lives = refusals = done = 0
    while done < datagrams:
        lives += 1
        fuzzed = FuzzedPair(seed + lives, may_give_up=True)
        for count in range(min(LIFE, datagrams - done)):
            done += 1
            end = fuzzed.rng.randrange(2)
            datagram = fuzzed.fuzz[end].hostile()
            try:
                fuzzed.pair.receive(end, [datagram])
                if count % 8 == 0:
                    fuzzed.talk()
            except MessageTooLarge:
                refusals += 1
                break
            if count % CHECK_EACH == 0:
                fuzzed.check()
    return lives, refusals


def test_hostile_datagrams_do_no_harm() -> None:
    lives, refusals = harass(60_000, seed=1)
    assert refusals < lives


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1000, 1010))
def test_a_hundred_thousand_hostile_datagrams_ten_times(seed: int) -> None:
    harass(100_000, seed * 1000)


def test_harmless_datagrams_change_nothing_for_those_who_talk() -> None:
    fuzzed = FuzzedPair(7)
    for count in range(40_000):
        end = fuzzed.rng.randrange(2)
        fuzzed.pair.receive(end, [fuzzed.fuzz[end].harmless()])
        if count % 8 == 0:
            fuzzed.talk()
        if count % CHECK_EACH == 0:
            fuzzed.check()
    pair = fuzzed.pair
    pair.run_until(pair.is_quiet, 30)
    fuzzed.check()
    assert len(fuzzed.sent) > 500
    for end in (0, 1):
        for stream in STREAMS:
            got = [one.data for one in pair.delivered[1 - end] if one[0] == stream]
            sent = [
                one.data
                for one in fuzzed.sent
                if one.end == end and one.stream_id == stream
            ]
            if stream == 2:
                got.sort()
                sent.sort()
            assert got == sent


ENDING_KINDS = (6, 7, 8, 14)
"""ABORT and the three of SHUTDOWN: a peer may end its association."""


def harass_transports(seed: int, *, may_end: bool) -> None:
    """Put anything at all into real transports whose channels are in use."""

    async def main() -> None:
        async with connected_pair(make=(fast(), fast()), seed=seed) as pair:
            rng = random.Random(seed)  # noqa: S311 - chance, not secrecy
            channel, there = await pair.open_channel(label="data")
            there.channel.on("message", there.channel.send)
            fuzz = []
            for sctp in pair.sctp:
                fuzz.append(DatagramFuzz(rng, sctp._local_verification_tag))
                path = sctp._path
                fuzz[-1].aim(lambda path=path: where(path))
            for count in range(TRANSPORT_LIFE):
                end = rng.randrange(2)
                datagram = fuzz[end].control()
                if rng.random() < 0.3:
                    datagram = fuzz[end].hostile()
                if datagram[12:13] in map(bytes, zip(ENDING_KINDS)) and not may_end:
                    continue
                pair.sctp[end].receive_packets([datagram])
                if channel.readyState == "open" and count % 8 == 0:
                    channel.send(bytes(rng.choice((1, 3000))))
                await asyncio.sleep(rng.choice((0, 0, 0.001, 0.02)))
                for sctp in pair.sctp:
                    assert sctp.is_fast or sctp.state == "closed"
                    if sctp.is_fast:
                        check_data_path(sctp._path)

    simulate(main)


@pytest.mark.parametrize("may_end", [False, True])
def test_transports_go_on_or_close_whatever_comes(
    may_end: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(4):
        harass_transports(seed, may_end=may_end)
    # Nothing of it counts as a fault of ours.
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []

"""Any sequence of events into any machine: instructions, or somebody's fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.machines import KINDS, SESSION, Kind

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, RemoteProtocolError
from sleap_rtc_plugin.protocol.fragments import Fragment, Pack
from sleap_rtc_plugin.protocol.job import ENDED
from sleap_rtc_plugin.protocol.machine import Remote
from sleap_rtc_plugin.protocol.manifest import ChunkInfo
from sleap_rtc_plugin.protocol.messages import FileNeed
from sleap_rtc_plugin.protocol.signaling_session import SessionState, Ticked
from sleap_rtc_plugin.protocol.transfer_receiver import (
    FragmentReceived,
    ManifestAccepted,
    PackReceived,
    TransferReceiver,
)
from sleap_rtc_plugin.protocol.transfer_sender import NeedReceived, TransferSender

steps = st.floats(0, 100)
numbers = st.integers(0, 4) | st.integers(0, 2**32 - 1)
random_fragments = st.builds(
    Fragment,
    st.just(1),
    numbers,
    numbers,
    st.binary(min_size=1, max_size=6),
    st.booleans(),
).map(FragmentReceived)
random_packs = st.builds(
    Pack,
    st.just(1),
    st.lists(st.tuples(numbers, st.binary(min_size=1, max_size=6)), max_size=3).map(
        tuple
    ),
).map(PackReceived)
random_needs = st.builds(
    FileNeed,
    transfer_id=st.just("transfer-" + "0" * 20),
    manifest=st.booleans(),
    chunks=st.lists(st.tuples(numbers, numbers), max_size=3),
).map(NeedReceived)


def events_of(kind: Kind) -> st.SearchStrategy:
    sampled = st.sampled_from(kind.events)
    if kind.machine is TransferReceiver:
        return sampled | random_fragments | random_packs
    if kind.machine is TransferSender:
        return sampled | random_needs
    return sampled


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_any_events_in_any_order(kind: Kind) -> None:
    @given(st.sampled_from(kind.states), st.lists(st.tuples(events_of(kind), steps)))
    def check(start, events) -> None:
        machine, now = kind.at(start), 0.0
        for event, step in events:
            now += step
            ended = machine.state in ENDED
            try:
                instructions = machine.handle(event, now)
            except RemoteProtocolError:
                # A manifest that its driver could read may differ from the offer.
                assert isinstance(event, Remote | ManifestAccepted), event
            except LocalProtocolError:
                assert not isinstance(event, Remote), event
            else:
                assert isinstance(instructions, list)
                assert not (ended and instructions)
            assert machine.state in kind.states
            if kind.machine is TransferReceiver:
                assert machine.buffered_bytes <= machine.progress.total_bytes
            if kind.machine is TransferSender:
                work = machine.next_work()
                assert not (isinstance(work, ChunkInfo) and work.is_hole)

    check()


@given(st.lists(st.tuples(st.sampled_from(SESSION.events), steps), max_size=30))
def test_a_session_always_has_a_next_step(events) -> None:
    machine, now = SESSION.make(), 0.0
    for event, step in events:
        now += step
        try:
            machine.handle(event, now)
        except (LocalProtocolError, RemoteProtocolError):
            continue
        deadline = machine.deadline()
        if deadline is not None and now >= deadline:
            machine.handle(Ticked(), now)
            after = machine.deadline()
            assert after is None or after > now
        if machine.state in (SessionState.WAITING, SessionState.REGISTERING):
            assert machine.deadline() is not None

"""Any event in any state of any machine follows the table, tried one by one."""

import pytest
from support.machines import JOB, KINDS, SESSION, Kind

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, RemoteProtocolError
from sleap_rtc_plugin.protocol.job import ENDED
from sleap_rtc_plugin.protocol.machine import Machine, Remote

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
STATES = [
    pytest.param(kind, state, id=f"{kind.name}-{state}")
    for kind in KINDS
    for state in kind.states
]


@every_kind
def test_the_table_has_every_state_and_only_methods_that_exist(kind: Kind) -> None:
    assert issubclass(kind.machine, Machine)
    assert set(kind.machine.TABLE) == set(kind.states)
    for row in kind.machine.TABLE.values():
        for method in row.values():
            assert callable(getattr(kind.machine, method))


@every_kind
def test_there_is_a_sample_of_every_event_of_the_table(kind: Kind) -> None:
    in_table = {event for row in kind.machine.TABLE.values() for event in row}
    assert in_table <= {type(event) for event in kind.events}


@every_kind
def test_every_state_is_reached(kind: Kind) -> None:
    for state in kind.states:
        assert kind.at(state).state is state


@pytest.mark.parametrize(("kind", "state"), STATES)
def test_the_table_decides(kind: Kind, state) -> None:
    for event in kind.events:
        machine = kind.at(state)
        by_table = f"{type(event).__name__} in state {state.value}"
        if type(event) in kind.machine.TABLE[state]:
            try:
                instructions = machine.handle(event, 1.0)
            except (LocalProtocolError, RemoteProtocolError) as error:
                # What the event says may be wrong; that it came is not.
                assert error.detail != by_table
            else:
                assert isinstance(instructions, list)
            assert machine.state in kind.states
            continue
        blame = RemoteProtocolError if isinstance(event, Remote) else LocalProtocolError
        with pytest.raises(blame) as raised:
            machine.handle(event, 1.0)
        assert raised.value.detail == by_table
        assert machine.state is state


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ended_job_absorbs(state) -> None:
    for event in JOB.events:
        job = JOB.at(state)
        error = job.error
        if type(event) in JOB.machine.TABLE[state]:
            assert job.handle(event, 1.0) == []
        assert job.state is state
        assert job.error is error
        assert job.has_ended


def test_no_state_is_a_dead_end_but_the_ends() -> None:
    for state in set(JOB.states) - ENDED:
        reached = set()
        for event in JOB.events:
            job = JOB.at(state)
            if type(event) in JOB.machine.TABLE[state]:
                job.handle(event, 1.0)
            reached.add(job.state)
        assert reached - {state}


def test_whoever_announces_a_deadline_takes_the_tick() -> None:
    for state in SESSION.states:
        session = SESSION.at(state)
        for event in SESSION.events:
            if type(event).__name__ == "CommandAsked":
                session.handle(event, 0.0)
        deadline = session.deadline()
        if deadline is not None:
            tick = next(e for e in SESSION.events if type(e).__name__ == "Ticked")
            session.handle(tick, deadline)

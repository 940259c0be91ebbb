"""Any order of happenings keeps the promises of the step machine."""

import json

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.limits import (
    MAX_LAST_LINES,
    MAX_LOG_LINE_CHARS,
    MAX_LOG_LINES_PER_EVENT,
)
from sleap_rtc_worker.step_machine import (
    Asked,
    Emit,
    Exited,
    Finish,
    Happening,
    Instruction,
    Message,
    Output,
    Phase,
    SignalTrainer,
    Started,
    StepMachine,
)
from sleap_rtc_worker.step_records import (
    StepLog,
    StepOrder,
    decode_event,
    encode_event,
)

KINDS = ["train_begin", "epoch_begin", "batch_end", "epoch_end", "train_end"]
LADDER = ["interrupt", "terminate", "kill"]

messages = (
    st.sampled_from(KINDS)
    .map(lambda kind: json.dumps({"event": kind, "epoch": 1}).encode())
    .map(Message)
    | st.binary(max_size=80).map(Message)
    | st.dictionaries(st.text(max_size=6), st.integers() | st.floats() | st.text())
    .map(lambda logs: json.dumps({"event": "epoch_end", "logs": logs}).encode())
    .map(Message)
)
outputs = st.builds(
    Output,
    st.sampled_from(["out", "err"]),
    st.binary(max_size=200) | st.just(b"line\n" * 300),
)
commands = st.sampled_from(["stop", "cancel"]).map(Asked)
happenings: st.SearchStrategy[Happening | None] = (
    st.none() | messages | outputs | commands
)
histories = st.lists(
    st.tuples(happenings, st.floats(0.0, 40.0, allow_nan=False)), max_size=40
)
orders = st.builds(
    StepOrder,
    kind=st.sampled_from(["train", "predict"]),
    argv=st.just(["x"]),
    cwd=st.just("/"),
    stop_grace_s=st.floats(0, 50),
    interrupt_grace_s=st.floats(0, 50),
    terminate_grace_s=st.floats(0, 50),
)


@given(orders, histories)
def test_signals_climb_events_are_whole_and_the_end_is_one(
    order: StepOrder, history: list[tuple[Happening | None, float]]
) -> None:
    machine = StepMachine(order)
    now = 0.0
    done: list[Instruction] = list(machine.handle(Started(1, 5.0), now))
    asked: set[str] = set()
    for happening, wait_s in history:
        now += wait_s
        instructions = machine.handle(happening, now)
        if isinstance(happening, Asked):
            asked.add(happening.command)
        if not asked:
            assert not any(isinstance(item, SignalTrainer) for item in instructions)
        done += instructions
        deadline = machine.deadline()
        assert deadline is None or deadline >= now or machine.handle(None, now) == []
    assert not any(isinstance(item, Finish) for item in done)
    last = machine.handle(Exited(0, None, (), 9.0), now)
    (finish,) = [item for item in last if isinstance(item, Finish)]
    assert last[-1] is finish
    assert machine.phase is Phase.ENDED
    done += last

    signals = [item.how for item in done if isinstance(item, SignalTrainer)]
    ranks = [LADDER.index(how) for how in signals]
    assert ranks == sorted(ranks)
    assert ranks[:3] == list(range(3))[: len(ranks[:3])]
    outcome = finish.outcome
    assert outcome.cancelled == ("cancel" in asked)
    assert not (outcome.cancelled and outcome.stopped)
    assert outcome.forced == (signals[-1] if signals else None)
    assert len(outcome.last_lines) <= MAX_LAST_LINES
    for item in done:
        if isinstance(item, Emit):
            line = encode_event(item.event)
            assert line.count(b"\n") == 1
            assert decode_event(line) == item.event
            if isinstance(item.event, StepLog):
                assert len(item.event.lines) <= MAX_LOG_LINES_PER_EVENT
                assert all(len(text) <= MAX_LOG_LINE_CHARS for text in item.event.lines)


@given(orders)
def test_a_cancel_always_reaches_the_kill(order: StepOrder) -> None:
    machine = StepMachine(order)
    machine.handle(Started(1, 5.0), 0.0)
    instructions = machine.handle(Asked("cancel"), 1.0)
    for _ in range(3):
        deadline = machine.deadline()
        assert deadline is not None
        instructions += machine.handle(None, deadline)
    signals = [item.how for item in instructions if isinstance(item, SignalTrainer)]
    assert signals[:3] == LADDER

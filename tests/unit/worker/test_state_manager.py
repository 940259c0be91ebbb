"""What the room is told of the worker, and when."""

from sleap_rtc_plugin.protocol.signaling_messages import PeerMetadata
from sleap_rtc_worker.limits import GPU_MEMORY_STEP_MB
from sleap_rtc_worker.state_manager import StateManager, WorkerStatus


def make() -> tuple[StateManager, list[PeerMetadata]]:
    told: list[PeerMetadata] = []
    state = StateManager(
        name="w", capabilities={"device": "cpu"}, tags=["t"], on_change=told.append
    )
    return state, told


def test_every_change_is_told_once() -> None:
    state, told = make()
    state.set_status(WorkerStatus.AVAILABLE)
    state.set_status(WorkerStatus.AVAILABLE)
    state.set_load(running_jobs=1, queue_length=2)
    state.set_load(running_jobs=1, queue_length=2)
    assert [t.properties["status"] for t in told] == ["available", "busy"]
    assert told[-1].properties["queue_length"] == 2
    assert told[-1].properties["device"] == "cpu"
    assert told[-1].tags == ["t"]


def test_free_memory_is_told_when_it_changed_noticeably() -> None:
    state, told = make()
    for free_mb in (None, 10_000, 10_100, 9_900, 10_000 + GPU_MEMORY_STEP_MB, None):
        state.set_gpu_free(free_mb)
    values = [metadata.properties["gpu_memory_free_mb"] for metadata in told]
    assert values == [10_000, 10_000 + GPU_MEMORY_STEP_MB]


def test_a_closing_worker_takes_nothing_and_stays_closing() -> None:
    state, _ = make()
    state.set_status(WorkerStatus.AVAILABLE)
    assert state.takes_jobs
    state.set_status(WorkerStatus.CLOSING)
    state.set_status(WorkerStatus.AVAILABLE)
    state.set_load(running_jobs=0, queue_length=0)
    assert state.status is WorkerStatus.CLOSING
    assert not state.takes_jobs


def test_a_worker_with_a_free_slot_is_not_busy() -> None:
    state = StateManager(
        name="w", capabilities={"slots": 2}, tags=[], on_change=lambda metadata: None
    )
    state.set_status(WorkerStatus.AVAILABLE)
    state.set_load(running_jobs=1, queue_length=0)
    assert state.status is WorkerStatus.AVAILABLE
    state.set_load(running_jobs=2, queue_length=0)
    assert state.status is WorkerStatus.BUSY


def test_jobs_are_told_when_they_change_and_left_out_where_there_are_none() -> None:
    state, told = make()
    assert "jobs" not in state.metadata().properties
    state.set_jobs([{"id": "1"}])
    state.set_jobs([{"id": "1"}])
    state.set_jobs([])
    assert ["jobs" in metadata.properties for metadata in told] == [True, False]

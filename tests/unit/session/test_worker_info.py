"""Metadata of strangers, read and chosen from."""

from typing import Any

import pytest

from sleap_rtc_plugin.protocol.errors import NoWorker, WorkerNotFound
from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo, PeerMetadata
from sleap_rtc_plugin.session.worker_info import (
    WorkerInfo,
    choose_worker,
    read_worker,
    way_words,
)
from sleap_rtc_plugin.transport.ladder import WAYS


def peer(peer_id: str, **properties: Any) -> PeerInfo:
    return PeerInfo(
        peer_id=peer_id,
        role="worker",
        metadata=PeerMetadata(properties=properties),
        connected_at=0.0,
    )


def worker(peer_id: str, **properties: Any) -> WorkerInfo:
    return read_worker(peer(peer_id, status="available", **properties))


def choose(workers: list[WorkerInfo], wanted: str | None = None) -> str:
    chosen = choose_worker(workers, wanted=wanted, preferred="w-2", server="http://s")
    return chosen.peer_id


def test_hostile_metadata_becomes_harmless_text() -> None:
    read = read_worker(
        peer(
            "w-1",
            name="\x1b[31mred\u202e" * 50,
            gpu_model=["a"],
            gpu_memory_mb="lots",
            gpu_memory_free_mb=2**60,
            queue_length=-1,
            running_jobs=True,
            status={"a": 1},
        )
    )
    assert "\x1b" not in read.name
    assert "\u202e" not in read.name
    assert len(read.name) <= 120
    assert read.gpu_model is None
    assert read.gpu_memory_mb is None
    assert read.gpu_free_mb is None
    assert (read.queue_length, read.running_jobs) == (0, 0)
    assert read.status == "unknown"


def test_memory_is_read() -> None:
    read = worker("w-1", gpu_memory_mb=24_576, gpu_memory_free_mb=20_000)
    assert (read.gpu_memory_mb, read.gpu_free_mb) == (24_576, 20_000)


def test_the_shortest_queue_wins_then_the_one_in_the_session() -> None:
    assert choose([worker("w-1"), worker("w-2")]) == "w-2"
    assert choose([worker("w-1"), worker("w-2", queue_length=1)]) == "w-1"
    closing = read_worker(peer("w-1", status="closing"))
    assert choose([closing, worker("w-3", queue_length=9)]) == "w-3"


def test_a_worker_is_found_by_name_or_id() -> None:
    workers = [worker("w-1", name="alpha"), worker("w-2", name="beta")]
    assert choose(workers, "alpha") == "w-1"
    assert choose(workers, "w-2") == "w-2"
    with pytest.raises(WorkerNotFound, match="there is alpha, beta"):
        choose(workers, "gamma")


def test_an_empty_room_has_words() -> None:
    with pytest.raises(NoWorker, match="No worker is online"):
        choose([])


@pytest.mark.parametrize(
    ("said", "takes_relay"), [(True, True), (False, False), (1, False), ("yes", False)]
)
def test_who_comes_to_the_relay_says_so(said: object, takes_relay: bool) -> None:
    assert worker("w-1", relay=said).takes_relay is takes_relay
    assert not worker("w-1").takes_relay


def test_a_worker_cannot_say_how_we_are_linked_with_it() -> None:
    assert worker("w-1", link_kind="direct").link_kind == ""


def test_every_way_has_words() -> None:
    assert all(way_words(way) for way in WAYS)
    assert way_words("") == way_words("unknown") == ""


def test_a_free_slot_is_better_than_a_shorter_queue() -> None:
    one = worker("w-1", running_jobs=1)
    four = worker("w-4", running_jobs=3, slots=4)
    full = worker("w-5", running_jobs=4, slots=4)
    assert (one.jobs_before, four.jobs_before, full.jobs_before) == (1, 0, 1)
    assert choose([one, four]) == "w-4"
    assert choose([one, full]) == "w-1"
    assert worker("w-6", slots="many").slots == 1

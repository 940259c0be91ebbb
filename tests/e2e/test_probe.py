"""A client measures the way to a worker, and hears whether it would take a job."""

import asyncio

import pytest
from support.programs import Programs

from sleap_rtc_plugin.protocol.errors import PeerNotFound
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.remote_session import RemoteSession

WAIT_S = 60.0


@pytest.mark.parametrize(
    ("behaviour", "words"), [("train", ""), ("none", "has no sleap-nn")]
)
async def test_a_worker_is_probed(
    programs: Programs, behaviour: str, words: str
) -> None:
    worker = programs.scripted_worker(behaviour).wait_ready()
    room = RemoteSession(Session.parse(worker.session))
    async with asyncio.timeout(WAIT_S), room:
        (info,) = await room.workers()
        round_trip_s, refusal = await room.probe(info)
        assert 0 < round_trip_s < WAIT_S
        assert bool(refusal) == bool(words)
        assert words in refusal
        assert info.gpu_free_mb is None


async def test_a_worker_that_has_left_has_no_round_trip(programs: Programs) -> None:
    server = programs.signaling()
    first = programs.scripted_worker("train", "--signaling", server).wait_ready()
    room = RemoteSession(Session.parse(first.session))
    async with asyncio.timeout(WAIT_S), room:
        (info,) = await room.workers()
        first.terminate()
        await asyncio.to_thread(first.wait)
        with pytest.raises(PeerNotFound):
            await room.probe(info)

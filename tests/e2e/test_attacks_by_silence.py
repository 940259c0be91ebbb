"""A client that asks and asks and never reads the answers.

The attacker runs here and acknowledges nothing that comes, while it goes on sending;
the worker is a real process.
"""

import asyncio
import contextlib

import psutil
import pytest
from aiortc.rtcsctptransport import RTCSctpTransport
from support.packages import CENTROID, LABELS
from support.programs import Programs, Worker

from sleap_rtc_plugin.protocol.ids import new_command_id, new_job_id
from sleap_rtc_plugin.protocol.limits import CONTROL_BUFFER_MAX_BYTES, MIB
from sleap_rtc_plugin.protocol.messages import (
    JobDescribe,
    JobSpec,
    JobSubmit,
    PredictStep,
    TrainStep,
)
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.remote_job import describe_job, list_jobs
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.transport.transport_options import TransportOptions

STEPS = 32
ROUNDS = 600
# Its buffers, the event loop's, and what Python keeps of them.
GROWTH_BYTES = 8 * CONTROL_BUFFER_MAX_BYTES
DROPPED_S = 90.0


@pytest.fixture
def worker(programs: Programs) -> Worker:
    return programs.scripted_worker("train").wait_ready()


def wordy_job(job_id: str) -> JobSubmit:
    """Return a job whose description is as long as may be."""
    train = TrainStep(config=CENTROID, labels=LABELS, run_name="r", head="centroid")
    predict = [
        PredictStep(data="d" * 190, models=[f"models/{'m' * 180}"], output="o" * 180)
        for _ in range(STEPS - 1)
    ]
    return JobSubmit(
        command_id=new_command_id(),
        job_id=job_id,
        spec=JobSpec(name="wordy", steps=[train, *predict]),
        package_digest="0" * 64,
        package_bytes=1,
    )


async def test_a_client_that_never_reads_is_dropped(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session.parse(worker.session)
    is_reading = True
    real = RTCSctpTransport._send_sack

    async def send_sack(self: RTCSctpTransport) -> None:
        if is_reading:
            await real(self)

    monkeypatch.setattr(RTCSctpTransport, "_send_sack", send_sack)
    process = psutil.Process(worker.pid)
    stock, fast = TransportOptions("stock"), TransportOptions("fast")
    async with (
        RemoteSession(session, transport=stock) as rude,
        RemoteSession(session, transport=fast) as other,
    ):
        bystander = await other.connect(await other.choose())
        attacker = await rude.connect(await rude.choose())
        job_id = new_job_id()
        await attacker.ask(wordy_job(job_id))
        await describe_job(attacker, job_id)
        before = process.memory_info().rss
        most = before
        is_reading = False
        for _ in range(ROUNDS):
            command = JobDescribe(command_id=new_command_id(), job_id=job_id)
            with contextlib.suppress(Exception):
                attacker.link.send(command)
            if attacker.link.closed.is_set():
                break
            await asyncio.sleep(0)
            most = max(most, process.memory_info().rss)
        # Who reads is served meanwhile.
        assert any(job.job_id == job_id for job in await list_jobs(bystander))
        async with asyncio.timeout(DROPPED_S):
            await attacker.link.closed.wait()
        most = max(most, process.memory_info().rss)
        assert most - before < GROWTH_BYTES, f"{(most - before) / MIB:.0f} MiB"
        assert not bystander.link.closed.is_set()
        assert any(job.job_id == job_id for job in await list_jobs(bystander))
    assert worker.is_running

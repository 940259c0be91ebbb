"""Enters the room and looks at one worker: what it says, and the link to it.

The steps build on each other, so each says its finding as soon as it is known. Nothing
is submitted and nothing is written but a nonce on shared storage. Called by `checkup`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sleap_rtc_plugin.protocol.errors import (
    NoReply,
    RtcError,
    SharedStorageUnusable,
)
from sleap_rtc_plugin.protocol.ids import new_command_id
from sleap_rtc_plugin.protocol.link_test_messages import StorageTest, StorageTested
from sleap_rtc_plugin.protocol.messages import JobList, JobListed
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.shared_storage import is_proof, probe_path
from sleap_rtc_plugin.session.doctor import worker as judge
from sleap_rtc_plugin.session.doctor.finding import (
    CHECKS,
    Finding,
    failed,
    from_error,
)
from sleap_rtc_plugin.session.doctor.limits import (
    LINK_S,
    ROOM_S,
    SHARED_STORAGE_S,
    THROUGHPUT_S,
    USUAL_PACKAGE_BYTES,
    WORKER_ANSWER_S,
)
from sleap_rtc_plugin.session.doctor.link_test import (
    measure_round_trip_s,
    measure_throughput,
)
from sleap_rtc_plugin.session.doctor.server import judge_room
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread, monotonic
from sleap_rtc_plugin.transport.link_test import Moved
from sleap_rtc_plugin.transport.peer import SOFTWARE
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = ["LINK_CHECKS", "WORKER_CHECKS", "check_worker"]

# Those that need the room, and those of them that need a link.
LINK_CHECKS = ("link", "round-trip", "throughput", "last-error", "worker-storage")
WORKER_CHECKS = tuple(check for check, (area, _) in CHECKS.items() if area == "worker")

Say = Callable[[Finding], None]


async def check_worker(
    session: Session,
    wanted: str | None,
    say: Say,
    *,
    wants_link: bool,
    shared_storage: tuple[str, SharedStorage] | None,
    transport: TransportOptions,
) -> None:
    """Enter the room, and say everything about one of its workers.

    Args:
        session: the room and its secret.
        wanted: the worker's name, or None for whom a job would go to.
        say: told each finding.
        wants_link: whether to connect as well.
        shared_storage: where this computer mounts it, and that as a storage.
        transport: how data channels go.
    """
    remote = RemoteSession(session, transport=transport)
    try:
        async with asyncio.timeout(ROOM_S):
            await remote.__aenter__()
    except TimeoutError:
        say(judge_room(NoReply(peer=f"the server {session.url}", command="register")))
        return
    except RtcError as error:
        say(judge_room(error))
        return
    try:
        say(judge_room(None))
        worker = await _find(remote, wanted, say)
        if worker is None:
            return
        await _ask_in_room(remote, worker, say)
        if wants_link:
            await _look_over_link(remote, worker, say, shared_storage, transport)
    finally:
        await remote.__aexit__(None, None, None)


async def _find(
    remote: RemoteSession, wanted: str | None, say: Say
) -> WorkerInfo | None:
    try:
        async with asyncio.timeout(WORKER_ANSWER_S):
            online = len(await remote.workers())
            worker = await remote.choose(wanted)
    except TimeoutError:
        say(from_error("worker", NoReply(peer="the server", command="discover_peers")))
        return None
    except RtcError as error:
        say(from_error("worker", error))
        return None
    say(judge.judge_worker(worker, online))
    say(judge.judge_trainer(worker))
    say(judge.judge_gpu(worker))
    return worker


async def _ask_in_room(remote: RemoteSession, worker: WorkerInfo, say: Say) -> None:
    try:
        async with asyncio.timeout(WORKER_ANSWER_S):
            round_trip_s, refusal = await remote.probe(worker)
            say(judge.judge_jobs(worker, round_trip_s, refusal))
            space = None
            try:
                await remote.check_acceptance(
                    worker, package_bytes=USUAL_PACKAGE_BYTES, steps=1
                )
            except NoReply:
                raise
            except RtcError as error:
                space = error
            found = judge.judge_worker_disk(space)
            if found is not None:
                say(found)
    except TimeoutError:
        silent = NoReply(peer=f"the worker {worker.name}", command="job_request")
        say(from_error("jobs", silent))
    except RtcError as error:
        say(from_error("jobs", error))


async def _look_over_link(
    remote: RemoteSession,
    worker: WorkerInfo,
    say: Say,
    shared_storage: tuple[str, SharedStorage] | None,
    transport: TransportOptions,
) -> None:
    begun_at = monotonic()
    try:
        async with asyncio.timeout(LINK_S):
            link = await remote.connect(worker)
    except TimeoutError:
        say(
            failed(
                "link",
                f"No connection to {worker.name} came about within {LINK_S:.0f} s.",
                "Check that both machines allow UDP between them; where they cannot, "
                "list a TURN server in the signaling server's configuration.",
            )
        )
        return
    except RtcError as error:
        say(from_error("link", error))
        return
    say(
        judge.judge_link(
            kind=link.link.kind,
            engine=link.link.engine,
            peer_engine=link.link.peer_engine,
            software=link.link.software,
            ours=SOFTWARE,
            took_s=monotonic() - begun_at,
        )
    )
    await _on_link("round-trip", link, say)
    await _on_link("last-error", link, say)
    async with _reported("worker-storage", say):
        say(await _test_storage(link, shared_storage))
    there = await _measured(link, "to_worker")
    back = there if isinstance(there, RtcError) else await _measured(link, "to_client")
    say(judge.judge_throughput(there, back, transport.max_bytes_per_s))


async def _on_link(check: str, link: WorkerLink, say: Say) -> None:
    async with _reported(check, say):
        async with asyncio.timeout(WORKER_ANSWER_S):
            if check == "round-trip":
                say(judge.judge_round_trip(await measure_round_trip_s(link)))
                return
            listed = await link.ask(JobList(command_id=new_command_id()))
        if isinstance(listed, JobListed):
            say(judge.judge_last_error(listed.jobs, time.time()))


@asynccontextmanager
async def _reported(check: str, say: Say) -> AsyncIterator[None]:
    """Say what went wrong with a check, and go on with the next."""
    try:
        yield
    except TimeoutError:
        say(from_error(check, NoReply(peer="the worker", command=check)))
    except RtcError as error:
        say(from_error(check, error))


async def _measured(link: WorkerLink, direction: str) -> Moved | RtcError:
    try:
        return await measure_throughput(
            link,
            "to_worker" if direction == "to_worker" else "to_client",
            THROUGHPUT_S,
        )
    except RtcError as error:
        return error


async def _test_storage(
    link: WorkerLink, shared_storage: tuple[str, SharedStorage] | None
) -> Finding:
    if shared_storage is None:
        return judge.judge_storage(None, None)
    root, storage = shared_storage
    try:
        async with asyncio.timeout(SHARED_STORAGE_S):
            probe = await in_thread(None, storage.lay_probe)
            try:
                command = StorageTest(command_id=new_command_id(), probe=probe.name)
                answer = await link.ask(command)
            finally:
                with contextlib.suppress(SharedStorageUnusable):
                    await in_thread(None, storage.remove, probe_path(probe.name))
    except TimeoutError:
        return judge.judge_storage(root, storage.unusable("it does not answer"))
    except RtcError as error:
        return judge.judge_storage(root, error)
    proof = answer.proof if isinstance(answer, StorageTested) else None
    if not is_proof(proof, probe.nonce, command.command_id):
        return judge.judge_storage(
            root, storage.unusable("the worker sees another folder")
        )
    return judge.judge_storage(root, None)

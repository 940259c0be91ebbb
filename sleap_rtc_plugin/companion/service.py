"""What the companion does for SLEAP's side: one command after another, events between.

The composition root of the desktop side's session: the room, the jobs that are
followed, the runs on their way. Hosted by a process of its own (`companion.__main__`)
or by SLEAP's (`companion.host.InProcessHost`); both call `carry_out` and take events.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc_plugin.companion.account_messages import AccountCommand
from sleap_rtc_plugin.companion.accounts_service import AccountsService
from sleap_rtc_plugin.companion.followed_job import FollowedJob, FollowedWorker
from sleap_rtc_plugin.companion.messages import (
    Attached,
    AttachJob,
    CancelJob,
    CloseMonitor,
    Command,
    Connect,
    Connected,
    ConnectRemembered,
    Disconnect,
    Done,
    Event,
    FetchResults,
    ForgetResults,
    ForgetRoom,
    JobLog,
    Jobs,
    ListJobs,
    ListRooms,
    Log,
    OpenMonitor,
    Pair,
    Paired,
    Result,
    RoomChanged,
    RoomRow,
    Rooms,
    Shutdown,
    SignedIn,
    SignIn,
    StopJob,
    SubmitPackage,
    SubmitRun,
    Submitted,
    WaitingResults,
    WorkersChanged,
)
from sleap_rtc_plugin.companion.model_messages import ModelAnnounced, ModelCommand
from sleap_rtc_plugin.companion.models_service import ModelsService
from sleap_rtc_plugin.companion.rows import job_row, room_row, worker_row
from sleap_rtc_plugin.companion.run import (
    Run,
    RunTools,
    from_built,
    from_package,
    from_project,
    images_folder,
    is_built,
    remove_leftovers,
    results_home,
)
from sleap_rtc_plugin.protocol.errors import (
    JobFollowedElsewhere,
    JobUnknown,
    LocalProtocolError,
    RtcError,
    SignalingUnreachable,
    StorageFailed,
    TokenRefused,
    TooMany,
)
from sleap_rtc_plugin.protocol.ids import clean_text, new_peer_id
from sleap_rtc_plugin.protocol.messages import JobSpec, JobSummary
from sleap_rtc_plugin.protocol.pairing_code import PairingCode
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.credentials import CredentialStore
from sleap_rtc_plugin.session.lab import Lab, WorkerSeen
from sleap_rtc_plugin.session.model_news import ModelNews
from sleap_rtc_plugin.session.new_room import open_room
from sleap_rtc_plugin.session.pairing import claim_session
from sleap_rtc_plugin.session.remote_job import describe_job, list_jobs
from sleap_rtc_plugin.session.room_models import (
    LinkedModels,
    RoomModels,
    open_room_models,
)
from sleap_rtc_plugin.session.run_records import RunRecord, RunRecords
from sleap_rtc_plugin.session.settings import chosen_model_place, chosen_transport
from sleap_rtc_plugin.session.shared_files import chosen_storage
from sleap_rtc_plugin.session.submission import owner_name
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import in_thread

__all__ = ["CompanionService"]

logger = logging.getLogger(__name__)

MAX_JOBS_FOLLOWED: Final = 100
MAX_RUNS: Final = 100


class CompanionService:
    """The desktop side's session behind its commands."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        """Prepare; `emit` takes every event, on the event loop."""
        self._emit = emit
        self._credentials = CredentialStore()
        self._accounts = AccountsService(self._credentials, emit)
        self._records = RunRecords()
        self._lab: Lab | None = None
        self._entering = asyncio.Lock()
        self._finding: dict[str, asyncio.Lock] = {}
        self._jobs: dict[str, FollowedJob] = {}
        self._runs: dict[str, Run] = {}
        self._worker_names: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._models = ModelsService(self._open_models, emit)
        self._tools = RunTools(
            emit=emit,
            records=self._records,
            connect=self._link,
            adopt=self._adopt,
            drop=self._drop,
            find=self._find,
        )

    # -- commands ------------------------------------------------------------------

    async def carry_out(self, command: Command) -> Result:
        """Carry out one command.

        Raises:
            RtcError: why it could not be carried out.
        """
        try:
            return await self._carry_out(command)
        except RtcError:
            raise
        except OSError as error:
            raise StorageFailed(
                place=str(error.filename or "this computer's disk"),
                reason=error.strerror or type(error).__name__,
            ) from error
        except Exception as error:
            logger.exception("%s failed", type(command).__name__)
            raise LocalProtocolError(
                detail=f"{type(command).__name__}: {type(error).__name__}"
            ) from error

    async def _carry_out(self, command: Command) -> Result:
        if isinstance(command, ModelCommand):
            return await self._models.carry_out(command)
        if isinstance(command, AccountCommand):
            return await self._accounts.carry_out(command)
        match command:
            case ListRooms() | Connect() | ConnectRemembered() | SignIn() | Pair():
                return await self._enter(command)
            case Disconnect():
                await self._leave("")
            case ForgetRoom(room_id=room_id):
                await self._credentials.forget(room_id)
            case SubmitRun() | SubmitPackage():
                return self._submit(command)
            case ListJobs(worker_id=worker_id):
                return await self._list_jobs(worker_id)
            case AttachJob():
                return await self._attach(command)
            case FetchResults():
                await self._fetch(command)
            case StopJob():
                (await self._find(command.worker_id, command.job_id)).stop(
                    command.scope
                )
            case CancelJob():
                await self._cancel(command)
            case JobLog(job_id=job_id):
                return Log(lines=list(self._followed(job_id).course.log))
            case OpenMonitor():
                await self._followed(command.job_id).open_monitor(
                    command.step,
                    command.publish_port,
                    command.controller_port,
                    command.what,
                )
            case CloseMonitor(job_id=job_id, step=step):
                if job_id in self._jobs:
                    await self._jobs[job_id].close_monitor(step)
            case WaitingResults():
                await self._say_waiting()
            case ForgetResults(job_id=job_id):
                await in_thread(None, self._records.remove, job_id)
            case Shutdown(finish_sending=finish_sending):
                # The host ends us next, unless we are to finish.
                if not finish_sending:
                    await self._abandon_sending()
        return Done()

    async def close(self) -> None:
        """Let go of everything; jobs on workers go on."""
        self._accounts.cancel()
        await self._leave("")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def finish_sending(self) -> None:
        """Wait until every package that is on its way has arrived, or failed."""
        while sending := [run for run in self._runs.values() if run.is_sending]:
            await asyncio.wait(
                [asyncio.ensure_future(run.sent.wait()) for run in sending]
            )

    async def _abandon_sending(self) -> None:
        """Stop what is being sent; after a crash of SLEAP it would go on later."""
        for run in [run for run in self._runs.values() if run.is_sending]:
            await run.abandon()

    # -- the room ------------------------------------------------------------------

    async def _enter(
        self, command: ListRooms | Connect | ConnectRemembered | SignIn | Pair
    ) -> Result:
        match command:
            case ListRooms():
                remembered = await self._credentials.rooms()
                return Rooms(rooms=[room_row(room) for room in remembered])
            case Connect(session=text, remember=remember):
                room = await self._connect(Session.parse(text), remember=remember)
            case ConnectRemembered(room_id=room_id):
                known = await self._credentials.load(room_id)
                if known is None:
                    raise TokenRefused(
                        server="of this lab",
                        reason="its session string is no longer on this computer",
                    )
                room = await self._connect(Session.parse(known), remember=True)
            case Pair(server=server, code=code, remember=remember):
                session = await claim_session(server, PairingCode.parse(code))
                room = await self._connect(session, remember=remember)
                return Paired(room=room, session=session.encode())
            case SignIn(server=server, remember=remember):
                session = await open_room(
                    server.rstrip("/"),
                    new_peer_id("worker"),
                    accounts=self._accounts.accounts,
                )
                room = await self._connect(session, remember=remember)
                return SignedIn(room=room, session=session.encode())
        return Connected(room=room)

    async def _connect(self, session: Session, *, remember: bool) -> RoomRow:
        async with self._entering:
            await self._leave("")
            lab = Lab(
                session,
                owner=owner_name(),
                shared_storage=await in_thread(None, chosen_storage),
                transport=chosen_transport,
                on_workers=self._workers_seen,
                on_offline=lambda error: self._went_offline(room, error),
                on_online=lambda: self._emit(RoomChanged(state="online", room=room)),
                on_model=self._model_published,
            )
            room = RoomRow(
                room_id=session.room_id, server=session.url, last_used=time.time()
            )
            await lab.enter()
            self._lab = lab
        if remember:
            await self._credentials.remember(room, session.encode())
        self._emit(RoomChanged(state="online", room=room))
        self._spawn(self._resume_runs(session.room_id))
        return room

    def _went_offline(self, room: RoomRow, error: RtcError) -> None:
        # Without a room: the server will never let us in again with this session.
        # Links to workers need no server, so what is under way goes on.
        known = room if error.retryable else None
        self._emit(RoomChanged(state="offline", room=known, reason=str(error)))

    async def _leave(self, reason: str) -> None:
        await self._models.close()
        lab, self._lab = self._lab, None
        runs = [run for run in self._runs.values() if not run.is_over]
        for run in runs:
            await run.let_go()
        self._runs.clear()
        for job in self._jobs.values():
            await job.close()
        self._jobs.clear()
        if lab is not None:
            await lab.leave()
            self._emit(RoomChanged(state="offline", reason=reason))

    def _workers_seen(self, workers: Sequence[WorkerSeen]) -> None:
        for seen in workers:
            self._worker_names[seen.info.peer_id] = seen.info.name
        self._emit(WorkersChanged(workers=[worker_row(seen) for seen in workers]))

    def _current_lab(self) -> Lab:
        if self._lab is None:
            raise SignalingUnreachable(
                server="the lab's server", reason="no room is entered"
            )
        return self._lab

    async def _link(self, worker_id: str) -> WorkerLink:
        return await self._current_lab().link(worker_id)

    # -- models --------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _open_models(self) -> AsyncIterator[RoomModels]:
        lab, place = self._current_lab(), await in_thread(None, chosen_model_place)
        if place.store is None:
            yield LinkedModels(lab.room)
            return
        async with open_room_models(
            lab.session, store=place.store, room=place.room
        ) as models:
            yield models

    def _model_published(self, news: ModelNews) -> None:
        self._emit(ModelAnnounced(model=news.model, alias=news.alias))

    # -- runs ----------------------------------------------------------------------

    def _submit(self, command: SubmitRun | SubmitPackage) -> Submitted:
        known = self._runs.get(command.job_id)
        if known is not None and not known.is_over:
            return Submitted(job_id=command.job_id)
        record = RunRecord(
            job_id=command.job_id,
            room_id=self._current_lab().session.room_id,
            worker_id=command.worker_id,
            worker=self._worker(command.worker_id).name,
            name="",
            output="",
            created_at=time.time(),
        )
        match command:
            case SubmitRun(run=run):
                project = Path(run.project.path)
                record = msgspec.structs.replace(
                    record,
                    name=clean_text(project.stem),
                    output=str(project.parent),
                    project=run.project,
                    merge=run.merge,
                    publish=run.publish,
                )
                make = from_project(run, datetime.now())
            case SubmitPackage(package=package, output=output):
                record = msgspec.structs.replace(record, output=output)
                make = from_package(Path(package))
        self._start(Run(record, self._tools, make))
        return Submitted(job_id=command.job_id)

    def _start(self, run: Run) -> None:
        if len(self._runs) >= MAX_RUNS:
            for job_id in [i for i, known in self._runs.items() if known.is_over]:
                del self._runs[job_id]
        self._runs[run.record.job_id] = run
        run.start()

    async def _resume_runs(self, room_id: str) -> None:
        """Go on with the runs that an earlier SLEAP left under way in this room."""
        await in_thread(None, remove_leftovers, time.time())
        for record in await in_thread(None, self._records.all):
            if record.room_id != room_id or record.job_id in self._runs:
                continue
            if record.phase == "running":
                self._start(Run(record, self._tools))
            elif record.phase == "sending":
                if await in_thread(None, is_built, record.job_id):
                    self._start(Run(record, self._tools, from_built))
                else:
                    await in_thread(None, self._records.remove, record.job_id)

    async def _say_waiting(self) -> None:
        for record in await in_thread(None, self._records.all):
            if record.phase == "home":
                self._emit(results_home(record))

    # -- jobs ----------------------------------------------------------------------

    def _worker(self, worker_id: str) -> FollowedWorker:
        return FollowedWorker(worker_id, self._worker_names.get(worker_id, worker_id))

    def _followed(self, job_id: str) -> FollowedJob:
        job = self._jobs.get(job_id)
        if job is None:
            raise JobUnknown(job_id=job_id)
        return job

    async def _find(
        self, worker_id: str, job_id: str, *, shows_ended: bool = False
    ) -> FollowedJob:
        """Return a followed job, or begin to follow one that the worker has."""
        finding = self._finding.setdefault(job_id, asyncio.Lock())
        try:
            async with finding:
                known = self._jobs.get(job_id)
                if known is not None:
                    return known
                summary, spec = await describe_job(await self._link(worker_id), job_id)
                job = self._found(worker_id, summary, spec, shows_ended=shows_ended)
                self._adopt(job)
                return job
        finally:
            if not finding.locked():
                self._finding.pop(job_id, None)

    def _found(
        self, worker_id: str, summary: JobSummary, spec: JobSpec, *, shows_ended: bool
    ) -> FollowedJob:
        job_id = summary.job_id
        return FollowedJob(
            job_id,
            spec,
            worker=self._worker(worker_id),
            connect=lambda: self._link(worker_id),
            emit=self._emit,
            images_folder=images_folder(job_id),
            replayed=summary.last_seq,
            shows_ended=shows_ended,
            created_at=summary.created_at,
        )

    def _drop(self, job_id: str) -> None:
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._spawn(job.close())

    def _adopt(self, job: FollowedJob) -> None:
        if len(self._jobs) >= MAX_JOBS_FOLLOWED:
            raise TooMany(limit=str(MAX_JOBS_FOLLOWED), what="jobs being followed")
        self._jobs[job.job_id] = job

    async def _list_jobs(self, worker_id: str) -> Jobs:
        summaries = await list_jobs(await self._link(worker_id))
        worker = self._worker(worker_id)
        rows = [
            self._jobs[s.job_id].row()
            if s.job_id in self._jobs and not self._jobs[s.job_id].is_behind(s.last_seq)
            else job_row(s, worker, is_followed=s.job_id in self._jobs)
            for s in summaries
        ]
        known = {row.job_id for row in rows}
        unsent = [
            run.row()
            for run in self._runs.values()
            if run.is_sending
            and run.record.worker_id == worker_id
            and run.record.job_id not in known
        ]
        return Jobs(jobs=[*unsent, *rows])

    async def _attach(self, command: AttachJob) -> Attached:
        is_new = command.job_id not in self._jobs
        job = await self._find(command.worker_id, command.job_id, shows_ended=True)
        if not is_new:
            job.announce_steps()
        elif (
            command.output is not None
            and command.job_id not in self._runs
            and await self._is_free(command.job_id)
        ):
            await self._take_home(command.worker_id, job, command.output)
        else:
            self._spawn(job.follow())
        return Attached(job=job.row())

    async def _fetch(self, command: FetchResults) -> None:
        job = await self._find(command.worker_id, command.job_id)
        known = self._runs.get(command.job_id)
        if known is not None and known.is_ours:
            return
        if not await self._is_free(command.job_id):
            raise JobFollowedElsewhere(job_id=command.job_id)
        if known is None or known.is_over:
            await self._take_home(command.worker_id, job, command.output)

    async def _is_free(self, job_id: str) -> bool:
        """Tell whether no other SLEAP on this computer follows the run of a job."""
        claim = await in_thread(None, self._records.claim, job_id)
        if claim is not None:
            claim.close()
        return claim is not None

    async def _take_home(self, worker_id: str, job: FollowedJob, output: str) -> None:
        """Follow a job to its end and bring its results to a folder."""
        record = await in_thread(None, self._records.find, job.job_id) or RunRecord(
            job_id=job.job_id,
            room_id=self._current_lab().session.room_id,
            worker_id=worker_id,
            worker=job.worker.name,
            name=job.mirror.spec.name,
            output=output,
            created_at=time.time(),
        )
        record = msgspec.structs.replace(record, output=output, phase="running")
        await in_thread(None, self._records.write, record)
        self._start(Run(record, self._tools))

    async def _cancel(self, command: CancelJob) -> None:
        run = self._runs.get(command.job_id)
        if run is not None and run.is_ours:
            run.cancel()
        else:
            (await self._find(command.worker_id, command.job_id)).cancel()

    # -- tasks ---------------------------------------------------------------------

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            match task.exception():
                case None:
                    return
                case RtcError() as error:
                    logger.warning("%s", error)
                case error:
                    logger.error("A task of the companion failed", exc_info=error)

"""One client's link on the worker: its commands, its transfers, what it watches.

Every command gets one answer; a command that breaks the protocol ends the link. Made
by the worker's root for each authenticated link; jobs outlive it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import Any

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    RemoteProtocolError,
    RtcError,
)
from sleap_rtc_plugin.protocol.features import JOB_QUEUE, MODELS
from sleap_rtc_plugin.protocol.link_test_messages import (
    LinkTest,
    LinkTestStop,
    StorageTest,
)
from sleap_rtc_plugin.protocol.live_messages import LiveStart, LiveStop
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    CommandFailed,
    ControlMessage,
    FileDone,
    FileMeta,
    FileNeed,
    JobAccepted,
    JobAttach,
    JobCancel,
    JobDescribe,
    JobDescribed,
    JobFetch,
    JobList,
    JobListed,
    JobPart,
    JobRejected,
    JobSubmit,
    PathError,
    SharedInputPath,
    SharedJobComplete,
    SharedJobId,
    SharedOutputPath,
    SharedStorageJob,
    ZmqCtrl,
)
from sleap_rtc_plugin.protocol.model_messages import (
    ModelChange,
    ModelCommit,
    ModelDescribe,
    ModelFetch,
    ModelList,
    ModelPush,
)
from sleap_rtc_plugin.protocol.mount_messages import MountList, MountResolve
from sleap_rtc_plugin.protocol.queue_messages import JobQueue
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link, LinkClosed
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker.job_coordinator import JobCoordinator, uses_models
from sleap_rtc_worker.job_queue import Place
from sleap_rtc_worker.job_run import JobRun
from sleap_rtc_worker.journal import Journal
from sleap_rtc_worker.link_tests import LinkTests
from sleap_rtc_worker.live_service import LiveService, LiveSessions
from sleap_rtc_worker.model_pushes import ModelPushes
from sleap_rtc_worker.model_registry import WorkerModels
from sleap_rtc_worker.model_service import ModelService
from sleap_rtc_worker.mounted_files import MountedFiles
from sleap_rtc_worker.mounts import MountTable
from sleap_rtc_worker.publish_outcome import for_older_client
from sleap_rtc_worker.shared_files import SharedCommand, SharedFiles

__all__ = ["LinkService"]

logger = logging.getLogger(__name__)


class LinkService:
    """Serves one link until it closes."""

    def __init__(
        self,
        link: Link,
        *,
        coordinator: JobCoordinator,
        journal: Journal,
        shared_storage: SharedStorage | None = None,
        mounts: MountTable | None = None,
        tests: LinkTests | None = None,
        live: LiveSessions | None = None,
        models: WorkerModels | None = None,
        pushes: ModelPushes | None = None,
    ) -> None:
        """Listen on `link`; call `run` at once.

        Args:
            link: to the client.
            coordinator: the worker's jobs.
            journal: their events.
            shared_storage: a folder that the client may mount as well.
            mounts: folders that the client may look into.
            tests: those of all the worker's links.
            live: the live sessions of all of them.
            models: those of the room.
            pushes: models that clients publish through the worker.
        """
        self._link = link
        self._coordinator = coordinator
        self._journal = journal
        self._pump = TransferPump(link)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._shared = SharedFiles(shared_storage)
        self._sharing = asyncio.Lock()
        self._mounted = MountedFiles(mounts or MountTable({}))
        self._models = ModelService(link, self._pump, models, pushes)
        self._tests = tests or LinkTests()
        self._leave_tests = self._tests.add(self._pump)
        self._live = LiveService(link, live or LiveSessions())
        link.on_control = self._on_control

    async def run(self) -> None:
        """Serve until the link closes, then let go of everything but the jobs."""
        try:
            await self._link.closed.wait()
        finally:
            self._leave_tests()
            tasks = [*self._tasks, *self._watches.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._shared.close()

    # -- commands ------------------------------------------------------------------

    def _on_control(self, message: ControlMessage) -> None:
        match message:
            case JobSubmit(spec=spec) if uses_models(spec):
                self._spawn(self._admit(message))
            case JobSubmit():
                self._submit(message)
            case JobAttach() | ZmqCtrl() | JobCancel():
                self._answer(message)
            case JobList() | JobDescribe():
                self._tell(message)
            case JobFetch():
                self._spawn(self._send_files(message))
            case (
                SharedJobId()
                | SharedInputPath()
                | SharedOutputPath()
                | SharedStorageJob()
            ):
                self._spawn(self._share(message))
            case MountList() | MountResolve():
                self._spawn(self._look(message))
            case LinkTest() | StorageTest():
                self._spawn(self._test(message))
            case LinkTestStop():
                self._tests.stop(message)
            case LiveStart():
                self._spawn(self._live.run(message))
            case LiveStop():
                self._live.stop(message)
            case (
                ModelList()
                | ModelDescribe()
                | ModelChange()
                | ModelPush()
                | ModelCommit()
                | ModelFetch()
            ):
                self._spawn(self._models.answer(message))
            case FileMeta(purpose="model"):
                self._spawn(self._models.receive(message))
            case FileMeta():
                self._spawn(self._receive_package(message))
            case FileNeed() | FileDone():
                self._pump.handle(message)
            case _:
                raise RemoteProtocolError(detail=f"a {message.NAME} frame to a worker")

    async def _admit(self, message: JobSubmit) -> None:
        """Submit a job that has to do with the room's models; it may take seconds."""
        try:
            await self._coordinator.admit(message)
        except RtcError as error:
            self._reject(message, error)
        else:
            self._submit(message)

    def _reject(self, message: JobSubmit, error: RtcError) -> None:
        self._link.send(
            JobRejected(
                command_id=message.command_id,
                job_id=message.job_id,
                error=error.to_wire(),
            )
        )

    def _submit(self, message: JobSubmit) -> None:
        try:
            run = self._coordinator.submit(message, self._link.peer_id)
        except RtcError as error:
            self._reject(message, error)
            return
        self._link.send(
            JobAccepted(
                command_id=message.command_id,
                job_id=message.job_id,
                state=run.state.value,
                last_seq=run.last_seq,
            )
        )

    def _answer(self, message: JobAttach | ZmqCtrl | JobCancel) -> None:
        try:
            run = self._coordinator.find(message.job_id)
            match message:
                case JobAttach():
                    self._watch(run, message.since)
                case ZmqCtrl():
                    run.stop(message.scope)
                case JobCancel():
                    run.cancel()
        except RtcError as error:
            self._refuse(message.command_id, error)
            return
        self._link.send(
            Acknowledged(command_id=message.command_id, last_seq=run.last_seq)
        )

    def _tell(self, message: JobList | JobDescribe) -> None:
        command_id = message.command_id
        try:
            match message:
                case JobList(after=after):
                    jobs, more = self._coordinator.page(after)
                    self._link.send(
                        JobListed(command_id=command_id, jobs=jobs, more=more)
                    )
                case JobDescribe(job_id=job_id):
                    run = self._coordinator.find(job_id)
                    self._link.send(
                        JobDescribed(
                            command_id=command_id,
                            job=run.summary(),
                            spec=run.record.spec,
                        )
                    )
        # A description may also be larger than a frame, if its client meant it so.
        except RtcError as error:
            self._refuse(command_id, error)

    def _refuse(self, command_id: str, error: RtcError) -> None:
        self._link.send(CommandFailed(command_id=command_id, error=error.to_wire()))

    # -- watching --------------------------------------------------------------------

    def _watch(self, run: JobRun, since: int) -> None:
        """Send a job's events from the journal, as fast as this client takes them."""
        older = self._watches.pop(run.job_id, None)
        if older is not None:
            older.cancel()
        task = asyncio.get_running_loop().create_task(self._send_events(run, since))
        self._watches[run.job_id] = task

    async def _send_events(self, run: JobRun, since: int) -> None:
        news = asyncio.Event()
        told: Place | None = None
        knows_models = MODELS in self._link.features
        run.watch(news.set)
        try:
            while True:
                news.clear()
                page = self._journal.events(run.job_id, since)
                for event in page:
                    known = event if knows_models else for_older_client(event)
                    await self._link.send_paced(known)
                    since = event.seq
                if page:
                    continue
                place = run.place if JOB_QUEUE in self._link.features else None
                if place is not None and place != told:
                    await self._link.send_paced(_queue_frame(run.job_id, place))
                    told = place
                    continue
                await news.wait()
        except LinkClosed:
            return
        finally:
            run.unwatch(news.set)

    # -- files -------------------------------------------------------------------------

    async def _receive_package(self, meta: FileMeta) -> None:
        if self._coordinator.has_package(meta):
            self._link.send(FileDone(transfer_id=meta.transfer_id))
            return
        try:
            sources = [
                *self._mounted.package_of(meta.job_id),
                *self._shared.package_of(meta.job_id),
            ]
            await self._coordinator.stage(meta, self._pump, sources)
        except LinkClosed:
            logger.info("The package of %s did not arrive in full", meta.job_id)
        except RemoteProtocolError:
            raise
        except RtcError as error:
            logger.warning("The package of %s: %s", meta.job_id, error)
            self._link.send(
                FileDone(transfer_id=meta.transfer_id, error=error.to_wire())
            )

    async def _share(self, message: SharedCommand) -> None:
        """Answer a command about shared storage, and do what it asks for."""
        command_id, job_id = message.command_id, message.job_id
        try:
            run = self._coordinator.find(job_id)
            # One at a time: what a slow mount holds up is bounded per client.
            async with self._sharing:
                self._link.send(await self._shared.answer(message, run))
                if not isinstance(message, SharedOutputPath):
                    return
                with run.held():
                    await self._shared.lay_results(message.path, run)
        except RtcError as error:
            logger.info("%s", error)
            self._link.send(
                PathError(command_id=command_id, job_id=job_id, error=error.to_wire())
            )
            return
        self._link.send(
            SharedJobComplete(command_id=command_id, job_id=job_id, path=message.path)
        )

    async def _look(self, message: MountList | MountResolve) -> None:
        """Answer a command about the mounts."""
        try:
            if isinstance(message, MountList):
                self._link.send(await self._mounted.listing(message))
            else:
                job_id = message.job_id
                run = self._coordinator.find(job_id) if job_id is not None else None
                self._link.send(await self._mounted.resolve(message, run))
        except RtcError as error:
            self._refuse(message.command_id, error)

    async def _test(self, message: LinkTest | StorageTest) -> None:
        """Test the link, or whether the client's shared storage is ours."""
        try:
            if isinstance(message, LinkTest):
                await self._tests.run(message, self._link, self._pump)
            else:
                async with self._sharing:
                    self._link.send(await self._shared.test(message))
        except LinkClosed:
            return
        except RtcError as error:
            self._refuse(message.command_id, error)

    async def _send_files(self, message: JobFetch) -> None:
        with contextlib.ExitStack() as holding:
            try:
                run = self._coordinator.find(message.job_id)
                holding.enter_context(run.held())
                source = await self._source(run, message)
            except RtcError as error:
                self._refuse(message.command_id, error)
                return
            self._link.send(
                Acknowledged(command_id=message.command_id, last_seq=run.last_seq)
            )
            await self._offer(run, source, message.part)

    async def _source(self, run: JobRun, message: JobFetch) -> FileSource:
        if message.part == "images":
            return await run.images(message.step)
        if run.has_ended:
            return await run.results()
        raise BadRequest(reason=f"the job {message.job_id} has not ended yet")

    async def _offer(self, run: JobRun, source: FileSource, part: JobPart) -> None:
        try:
            await self._pump.send(source, job_id=run.job_id, purpose=part)
            if part == "results":
                run.note(fetched_at=time.time())
        except LinkClosed:
            logger.info("The %s of %s did not go out", part, run.job_id)
        except RtcError as error:
            logger.warning("The %s of %s: %s", part, run.job_id, error)
        finally:
            if part == "results":
                await self._shared.remove_results(run.job_id)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, RemoteProtocolError):
            self._link.close(error.detail)
        elif error is not None:
            logger.error(
                "A task of the link to %s failed", self._link.peer_id, exc_info=error
            )
            self._link.close("an internal error")


def _queue_frame(job_id: str, place: Place) -> JobQueue:
    return JobQueue(
        job_id=job_id,
        position=place.position,
        waiting=place.waiting,
        starts_in_s=place.starts_in_s,
    )

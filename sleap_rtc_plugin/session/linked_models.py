"""The models of a room as its workers know them, asked over links.

Workers that share a store are one registry; those with stores of their own are asked
each, and what they tell is one list. Opened by `room_models`, or by whoever has entered
the room already.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec import structs

from sleap_rtc_plugin.protocol.errors import (
    AliasMoved,
    AliasTaken,
    ConnectionFailure,
    ModelHasAlias,
    ModelNotFound,
    NoStore,
    PeerNotFound,
    RtcError,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_WORKERS_ASKED, RECONNECT_BUDGET_S
from sleap_rtc_plugin.protocol.model_messages import (
    CollectModels,
    DeleteModel,
    ModelEdit,
    ModelRow,
    PutAlias,
    RemoveAlias,
)
from sleap_rtc_plugin.protocol.model_records import (
    EVERY_MODEL,
    ModelFilter,
    ModelRecord,
    Publication,
)
from sleap_rtc_plugin.protocol.retries import Retries, is_passing
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.registry.model_registry import (
    Collected,
    ModelDetails,
    Published,
)
from sleap_rtc_plugin.session.merged_models import (
    RegistryRows,
    expand_id,
    merge_rows,
    the_one_meant,
)
from sleap_rtc_plugin.session.model_commands import (
    change_model,
    describe_model,
    fetch_model,
    list_models,
    push_model,
)
from sleap_rtc_plugin.session.model_requests import (
    OnBytes,
    asked_name,
    ignore_bytes,
    person_name,
    read_folders,
)
from sleap_rtc_plugin.session.worker_info import WorkerInfo, choose_worker
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import monotonic

__all__ = ["EnteredRoom", "LinkedModels"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class EnteredRoom(Protocol):
    """A room that is entered: a `SteadyRoom`, or a `Lab` with its choice of ways."""

    session: Session

    async def workers(self) -> list[WorkerInfo]:
        """List the room's workers."""

    async def link(self, worker_id: str) -> WorkerLink:
        """Return the link to a worker; opens it where there is none."""


@dataclass(frozen=True)
class _Registry:
    """One registry, and the workers through which it is reached, the best first."""

    workers: list[WorkerInfo]

    @property
    def names(self) -> list[str]:
        return [worker.name for worker in self.workers]


class LinkedModels:
    """A room's models as its workers know them.

    Workers that share a store are one registry; those with stores of their own are
    asked each. A change is made wherever the model is.
    """

    def __init__(
        self,
        room: EnteredRoom,
        worker: str | None = None,
        *,
        reconnect_for_s: float = RECONNECT_BUDGET_S,
    ) -> None:
        """Ask the workers of an entered room, or only the one of that name.

        What moves files goes on over a new link, and gives up after
        `reconnect_for_s` seconds without one.
        """
        self._room = room
        self._wanted = worker
        self._reconnect_for_s = reconnect_for_s
        self._asked: list[str] = []
        self.silent: list[tuple[str, RtcError]] = []

    @property
    def place(self) -> str:
        """See `RoomModels.place`."""
        several = len(self._asked) > 1
        return f"the {'registries' if several else 'registry'} of " + " and ".join(
            self._asked or [self._wanted or "nobody yet"]
        )

    async def rows(self, wanted: ModelFilter = EVERY_MODEL) -> list[ModelRow]:
        """See `RoomModels.rows`."""
        # Whether a worker has a model is decided here: see `merge_rows`.
        plain = ModelFilter(
            type=wanted.type, tag=wanted.tag, alias=wanted.alias, text=wanted.text
        )
        answers = await self._everywhere(lambda link: list_models(link, plain))
        listed = [RegistryRows(one.names, rows) for one, rows in answers]
        return list(merge_rows(listed, wanted.worker))

    async def describe(self, ref: str) -> ModelDetails:
        """See `RoomModels.describe`."""
        return (await self._find(ref))[0][1]

    async def change(self, edit: ModelEdit) -> ModelDetails | None:
        """See `RoomModels.change`."""
        if isinstance(edit, CollectModels):
            await self.collect()
            return None
        if isinstance(edit, RemoveAlias):
            found = await self._find_exactly(edit.alias)
            if not found:
                raise ModelNotFound(model=clean_text(edit.alias))
        else:
            found = await self._find(edit.model)
            edit = structs.replace(edit, model=found[0][1].record.id)
        if isinstance(edit, PutAlias):
            await self._free_alias(edit)
        if isinstance(edit, DeleteModel) and not edit.force:
            # Before it is gone from the first of several.
            aliases = sorted({name for _, told in found for name in told.aliases})
            if aliases:
                raise ModelHasAlias(model=edit.model, aliases=", ".join(aliases))
        await self._change_in([registry for registry, _ in found], edit)
        if isinstance(edit, DeleteModel | RemoveAlias):
            return None
        registry, details = found[0]
        return await self._first(
            registry, lambda link: describe_model(link, details.record.id)
        )

    async def _change_in(
        self, registries: Sequence[_Registry], edit: ModelEdit
    ) -> None:
        """Make a change in each registry; it is gone from one, where they are one."""
        by = person_name()
        missing = 0
        for registry in registries:
            try:
                await self._first(registry, lambda link: change_model(link, edit, by))
            except ModelNotFound:
                missing += 1
                if missing == len(registries):
                    raise

    async def _free_alias(self, edit: PutAlias) -> None:
        """Take an alias off the models of other registries: a room has it once.

        Raises:
            AliasTaken: it belongs to another model, and is not to be moved.
            AliasMoved: it does not belong to the one that was expected.
        """
        others = await self._others_called(edit.alias, edit.model)
        for _, model_id in others:
            if not edit.moves:
                raise AliasTaken(alias=edit.alias, model=model_id)
            if edit.expected not in (None, model_id):
                raise AliasMoved(alias=edit.alias, model=model_id)
        there = {
            worker.peer_id
            for registry, _ in await self._all_called(edit.model)
            for worker in registry.workers
        }
        for registry, _ in others:
            if registry.workers[0].peer_id not in there:
                await self._change_in([registry], RemoveAlias(alias=edit.alias))

    async def publish(
        self,
        folders: Sequence[Path],
        publication: Publication,
        *,
        name: str = "",
        on_progress: OnBytes = ignore_bytes,
    ) -> Published:
        """See `RoomModels.publish`.

        Where there are several registries, it is that of the worker that was named,
        or else of the one with the shortest queue.
        """
        model = await read_folders(folders, name, publication)
        registries = await self._registries()
        everyone = [worker for one in registries for worker in one.workers]
        chosen = choose_worker(
            everyone, wanted=None, preferred=self._room.session.peer_id, server=""
        )
        elsewhere = await self._others_called(publication.alias, model.id)
        alias_error: RtcError | None = None
        asked = publication
        if elsewhere and not publication.moves_alias:
            # Here it would be free, and then mean two models in one room.
            holder = elsewhere[0][1]
            alias_error = AliasTaken(alias=publication.alias or "", model=holder)
            asked = structs.replace(publication, alias=None)
        published = await self._steadily(
            chosen,
            lambda link: push_model(link, model, asked, person_name(), on_progress),
        )
        self._asked = [chosen.name]
        if publication.alias in published.details.aliases:
            for registry, _ in elsewhere:
                if chosen not in registry.workers:
                    edit = RemoveAlias(alias=publication.alias or "")
                    await self._change_in([registry], edit)
        return Published(published.details, alias_error or published.alias_error)

    async def pull(
        self, ref: str, folder: Path, on_progress: OnBytes = ignore_bytes
    ) -> list[Path]:
        """See `RoomModels.pull`."""
        registry, details = (await self._find(ref))[0]
        record = details.record
        return await self._steadily(
            _holder_first(registry, record),
            lambda link: fetch_model(link, record, folder, on_progress),
        )

    async def collect(self) -> Collected:
        """See `RoomModels.collect`."""
        answers = await self._everywhere(
            lambda link: change_model(link, CollectModels(), person_name())
        )
        told = [changed for _, changed in answers]
        return Collected(
            files=sum(one.files for one in told), bytes=sum(one.bytes for one in told)
        )

    # -- whom to ask -----------------------------------------------------------------

    async def _registries(self) -> list[_Registry]:
        """Return what there is to ask.

        Raises:
            NoStore: no worker shares models.
            WorkerNotFound: the one that was named is not there.
        """
        workers = await self._room.workers()
        if self._wanted is not None:
            server = self._room.session.url
            return [
                _Registry(
                    [
                        choose_worker(
                            workers, wanted=self._wanted, preferred="", server=server
                        )
                    ]
                )
            ]
        sharing = [worker for worker in workers if worker.model_store]
        if not sharing:
            raise NoStore(
                reason="no worker of this room shares models"
                if workers
                else "no worker is online"
            )
        sharing.sort(key=lambda w: (not w.is_available, w.jobs_before, w.name))
        groups: dict[str, list[WorkerInfo]] = {}
        for worker in sharing:
            groups.setdefault(_store_of(worker), []).append(worker)
        return [_Registry(group) for group in groups.values()][:MAX_WORKERS_ASKED]

    async def _everywhere(
        self, ask: Callable[[WorkerLink], Awaitable[T]]
    ) -> list[tuple[_Registry, T]]:
        """Ask every registry at once, and note those that do not answer.

        Raises:
            RtcError: not a single one answers; this is why the first does not.
        """
        registries = await self._registries()
        answers = await asyncio.gather(
            *(self._first(registry, ask) for registry in registries),
            return_exceptions=True,
        )
        told: list[tuple[_Registry, T]] = []
        self.silent, self._asked = [], []
        for registry, answer in zip(registries, answers, strict=True):
            if isinstance(answer, RtcError):
                self.silent.append((", ".join(registry.names), answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                told.append((registry, answer))
                self._asked.append(", ".join(registry.names))
        if not told:
            raise self.silent[0][1]
        return told

    async def _first(
        self, registry: _Registry, ask: Callable[[WorkerLink], Awaitable[T]]
    ) -> T:
        """Ask the workers of one registry in turn, until one can be reached."""
        for worker in registry.workers[:-1]:
            try:
                return await self._ask(worker, ask)
            except (ConnectionFailure, PeerNotFound) as error:
                logger.info("%s is asked no more: %s", worker.name, error)
        return await self._ask(registry.workers[-1], ask)

    async def _ask(
        self, worker: WorkerInfo, ask: Callable[[WorkerLink], Awaitable[T]]
    ) -> T:
        return await ask(await self._room.link(worker.peer_id))

    async def _steadily(
        self, worker: WorkerInfo, ask: Callable[[WorkerLink], Awaitable[T]]
    ) -> T:
        """Ask a worker, over as many links as it takes once there was one."""
        await self._room.link(worker.peer_id)
        retries = Retries(self._reconnect_for_s)
        while True:
            try:
                return await self._ask(worker, ask)
            except RtcError as error:
                if not is_passing(error):
                    raise
                # No secret: it only keeps clients from coming back all at once.
                delay_s = retries.failed(monotonic(), random.random())  # noqa: S311
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)

    # -- which model -----------------------------------------------------------------

    async def _find(self, ref: str) -> list[tuple[_Registry, ModelDetails]]:
        """Return a model from every registry that has it.

        Raises:
            ModelNotFound: none has it.
            ModelAmbiguous: they mean different ones.
        """
        found = await self._find_exactly(asked_name(ref))
        if found:
            return found
        if self.silent:
            raise self.silent[0][1]
        return await self._find_exactly(expand_id(ref, await self.rows()))

    async def _find_exactly(self, ref: str) -> list[tuple[_Registry, ModelDetails]]:
        found = await self._all_called(ref)
        there = [
            (", ".join(registry.names), details.record.id, (registry, details))
            for registry, details in found
        ]
        return the_one_meant(ref, there)

    async def _others_called(
        self, alias: str | None, model_id: str
    ) -> list[tuple[_Registry, str]]:
        """Return where an alias belongs to another model than this, and to which."""
        if alias is None:
            return []
        return [
            (registry, details.record.id)
            for registry, details in await self._all_called(alias)
            if details.record.id != model_id
        ]

    async def _all_called(self, ref: str) -> list[tuple[_Registry, ModelDetails]]:
        """Return what each registry has under a name, be it the same or not."""

        async def look(link: WorkerLink) -> ModelDetails | None:
            try:
                return await describe_model(link, ref)
            except ModelNotFound:
                return None

        answers = await self._everywhere(look)
        return [(registry, told) for registry, told in answers if told is not None]


def _store_of(worker: WorkerInfo) -> str:
    """Return what tells a registry from others: an identity, or the worker itself."""
    kind, _, identity = worker.model_store.partition(":")
    return f"{kind}:{identity}" if identity else worker.peer_id


def _holder_first(registry: _Registry, record: ModelRecord) -> WorkerInfo:
    """Return the worker to fetch from: one that holds the model, if any does."""
    held = [worker for worker in registry.workers if worker.name in record.workers]
    return (held or registry.workers)[0]

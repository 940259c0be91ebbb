"""What the companion does with the room's models, one command after another.

Holds the way to the registry open while the room is entered, and opens it anew after it
failed. Knows nothing of windows; the service hands it commands and tells it when the
room is left.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.companion.messages import Done, Event, Result
from sleap_rtc_plugin.companion.model_messages import (
    ChangeModel,
    DescribeModel,
    ListLocalModels,
    ListModels,
    LocalModels,
    LocalModelSet,
    ModelCommand,
    ModelDescription,
    ModelProgress,
    Models,
    ModelSaved,
    PublishModel,
    Pulled,
    PullModel,
)
from sleap_rtc_plugin.companion.throttle import Ticker
from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.limits import MAX_MODELS_PER_ROOM
from sleap_rtc_plugin.registry.model_registry import ModelDetails
from sleap_rtc_plugin.session.local_models import find_local_models, model_sets
from sleap_rtc_plugin.session.room_models import RoomModels
from sleap_rtc_plugin.transport.effects import in_thread, monotonic

__all__ = ["ModelsService"]

logger = logging.getLogger(__name__)

# The models of which the run window shows whether they fit a project.
MAX_SKELETONS: Final = 50
MAX_SKELETONS_KEPT: Final = 2_000
SKELETONS_AT_ONCE: Final = 8
MAX_SILENT_NAMED: Final = 3
PROGRESS_INTERVAL_S: Final = 0.12

OpenModels = Callable[[], AbstractAsyncContextManager[RoomModels]]


class ModelsService:
    """The room's models behind their commands."""

    def __init__(self, open_models: OpenModels, emit: Callable[[Event], None]) -> None:
        """Open nothing yet.

        Args:
            open_models: opens the way to the models of the room that is entered.
            emit: takes progress, on the event loop.
        """
        self._open_models = open_models
        self._emit = emit
        self._opening = asyncio.Lock()
        self._opened: AbstractAsyncContextManager[RoomModels] | None = None
        self._models: RoomModels | None = None
        # A model never changes, so neither do the nodes it was trained for.
        self._skeletons: dict[str, list[str]] = {}

    async def carry_out(self, command: ModelCommand) -> Result:
        """Carry out one command.

        Raises:
            RtcError: why it could not be carried out.
        """
        if isinstance(command, ListLocalModels):
            return await in_thread(None, _local_models, Path(command.folder))
        try:
            return await self._carry_out(await self._ways(), command)
        except RtcError as error:
            if error.retryable:
                await self.close()
            raise

    async def close(self) -> None:
        """Let go of the way to the models, as when the room is left."""
        async with self._opening:
            opened, self._opened, self._models = self._opened, None, None
            if opened is not None:
                try:
                    await opened.__aexit__(None, None, None)
                except RtcError as error:
                    logger.info("The way to the models: %s", error)

    async def _ways(self) -> RoomModels:
        async with self._opening:
            if self._models is None:
                opened = self._open_models()
                self._models = await opened.__aenter__()
                self._opened = opened
            return self._models

    async def _carry_out(self, models: RoomModels, command: ModelCommand) -> Result:
        match command:
            case ListModels(skeletons=with_skeletons):
                return await self._list(models, with_skeletons=with_skeletons)
            case DescribeModel(model=model):
                return self._described(await models.describe(model))
            case ChangeModel(edit=edit):
                details = await models.change(edit)
                return Done() if details is None else self._described(details)
            case PublishModel():
                published = await models.publish(
                    [Path(folder) for folder in command.folders],
                    command.publication,
                    name=command.name,
                    on_progress=self._progress_of(command.operation),
                )
                error = published.alias_error
                return ModelSaved(
                    model=self._described(published.details),
                    alias_error=error.to_wire() if error is not None else None,
                )
            case PullModel():
                folders = await models.pull(
                    command.model,
                    Path(command.folder),
                    on_progress=self._progress_of(command.operation),
                )
                return Pulled(folders=[str(folder) for folder in folders])
        raise TypeError(f"{type(command).__name__} is no command about models")

    async def _list(self, models: RoomModels, *, with_skeletons: bool) -> Models:
        rows = list(await models.rows())
        shown = rows[:MAX_MODELS_PER_ROOM]
        skeletons: dict[str, list[str]] = {}
        if with_skeletons:
            ids = [row.id for row in shown[:MAX_SKELETONS]]
            await self._learn_skeletons(models, ids)
            skeletons = {i: self._skeletons[i] for i in ids if self._skeletons.get(i)}
        return Models(
            models=shown,
            skeletons=skeletons,
            is_complete=len(rows) == len(shown),
            silent=[str(error) for _, error in models.silent[:MAX_SILENT_NAMED]],
        )

    async def _learn_skeletons(self, models: RoomModels, ids: Sequence[str]) -> None:
        gate = asyncio.Semaphore(SKELETONS_AT_ONCE)

        async def learn(model: str) -> None:
            async with gate:
                try:
                    self._described(await models.describe(model))
                except RtcError as error:
                    # It may have been deleted just now; its row says all else.
                    logger.info("The nodes of %s are not known: %s", model, error)

        await asyncio.gather(
            *(learn(model) for model in ids if model not in self._skeletons)
        )

    def _described(self, details: ModelDetails) -> ModelDescription:
        record = details.record
        if len(self._skeletons) >= MAX_SKELETONS_KEPT:
            self._skeletons.pop(next(iter(self._skeletons)))
        self._skeletons[record.id] = list(record.training.skeleton)
        return ModelDescription(
            record=record,
            aliases=dict(details.aliases),
            curves=[list(curve) for curve in details.curves],
        )

    def _progress_of(self, operation: str) -> Callable[[int, int], None]:
        """Return what tells the progress of one operation; called on any thread."""
        loop, ticker = asyncio.get_running_loop(), Ticker(PROGRESS_INTERVAL_S)

        def tell(done: int, total: int) -> None:
            if ticker.is_due(monotonic()) or done >= total:
                event = ModelProgress(operation=operation, done=done, total=total)
                loop.call_soon_threadsafe(self._emit, event)

        return tell


def _local_models(folder: Path) -> LocalModels:
    found = model_sets(find_local_models(folder))
    return LocalModels(
        models=[
            LocalModelSet(
                name=one.name,
                type=one.type,
                folders=[str(model.folder) for model in one.models],
                trained_at=one.trained_at,
            )
            for one in found
        ]
    )

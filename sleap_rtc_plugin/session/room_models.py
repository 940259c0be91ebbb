"""The models of a room, wherever they are: in a store that we reach, or behind workers.

One protocol, two hosts. `StoreModels` needs no worker; `LinkedModels` asks those that
share models, one for each registry, and takes what they tell for one list. Used by the
commands, the companion, and whoever needs a model by its name.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import structs

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    ModelNotFound,
    NoStore,
    RtcError,
)
from sleap_rtc_plugin.protocol.ids import clean_text, is_id
from sleap_rtc_plugin.protocol.model_messages import (
    CollectModels,
    ModelEdit,
    ModelRow,
    RemoveAlias,
)
from sleap_rtc_plugin.protocol.model_records import (
    EVERY_MODEL,
    ModelFilter,
    Publication,
)
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.registry.model_registry import (
    Collected,
    ModelDetails,
    ModelRegistry,
    Published,
)
from sleap_rtc_plugin.registry.store_address import open_store
from sleap_rtc_plugin.session.linked_models import LinkedModels
from sleap_rtc_plugin.session.merged_models import expand_id
from sleap_rtc_plugin.session.model_requests import (
    OnBytes,
    asked_name,
    ignore_bytes,
    person_name,
    read_folders,
)
from sleap_rtc_plugin.session.steady_room import SteadyRoom
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = [
    "LinkedModels",
    "RoomModels",
    "StoreModels",
    "open_room_models",
    "person_name",
]


class RoomModels(Protocol):
    """The models of one room.

    `silent` are the workers that could not be asked last, each with the reason: what
    they have is missing from the answer.
    """

    silent: list[tuple[str, RtcError]]

    @property
    def place(self) -> str:
        """Where the models are, in words such as `the store /lab/models`."""

    async def rows(self, wanted: ModelFilter = EVERY_MODEL) -> list[ModelRow]:
        """List models, the newest first."""

    async def describe(self, ref: str) -> ModelDetails:
        """Return everything of a model, by alias, id or the beginning of an id.

        Raises:
            ModelNotFound: there is none.
            ModelAmbiguous: it may be one of several.
        """

    async def change(self, edit: ModelEdit) -> ModelDetails | None:
        """Change the registry; return the model as it is now, None where it is gone."""

    async def publish(
        self,
        folders: Sequence[Path],
        publication: Publication,
        *,
        name: str = "",
        on_progress: OnBytes = ignore_bytes,
    ) -> Published:
        """Publish the model that lies in these folders of this disk."""

    async def pull(
        self, ref: str, folder: Path, on_progress: OnBytes = ignore_bytes
    ) -> list[Path]:
        """Bring a model home, one folder a part below `folder`; overwrite nothing."""

    async def collect(self) -> Collected:
        """Remove files that no model refers to."""


@contextlib.asynccontextmanager
async def open_room_models(
    session: Session | None,
    *,
    store: str | None,
    room: str | None = None,
    worker: str | None = None,
    transport: TransportOptions | None = None,
) -> AsyncIterator[RoomModels]:
    """Have the models of a room at hand.

    Args:
        session: the room; not needed with a store and the room's name.
        store: the address of the store where this machine reaches it; the room's
            workers are asked otherwise.
        room: what the models are filed under in the store, if not the session's room.
        worker: the only one to ask; by name or peer id.
        transport: how data channels go.

    Raises:
        NoStore: neither a store nor a session was given.
        BadRequest: `room` cannot be the name of a room.
        RtcError: the store or the room cannot be opened.
    """
    if store is not None:
        room_id = room or (session.room_id if session is not None else "")
        if not is_id(room_id):
            reason = f"{clean_text(room_id)} is no name for a room: use a-z 0-9 -"
            if not room_id:
                reason = "it is not said of which room the models are"
            raise BadRequest(reason=reason)
        opened = await in_thread(None, open_store, store)
        yield StoreModels(ModelRegistry(opened, room_id))
        return
    if session is None:
        raise NoStore(reason="neither a store nor a session is given")
    owner = person_name().partition("@")[0]
    async with SteadyRoom(session, owner=owner, transport=transport) as entered:
        yield LinkedModels(entered, worker)


# -- a store that we reach -----------------------------------------------------------


class StoreModels:
    """A room's models in a store that this machine reaches itself."""

    def __init__(self, registry: ModelRegistry) -> None:
        """Use `registry`; no worker is needed."""
        self._registry = registry
        self.silent: list[tuple[str, RtcError]] = []

    @property
    def place(self) -> str:
        """See `RoomModels.place`."""
        return f"the store {self._registry.store_name}"

    async def rows(self, wanted: ModelFilter = EVERY_MODEL) -> list[ModelRow]:
        """See `RoomModels.rows`."""
        found: list[ModelRow] = []
        more = True
        age_s = 0.0
        while more:
            after = found[-1].id if found else None
            page, more = await self._registry.rows(wanted, after, max_age_s=age_s)
            # One list is of one moment.
            found, age_s = [*found, *page], 3600.0
        return found

    async def describe(self, ref: str) -> ModelDetails:
        """See `RoomModels.describe`."""
        try:
            return await self._registry.describe(asked_name(ref))
        except ModelNotFound:
            return await self._registry.describe(expand_id(ref, await self.rows()))

    async def change(self, edit: ModelEdit) -> ModelDetails | None:
        """See `RoomModels.change`."""
        by = person_name()
        try:
            return await self._registry.change(edit, by)
        except ModelNotFound:
            if isinstance(edit, RemoveAlias | CollectModels):
                raise
            model = expand_id(edit.model, await self.rows())
            edit = structs.replace(edit, model=model)
            return await self._registry.change(edit, by)

    async def publish(
        self,
        folders: Sequence[Path],
        publication: Publication,
        *,
        name: str = "",
        on_progress: OnBytes = ignore_bytes,
    ) -> Published:
        """See `RoomModels.publish`."""
        model = await read_folders(folders, name, publication)
        return await self._registry.publish(
            model, publication=publication, by=person_name(), on_progress=on_progress
        )

    async def pull(
        self, ref: str, folder: Path, on_progress: OnBytes = ignore_bytes
    ) -> list[Path]:
        """See `RoomModels.pull`."""
        record = (await self.describe(ref)).record
        return await self._registry.pull(record, folder, on_progress=on_progress)

    async def collect(self) -> Collected:
        """See `RoomModels.collect`."""
        return await self._registry.collect()

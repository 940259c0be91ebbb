"""The models of rooms, as the dashboard reads them from the registry's store.

It reads and changes nothing. Stores may hang: every call has a deadline of its own and
waits in a thread (`registry.store_calls`). Called by the pages of models.
"""

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from sleap_rtc_plugin.protocol.errors import NoStore
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.model_records import ModelFilter
from sleap_rtc_signaling.limits import (
    MAX_REGISTRIES_HELD,
    MODELS_FRESH_S,
    MODELS_PER_PAGE,
)

if TYPE_CHECKING:
    from sleap_rtc_plugin.registry.model_registry import ModelDetails, ModelRegistry
    from sleap_rtc_plugin.registry.object_store import ObjectStore

__all__ = ["Models"]


class Models:
    """What is published in rooms.

    Args:
        address: the store's, as `registry.store_address` has it; empty for none.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._store: ObjectStore | None = None
        self._registries: OrderedDict[str, ModelRegistry] = OrderedDict()

    @property
    def is_there(self) -> bool:
        """Whether a store was named at all."""
        return bool(self._address)

    async def rows(
        self, room_id: str, wanted: ModelFilter, after: str | None
    ) -> tuple[list[ModelRow], bool]:
        """Return a page of a room's models, the newest first, and whether more follow.

        Raises:
            RtcError: the store cannot be used, or what it holds cannot be read.
        """
        registry = await self._registry(room_id)
        return await registry.rows(wanted, after, MODELS_PER_PAGE, MODELS_FRESH_S)

    async def choices(self, room_id: str) -> tuple[list[str], list[str]]:
        """Return the types and the tags that a room's models have.

        Raises:
            RtcError: as `rows`.
        """
        registry = await self._registry(room_id)
        records = (await registry.manifest(MODELS_FRESH_S)).models.values()
        types = {record.type for record in records}
        return sorted(types), sorted({tag for record in records for tag in record.tags})

    async def describe(self, room_id: str, ref: str) -> "ModelDetails":
        """Return everything of a model.

        Raises:
            ModelNotFound: there is none; and as `rows`.
        """
        return await (await self._registry(room_id)).describe(ref, MODELS_FRESH_S)

    async def _registry(self, room_id: str) -> "ModelRegistry":
        # Not at the top: a server without a registry pays nothing for one.
        from sleap_rtc_plugin.registry.model_registry import ModelRegistry
        from sleap_rtc_plugin.registry.store_address import open_store

        if not self._address:
            raise NoStore(reason="this server shows no models")
        if self._store is None:
            self._store = await asyncio.to_thread(open_store, self._address)
        registry = self._registries.pop(room_id, None)
        if registry is None:
            registry = ModelRegistry(self._store, room_id)
        self._registries[room_id] = registry
        while len(self._registries) > MAX_REGISTRIES_HELD:
            self._registries.popitem(last=False)
        return registry

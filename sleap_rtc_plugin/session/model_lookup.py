"""Finds out which models of the room the user means, before anything is packed.

In the store, where this machine reaches it, and otherwise by asking the room's workers
through signaling, which needs no link. Called by `submission`.
"""

from collections.abc import Sequence

from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.room_models import open_room_models
from sleap_rtc_plugin.session.settings import ModelPlace
from sleap_rtc_plugin.session.steady_room import SteadyRoom
from sleap_rtc_plugin.session.warm_workers import model_id_of

__all__ = ["find_in_room", "find_in_store"]


async def find_in_store(
    refs: Sequence[str], session: Session, place: ModelPlace
) -> dict[str, str]:
    """Return the ids of models by the names they were given, from a store.

    Raises:
        ModelNotFound: there is no such model.
        RtcError: the store cannot be read.
    """
    ids: dict[str, str] = {}
    async with open_room_models(session, store=place.store, room=place.room) as models:
        for ref in refs:
            ids[ref] = (await models.describe(ref)).record.id
    return ids


async def find_in_room(
    refs: Sequence[str], room: SteadyRoom, worker: str | None
) -> dict[str, str]:
    """Return the ids of models by the names they were given, as workers know them.

    Args:
        refs: aliases and ids.
        room: entered.
        worker: the only one to ask; by name or peer id.

    Raises:
        ModelNotFound: no worker knows such a model.
        ModelAmbiguous: several do, and it is not the same one.
        RtcError: the room cannot be asked.
    """
    stay = await room.stay()
    workers = [await stay.choose(worker)]
    if worker is None:
        workers = await stay.workers()
    asked = await stay.ask_models(workers, refs)
    return {ref: model_id_of(ref, asked) for ref in refs}

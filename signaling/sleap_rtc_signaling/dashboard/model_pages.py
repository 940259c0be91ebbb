"""The pages of a room's models: a list that is filtered, and everything of one.

What stands in the registry was written by people and workers, and is shown as text.
Called by the dashboard.
"""

from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

from sleap_rtc_plugin.protocol.errors import ModelNotFound, RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_ALIAS_CHARS, MAX_NAME_CHARS
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.model_records import (
    CurvePoint,
    ModelFilter,
    is_model_id,
)
from sleap_rtc_signaling.dashboard.drawings import Series, loss_plot, number_words
from sleap_rtc_signaling.dashboard.models import Models
from sleap_rtc_signaling.dashboard.room_pages import ends_words, find_room
from sleap_rtc_signaling.dashboard.site import BASE, Site, Visit

if TYPE_CHECKING:
    from markupsafe import Markup

    from sleap_rtc_plugin.registry.model_registry import ModelDetails

__all__ = ["ModelPages"]

_MODELS: Final = f"{BASE}/rooms/{{room_id}}/models"


class ModelPages:
    """A room's models.

    Args:
        site: what all pages share.
        models: where they are.
    """

    def __init__(self, site: Site, models: Models) -> None:
        self._site = site
        self._models = models
        site.let_templates_know(number=number_words)

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        page = self._site.page
        return [
            page("GET", _MODELS, self._list),
            page("GET", f"{_MODELS}/{{model}}", self._model),
        ]

    async def _list(self, visit: Visit) -> Response:
        room = (await find_room(self._site, visit)).room
        query = visit.request.query_params
        wanted = ModelFilter(
            type=clean_text(query.get("type", ""), MAX_NAME_CHARS),
            tag=clean_text(query.get("tag", "")),
            text=clean_text(query.get("text", ""), MAX_NAME_CHARS),
        )
        after = query.get("after", "")
        rows: list[ModelRow] = []
        types: list[str] = []
        tags: list[str] = []
        more, problem = False, ""
        if self._models.is_there:
            try:
                rows, more = await self._models.rows(
                    room.room_id, wanted, after if is_model_id(after) else None
                )
                types, tags = await self._models.choices(room.room_id)
            except RtcError as error:
                problem = str(error)
        return self._site.render(
            visit,
            "models.html",
            room=room,
            ends=ends_words(room, visit.now),
            rows=rows,
            more=more,
            types=types,
            tags=tags,
            wanted=wanted,
            is_filtered=wanted != ModelFilter() or bool(after),
            problem=problem,
            is_there=self._models.is_there,
        )

    async def _model(self, visit: Visit) -> Response:
        room = (await find_room(self._site, visit)).room
        ref = visit.request.path_params["model"]
        if len(ref) > MAX_ALIAS_CHARS:
            raise ModelNotFound(model=clean_text(ref))
        details = await self._models.describe(room.room_id, ref)
        called = next(iter(sorted(details.aliases)), details.record.id)
        return self._site.render(
            visit,
            "model.html",
            room=room,
            ends=ends_words(room, visit.now),
            model=details.record,
            aliases=details.aliases,
            plots=_plots(details),
            command=f"sleap-remote predict VIDEO --model {called}",
        )


def _plots(details: "ModelDetails") -> list[tuple[str, "Markup"]]:
    """Return each part's head and its loss curve; those that have one."""
    plots = []
    for part, curve in zip(details.record.parts, details.curves, strict=False):
        plot = loss_plot(_series(curve), f"Loss of {part.head} over its epochs")
        if plot:
            plots.append((part.head, plot))
    return plots


def _series(curve: list[CurvePoint]) -> list[Series]:
    train = [(point.epoch, point.train) for point in curve if point.train is not None]
    val = [(point.epoch, point.val) for point in curve if point.val is not None]
    return [Series("training", "train", train), Series("validation", "val", val)]

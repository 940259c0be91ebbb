"""The browser of models without and with its window, before a scripted companion."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from support.model_samples import RECORD
from support.scripted_host import SERVER, ScriptedHost, drive

from sleap_rtc_plugin.companion.messages import RoomChanged, RoomRow
from sleap_rtc_plugin.companion.model_messages import ModelDescription
from sleap_rtc_plugin.gui.models_presenter import ModelsPresenter
from sleap_rtc_plugin.gui.models_snapshot import ModelsSnapshot
from sleap_rtc_plugin.protocol.model_messages import ModelRow
from sleap_rtc_plugin.protocol.model_records import (
    AliasMove,
    AliasRecord,
    CurvePoint,
    ModelPart,
)

__all__ = ["NOW", "ModelsWorld", "describe", "make_model", "model_id"]

NOW = 1_790_000_000.0


def model_id(number: int) -> str:
    """An id that could be one."""
    return f"model-{number:020x}"


def make_model(number: int, *aliases: str, **changes: Any) -> ModelRow:
    """A row of a model; higher numbers are older."""
    values: dict[str, Any] = {
        "type": "topdown",
        "name": f"flies {number}",
        "size_bytes": 1_000_000 * number,
        "trained_at": NOW - 1000 * number,
        "trained_by": "ada@laptop",
        "published_at": NOW - 1000 * number,
        "best_loss": 0.001 * number,
        "epochs": 10 * number,
        **changes,
    }
    return ModelRow(id=model_id(number), aliases=list(aliases), **values)


def describe(row: ModelRow, **changes: Any) -> ModelDescription:
    """Everything of the model of a row."""
    parts = RECORD.parts
    if row.type != "topdown":
        parts = [ModelPart(folder=row.name, head=row.type)]
    values: dict[str, Any] = {
        "id": row.id,
        "type": row.type,
        "name": row.name,
        "parts": parts,
        "tags": row.tags,
        "workers": row.workers,
        "trained_at": row.trained_at,
        "published_at": row.published_at,
        **changes,
    }
    move = AliasMove(model=row.id, by="ada@laptop", at=NOW - 60)
    curve = [
        CurvePoint(epoch=e, train=math.exp(-e / 5), val=1.2 * math.exp(-e / 6))
        for e in range(20)
    ]
    return ModelDescription(
        record=msgspec.structs.replace(RECORD, **values),
        aliases={
            alias: AliasRecord(model=row.id, moves=[move]) for alias in row.aliases
        },
        curves=[curve] * len(parts),
    )


class ModelsWorld:
    """A presenter and its host, whose lab has these models."""

    def __init__(self, *models: ModelRow) -> None:
        self.host = ScriptedHost(models=list(models))
        self.host.describes = describe
        self.presenter = ModelsPresenter(self.host.ask, drive)
        self.pulled: list[Sequence[str]] = []
        self.news: list[str] = []
        self.presenter.on_pulled = self.pulled.append
        self.presenter.on_news = self.news.append

    @property
    def now(self) -> ModelsSnapshot:
        return self.presenter.snapshot

    def enter(self, room_id: str = "room-1") -> "ModelsWorld":
        room = RoomRow(room_id=room_id, server=SERVER)
        self.presenter.handle(RoomChanged(state="online", room=room))
        self.presenter.refresh()
        return self

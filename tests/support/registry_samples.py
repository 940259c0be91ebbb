"""Records and manifests of a room's registry, for tests without files."""

from typing import Final

from sleap_rtc_plugin.protocol.model_records import (
    AliasMove,
    AliasRecord,
    ModelFile,
    ModelPart,
    ModelRecord,
    TrainingFacts,
)
from sleap_rtc_plugin.registry.room_manifest import RoomManifest

ROOM: Final = "room-1"
NOW: Final = 1_700_000_000.0


def model_id(number: int) -> str:
    return f"model-{number:020x}"


def record(number: int, **fields: object) -> ModelRecord:
    """Return a model of one part; `fields` take the place of its own."""
    folder = f"run-{number}"
    files = [
        ModelFile(path=f"{folder}/{name}", size_bytes=10, digest=f"{n:02x}" * 32)
        for n, name in enumerate(("best.ckpt", "training_config.yaml"), 2 * number)
    ]
    given: dict[str, object] = {
        "id": model_id(number),
        "type": "centroid",
        "name": folder,
        "parts": [ModelPart(folder=folder, head="centroid")],
        "checkpoint_path": f"{folder}/best.ckpt",
        "files": files,
        "size_bytes": 20,
        "published_at": NOW + number,
        "training": TrainingFacts(epochs=3, best_loss=0.125),
    }
    return ModelRecord(**{**given, **fields})  # type: ignore[arg-type]


def manifest(*numbers: int, **aliases: int) -> RoomManifest:
    """Return a manifest with these models, and aliases by the number they point to."""
    return RoomManifest(
        room_id=ROOM,
        updated_at=NOW,
        models={model_id(n): record(n) for n in numbers},
        aliases={
            name: AliasRecord(
                model=model_id(n), moves=[AliasMove(model=model_id(n), by="x", at=NOW)]
            )
            for name, n in aliases.items()
        },
    )

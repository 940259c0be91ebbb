"""What `training_log.csv` and `training_config.yaml` tell of how a model was trained.

Pure: bytes and values in, bounded facts out. Neither file has to be whole or honest, so
what cannot be right is not known. Called by `model_files` and `model_registry`.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_CURVE_POINTS,
    MAX_LOSS_LOG_BYTES,
    MAX_LOSS_LOG_EPOCHS,
    MAX_SKELETON_NODES,
)
from sleap_rtc_plugin.protocol.model_records import CurvePoint, TrainingFacts

__all__ = ["LOSS_LOG", "curve_of", "facts_of"]

LOSS_LOG: Final = "training_log.csv"
_TRAIN: Final = "train/loss"
_VALIDATION: Final = "val/loss"
_TIMES: Final = ("train/time", "val/time")
_MAX_NUMBER: Final = 1e15


def curve_of(log: bytes) -> list[CurvePoint]:
    """Return a loss curve, thinned evenly; its first, best and last epochs stay.

    Rows that cannot be read are left out; a log that cannot be read gives none.
    """
    points = [
        CurvePoint(
            epoch=epoch,
            train=_number(row.get(_TRAIN)),
            val=_number(row.get(_VALIDATION)),
        )
        for epoch, row in _epochs(log)
    ]
    if len(points) <= MAX_CURVE_POINTS:
        return points
    best = min(
        range(len(points)),
        key=lambda i: math.inf if points[i].val is None else points[i].val or 0.0,
    )
    steps = MAX_CURVE_POINTS - 2
    chosen = {round(i * (len(points) - 1) / steps) for i in range(steps + 1)} | {best}
    return [points[i] for i in sorted(chosen)]


def facts_of(log: bytes, config: Any) -> TrainingFacts:
    """Return what a log and a parsed configuration tell of a training.

    Args:
        log: the bytes of `training_log.csv`; empty where there is none.
        config: of `training_config.yaml`, as parsed.
    """
    epochs = 0
    best: tuple[float, int] | None = None
    final: float | None = None
    duration_s: float | None = None
    for epoch, row in _epochs(log):
        epochs += 1
        loss = _number(row.get(_VALIDATION))
        final = loss
        if loss is not None and (best is None or loss < best[0]):
            best = (loss, epoch)
        for name in _TIMES:
            time_s = _number(row.get(name))
            if time_s is not None and time_s >= 0:
                duration_s = (duration_s or 0.0) + time_s
    version = config.get("sleap_nn_version") if isinstance(config, dict) else None
    return TrainingFacts(
        epochs=epochs or None,
        best_loss=best[0] if best else None,
        best_epoch=best[1] if best else None,
        final_loss=final,
        duration_s=duration_s,
        sleap_nn_version=clean_text(version) if isinstance(version, str) else "",
        skeleton=_nodes(config),
    )


def _epochs(log: bytes) -> Iterator[tuple[int, Mapping[str, str | None]]]:
    if len(log) > MAX_LOSS_LOG_BYTES:
        return
    lines = log.decode("utf-8", "replace").replace("\0", "").splitlines()
    try:
        for number, row in enumerate(csv.DictReader(lines)):
            epoch = _number(row.get("epoch"))
            if number >= MAX_LOSS_LOG_EPOCHS:
                return
            if epoch is not None and 0 <= epoch < _MAX_NUMBER:
                yield int(epoch), row
    except csv.Error:
        return


def _number(text: Any) -> float | None:
    try:
        value = float(text or "nan")
    except (ValueError, TypeError):
        return None
    return value if math.isfinite(value) else None


def _nodes(config: Any) -> list[str]:
    """Return the names of the nodes of the first skeleton, in order."""
    value = config
    for step in ("data_config", "skeletons", 0, "nodes"):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return []
    if not isinstance(value, list):
        return []
    names = [node.get("name") if isinstance(node, dict) else node for node in value]
    texts = [clean_text(name) for name in names if isinstance(name, str)]
    return texts[:MAX_SKELETON_NODES]

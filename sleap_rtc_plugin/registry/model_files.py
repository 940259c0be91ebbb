"""Reads a trained model from the folders that sleap-nn wrote: files, digests, facts.

Nothing is loaded, and what would run code when loaded is refused. Blocking: whoever
publishes a model calls it in a thread, the worker for what arrived, the client for what
the user named.
"""

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    NotAModel,
    StorageFailed,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_CONFIG_BYTES,
    MAX_DISPLAY_NAME_LENGTH,
    MAX_LOSS_LOG_BYTES,
    MAX_METRICS_BYTES,
    MAX_MODEL_BYTES,
    MAX_MODEL_FILES,
    MAX_MODEL_PARTS,
    MIB,
)
from sleap_rtc_plugin.protocol.model_records import (
    CHECKPOINT,
    MODEL_CONFIG,
    ModelFile,
    ModelPart,
    TrainingFacts,
    type_of,
)
from sleap_rtc_plugin.protocol.paths import check_component
from sleap_rtc_plugin.registry.loss_log import LOSS_LOG, facts_of
from sleap_rtc_plugin.registry.model_identity import model_id_of
from sleap_rtc_plugin.transport.checkpoint_scan import scan_result
from sleap_rtc_plugin.transport.package_configs import (
    parse_yaml,
    read_training_config,
    without_wandb_key,
)

__all__ = ["LocalFile", "LocalModel", "read_model"]

_FIRST_CONFIG: Final = "initial_config.yaml"
_METRICS: Final = re.compile(r"metrics\.[a-z]{1,16}\.\d{1,4}\.(?:json|npz)\Z")
_LIMITS: Final = {
    CHECKPOINT: MAX_MODEL_BYTES,
    MODEL_CONFIG: MAX_CONFIG_BYTES,
    _FIRST_CONFIG: MAX_CONFIG_BYTES,
    LOSS_LOG: MAX_LOSS_LOG_BYTES,
}
_PIECE_BYTES: Final = 4 * MIB
# What may stand between what the names of two parts share and where they differ.
_JOINTS: Final = " ._-="


@dataclass(frozen=True)
class LocalFile:
    """A file of a model on this disk.

    Attributes:
        path: relative to the model, with `/`.
        source: where it lies.
        size_bytes: of what is to be published.
        digest: BLAKE3 of that, in hexadecimal digits.
        content: that, where it is not what lies at `source`: a configuration without
            the key of a service.
    """

    path: str
    source: Path
    size_bytes: int
    digest: str
    content: bytes | None = None


@dataclass(frozen=True)
class LocalModel:
    """A model on this disk. `trained_at` is when its weights were written."""

    id: str
    type: str
    name: str
    parts: tuple[ModelPart, ...]
    files: tuple[LocalFile, ...]
    training: TrainingFacts
    trained_at: float

    @property
    def size_bytes(self) -> int:
        """Return the bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    def model_files(self) -> list[ModelFile]:
        """Return its files as a registry lists them."""
        return [
            ModelFile(path=file.path, size_bytes=file.size_bytes, digest=file.digest)
            for file in self.files
        ]


@dataclass(frozen=True)
class _Part:
    """One folder: its network, its files by name, and what they tell."""

    folder: Path
    head: str
    files: dict[str, LocalFile]
    training: TrainingFacts
    trained_at: float


def read_model(folders: Sequence[Path], name: str = "") -> LocalModel:
    """Read the model whose parts lie in these folders.

    Only regular files of kinds that sleap-nn writes and uses are taken; labels,
    pictures and whatever else lies there stay.

    Args:
        folders: one, or the two of a top-down pair in any order.
        name: what to call the model; by default what its folders are called.

    Raises:
        NotAModel: a folder holds no model, or two are not used together.
        UnsafeCheckpoint: a file would run code when loaded.
        StorageFailed: a file cannot be read.
    """
    if not 1 <= len(folders) <= MAX_MODEL_PARTS:
        where = ", ".join(str(folder) for folder in folders) or "nothing"
        raise NotAModel(path=where, reason="a model has one folder or two")
    found = [_read_part(folder) for folder in folders]
    kind = type_of([part.head for part in found])
    if kind is None:
        found.reverse()
        kind = type_of([part.head for part in found])
    if kind is None:
        heads = " and ".join(clean_text(part.head) for part in found)
        raise NotAModel(
            path=str(folders[0]), reason=f"{heads} are not used together as one model"
        )
    names = _folder_names(found)
    parts = tuple(
        ModelPart(folder=folder, head=part.head)
        for folder, part in zip(names, found, strict=True)
    )
    files = tuple(
        LocalFile(
            path=f"{folder}/{file.path}",
            source=file.source,
            size_bytes=file.size_bytes,
            digest=file.digest,
            content=file.content,
        )
        for folder, part in zip(names, found, strict=True)
        for file in part.files.values()
    )
    model = LocalModel(
        id="",
        type=kind,
        name=clean_text(name) or _shared_name(names),
        parts=parts,
        files=files,
        training=_training(found),
        trained_at=max(part.trained_at for part in found),
    )
    if model.size_bytes > MAX_MODEL_BYTES:
        raise NotAModel(
            path=str(folders[0]), reason=f"larger than {MAX_MODEL_BYTES // MIB} MiB"
        )
    model_id = model_id_of(parts, model.model_files())
    return LocalModel(**{**vars(model), "id": model_id})


# -- names -------------------------------------------------------------------------


def _folder_names(parts: Sequence[_Part]) -> list[str]:
    """Return a name for each part's folder that every system can store."""
    names = [_fit_name(part.folder.resolve().name, part.head) for part in parts]
    if len({name.casefold() for name in names}) < len(names):
        return [part.head for part in parts]
    return names


def _fit_name(name: str, head: str) -> str:
    try:
        fits = len(name) <= MAX_DISPLAY_NAME_LENGTH and bool(check_component(name))
    except UnsafeMember:
        fits = False
    return name if fits else head


def _shared_name(names: Sequence[str]) -> str:
    """Return what the names begin with alike, or the first one."""
    shared = names[0]
    for name in names[1:]:
        while not name.startswith(shared):
            shared = shared[:-1]
    return clean_text(shared.rstrip(_JOINTS) or names[0])


# -- one folder --------------------------------------------------------------------


def _read_part(folder: Path) -> _Part:
    try:
        paths = {path.name: path for path in folder.iterdir() if _limit_of(path)}
        paths = {name: p for name, p in paths.items() if stat.S_ISREG(_mode(p))}
    except NotADirectoryError:
        raise NotAModel(path=str(folder), reason="it is no folder") from None
    except FileNotFoundError:
        raise NotAModel(path=str(folder), reason="there is no such folder") from None
    except OSError as error:
        raise _unreadable(folder, error) from error
    for needed in (MODEL_CONFIG, CHECKPOINT):
        if needed not in paths:
            raise NotAModel(path=str(folder), reason=f"it holds no {needed}")
    if len(paths) > MAX_MODEL_FILES // MAX_MODEL_PARTS:
        raise NotAModel(path=str(folder), reason="it holds too many files of metrics")
    try:
        files = {name: _read_file(paths[name]) for name in sorted(paths)}
        config_data = files[MODEL_CONFIG].content or paths[MODEL_CONFIG].read_bytes()
        log = paths[LOSS_LOG].read_bytes() if LOSS_LOG in paths else b""
        trained_at = paths[CHECKPOINT].stat().st_mtime
    except OSError as error:
        raise _unreadable(folder, error) from error
    try:
        config = parse_yaml(config_data, MODEL_CONFIG)
        head = read_training_config(config, MODEL_CONFIG).head
    except ConfigRefused as error:
        raise NotAModel(path=str(folder), reason=error.reason) from None
    return _Part(
        folder=folder,
        head=head,
        files=files,
        training=facts_of(log, config),
        trained_at=max(trained_at, 0.0),
    )


def _limit_of(path: Path) -> int:
    """Return how large a file of this name may be; 0 for one that is not taken."""
    if _METRICS.match(path.name):
        return MAX_METRICS_BYTES
    return _LIMITS.get(path.name, 0)


def _mode(path: Path) -> int:
    return path.lstat().st_mode


def _read_file(path: Path) -> LocalFile:
    """Digest a file, after a look at whether it may be published at all."""
    limit = _limit_of(path)
    if path.stat().st_size > limit:
        raise NotAModel(
            path=str(path.parent),
            reason=f"its {path.name} is larger than {limit // MIB} MiB",
        )
    scan_result(path, path.name)
    content = None
    if path.suffix == ".yaml":
        try:
            content = without_wandb_key(path.read_bytes(), path.name)
        except ConfigRefused as error:
            raise NotAModel(path=str(path.parent), reason=error.reason) from None
    if content is not None:
        digest = blake3(content).hexdigest()
        return LocalFile(path.name, path, len(content), digest, content)
    hasher, size = blake3(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
            size += len(piece)
    return LocalFile(path.name, path, size, hasher.hexdigest())


def _unreadable(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(place=str(path), reason=error.strerror or "cannot be read")


def _training(parts: Sequence[_Part]) -> TrainingFacts:
    """Return how a set was trained: as its last network, in the time of all."""
    last: dict[str, Any] = {
        name: getattr(parts[-1].training, name)
        for name in TrainingFacts.__struct_fields__
    }
    durations = [part.training.duration_s for part in parts]
    known = [duration for duration in durations if duration is not None]
    last["duration_s"] = sum(known) if len(known) == len(parts) else None
    return TrainingFacts(**last)

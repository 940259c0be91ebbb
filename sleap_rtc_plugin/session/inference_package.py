"""Builds the package of an inference: videos and labels, trained models, steps.

Every data is predicted with every set of models, each pair in a step of its own. A
video goes as it is, so that sleap-nn on the worker reads the very bytes that it would
read here; of labels go the chosen frames, embedded. Needs neither SLEAP nor sleap-nn.
Called by `submission`, in a thread.
"""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    LabelsUnreadable,
    OptionRefused,
    VideoUnreadable,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.inference_options import check_options
from sleap_rtc_plugin.protocol.limits import MAX_STEPS
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, Step
from sleap_rtc_plugin.protocol.mounts import (
    VIDEO_HEAD_BYTES,
    VIDEO_SUFFIXES,
    is_video_container,
)
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_plugin.session.embedded_cache import EmbeddedCache, cache_key
from sleap_rtc_plugin.session.embedded_labels import (
    EmbeddedLabels,
    measure_images,
    write_labels,
)
from sleap_rtc_plugin.session.frame_choice import (
    choose_by_chance,
    frames_of_video,
    frames_option,
)
from sleap_rtc_plugin.session.package_archive import check_free_space, disk_errors
from sleap_rtc_plugin.session.project_labels import (
    SPARE_DISK_BYTES,
    Project,
    open_project,
)
from sleap_rtc_plugin.session.run_plan import project_stem, read_selection
from sleap_rtc_plugin.session.trained_models import copy_model_file, model_files
from sleap_rtc_plugin.session.training_package import TrainingPackage, open_package
from sleap_rtc_plugin.session.video_names import rename_videos

__all__ = ["InferenceRequest", "ModelSet", "RoomModel", "TrainedSet", "build_inference"]

_BROUGHT_FOLDER: Final = "trained"
_LABELS_SUFFIX: Final = ".slp"
# How labels name themselves as the file of their images.
_ITSELF: Final = "."
_REASON_CHARS: Final = 300
_NAME_CHARS: Final = 80
_FRAMES_TOLD: Final = 12


@dataclass(frozen=True)
class TrainedSet:
    """Models of this machine that are used together, in the order of their use."""

    folders: tuple[Path, ...]

    @property
    def label(self) -> str:
        """What its predictions are called after."""
        return self.folders[0].name


@dataclass(frozen=True)
class RoomModel:
    """A model of the room's registry: as the user named it, and its id once known."""

    ref: str
    id: str | None = None

    @property
    def label(self) -> str:
        """What its predictions are called after."""
        return self.ref


ModelSet = TrainedSet | RoomModel


@dataclass(frozen=True)
class InferenceRequest:
    """What is to be predicted, with what.

    Attributes:
        data: videos, labels, and packages that hold labels.
        models: the sets; each predicts all data.
        options: inference options of sleap-nn by name.
        by_chance: how many frames of each data to choose by chance, or None.
        seed: for that choice.
    """

    data: tuple[Path, ...]
    models: tuple[ModelSet, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    by_chance: int | None = None
    seed: int = 0

    @property
    def unresolved(self) -> list[str]:
        """The names of models of the room whose ids are not known yet."""
        rooms = (one for one in self.models if isinstance(one, RoomModel))
        return [one.ref for one in rooms if one.id is None]

    def with_ids(self, ids: Mapping[str, str]) -> "InferenceRequest":
        """Return the same with the ids of models of the room, by their names."""
        models = tuple(
            dataclasses.replace(one, id=ids.get(one.ref, one.id))
            if isinstance(one, RoomModel)
            else one
            for one in self.models
        )
        return dataclasses.replace(self, models=models)


@dataclass(frozen=True)
class _Datum:
    """One data in the package: its member, and the options of its steps."""

    member: str
    stem: str
    options: Mapping[str, str]


def build_inference(
    request: InferenceRequest,
    workdir: Path,
    *,
    keep_wandb_key: bool = False,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingPackage:
    """Build the package of an inference in a new folder below `workdir`.

    Args:
        request: what is asked for; every model of the room has its id.
        workdir: where the package is made; the caller removes it.
        keep_wandb_key: leave a Weights & Biases key in the models' configurations.
        on_frame: told how many of how many frames are embedded; may raise to give up.

    Raises:
        OptionRefused: the options, or how much is asked for, cannot be carried out.
        PackageError: data or a model cannot be used; each leaf says why.
        VideoUnreadable: a video gives no frames.
        DiskFull: there is no room.
        StorageFailed: a disk failed.
    """
    _check_size(request)
    check_options({k: v for k, v in request.options.items() if k != "frames"})
    with disk_errors(workdir, 0):
        root = Path(tempfile.mkdtemp(dir=workdir, prefix="inference."))
        building = _Building(root, workdir, request, on_frame)
        data = [building.lay_data(path) for path in request.data]
        models = [building.lay_models(one, keep_wandb_key) for one in request.models]
    steps = _steps(data, models)
    members = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not path.is_dir()
    )
    return TrainingPackage(
        root=root,
        members=tuple(members),
        total_bytes=sum((root / member).stat().st_size for member in members),
        spec=JobSpec(name=_job_name(data), steps=steps),
        source=request.data[0],
        labels=data[0].member,
        video_names=building.video_names,
        notes=tuple(building.notes),
    )


# -- laying it out -----------------------------------------------------------------


class _Building:
    """The package in its making."""

    def __init__(
        self,
        root: Path,
        workdir: Path,
        request: InferenceRequest,
        on_frame: Callable[[int, int], None],
    ) -> None:
        self.video_names: dict[str, str] = {}
        self.notes: list[str] = []
        self._root = root
        self._workdir = workdir
        self._request = request
        self._on_frame = on_frame
        self._stems: set[str] = set()
        self._sets = 0
        self._cache = EmbeddedCache()

    def lay_data(self, path: Path) -> _Datum:
        """Lay one data into the package."""
        suffix = path.suffix.lower()
        if suffix in VIDEO_SUFFIXES:
            return self._lay_video(path, suffix)
        if suffix == _LABELS_SUFFIX:
            return self._lay_labels(path, path)
        package = open_package(path, self._workdir)
        return self._lay_labels(package.root / package.labels, path)

    def lay_models(self, models: ModelSet, keep_wandb_key: bool) -> "_Laid":
        """Lay trained models into the package; those of the room lie at the worker.

        Raises:
            PackageError: one of them is no model.
        """
        if isinstance(models, RoomModel):
            return _Laid(_safe(models.label, "model"), published=models.id)
        self._sets += 1
        members: list[str] = []
        for folder in models.folders:
            label = _safe(folder.name, "model")
            member = f"{_BROUGHT_FOLDER}/{self._sets}.{len(members) + 1}.{label}"
            target = self._root.joinpath(*member.split("/"))
            target.mkdir(parents=True)
            for file in model_files(folder):
                copy_model_file(file, target / file.name, keep_wandb_key=keep_wandb_key)
            members.append(member)
        return _Laid(_safe(models.label, "model"), members=tuple(members))

    def _lay_video(self, path: Path, suffix: str) -> _Datum:
        length = _length_of(path)
        request = self._request
        frames = frames_of_video(
            request.options,
            length,
            video=clean_text(path.name),
            by_chance=request.by_chance,
            seed=request.seed,
        )
        options = dict(request.options)
        if frames is not None:
            options["frames"] = frames_option(frames, clean_text(path.name))
        self._tell_chosen(path, frames)
        stem = self._stem(path)
        member = f"{stem}{suffix}"
        _lay_link(path.absolute(), self._root / member)
        self.video_names[member] = path.absolute().as_posix()
        return _Datum(member, stem, check_options(options))

    def _lay_labels(self, path: Path, given: Path) -> _Datum:
        project = open_project(path)
        selection, options = read_selection(self._with_video(project))
        frames = set(project.select(selection))
        if not frames:
            raise LabelsUnreadable(
                path=clean_text(given.name), reason="there is no frame to predict on"
            )
        by_chance = self._request.by_chance
        if by_chance is not None:
            places = sorted(frames)
            chosen = choose_by_chance(range(len(places)), by_chance, self._request.seed)
            frames = {places[number] for number in chosen}
            self._tell_chosen(given, [number for _, number in sorted(frames)])
        stem = self._stem(given)
        labels = EmbeddedLabels(f"{stem}.pkg.slp")
        if selection.is_by_flag and selection.only == "suggested":
            labels.suggested = frames
        else:
            labels.frames = frames
        source = given if given.is_file() else path
        self._embed(project, labels, source)
        return _Datum(labels.name, stem, check_options(options))

    def _with_video(self, project: Project) -> dict[str, str]:
        """Frames of a project with one video are frames of that one."""
        options = dict(self._request.options)
        if "frames" in options and project.video_count == 1:
            options.setdefault("video_index", "0")
        return options

    def _embed(self, project: Project, labels: EmbeddedLabels, source: Path) -> None:
        videos = [path for path in project.video_paths if path != project.path]
        key = cache_key(
            *(_identity(path) for path in (source, *videos)),
            sorted(labels.frames),
            sorted(labels.suggested),
        )

        def write(path: Path) -> None:
            size_bytes, total = measure_images(project, [labels], {})
            check_free_space(path.parent, size_bytes + SPARE_DISK_BYTES)
            done = 0

            def on_frame() -> None:
                nonlocal done
                done += 1
                self._on_frame(done, total)

            named = dataclasses.replace(labels, name=path.name)
            write_labels(project, [named], path.parent, {}, on_frame)
            # Labels name themselves by a path that is nobody's business.
            rename_videos(path, {path.as_posix(): _ITSELF})

        _lay_link(self._cache.get(key, write), self._root / labels.name)

    def _tell_chosen(self, path: Path, frames: Sequence[int] | None) -> None:
        if self._request.by_chance is None or not frames:
            return
        told = ", ".join(map(str, frames[:_FRAMES_TOLD]))
        if len(frames) > _FRAMES_TOLD:
            told += ", ..."
        self.notes.append(
            f"{clean_text(path.name)}: {len(frames)} frames chosen by chance with "
            f"--seed {self._request.seed}: {told}."
        )

    def _stem(self, path: Path) -> str:
        """Return a name for a data that no other one has."""
        stem = wanted = _safe(_stem_of(path), "data")
        number = 1
        while stem.casefold() in self._stems:
            number += 1
            stem = f"{wanted}.{number}"
        self._stems.add(stem.casefold())
        return stem


@dataclass(frozen=True)
class _Laid:
    """A set of models in the package, or the id of one in the room."""

    label: str
    members: tuple[str, ...] = ()
    published: str | None = None


def _length_of(path: Path) -> int:
    """Return how many frames a video has.

    Raises:
        VideoUnreadable: it is none, or cannot be opened.
    """
    import sleap_io

    shown = clean_text(path.name)
    try:
        with path.open("rb") as file:
            if not is_video_container(file.read(VIDEO_HEAD_BYTES)):
                raise VideoUnreadable(video=shown, reason="it is no video")
        length = len(sleap_io.load_video(str(path)))
    except VideoUnreadable:
        raise
    except Exception as error:
        reason = clean_text(str(error), _REASON_CHARS) or type(error).__name__
        raise VideoUnreadable(video=shown, reason=reason) from error
    if length < 1:
        raise VideoUnreadable(video=shown, reason="it has no frame")
    return length


def _identity(path: Path) -> tuple[str, int, int, int]:
    """Return what tells a file from the same one after a change."""
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _lay_link(source: Path, target: Path) -> None:
    """Let a video stand in the package without copying it, where the system can."""
    for lay in (os.symlink, os.link):
        with contextlib.suppress(OSError, NotImplementedError):
            lay(source, target)
            return
    shutil.copyfile(source, target)


# -- names and steps ---------------------------------------------------------------


def _check_size(request: InferenceRequest) -> None:
    steps = len(request.data) * len(request.models)
    if steps > MAX_STEPS:
        raise OptionRefused(
            option="--model",
            reason=f"{len(request.data)} data with {len(request.models)} sets of "
            f"models are {steps} predictions, and a job has at most {MAX_STEPS}; "
            "give them to several commands",
        )


def _steps(data: Sequence[_Datum], models: Sequence[_Laid]) -> list[Step]:
    """Return a step for every data with every set, named so that none collide."""
    steps: list[Step] = []
    seen: set[str] = set()
    for datum in data:
        for laid in models:
            stem = wanted = f"{datum.stem}.{laid.label}"
            number = 1
            while stem.casefold() in seen:
                number += 1
                stem = f"{wanted}.{number}"
            seen.add(stem.casefold())
            steps.append(
                PredictStep(
                    data=datum.member,
                    models=list(laid.members),
                    published=laid.published,
                    output=f"{stem}.predictions.slp",
                    options=dict(datum.options),
                )
            )
    return steps


def _stem_of(path: Path) -> str:
    """Return what predictions on a data are called after."""
    name = path.resolve().name
    lowered = name.lower()
    for suffix in (*VIDEO_SUFFIXES, ".zip", ".training_job"):
        if lowered.endswith(suffix):
            name = name[: -len(suffix)]
            break
    return name.removesuffix(".training_job")


def _safe(name: str, otherwise: str) -> str:
    """Return a name that every system can store, as short as two fit into one."""
    name = project_stem(Path(name)).encode()[:_NAME_CHARS].decode(errors="ignore")
    name = name.strip(". ")
    return name if name and path_fault(name) is None else otherwise


def _job_name(data: Sequence[_Datum]) -> str:
    return clean_text(f"predict {', '.join(datum.stem for datum in data)}")

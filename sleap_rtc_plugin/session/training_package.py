"""Opens a training package: from a zip or folder to files and a job to submit.

Takes what SLEAP's "Export training job package..." writes. The thin part: it reads and
extracts, `package_archive` and `package_steps` decide. Called before anything is sent;
talks to nobody.
"""

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    LabelsUnreadable,
    NotAPackage,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_CONFIG_BYTES, MAX_ERROR_TEXT_CHARS
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, TrainStep
from sleap_rtc_plugin.session.package_archive import (
    Member,
    Progress,
    extract_zip,
    list_folder,
    stage_folder,
)
from sleap_rtc_plugin.session.package_steps import (
    INFERENCE_SCRIPT,
    JOBS_FILE,
    MODELS_FOLDER,
    TRAIN_SCRIPT,
    PackageContents,
    plan_steps,
)
from sleap_rtc_plugin.session.unpacked_packages import UnpackedPackages
from sleap_rtc_plugin.transport.package_configs import (
    TrainingConfig,
    is_training_config,
    parse_yaml,
    read_training_config,
    without_wandb_key,
)
from sleap_rtc_plugin.transport.plan_cache import Archive

__all__ = ["LabelsCheck", "TrainingPackage", "check_labels", "open_package"]

LabelsCheck = Callable[[Path], None]
"""Called with a labels file; raises `LabelsUnreadable` where it cannot be used."""

_SUFFIXES: Final = (".zip", ".training_job")


@dataclass(frozen=True)
class TrainingPackage:
    """A package that is safe and complete, ready to be sent.

    Attributes:
        root: the folder that holds the members: extracted, or the given folder itself.
        members: the paths to send, relative to `root`, with `/`.
        total_bytes: their size in all.
        spec: the job they make.
        source: what the person handed over; never written to.
        labels: the member that holds the labels of the first step.
        archive: the zip that the members were extracted from; None for a folder.
        video_names: the user's names of videos by the members that they are.
        notes: what the user is told of it.
    """

    root: Path
    members: tuple[str, ...]
    total_bytes: int
    spec: JobSpec
    source: Path
    labels: str
    archive: Archive | None = None
    video_names: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        """The folder of the person's own that holds the members, or their zip."""
        source = self.source.absolute()
        return source if source.is_dir() else source.parent


def open_package(
    path: Path,
    workdir: Path,
    *,
    progress: Progress | None = None,
    keep_wandb_key: bool = False,
    labels_check: LabelsCheck | None = None,
    unpacked: UnpackedPackages | None = None,
) -> TrainingPackage:
    """Open a package and decide what job it is.

    A Weights & Biases key in a configuration is taken out of the copy that is sent.
    Of a folder only the files that the job reads are sent; what an earlier run of the
    same job left (its models) never is.

    Args:
        path: a zip written by SLEAP, or a folder with the same files.
        workdir: where a zip is extracted, into a new folder of its own; made if it is
            missing. The caller removes it when the package has been sent.
        progress: told the bytes extracted so far and in all.
        keep_wandb_key: send the key, and let the job report to Weights & Biases.
        labels_check: what checks a labels file; `check_labels` by default.
        unpacked: spares a zip that was opened before from being unpacked, and its
            labels from being checked.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        PackageError: it is not a package that can be run; each leaf says why.
        DiskFull: `workdir` has no room.
        StorageFailed: a disk failed.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}; check the name.")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(
            place=str(workdir), reason=error.strerror or "cannot be made"
        ) from error
    if path.is_dir():
        return _open_members(
            path, path, list_folder(path), workdir, keep_wandb_key, labels_check
        )
    archive = Archive.of(path)
    known = unpacked.find(archive, workdir) if unpacked else None
    if known is not None:
        labels_check = _trust
    root, members = known or extract_zip(path, workdir, progress=progress)
    try:
        if known is None and unpacked:
            unpacked.keep(archive, root, members)
        package = _open_members(
            path, root, members, workdir, keep_wandb_key, labels_check
        )
        # Only small configurations may differ from the zip's, by a key taken out.
        return dataclasses.replace(package, archive=archive)
    except BaseException:
        if unpacked:
            unpacked.drop(archive)
        shutil.rmtree(root, ignore_errors=True)
        raise


def _trust(labels: Path) -> None:
    """Check nothing: these labels were checked when they were unpacked."""


def _open_members(
    source: Path,
    root: Path,
    members: list[Member],
    workdir: Path,
    keep_wandb_key: bool,
    labels_check: LabelsCheck | None,
) -> TrainingPackage:
    root, members = _enter_only_folder(root, members)
    names = frozenset(member.path for member in members)
    texts = {
        member.path: _read_small(root, member, str(source))
        for member in members
        if "/" not in member.path and member.path.endswith((".yaml", ".yml", ".sh"))
    }
    contents = PackageContents(
        source=str(source),
        members=names,
        configs=_read_configs(texts),
        jobs=parse_yaml(texts[JOBS_FILE], JOBS_FILE) if JOBS_FILE in texts else None,
        train_script=_script(texts, TRAIN_SCRIPT),
        inference_script=_script(texts, INFERENCE_SCRIPT),
    )
    steps = plan_steps(contents)
    check = labels_check or check_labels
    for labels in _labels_used(steps, contents):
        check(root / labels)

    sent = [member for member in members if not _is_stale(member.path, steps)]
    if source.is_dir():
        sent = [member for member in sent if _is_needed(member.path, steps, contents)]
    if not keep_wandb_key:
        edits = _edits_without_key(root, sent, str(source))
        sent = [m for m in sent if not _holds_key(m.path, texts)]
        if edits:
            root = _with_edits(source, root, sent, workdir, edits)
            sent = [Member(m.path, len(edits.get(m.path, b"")) or m.size) for m in sent]
    return TrainingPackage(
        root=root,
        members=tuple(member.path for member in sent),
        total_bytes=sum(member.size for member in sent),
        spec=JobSpec(name=_job_name(source), steps=steps, allow_wandb=keep_wandb_key),
        source=source,
        labels=_labels_used(steps[:1], contents)[0],
    )


def _enter_only_folder(root: Path, members: list[Member]) -> tuple[Path, list[Member]]:
    """Step into the one folder that a package zipped again by hand has around it."""
    tops = {member.path.partition("/")[0] for member in members}
    if len(tops) != 1 or not all("/" in member.path for member in members):
        return root, members
    (top,) = tops
    inner = [Member(m.path.removeprefix(f"{top}/"), m.size) for m in members]
    return root / top, inner


def _read_small(root: Path, member: Member, source: str) -> bytes:
    """Read a configuration or script, which no real package has large."""
    if member.size > MAX_CONFIG_BYTES:
        raise ConfigRefused(config=member.path, reason="it is larger than 1 MiB")
    try:
        return root.joinpath(*member.path.split("/")).read_bytes()
    except OSError as error:
        raise NotAPackage(
            path=source, reason=f"{member.path} cannot be read: {error.strerror}"
        ) from error


def _read_configs(texts: dict[str, bytes]) -> dict[str, TrainingConfig]:
    configs: dict[str, TrainingConfig] = {}
    for name, data in texts.items():
        if name == JOBS_FILE or not name.endswith((".yaml", ".yml")):
            continue
        value = parse_yaml(data, name)
        if is_training_config(value):
            configs[name] = read_training_config(value, name)
    return configs


def _script(texts: dict[str, bytes], name: str) -> str | None:
    return texts[name].decode(errors="replace") if name in texts else None


def _labels_used(
    steps: Iterable[TrainStep | PredictStep], contents: PackageContents
) -> list[str]:
    """Return every labels file that some step reads, each once, in order."""
    used: dict[str, None] = {}
    for step in steps:
        if isinstance(step, TrainStep):
            config = contents.configs[step.config]
            names = (step.labels, *config.labels, *config.other_labels)
        else:
            names = (step.data,)
        used.update(dict.fromkeys(names))
    return list(used)


def _is_stale(path: str, steps: Iterable[TrainStep | PredictStep]) -> bool:
    """Tell whether a file is what an earlier run of the same steps wrote."""
    for step in steps:
        if isinstance(step, TrainStep):
            if path.startswith(f"{MODELS_FOLDER}/{step.run_name}/"):
                return True
        elif path == step.output:
            return True
    return False


def _is_needed(
    path: str, steps: Iterable[TrainStep | PredictStep], contents: PackageContents
) -> bool:
    """Tell whether a file of a folder belongs to the job.

    A zip was made to be sent; a folder can hold anything, which stays here.
    """
    needed = {JOBS_FILE, TRAIN_SCRIPT, INFERENCE_SCRIPT}
    for step in steps:
        if isinstance(step, TrainStep):
            config = contents.configs[step.config]
            needed.update((config.path, step.labels), config.labels)
            needed.update(config.other_labels, config.weights)
        else:
            needed.add(step.data)
            if any(path.startswith(f"{model}/") for model in step.models):
                return True
    return path in needed


def _job_name(source: Path) -> str:
    name = source.resolve().name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return clean_text(name) or "training job"


# -- a Weights & Biases key ---------------------------------------------------------


def _edits_without_key(
    root: Path, members: Iterable[Member], source: str
) -> dict[str, bytes]:
    """Return the new bytes of every configuration with a key, in models too."""
    edits: dict[str, bytes] = {}
    for member in members:
        if member.path.lower().endswith((".yaml", ".yml")):
            data = _read_small(root, member, source)
            if b"api_key" in data.lower():
                edited = without_wandb_key(data, member.path)
                if edited is not None:
                    edits[member.path] = edited
    return edits


def _holds_key(path: str, texts: dict[str, bytes]) -> bool:
    """Tell whether a script has a key in it; it is never run, so it need not go."""
    return path.endswith(".sh") and b"api_key" in texts.get(path, b"").lower()


def _with_edits(
    source: Path,
    root: Path,
    members: list[Member],
    workdir: Path,
    edits: dict[str, bytes],
) -> Path:
    """Write the edited configurations, into a copy where `root` is the person's own."""
    if source.is_dir():
        root = stage_folder(root, members, workdir, copied=frozenset(edits))
    for name, data in edits.items():
        try:
            root.joinpath(*name.split("/")).write_bytes(data)
        except OSError as error:
            raise StorageFailed(
                place=str(root / name), reason=error.strerror or "cannot be written"
            ) from error
    return root


# -- labels ----------------------------------------------------------------------------


def check_labels(path: Path, *, needs_images: bool = True) -> None:
    """Check that labels load and bring their images with them.

    Args:
        path: the `.slp` file.
        needs_images: whether images have to be in it; the worker may have them.

    Raises:
        LabelsUnreadable: they do not load, or their images are elsewhere.
    """
    import sleap_io

    try:
        labels = sleap_io.load_slp(str(path), open_videos=False)
        videos = list(labels.videos)
        is_empty = not labels.labeled_frames and not labels.suggestions
    except Exception as error:
        reason = clean_text(f"{type(error).__name__}: {error}", MAX_ERROR_TEXT_CHARS)
        raise LabelsUnreadable(path=path.name, reason=reason) from error
    if is_empty:
        raise LabelsUnreadable(path=path.name, reason="they hold no labeled frame")
    if not needs_images:
        return
    metadata = [video.backend_metadata or {} for video in videos]
    if not any(known.get("has_embedded_images") for known in metadata):
        raise LabelsUnreadable(
            path=path.name, reason="their images are not embedded in the file"
        )

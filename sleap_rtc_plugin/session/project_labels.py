"""Reads a saved SLEAP project and embeds chosen frames of it into labels for a worker.

Needs sleap-io only: no SLEAP, no sleap-nn. It never writes to the project or beside
it. Called by `package_builder`, in a thread, since videos are decoded here.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import LabelsUnreadable, SourceChanged
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.protocol.mounts import (
    VIDEO_HEAD_BYTES,
    VIDEO_SUFFIXES,
    is_video_container,
)
from sleap_rtc_plugin.session.run_plan import Selection
from sleap_rtc_plugin.session.video_names import rename_videos

__all__ = ["SPARE_DISK_BYTES", "Frame", "Project", "VideoFile", "open_project"]

Frame = tuple[int, int]
"""The index of a video in its project, and of a frame in that video."""

# HDF5 crashes the process when a disk fills up under it, so the last bytes stay free.
SPARE_DISK_BYTES: Final = 64 * MIB

_REASON_CHARS: Final = 300
_SAMPLES_PER_VIDEO: Final = 3


@dataclass(frozen=True)
class VideoFile:
    """A video of a project that is one file.

    Attributes:
        index: its place in the project.
        name: how labels name it.
        path: where it is, absolute.
    """

    index: int
    name: str
    path: Path


class Project:
    """The contents of a project file as they were when it was opened."""

    def __init__(self, path: Path, labels: Any, entry: os.stat_result) -> None:
        """Take over what was loaded; `entry` is how the file looked then."""
        self.path = path
        self._labels = labels
        self._entry = entry
        self._video_index = {id(video): i for i, video in enumerate(labels.videos)}

    # -- which frames ------------------------------------------------------------------

    def check_skeleton(self) -> None:
        """Check that there is something to train.

        Raises:
            LabelsUnreadable: there is no skeleton.
        """
        if not self._labels.skeletons:
            raise self.fault("the project has no skeleton")

    def user_frames(self) -> list[Frame]:
        """Return the frames that SLEAP counts as labeled by the user."""
        return sorted(self._places(self._labels.user_labeled_frames))

    def labeled_frames(self) -> list[Frame]:
        """Return all frames with instances, also predicted ones."""
        return sorted(self._places(lf for lf in self._labels if len(lf.instances)))

    def select(self, selection: Selection) -> list[Frame]:
        """Return the frames of an inference item that the videos really have.

        Raises:
            LabelsUnreadable: the project has no such video, or it cannot be opened.
        """
        frames = self._candidates(selection)
        match selection.only:
            case "labeled":
                frames &= self._with_user_instances
            case "suggested":
                frames &= self._places(self._labels.suggestions)
                frames -= self._with_user_instances
            case "predicted":
                frames &= self._with_predictions
        if selection.skips_user_labeled:
            frames -= self._with_user_instances
        available = {index: self._available(index) for index in {f[0] for f in frames}}
        return sorted(frame for frame in frames if frame[1] in available[frame[0]])

    def _candidates(self, selection: Selection) -> set[Frame]:
        index = selection.video
        if index is None:
            named = [*self._labels.labeled_frames, *self._labels.suggestions]
            return self._places(named)
        if not index < len(self._labels.videos):
            raise self.fault(f"the project has no video number {index + 1}")
        available = self._available(index)
        wanted = available if selection.frames is None else selection.frames
        if isinstance(available, range) and isinstance(wanted, range):
            wanted = range(wanted.start, min(wanted.stop, available.stop))
        return {(index, number) for number in wanted}

    @cached_property
    def _with_user_instances(self) -> set[Frame]:
        frames = self._labels.labeled_frames
        return self._places(lf for lf in frames if lf.has_user_instances)

    @cached_property
    def _with_predictions(self) -> set[Frame]:
        frames = self._labels.labeled_frames
        return self._places(lf for lf in frames if lf.has_predicted_instances)

    def _places(self, frames: Iterable[Any]) -> set[Frame]:
        return {self._place(frame) for frame in frames}

    def _place(self, frame: Any) -> Frame:
        return self._video_index[id(frame.video)], int(frame.frame_idx)

    # -- videos ------------------------------------------------------------------------

    @property
    def video_count(self) -> int:
        """How many videos the project has."""
        return len(self._labels.videos)

    @property
    def video_paths(self) -> list[Path]:
        """The files that its videos lie in: of a sequence of images, all."""
        names = [video.filename for video in self._labels.videos]
        return [
            Path(name)
            for given in names
            for name in ([given] if isinstance(given, str) else given)
        ]

    def _available(self, index: int) -> "range | frozenset[int]":
        """Return the frames that a video has."""
        video = self._labels.videos[index]
        with self._video_errors(index):
            if not video.exists():
                raise FileNotFoundError("it was moved or deleted")
            if video.backend is None:
                video.open()
            if _is_embedded(video):
                return frozenset(video.backend.embedded_frame_inds)
            return range(len(video))

    def video_files(self, frames: Iterable[Frame]) -> list[VideoFile]:
        """Return the videos of frames that are one file which holds its own images.

        Others, such as sequences of images, are only ever embedded.
        """
        found = []
        for index in sorted({index for index, _ in frames}):
            video = self._labels.videos[index]
            name = video.filename
            if not isinstance(name, str) or video.is_cropped or _is_embedded(video):
                continue
            path = Path(name)
            if path.suffix.lower() in VIDEO_SUFFIXES and _is_container(path):
                found.append(VideoFile(index, path.as_posix(), path.absolute()))
        return found

    def image_bytes(
        self, frames: Iterable[Frame], at_worker: Collection[int] = ()
    ) -> int:
        """Estimate how large the images of frames will be, from a few of each video.

        Every image of a video takes the room of its largest.

        Args:
            frames: of any videos.
            at_worker: videos whose images are not embedded; they only have to exist.

        Raises:
            LabelsUnreadable: a video cannot be opened, or lacks a frame.
        """
        by_video: dict[int, list[int]] = {}
        for index, number in sorted(frames):
            by_video.setdefault(index, []).append(number)
        total = 0
        for index, numbers in by_video.items():
            available = self._available(index)
            absent = next((n for n in numbers if n not in available), None)
            with self._video_errors(index):
                if absent is not None:
                    raise IndexError(f"it has no frame {absent + 1}")
                if index in at_worker:
                    continue
                step = max(1, (len(numbers) - 1) // (_SAMPLES_PER_VIDEO - 1))
                total += len(numbers) * max(
                    _png_bytes(self._labels.videos[index][number])
                    for number in numbers[::step]
                )
        return total

    @contextlib.contextmanager
    def _video_errors(self, index: int) -> Iterator[None]:
        """Name the video that cannot be read."""
        try:
            yield
        except Exception as error:
            name = _video_name(self._labels.videos[index].filename)
            reason = clean_text(str(error), _REASON_CHARS) or type(error).__name__
            raise self.fault(f"its video {name} cannot be read: {reason}") from error

    # -- writing -----------------------------------------------------------------------

    def embed(
        self,
        frames: Iterable[Frame],
        path: Path,
        *,
        suggested: Iterable[Frame] = (),
        at_worker: Mapping[int, str] | None = None,
        on_frame: Callable[[], None],
    ) -> None:
        """Write labels that hold these frames, their images, and nothing else.

        Where a video is at the worker, the labels name it there, and hold no video
        without a frame: what is neither there nor embedded could not be opened.

        Args:
            frames: in any order; those without a label become frames without
                instances, so that a worker finds them.
            path: the new `.pkg.slp`.
            suggested: frames that are to be suggestions instead, with their images.
            at_worker: the paths on the worker of videos that are not embedded.
            on_frame: told of every image; what it raises goes through.

        Raises:
            LabelsUnreadable: an image cannot be read.
            OSError: the disk failed; ENOSPC where it is full.
        """
        import sleap_io
        from sleap_io.io.slp import write_labels

        wanted, proposed = sorted(frames), sorted(suggested)
        known = {self._place(frame): frame for frame in self._labels.labeled_frames}
        videos = self._labels.videos
        at_worker = at_worker or {}
        places = sorted({*wanted, *proposed})
        used = {index for index, _ in places} if at_worker else range(len(videos))
        labels = sleap_io.Labels(
            labeled_frames=[
                known.get(frame)
                or sleap_io.LabeledFrame(video=videos[frame[0]], frame_idx=frame[1])
                for frame in wanted
            ],
            videos=[videos[index] for index in sorted(used)],
            skeletons=list(self._labels.skeletons),
            tracks=list(self._labels.tracks),
            suggestions=[
                sleap_io.SuggestionFrame(video=videos[index], frame_idx=number)
                for index, number in proposed
            ],
            provenance=dict(self._labels.provenance),
        )
        teller = _Teller(on_frame, path.parent)
        images = [place for place in places if place[0] not in at_worker]
        save = partial(sleap_io.save_file, labels, str(path))
        if at_worker:
            # The others would be made videos of this file, without a frame.
            save = partial(write_labels, str(path), labels, embed_all_videos=False)
        try:
            save(
                embed=[(videos[index], number) for index, number in images],
                verbose=False,
                progress_callback=teller,
            )
            if at_worker:
                names = {index: Path(videos[index].filename) for index in at_worker}
                rename_videos(
                    path, {names[i].as_posix(): at_worker[i] for i in at_worker}
                )
        except Exception as error:
            if error is teller.failure:
                raise
            if _is_full(error):
                raise OSError(errno.ENOSPC, "No space left on device") from error
            reason = clean_text(str(error), _REASON_CHARS) or type(error).__name__
            if not images:
                raise self.fault(f"its labels cannot be written: {reason}") from error
            index, number = images[min(teller.count, len(images) - 1)]
            name = _video_name(videos[index].filename)
            raise self.fault(
                f"frame {number + 1} of its video {name} cannot be read: {reason}"
            ) from error

    def check_unchanged(self) -> None:
        """Check that images that lie in the project itself are still the same.

        Raises:
            SourceChanged: it was saved again after it was opened.
        """
        if any(_is_embedded(video) for video in self._labels.videos) and _has_changed(
            self.path, self._entry
        ):
            raise SourceChanged(path=str(self.path))

    def fault(self, reason: str) -> LabelsUnreadable:
        """Return the error that this project cannot be used."""
        return LabelsUnreadable(path=self.path.name, reason=reason)


class _Teller:
    """Passes progress on, watches the disk, and remembers what it interrupted with."""

    def __init__(self, on_frame: Callable[[], None], folder: Path) -> None:
        self._on_frame = on_frame
        self._folder = folder
        self.count = 0
        self.failure: Exception | None = None

    def __call__(self, done: int, total: int, phase: str) -> bool:
        try:
            if phase == "embed":
                self.count = done
                self._on_frame()
            elif shutil.disk_usage(self._folder).free < SPARE_DISK_BYTES:
                raise OSError(errno.ENOSPC, "No space left on device")
        except Exception as error:
            self.failure = error
            raise
        return True


def open_project(path: Path) -> Project:
    """Load a project.

    Raises:
        LabelsUnreadable: there is none, or it cannot be read.
        SourceChanged: it was saved again meanwhile.
    """
    import sleap_io

    def fault(reason: str) -> LabelsUnreadable:
        return LabelsUnreadable(path=path.name, reason=reason)

    try:
        entry = path.stat()
    except OSError:
        raise fault(f"there is no file {path}") from None
    if not path.is_file() or path.suffix.lower() != ".slp":
        raise fault("it is not a SLEAP project")
    failure: Exception | None = None
    labels = None
    try:
        labels = sleap_io.load_slp(str(path))
    except Exception as error:
        failure = error
    if _has_changed(path, entry):
        raise SourceChanged(path=str(path)) from failure
    if failure is not None:
        reason = clean_text(f"{type(failure).__name__}: {failure}", _REASON_CHARS)
        raise fault(f"it is not a SLEAP project, or damaged: {reason}") from failure
    return Project(path, labels, entry)


def _has_changed(path: Path, entry: os.stat_result) -> bool:
    try:
        now = path.stat()
    except OSError:
        return True
    return (now.st_mtime_ns, now.st_size) != (entry.st_mtime_ns, entry.st_size)


def _is_container(path: Path) -> bool:
    """Tell whether a file is a video by what it begins with."""
    try:
        with path.open("rb") as file:
            return is_video_container(file.read(VIDEO_HEAD_BYTES))
    except OSError:
        return False


def _is_embedded(video: Any) -> bool:
    """Tell whether a video's images lie in a labels file."""
    return bool(getattr(video.backend, "has_embedded_images", False))


def _png_bytes(image: Any) -> int:
    """Return the size of an image as it will be stored."""
    import imageio.v3

    if image.shape[-1] == 1:
        image = image[..., 0]
    encoded = imageio.v3.imwrite("<bytes>", image, extension=".png", compress_level=1)
    return len(encoded)


def _video_name(filename: Any) -> str:
    """Return a video's name for people: a sequence of images by its folder."""
    if isinstance(filename, list):
        return clean_text(Path(filename[0]).parent.name) if filename else "of no images"
    return clean_text(str(filename).replace("\\", "/").rpartition("/")[2])


def _is_full(error: BaseException) -> bool:
    """Tell whether a disk is full; HDF5 says so in words only."""
    words = str(error)
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or (
        "No space left" in words or "errno = 28" in words
    )

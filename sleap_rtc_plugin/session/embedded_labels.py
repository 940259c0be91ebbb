"""Labels of a package that hold chosen frames of a project, with their images.

Which frames an inference needs of a project, how large they will be, and writing them.
Called by `package_builder` and `inference_package`, in a thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import PackageTooLarge
from sleap_rtc_plugin.protocol.limits import GIB
from sleap_rtc_plugin.session.package_archive import format_bytes
from sleap_rtc_plugin.session.project_labels import Frame, Project

__all__ = ["MAX_EMBEDDED_BYTES", "EmbeddedLabels", "measure_images", "write_labels"]

# sleap-io holds all images of a file in memory before it writes the first.
MAX_EMBEDDED_BYTES: Final = 8 * GIB


@dataclass
class EmbeddedLabels:
    """A labels file of the package: frames to work on, and suggestions."""

    name: str
    frames: set[Frame] = field(default_factory=set)
    suggested: set[Frame] = field(default_factory=set)

    @property
    def images(self) -> set[Frame]:
        """All frames whose images it needs."""
        return self.frames | self.suggested


def measure_images(
    project: Project, labels: Sequence[EmbeddedLabels], at_worker: Mapping[int, str]
) -> tuple[int, int]:
    """Return about how many bytes will be embedded, of how many frames.

    Raises:
        PackageTooLarge: more than fits into memory.
        LabelsUnreadable: a video cannot be opened, or lacks a frame.
    """
    size_bytes = sum(project.image_bytes(one.images, at_worker) for one in labels)
    frames = sum(index not in at_worker for one in labels for index, _ in one.images)
    if size_bytes > MAX_EMBEDDED_BYTES:
        raise PackageTooLarge(
            path=project.path.name,
            reason=f"would hold {frames} frames with {format_bytes(size_bytes)} of "
            "images; choose fewer frames",
        )
    return size_bytes, frames


def write_labels(
    project: Project,
    labels: Sequence[EmbeddedLabels],
    folder: Path,
    at_worker: Mapping[int, str],
    on_frame: Callable[[], None],
) -> None:
    """Write labels files into a folder.

    Args:
        project: that they are taken from.
        labels: the files to write.
        folder: where they go.
        at_worker: the paths on the worker of videos that are not embedded.
        on_frame: told of every image; what it raises goes through.

    Raises:
        LabelsUnreadable: an image cannot be read.
        SourceChanged: the project was saved meanwhile.
        OSError: the disk failed.
    """
    for one in labels:
        project.embed(
            one.frames,
            folder / one.name,
            suggested=one.suggested,
            at_worker={
                index: path
                for index, path in at_worker.items()
                if index in {video for video, _ in one.images}
            },
            on_frame=on_frame,
        )
    project.check_unchanged()

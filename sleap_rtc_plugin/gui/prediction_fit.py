"""Reads predictions, and tells whether they fit the open project.

SLEAP's merge adds what it does not know, another video or another skeleton, without a
word; here that is refused before anything is merged. Knows sleap-io, not SLEAP; called
through `sleap_compat`.
"""

from typing import Any

__all__ = [
    "PredictionsDoNotFit",
    "frames_that_fit",
    "load_predictions",
    "video_name",
]


class PredictionsDoNotFit(Exception):
    """Predictions are not for the open project; the text says why."""


def load_predictions(path: str) -> Any:
    """Read a predictions file; slow, and may be called in any thread.

    Raises:
        PredictionsDoNotFit: the file cannot be read.
    """
    import sleap_io

    try:
        # Its videos are not opened: their paths were chosen on another machine.
        return sleap_io.load_slp(path, open_videos=False)
    except Exception as error:
        raise PredictionsDoNotFit(
            f"The predictions in {path} cannot be read ({error}); fetch them again."
        ) from error


def frames_that_fit(
    labels: Any, loaded: list[Any], *, with_user_instances: bool
) -> list[Any]:
    """Return the frames to merge, made anew with the instances that may come in.

    Args:
        labels: the open project.
        loaded: what `load_predictions` returned.
        with_user_instances: take more than predicted instances.

    Raises:
        PredictionsDoNotFit: a frame is not one of the project's, or the skeleton is
            another one.
    """
    from sleap_io import LabeledFrame, PredictedInstance

    frames = [
        LabeledFrame(
            video=frame.video,
            frame_idx=frame.frame_idx,
            instances=[
                instance
                for instance in frame.instances
                if with_user_instances or isinstance(instance, PredictedInstance)
            ],
        )
        for one in loaded
        for frame in one.labeled_frames
    ]
    _require_fit(labels, frames)
    return frames


def _require_fit(labels: Any, frames: list[Any]) -> None:
    from sleap_io import Labels
    from sleap_io.model.matching import SkeletonMatcher, VideoMatcher

    incoming = Labels(frames)
    # The defaults of Labels.merge, which SLEAP's merge_results leaves as they are.
    skeletons, videos = SkeletonMatcher(), VideoMatcher()
    for skeleton in incoming.skeletons:
        if not any(skeletons.match(known, skeleton) for known in labels.skeletons):
            raise PredictionsDoNotFit(
                "The predictions are for another skeleton than this project's; they "
                "were not merged."
            )
    lengths = {}
    for video in incoming.videos:
        match = videos.find_match(
            video, labels.videos, labels_incoming=incoming, labels_base=labels
        )
        if match is None:
            raise PredictionsDoNotFit(
                f"The predictions are for the video {_source_name(video)}, which is "
                "not in this project; they were not merged."
            )
        # Unknown where the file cannot be opened at the moment.
        lengths[video] = match.shape[0] if match.shape else None
    for frame in frames:
        length = lengths[frame.video]
        if frame.frame_idx < 0 or (length is not None and frame.frame_idx >= length):
            raise PredictionsDoNotFit(
                f"The predictions are for frame {frame.frame_idx} of "
                f"{_source_name(frame.video)}, which this project's video does not "
                "have; they were not merged."
            )


def _source_name(video: Any) -> str:
    """Return the name of the video that embedded images were taken from."""
    return video_name(video.source_video or video)


def video_name(video: Any) -> str:
    """Return the name of a video's file, or of the first of its images."""
    name = video.filename
    if isinstance(name, list):
        name = name[0] if name else ""
    # A project may come from another system, so both separators count.
    return str(name).replace("\\", "/").rpartition("/")[2]

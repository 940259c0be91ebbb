"""Which frames of a video an inference is made on: a range, a list, some by chance.

Pure: numbers in, numbers out; the same seed chooses the same frames on every machine.
Called by `inference_package`.
"""

import random
from collections.abc import Collection, Mapping, Sequence

from sleap_rtc_plugin.protocol.errors import OptionRefused
from sleap_rtc_plugin.protocol.inference_options import (
    check_video_options,
    frame_numbers,
)
from sleap_rtc_plugin.protocol.limits import MAX_OPTION_CHARS

__all__ = ["choose_by_chance", "frames_of_video", "frames_option"]


def choose_by_chance(frames: Collection[int], count: int, seed: int) -> list[int]:
    """Choose `count` of some frames, in order; all of them where there are no more.

    Args:
        frames: the numbers to choose from.
        count: how many.
        seed: the same one makes the same choice.
    """
    rest = sorted(frames)
    if count < len(rest):
        # Not a secret, and the same everywhere.
        rest = random.Random(seed).sample(rest, count)  # noqa: S311
    return sorted(rest)


def frames_of_video(
    options: Mapping[str, str],
    length: int,
    *,
    video: str,
    by_chance: int | None = None,
    seed: int = 0,
) -> Sequence[int] | None:
    """Return the frames to predict of a video, or None for all of them.

    A range that goes on behind the video's end stops there, as the same range may be
    meant for several videos. A frame that is named by its number has to be there.

    Args:
        options: the inference options, checked.
        length: how many frames the video has.
        video: its name, for errors.
        by_chance: how many to choose by chance, or None.
        seed: for that choice.

    Raises:
        OptionRefused: an option means nothing for a video, or no frame is meant.
    """
    check_video_options(options)
    chosen: Sequence[int] | None = None
    if "frames" in options:
        chosen = frame_numbers(options["frames"])
        if isinstance(chosen, range):
            chosen = range(chosen.start, min(chosen.stop, length))
        absent = next((number for number in chosen if number >= length), None)
        if absent is not None or not chosen:
            raise OptionRefused(
                option="--frames",
                reason=f"{video} has the frames 0 to {length - 1}",
            )
    if by_chance is not None:
        chosen = choose_by_chance(
            range(length) if chosen is None else chosen, by_chance, seed
        )
    return chosen


def frames_option(frames: Sequence[int], video: str) -> str:
    """Write frames as the value of sleap-nn's `--frames`.

    Raises:
        OptionRefused: it would be longer than a worker takes.
    """
    first, last = min(frames), max(frames)
    if last - first + 1 == len(frames) == len(set(frames)):
        return f"{first}-{last}" if first != last else str(first)
    value = ",".join(map(str, frames))
    if len(value) > MAX_OPTION_CHARS:
        raise OptionRefused(
            option="--frames",
            reason=f"{len(frames)} single frames of {video} are more than fit into "
            f"{MAX_OPTION_CHARS} characters; choose fewer, or a range",
        )
    return value

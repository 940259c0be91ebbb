"""The inference and tracking options of sleap-nn that a client may send.

A literal table, name to kind of value, for `sleap-nn predict` (0.3.5) and the older
`track` spellings, which SLEAP's own scripts use. What names files, addresses,
headers, devices or processes is not in it: those are the worker's to decide. A
client reads a script line with `parse_argv`; the worker checks what it was sent with
`check_options` and rebuilds it with `to_argv`, never passing words on.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sleap_rtc_plugin.protocol.errors import OptionRefused
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_DISPLAY_NAME_LENGTH,
    MAX_OPTION_CHARS,
    MAX_STEP_OPTIONS,
    MIB,
)

__all__ = [
    "MAX_FRAMES_CHARS",
    "OPTIONS",
    "OPTION_GROUPS",
    "Choice",
    "Flag",
    "Integer",
    "Kind",
    "NamedOption",
    "Number",
    "ParsedInference",
    "Text",
    "check_options",
    "check_video_options",
    "frame_numbers",
    "option_named",
    "parse_argv",
    "to_argv",
]

# The frames of a script line are a list of any length; a worker takes a shorter one.
MAX_FRAMES_CHARS: Final = 16 * MIB

_LARGEST: Final = 10**9
_NAME: Final = r"[^\x00-\x1f\x7f]{1,120}"
_FRAME: Final = r"[0-9]{1,9}"


@dataclass(frozen=True)
class Flag:
    """An option without a value."""


@dataclass(frozen=True)
class Integer:
    """A whole number between two bounds."""

    low: int = 0
    high: int = _LARGEST


@dataclass(frozen=True)
class Number:
    """A finite number between two bounds."""

    low: float = -float(_LARGEST)
    high: float = float(_LARGEST)


@dataclass(frozen=True)
class Choice:
    """One of these words."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """Text that matches a pattern as a whole; `what` completes "it must be …".

    An option that may be given several times is sent as one value, joined by commas.
    """

    pattern: str
    what: str
    is_repeated: bool = False


Kind = Flag | Integer | Number | Choice | Text

_FLAG: Final = Flag()
_COUNT: Final = Integer()
_SIZE: Final = Integer(1)
_NUMBER: Final = Number()
_FRACTION: Final = Number(0.0, 1.0)

# What may be sent, by what it is about, as `sleap-remote predict --help` lists it.
OPTION_GROUPS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "Frames": {
        "only_labeled_frames": _FLAG,
        "only_suggested_frames": _FLAG,
        "only_predicted_frames": _FLAG,
        "exclude_user_labeled": _FLAG,
        "no_empty_frames": _FLAG,
        "video_index": _COUNT,
        "video_dataset": Text(
            r"[A-Za-z0-9_/.-]{1,200}", "the name of an HDF5 data set"
        ),
        "video_input_format": Choice(("channels_last", "channels_first")),
        # sleap-nn's frame_list: a range, or numbers with commas; not both at once.
        "frames": Text(
            rf"{_FRAME}(?:,{_FRAME})*|{_FRAME},?-{_FRAME}",
            "a range such as 0-99 or frame numbers with commas",
        ),
    },
    "Images": {
        "batch_size": Integer(1, 1024),
        "queue_maxsize": Integer(1, 1024),
        "max_height": _SIZE,
        "max_width": _SIZE,
        "input_scale": Number(0.0, 100.0),
        "ensure_rgb": _FLAG,
        "no-ensure_rgb": _FLAG,
        "ensure_grayscale": _FLAG,
        "no-ensure_grayscale": _FLAG,
        "crop_size": _SIZE,
        "anchor_part": Text(_NAME, "the name of a body part"),
    },
    "Peaks and instances": {
        "max_instances": _SIZE,
        "peak_threshold": _NUMBER,
        "centroid_peak_threshold": _NUMBER,
        "integral_refinement": Choice(("integral", "None", "none")),
        "integral_patch_size": _SIZE,
        "centroid_only": _FLAG,
        "centroid_output": Choice(("instance", "centroid", "both")),
        "max_edge_length_ratio": _NUMBER,
        "dist_penalty_weight": _NUMBER,
        "n_points": _SIZE,
        "min_instance_peaks": Number(0.0),
        "min_line_scores": _NUMBER,
        "filter_overlapping": _FLAG,
        "filter_overlapping_method": Choice(("iou", "oks")),
        "filter_overlapping_threshold": _FRACTION,
        "filter_min_visible_nodes": _COUNT,
        "filter_min_visible_node_fraction": _FRACTION,
        "filter_min_mean_node_score": _NUMBER,
        "filter_min_instance_score": _NUMBER,
        "filter_min_centroid_distance": Number(0.0),
    },
    "Boxes and masks": {
        "bbox_nms_iou": _FRACTION,
        "fg_threshold": _NUMBER,
        "min_mask_area": _COUNT,
        "center_nms_kernel": Integer(1, 1001),
        "mask_cleanup": _FLAG,
        "no-mask_cleanup": _FLAG,
        "mask_cleanup_radius": Integer(0, 1000),
        "distance_gate_alpha": _NUMBER,
        "merge_fragments": _FLAG,
        "no-merge_fragments": _FLAG,
        "merge_method": Choice(("greedy", "multicut")),
        "merge_thresholds": Text(
            r"[0-9]{0,3}\.?[0-9]{1,12}(?:,[0-9]{0,3}\.?[0-9]{1,12}){0,15}",
            "numbers with commas",
        ),
        "merge_w_valley": _NUMBER,
        "merge_w_offset": _NUMBER,
        "merge_dilate": Integer(0, 1000),
        "full_res_masks": _FLAG,
        "no-full_res_masks": _FLAG,
        "mask_output": Choice(("mask", "polygon", "both")),
        "polygon_epsilon": Number(0.0),
    },
    "The file of predictions": {
        "embed": Choice(("auto", "true", "false")),
        "restore_source_videos": _FLAG,
        "no-restore_source_videos": _FLAG,
        "save_embeddings": Choice(("none", "slp")),
    },
    "Tracking": {
        "tracking": _FLAG,
        "tracker": Choice(
            (
                "classic",
                "sort",
                "deepsort",
                "strongsort",
                "bytetrack",
                "botsort",
                "ocsort",
                "deepocsort",
            )
        ),
        "tracking_window_size": Integer(1, 100_000),
        "min_new_track_points": _COUNT,
        "candidates_method": Choice(("fixed_window", "local_queues")),
        "min_match_points": _COUNT,
        "features": Choice(
            ("keypoints", "centroids", "bboxes", "masks", "embeddings", "image")
        ),
        "scoring_method": Choice(
            ("oks", "cosine_sim", "iou", "mask_iou", "euclidean_dist")
        ),
        "appearance_weight": _FRACTION,
        "euclidean_scale": Number(0.0),
        "scoring_reduction": Choice(("mean", "max", "robust_quantile")),
        "robust_best_instance": _FRACTION,
        "track_matching_method": Choice(("hungarian", "greedy")),
        "max_tracks": _SIZE,
        "use_flow": _FLAG,
        "of_img_scale": Number(0.0, 100.0),
        "of_window_size": Integer(1, 10_000),
        "of_max_levels": Integer(0, 100),
        "use_kalman": _FLAG,
        "kf_track_features": Choice(("centroid", "keypoints")),
        "oks_stddev": Number(0.0),
        "kf_init_frame_count": _COUNT,
        "kf_node_indices": Text(r"[0-9]{1,4}(?:,[0-9]{1,4})*", "numbers with commas"),
        "kf_reset_gap_size": _COUNT,
        "post_connect_single_breaks": _FLAG,
        "tracking_target_instance_count": _COUNT,
        "tracking_pre_cull_to_target": _COUNT,
        "tracking_pre_cull_iou_threshold": _FRACTION,
        "tracking_clean_instance_count": _COUNT,
        "tracking_clean_iou_threshold": _FRACTION,
        "track_buffer": _COUNT,
        "min_hits": _COUNT,
        "track_high_threshold": _FRACTION,
        "track_low_threshold": _FRACTION,
        "new_track_threshold": _FRACTION,
        "min_match_similarity": _FRACTION,
        "appearance_threshold": Text(
            r"auto|-?[01](?:\.[0-9]{0,12})?|-?\.[0-9]{1,12}",
            "auto or a number from -1 to 1",
        ),
        "link_tracklets": _FLAG,
        "mot_param": Text(
            r"[a-z_]{1,40}=[A-Za-z0-9_.+-]{1,40}(?:,[a-z_]{1,40}=[A-Za-z0-9_.+-]{1,40}){0,31}",
            "settings such as preset=paper",
            is_repeated=True,
        ),
    },
}
OPTIONS: Final[Mapping[str, Kind]] = {
    name: kind for group in OPTION_GROUPS.values() for name, kind in group.items()
}

_SHORT: Final = {
    "i": "data_path",
    "m": "model_paths",
    "o": "output_path",
    "d": "device",
    "b": "batch_size",
    "t": "tracking",
    "n": "max_instances",
}
_ALIASES: Final = {"peak_conf_threshold": "peak_threshold"}
_PLACES: Final = frozenset({"data_path", "model_paths", "output_path"})
# Matters of the machine that the script was made on, without meaning on a worker.
_LEFT_OUT_FLAGS: Final = frozenset({"gui"})
_LEFT_OUT_VALUES: Final = frozenset({"device", "paf_workers", "cpu_workers"})
_REASONS: Final[Mapping[str, str]] = {
    "headers": "a worker reads files of the package only, no web addresses",
    "stream_mode": "a worker reads files of the package only, no web addresses",
    "stream_to_file": "the worker chooses where results are written",
    "write_interval": "the worker chooses how results are written",
    "overlay_path": "the worker chooses where results are written",
    "output_format": "a worker returns SLEAP's own .slp",
    "backbone_ckpt_path": "models are named by their folders only",
    "head_ckpt_path": "models are named by their folders only",
    "runtime": "a worker runs trained models, not exported ones",
    "device": "the worker chooses its own device",
    "paf_workers": "the worker chooses how many processes it starts",
    "cpu_workers": "the worker chooses how many processes it starts",
    "gui": "the worker adds it by itself",
    **dict.fromkeys(
        (
            "mask_backend",
            "sam_checkpoint",
            "sam_model_type",
            "sam_prompt_mode",
            "sam_anchor_ind",
            "sam_disjointify_masks",
            "sam3_model_id",
        ),
        "segment-anything models are not sent to a worker",
    ),
}
# What chooses among the frames or videos of labels; a video has neither.
_OF_LABELS: Final = (
    "only_labeled_frames",
    "only_suggested_frames",
    "only_predicted_frames",
    "exclude_user_labeled",
    "video_index",
)
_PROGRAMS: Final = frozenset({"sleap", "sleap-nn", "sleap.exe", "sleap-nn.exe"})
_COMMANDS: Final = frozenset({"predict", "track", "infer"})
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,10}\Z")
_DECIMAL: Final = re.compile(
    r"[+-]?(?:[0-9]{1,20}\.?[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?\Z"
)


@dataclass(frozen=True)
class ParsedInference:
    """What an inference command line says.

    Attributes:
        data_path: as written there; it names a place on the client's machine.
        model_paths: the same, in their order.
        output_path: the same.
        options: checked options by their names; a flag has an empty value.
    """

    data_path: str | None = None
    model_paths: tuple[str, ...] = ()
    output_path: str | None = None
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedOption:
    """An option of sleap-nn, and whether the next word is its value."""

    name: str
    value_follows: bool


def option_named(word: str) -> NamedOption | None:
    """Return the option of sleap-nn that a word names, or None.

    Also those are known that a worker does not take, so that the reason can be told.
    """
    try:
        name, value = _split(word)
    except OptionRefused:
        return None
    if name not in (*OPTIONS, *_PLACES, *_LEFT_OUT_VALUES, *_LEFT_OUT_FLAGS, *_REASONS):
        return None
    is_flag = name in _LEFT_OUT_FLAGS or isinstance(OPTIONS.get(name), Flag)
    return NamedOption(name, value_follows=value is None and not is_flag)


def parse_argv(
    words: Sequence[str], *, max_frames_chars: int = MAX_OPTION_CHARS
) -> ParsedInference:
    """Read the words of a script line such as `sleap predict --data_path …`.

    Device and process options of the client's machine, and `--gui`, are left out.

    Args:
        words: after `shlex.split`, with or without the program and its command.
        max_frames_chars: how long the value of `--frames` may be; what is sent to a
            worker has to pass `check_options` all the same.

    Raises:
        OptionRefused: an option is unknown, not allowed, repeated or has a bad value.
    """
    rest = list(words)
    if rest and re.split(r"[/\\]", rest[0])[-1] in _PROGRAMS:
        rest.pop(0)
    if rest and rest[0] in _COMMANDS:
        rest.pop(0)
    places: dict[str, list[str]] = {}
    options: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        name, value = _split(word)
        if name in _LEFT_OUT_FLAGS:
            continue
        kind = OPTIONS.get(name)
        takes_value = (
            name in _PLACES or name in _LEFT_OUT_VALUES or not isinstance(kind, Flag)
        )
        if kind is None and name not in _PLACES and name not in _LEFT_OUT_VALUES:
            raise _refused(name or word, _unknown(name))
        if takes_value and value is None:
            if not rest:
                raise _refused(name, "its value is missing")
            value = rest.pop(0)
        if not takes_value and value is not None:
            raise _refused(name, "it takes no value")
        if name in _PLACES:
            places.setdefault(name, []).append(value or "")
        elif name not in _LEFT_OUT_VALUES:
            _add(options, name, value or "")
    for name in ("data_path", "output_path"):
        if len(places.get(name, ())) > 1:
            raise _refused(name, "it is given twice")
    return ParsedInference(
        data_path=places["data_path"][0] if "data_path" in places else None,
        model_paths=tuple(places.get("model_paths", ())),
        output_path=places["output_path"][0] if "output_path" in places else None,
        options=_checked(options, max_frames_chars),
    )


def frame_numbers(value: str) -> Sequence[int]:
    """Return the frames that a value of `--frames` means, as sleap-nn reads it.

    `0-99` and SLEAP's own `0,-99` are the frames from the first to the last, both
    included; anything else is a list.

    Raises:
        OptionRefused: it is neither.
    """
    fault = _fault(OPTIONS["frames"], value)
    if fault:
        raise _refused("frames", f"it {fault}, not {clean_text(value, 40) or 'empty'}")
    first, dash, last = value.partition("-")
    if dash:
        return range(int(first.rstrip(",")), int(last) + 1)
    return [int(number) for number in value.split(",")]


def check_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options if each is known and its value is of its kind.

    Raises:
        OptionRefused: one is not.
    """
    return _checked(options, MAX_OPTION_CHARS)


def check_video_options(options: Mapping[str, str]) -> None:
    """Check that options mean something where the data is a video.

    Raises:
        OptionRefused: one only means something for labels.
    """
    for name in _OF_LABELS:
        if name in options:
            raise _refused(name, "it chooses from labels, and the data is a video")


def _checked(options: Mapping[str, str], max_frames_chars: int) -> dict[str, str]:
    if len(options) > MAX_STEP_OPTIONS:
        raise _refused("list", f"it has more than {MAX_STEP_OPTIONS} entries")
    for name, value in options.items():
        kind = OPTIONS.get(name)
        if kind is None:
            raise _refused(name, _unknown(name))
        longest = max_frames_chars if name == "frames" else MAX_OPTION_CHARS
        if len(value) > longest:
            raise _refused(name, f"it is longer than {longest} characters")
        fault = _fault(kind, value)
        if fault:
            raise _refused(name, f"it {fault}, not {clean_text(value, 40) or 'empty'}")
    return dict(options)


def to_argv(options: Mapping[str, str]) -> list[str]:
    """Rebuild the words for `sleap-nn predict` from checked options.

    A value is bound to its name with `=`, so none can begin an option of its own.

    Raises:
        OptionRefused: an option or its value is not allowed.
    """
    words = []
    for name, value in check_options(options).items():
        kind = OPTIONS[name]
        if isinstance(kind, Flag):
            words.append(f"--{name}")
        elif isinstance(kind, Text) and kind.is_repeated:
            words += [f"--{name}={part}" for part in value.split(",")]
        else:
            words.append(f"--{name}={value}")
    return words


def _split(word: str) -> tuple[str, str | None]:
    """Split a word into the option's name in the table and a value bound to it."""
    if word.startswith("--") and len(word) > 2:
        spelled, equals, value = word[2:].partition("=")
        name = spelled.replace("-", "_")
        if name.startswith("no_") and f"no-{name[3:]}" in OPTIONS:
            name = f"no-{name[3:]}"
        return _ALIASES.get(name, name), value if equals else None
    if len(word) > 1 and word[0] == "-" and word[1] in _SHORT:
        return _SHORT[word[1]], word[2:] or None
    raise _refused(word, "it is not an option")


def _add(options: dict[str, str], name: str, value: str) -> None:
    kind = OPTIONS[name]
    if name in options and isinstance(kind, Text) and kind.is_repeated:
        options[name] = f"{options[name]},{value}"
    elif options.get(name, value) != value:
        raise _refused(name, "it is given twice with different values")
    else:
        options[name] = value


def _fault(kind: Kind, value: str) -> str | None:
    match kind:
        case Flag():
            return "takes no value" if value else None
        case Integer(low, high):
            if not _WHOLE.match(value) or not low <= int(value) <= high:
                return f"must be a whole number from {low} to {high}"
        case Number(low, high):
            if not _DECIMAL.match(value):
                return "must be a number"
            number = float(value)
            if not math.isfinite(number) or not low <= number <= high:
                return f"must be a number from {low:g} to {high:g}"
        case Choice(words):
            if value not in words:
                return f"must be one of {', '.join(words)}"
        case Text(pattern, what):
            if not re.fullmatch(pattern, value):
                return f"must be {what}"
    return None


def _unknown(name: str) -> str:
    return _REASONS.get(name, "it is not known to this version of sleap-rtc-plugin")


def _refused(name: str, reason: str) -> OptionRefused:
    shown = clean_text(name, MAX_DISPLAY_NAME_LENGTH).lstrip("-") or "without a name"
    return OptionRefused(option=f"--{shown}", reason=reason)

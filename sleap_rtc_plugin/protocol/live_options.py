"""Which inference options mean something for single frames that come one by one.

A part of the table in `inference_options`: what chooses frames, tracks over many of
them, or says how a file is written is not in it. The client asks before it connects,
the worker before it loads a model, and turns the texts into values.
"""

from collections.abc import Mapping
from typing import Final

from sleap_rtc_plugin.protocol.errors import OptionRefused
from sleap_rtc_plugin.protocol.inference_options import (
    OPTIONS,
    Flag,
    Integer,
    Number,
    check_options,
)

__all__ = ["LIVE_OPTIONS", "check_live_options", "live_values"]

LIVE_OPTIONS: Final = frozenset(
    {
        "peak_threshold",
        "centroid_peak_threshold",
        "integral_refinement",
        "integral_patch_size",
        "max_instances",
        "anchor_part",
        "max_edge_length_ratio",
        "dist_penalty_weight",
        "n_points",
        "min_instance_peaks",
        "min_line_scores",
        # -- how an image is prepared
        "ensure_rgb",
        "no-ensure_rgb",
        "ensure_grayscale",
        "no-ensure_grayscale",
        "max_height",
        "max_width",
        "input_scale",
        "crop_size",
        # -- which instances are left out
        "filter_overlapping",
        "filter_overlapping_method",
        "filter_overlapping_threshold",
        "filter_min_visible_nodes",
        "filter_min_visible_node_fraction",
        "filter_min_mean_node_score",
        "filter_min_instance_score",
        "filter_min_centroid_distance",
    }
)


def check_live_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options if each is allowed for live frames and its value is fit.

    Raises:
        OptionRefused: one is not.
    """
    checked = check_options(options)
    for name in checked:
        if name not in LIVE_OPTIONS:
            raise OptionRefused(
                option=f"--{name}", reason="it has no meaning for live frames"
            )
    return checked


def live_values(options: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    """Return the values of options, by sleap-nn's names for them.

    Raises:
        OptionRefused: an option or its value is not allowed.
    """
    values: dict[str, str | int | float | bool] = {}
    for name, text in check_live_options(options).items():
        kind = OPTIONS[name]
        if isinstance(kind, Flag):
            values[name.removeprefix("no-")] = not name.startswith("no-")
        elif isinstance(kind, Integer):
            values[name] = int(text)
        elif isinstance(kind, Number):
            values[name] = float(text)
        else:
            values[name] = text
    return values

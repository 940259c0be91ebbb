"""Draws how long the answers of a live session took, as one PNG.

Needs matplotlib, which the worker and SLEAP bring; imported when something is drawn,
and never through its global state. Called by the command `live`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import BadRequest
from sleap_rtc_plugin.session.live_figures import quantile
from sleap_rtc_plugin.transport.effects import storage_error

__all__ = ["plot_latencies"]

_DPI: Final = 150
_SIZE_INCHES: Final = (6.4, 3.4)
_BINS: Final = 60
# Above the bars is room for the words.
_HEADROOM: Final = 1.3
# Okabe and Ito's blue and vermilion: told apart with every kind of colour vision.
_BAR_COLOUR: Final = "#0072B2"
_LINE_COLOUR: Final = "#D55E00"


def plot_latencies(path: Path, latencies_ms: Sequence[float], title: str) -> None:
    """Write a histogram with its median, 95th and 99th percentile.

    Args:
        path: where to.
        latencies_ms: how long each answer took, in milliseconds; at least one.
        title: above the picture; taken as it is.

    Raises:
        BadRequest: matplotlib is not installed.
        RtcError: the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise BadRequest(
            reason="--plot draws with matplotlib; `pip install matplotlib` adds it"
        ) from None
    figure: Any = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ordered = sorted(latencies_ms)
    bins = min(_BINS, max(5, len(ordered) // 3))
    counts, *_ = axes.hist(ordered, bins=bins, color=_BAR_COLOUR)
    axes.set_ylim(top=max(counts) * _HEADROOM)
    for part, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %")):
        value = quantile(ordered, part)
        axes.axvline(value, color=_LINE_COLOUR, linewidth=1)
        axes.annotate(
            f"{name} {value:.0f}",
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=7,
            ha="right",
            va="top",
        )
    axes.set_xlabel("from taking a frame to its instances, in ms")
    axes.set_ylabel("frames")
    axes.set_title(title.replace("$", r"\$"), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise storage_error(error, path) from error

"""A picture of `bench transfer --paths`: MB/s of each engine on each path.

Drawn with matplotlib where that is installed, for the screen and for paper. Draws rows
and reads nothing else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["SUFFIXES", "draw_paths"]

SUFFIXES: Final = (".png", ".svg")
# Colors that differ in gray too, and shapes that do without any.
_LOOKS: Final = {
    "stock": ("#8a8a8a", "s"),
    "fast": ("#1f5fa8", "o"),
    "fast+rate": ("#5aa5e0", "D"),
    "TCP+TLS": ("#222222", "^"),
}
_GROUP_WIDTH: Final = 0.8
_DPI: Final = 160
_WHOLE_FROM: Final = 10  # MB/s


def draw_paths(rows: Sequence[dict[str, Any]], file: Path) -> bool:
    """Draw the paths among the rows; return whether there was anything to draw.

    Args:
        rows: of the benchmark's result.
        file: a PNG or SVG.

    Raises:
        OSError: it cannot be written.
    """
    speeds = {
        (row["case"], row["engine"]): row["mb_per_s"]
        for row in rows
        if "control_p99_ms" in row and "tcp_mb_per_s" not in row and row["mb_per_s"]
    }
    if not speeds:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(case for case, _ in speeds))
    engines = [name for name in _LOOKS if any(name == each for _, each in speeds)]
    figure = Figure(figsize=(max(5.0, 1.7 * len(cases) + 1), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = _GROUP_WIDTH / len(engines)
    for number, engine in enumerate(engines):
        shift = (number - (len(engines) - 1) / 2) * width
        places = [
            (at + shift, speeds[case, engine])
            for at, case in enumerate(cases)
            if (case, engine) in speeds
        ]
        color, marker = _LOOKS[engine]
        # Dots, since bars on a logarithmic axis begin nowhere.
        axes.plot(*zip(*places, strict=True), marker, color=color, label=engine)
        for place in places:
            axes.annotate(
                f"{place[1]:.2g}" if place[1] < _WHOLE_FROM else f"{place[1]:.0f}",
                place,
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    for between in range(1, len(cases)):
        axes.axvline(between - 0.5, color="#dddddd", linewidth=0.6)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("MB/s (logarithmic)")
    axes.set_xticks(range(len(cases)), cases)
    axes.set_xlabel("path: round trip, loss")
    axes.set_xlim(-0.5, len(cases) - 0.5)
    axes.margins(y=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=len(engines), frameon=False)
    figure.savefig(file, dpi=_DPI, facecolor="white")
    return True

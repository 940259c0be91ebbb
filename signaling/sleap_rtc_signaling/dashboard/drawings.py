"""PURE: curves as SVG, drawn on the server, so that the page needs no script for them.

Numbers in, markup out; whatever is text is escaped. Colours and fonts are the style
sheet's: an SVG here has classes and no style. Called by the pages.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

__all__ = ["Series", "loss_plot", "number_words", "sparkline"]

_SPARK_WIDTH: Final = 132
_SPARK_HEIGHT: Final = 28
_SPARK_PAD: Final = 3
# Beyond this ratio of the largest to the smallest, a linear scale shows a corner.
_LOG_RATIO: Final = 10.0
_TINY: Final = 1e-12
_HUGE: Final = 1e12

_PLOT_WIDTH: Final = 720
_PLOT_HEIGHT: Final = 260
_LEFT: Final = 64
_RIGHT: Final = 84
_TOP: Final = 12
_BOTTOM: Final = 34
_Y_TICKS: Final = 4
_X_TICKS: Final = 6
_LABEL_GAP: Final = 14

_Place = Callable[[float], float]


class Series(NamedTuple):
    """One line of a plot: its name, its class of style, epochs and losses in order."""

    name: str
    style: str
    points: Sequence[tuple[int, float]]


class _Scale(NamedTuple):
    """Losses to heights: 0 is the lowest, 1 the highest."""

    low: float
    high: float
    is_log: bool

    def at(self, value: float) -> float:
        position = (_log(value) if self.is_log else value) - self.low
        span = self.high - self.low
        return min(1.0, max(0.0, position / span)) if span > 0 else 0.5

    def value(self, at: float) -> float:
        position: float = self.low + at * (self.high - self.low)
        return 10**position if self.is_log else position


def number_words(value: float) -> str:
    """Write a loss with three significant digits."""
    size = abs(value)
    if size and (size < 0.001 or size >= 100_000):
        return f"{value:.2e}"
    digits = 3 - 1 - (math.floor(math.log10(size)) if size else 0)
    return f"{value:.{max(0, digits)}f}"


def sparkline(losses: Sequence[float]) -> Markup:
    """Draw a small curve without axes; nothing for less than two points."""
    if len(losses) < 2:
        return Markup("")
    scale = _scale(losses)
    width = _SPARK_WIDTH - 2 * _SPARK_PAD
    height = _SPARK_HEIGHT - 2 * _SPARK_PAD
    spots = [
        (
            _SPARK_PAD + width * index / (len(losses) - 1),
            _SPARK_PAD + height * (1 - scale.at(loss)),
        )
        for index, loss in enumerate(losses)
    ]
    said = f"Loss from {number_words(losses[0])} to {number_words(losses[-1])}"
    end_x, end_y = spots[-1]
    return Markup(
        '<svg class="spark" role="img" aria-label="{said}" viewBox="0 0 {w} {h}" '
        'width="{w}" height="{h}"><polyline points="{points}"/>'
        '<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    ).format(
        said=said,
        w=_SPARK_WIDTH,
        h=_SPARK_HEIGHT,
        points=_points(spots),
        x=end_x,
        y=end_y,
    )


def loss_plot(series: Sequence[Series], said: str) -> Markup:
    """Draw losses over epochs with axes; nothing without a line to draw.

    Args:
        series: what to draw; told apart by dashes and by their names at the end.
        said: what the plot shows, for whoever cannot see it.
    """
    drawn = [one for one in series if len(one.points) > 1]
    if not drawn:
        return Markup("")
    scale = _scale([loss for one in drawn for _, loss in one.points])
    first = min(one.points[0][0] for one in drawn)
    last = max(one.points[-1][0] for one in drawn)
    width = _PLOT_WIDTH - _LEFT - _RIGHT
    height = _PLOT_HEIGHT - _TOP - _BOTTOM

    def x(epoch: float) -> float:
        return _LEFT + width * (epoch - first) / max(1, last - first)

    def y(at: float) -> float:
        return _TOP + height * (1 - at)

    parts = [_grid(scale, y), _epochs(first, last, x)]
    labels = sorted(
        (y(scale.at(one.points[-1][1])), x(one.points[-1][0]), one) for one in drawn
    )
    below = -math.inf
    for end_y, end_x, one in labels:
        spots = [(x(epoch), y(scale.at(loss))) for epoch, loss in one.points]
        below = max(end_y, below + _LABEL_GAP)
        parts.append(
            Markup(
                '<polyline class="{style}" points="{points}"/>'
                '<text class="{style}" x="{x:.1f}" y="{y:.1f}">{name}</text>'
            ).format(
                style=one.style,
                points=_points(spots),
                x=end_x + 8,
                y=below + 4,
                name=one.name,
            )
        )
    return Markup(
        '<svg class="plot" role="img" aria-label="{said}" viewBox="0 0 {w} {h}">'
        "{parts}</svg>"
    ).format(said=said, w=_PLOT_WIDTH, h=_PLOT_HEIGHT, parts=Markup("").join(parts))


def _grid(scale: _Scale, y: _Place) -> Markup:
    lines = [
        Markup(
            '<line class="grid" x1="{x1}" x2="{x2}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="tick end" x="{tx}" y="{ty:.1f}">{word}</text>'
        ).format(
            x1=_LEFT,
            x2=_PLOT_WIDTH - _RIGHT,
            y=y(at),
            tx=_LEFT - 8,
            ty=y(at) + 4,
            word=number_words(scale.value(at)),
        )
        for at in (index / _Y_TICKS for index in range(_Y_TICKS + 1))
    ]
    return Markup("").join(lines)


def _epochs(first: int, last: int, x: _Place) -> Markup:
    step = max(1, _round_step((last - first) / _X_TICKS))
    ticks = range(first - first % -step, last + 1, step)
    words = [
        Markup('<text class="tick mid" x="{x:.1f}" y="{y}">{word}</text>').format(
            x=x(epoch), y=_PLOT_HEIGHT - _BOTTOM + 16, word=epoch
        )
        for epoch in ticks
    ]
    words.append(
        Markup('<text class="tick mid" x="{x:.1f}" y="{y}">epoch</text>').format(
            x=(_LEFT + _PLOT_WIDTH - _RIGHT) / 2, y=_PLOT_HEIGHT - 3
        )
    )
    return Markup("").join(words)


def _round_step(wanted: float) -> int:
    if wanted <= 1:
        return 1
    power = 10 ** math.floor(math.log10(wanted))
    return int(next(m * power for m in (1, 2, 5, 10) if m * power >= wanted))


def _scale(losses: Sequence[float]) -> _Scale:
    bounded = [min(max(loss, -_HUGE), _HUGE) for loss in losses]
    low, high = min(bounded), max(bounded)
    if low > 0 and high / low > _LOG_RATIO:
        return _Scale(_log(low), _log(high), is_log=True)
    return _Scale(low, high, is_log=False)


def _log(value: float) -> float:
    return math.log10(min(max(value, _TINY), _HUGE))


def _points(spots: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)

"""Draws a model's loss curves: training and validation, in the desktop's colours.

A small widget of its own, since a plotting library would take longer to load than the
rest of the browser. What is drawn where is pure and stands first; the losses are a
peer's, so what is no finite, positive number is left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from sleap_rtc_plugin.protocol.model_records import CurvePoint

__all__ = ["CurveScale", "LossCurve", "scale_of", "segments"]

_TRAIN: Final = QColor("#3b82c4")
_VAL: Final = QColor("#e08a1e")
_TICKS: Final = 4
_MARGIN_PX: Final = 6
_LINE_WIDTH: Final = 1.8
_LEAST_DECADES: Final = 0.2
_SIZE: Final = (280, 130)
_LEAST_HEIGHT: Final = 90


@dataclass(frozen=True)
class CurveScale:
    """What the axes span: epochs, and the decimal logarithms of losses."""

    first: int
    last: int
    low: float
    high: float

    def place(self, epoch: int, loss: float) -> tuple[float, float]:
        """Return where a loss is, from 0 to 1 to the right and downwards."""
        x = (epoch - self.first) / max(1, self.last - self.first)
        y = (self.high - math.log10(loss)) / (self.high - self.low)
        return x, y


def _is_drawn(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss) and loss > 0


def scale_of(curve: Sequence[CurvePoint]) -> CurveScale | None:
    """Return what the axes of a curve span, or None where nothing can be drawn."""
    losses = [
        math.log10(loss)
        for point in curve
        for loss in (point.train, point.val)
        if loss is not None and _is_drawn(loss)
    ]
    if not losses:
        return None
    low, high = min(losses), max(losses)
    if high - low < _LEAST_DECADES:
        middle = (low + high) / 2
        low, high = middle - _LEAST_DECADES / 2, middle + _LEAST_DECADES / 2
    epochs = [point.epoch for point in curve]
    return CurveScale(min(epochs), max(epochs), low, high)


def segments(
    curve: Sequence[CurvePoint], which: str, scale: CurveScale
) -> list[list[tuple[float, float]]]:
    """Return the lines of a curve, cut where losses are missing.

    Args:
        curve: the epochs, in order.
        which: `train` or `val`.
        scale: the axes.
    """
    lines: list[list[tuple[float, float]]] = [[]]
    for point in curve:
        loss = point.train if which == "train" else point.val
        if loss is not None and _is_drawn(loss):
            lines[-1].append(scale.place(point.epoch, loss))
        elif lines[-1]:
            lines.append([])
    return [line for line in lines if line]


class LossCurve(QWidget):
    """One loss curve with its axes and what its colours mean."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Begin with nothing to draw."""
        super().__init__(parent)
        self.setObjectName("lossCurve")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._title = ""
        self._curve: list[CurvePoint] = []

    def show_curve(self, title: str, curve: Sequence[CurvePoint]) -> None:
        """Draw this curve; `title` is plain text."""
        self._title, self._curve = title, list(curve)
        scale = scale_of(curve)
        words = "There is no loss curve."
        if scale is not None:
            words = (
                f"Loss by epoch, from epoch {scale.first + 1} to {scale.last + 1}, "
                f"between {10**scale.low:.2e} and {10**scale.high:.2e}"
            )
        self.setAccessibleName(f"Loss curve {title}".strip())
        self.setAccessibleDescription(words)
        self.update()

    def sizeHint(self) -> QSize:
        """Return how large it likes to be."""
        return QSize(*_SIZE)

    def minimumSizeHint(self) -> QSize:
        """Return how small it still can be read."""
        return QSize(_SIZE[0] // 2, _LEAST_HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette = self.palette()
        text = palette.color(QPalette.ColorRole.Text)
        faint = palette.color(QPalette.ColorRole.PlaceholderText)
        font = self.font()
        font.setPointSizeF(max(7.0, font.pointSizeF() * 0.85))
        painter.setFont(font)
        line = painter.fontMetrics().height()
        painter.setPen(text)
        top = QRectF(0, 0, self.width(), line)
        painter.drawText(top, int(Qt.AlignmentFlag.AlignLeft), self._title)
        scale = scale_of(self._curve)
        if scale is None:
            painter.setPen(faint)
            painter.drawText(
                QRectF(self.rect()),
                int(Qt.AlignmentFlag.AlignCenter),
                "No loss curve" if self._title else "",
            )
            painter.end()
            return
        self._draw_key(painter, line)
        labels = painter.fontMetrics().horizontalAdvance("0.0e-00") + _MARGIN_PX
        area = QRectF(
            labels,
            line + 2 * _MARGIN_PX,
            max(1, self.width() - labels - _MARGIN_PX),
            max(1, self.height() - 2 * line - 4 * _MARGIN_PX),
        )
        self._draw_axes(painter, area, scale, faint, line)
        for which, color in (("train", _TRAIN), ("val", _VAL)):
            painter.setPen(QPen(color, _LINE_WIDTH))
            for points in segments(self._curve, which, scale):
                places = [
                    QPointF(
                        area.left() + x * area.width(), area.top() + y * area.height()
                    )
                    for x, y in points
                ]
                if len(places) == 1:
                    painter.setBrush(color)
                    painter.drawEllipse(places[0], _LINE_WIDTH, _LINE_WIDTH)
                else:
                    painter.drawPolyline(QPolygonF(places))
        painter.end()

    def _draw_key(self, painter: QPainter, line: int) -> None:
        """Say at the upper right what the colours mean."""
        right = float(self.width() - _MARGIN_PX)
        for words, color in (("validation", _VAL), ("training", _TRAIN)):
            width = painter.fontMetrics().horizontalAdvance(words)
            painter.setPen(self.palette().color(QPalette.ColorRole.Text))
            place = QRectF(right - width, 0, width, line)
            painter.drawText(place, int(Qt.AlignmentFlag.AlignRight), words)
            right -= width + _MARGIN_PX
            painter.setPen(QPen(color, 2 * _LINE_WIDTH))
            painter.drawLine(
                QPointF(right - 2 * _MARGIN_PX, line / 2), QPointF(right, line / 2)
            )
            right -= 4 * _MARGIN_PX

    def _draw_axes(
        self,
        painter: QPainter,
        area: QRectF,
        scale: CurveScale,
        color: QColor,
        line: int,
    ) -> None:
        grid = QColor(color)
        grid.setAlphaF(0.2)
        for tick in range(_TICKS):
            share = tick / (_TICKS - 1)
            y = area.top() + share * area.height()
            painter.setPen(QPen(grid, 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            loss = 10 ** (scale.high - share * (scale.high - scale.low))
            painter.setPen(color)
            place = QRectF(0, y - line / 2, area.left() - _MARGIN_PX, line)
            flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(place, int(flags), f"{loss:.1e}")
        below = QRectF(area.left(), area.bottom() + _MARGIN_PX, area.width(), line)
        painter.drawText(
            below, int(Qt.AlignmentFlag.AlignLeft), f"epoch {scale.first + 1}"
        )
        painter.drawText(below, int(Qt.AlignmentFlag.AlignRight), f"{scale.last + 1}")

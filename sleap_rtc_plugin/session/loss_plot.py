"""Draws how the losses of a job's models fell, as one PNG.

Reads the `training_log.csv` that sleap-nn writes beside each model. Called after a job
by the command line; needs matplotlib, imported when something is drawn and never
through its global state.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MIB

__all__ = ["Losses", "plot_losses", "read_losses"]

MAX_LOG_BYTES: Final = 64 * MIB
MAX_LOG_EPOCHS: Final = 100_000
_DPI: Final = 200
_PANEL_INCHES: Final = (3.6, 2.9)
# Beyond this ratio a straight scale hides the later epochs.
_LOG_SCALE_RATIO: Final = 8.0
_FEW_DECADES_RATIO: Final = 1000.0
_SEARCHED_EPOCHS: Final = 1000
_MARKED_EPOCHS: Final = 40
# Okabe and Ito's blue and vermilion: told apart with every kind of colour vision.
_TRAIN_COLOUR: Final = "#0072B2"
_VALIDATION_COLOUR: Final = "#D55E00"
_INK: Final = "#222222"
_FAINT: Final = "#DDDDDD"
_HEAD: Final = re.compile(r"[a-z][a-z_]*\Z")


@dataclass(frozen=True)
class Losses:
    """The losses of one training: points `(epoch, loss)`, only finite ones."""

    train: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]

    @property
    def best(self) -> tuple[int, float] | None:
        """Return the point of the lowest validation loss, which is what is kept."""
        return min(self.validation, key=lambda point: point[1], default=None)


def read_losses(log: Path) -> Losses:
    """Read the losses of a `training_log.csv`.

    A log without usable rows gives empty losses.

    Raises:
        ValueError: it is larger than any real log, or not text.
        OSError: it cannot be read.
    """
    if log.stat().st_size > MAX_LOG_BYTES:
        raise ValueError(f"The training log {log} is too large to draw.")
    train: list[tuple[int, float]] = []
    validation: list[tuple[int, float]] = []
    with log.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if number >= MAX_LOG_EPOCHS:
                raise ValueError(f"The training log {log} has too many epochs to draw.")
            epoch = _number(row.get("epoch"))
            if epoch is None:
                continue
            for key, points in (("train/loss", train), ("val/loss", validation)):
                loss = _number(row.get(key))
                if loss is not None:
                    points.append((int(epoch), loss))
    return Losses(train=tuple(train), validation=tuple(validation))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _title(name: str) -> str:
    """Return a panel's title: a head's name in words, anything else as it is."""
    if _HEAD.match(name):
        return name.replace("_", " ").capitalize()
    return clean_text(name, 60)


def plot_losses(logs: Mapping[str, Path], out: Path) -> None:
    """Draw training and validation loss by epoch, one panel a model.

    Args:
        logs: `training_log.csv` by the model's type (`centered_instance`) or name.
        out: the PNG; an existing one is replaced once the new one is complete.

    Raises:
        ValueError: there is no log, or one is not a training log.
        OSError: a log cannot be read or the PNG not written.
    """
    if not logs:
        raise ValueError("There is no training log to draw.")
    losses = {name: read_losses(log) for name, log in logs.items()}

    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _PANEL_INCHES
    with mpl.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width * len(losses), height), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(losses), squeeze=False)[0]
        for panel, (name, points) in zip(panels, losses.items(), strict=True):
            _draw_panel(panel, _title(name), points)
        panels[0].set_ylabel("Loss")
        unfinished = out.with_name(f".{out.name}.part")
        canvas.print_figure(unfinished, format="png", dpi=_DPI)
    unfinished.replace(out)


def _draw_panel(panel: Any, title: str, losses: Losses) -> None:
    panel.set_title(title, loc="left", fontweight="bold", color=_INK, pad=8)
    panel.set_xlabel("Epoch")
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(_INK)
    panel.tick_params(colors=_INK)
    panel.grid(axis="y", color=_FAINT, linewidth=0.6)
    panel.set_axisbelow(True)
    if not losses.train and not losses.validation:
        panel.text(0.5, 0.5, "no losses in the log", ha="center", va="center")
        return
    _draw_line(panel, losses.train, "Training", _TRAIN_COLOUR, "o")
    _draw_line(panel, losses.validation, "Validation", _VALIDATION_COLOUR, "s")
    _mark_best(panel, losses)
    _scale(panel, [loss for _, loss in (*losses.train, *losses.validation)])
    is_short = len(losses.train) <= _SEARCHED_EPOCHS
    place = "best" if is_short else "upper right"  # the search is slow over many
    panel.legend(frameon=False, handlelength=1.6, loc=place)


def _draw_line(
    panel: Any,
    points: Sequence[tuple[int, float]],
    label: str,
    colour: str,
    marker: str,
) -> None:
    if not points:
        return
    epochs, values = zip(*points, strict=True)
    panel.plot(
        epochs,
        values,
        color=colour,
        label=label,
        linewidth=1.6,
        marker=marker if len(points) <= _MARKED_EPOCHS else None,
        markersize=3.5,
    )


def _mark_best(panel: Any, losses: Losses) -> None:
    """Ring the epoch whose weights sleap-nn keeps as `best.ckpt`."""
    if losses.best is None:
        return
    epoch, loss = losses.best
    panel.plot(
        [epoch],
        [loss],
        linestyle="none",
        marker="o",
        markersize=8.5,
        markerfacecolor="none",
        markeredgecolor=_INK,
        markeredgewidth=1.0,
        label=f"Best: {loss:.2g} (epoch {epoch})",
    )


def _scale(panel: Any, values: Sequence[float]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    lowest, highest = min(values), max(values)
    if lowest > 0 and highest / lowest > _LOG_SCALE_RATIO:
        panel.set_yscale("log")
        # Over few decades, ticks at powers of ten alone would leave one or two.
        is_narrow = highest / lowest < _FEW_DECADES_RATIO
        steps = (1.0, 2.0, 5.0) if is_narrow else (1.0,)
        panel.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
    else:
        panel.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
        panel.set_ylim(bottom=min(0.0, lowest))

"""The losses that are read from logs, and that a picture comes of them."""

from pathlib import Path

import pytest

from sleap_rtc_plugin.session import loss_plot
from sleap_rtc_plugin.session.loss_plot import plot_losses, read_losses

LOG = (
    "epoch,train/loss,val/loss,learning_rate\n"
    "0,,0.4,\n"
    "1,0.5,0.1,0.001\n"
    "2,0.05,inf,0.001\n"
    "3,nan,0.2,0.001\n"
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "training_log.csv"
    path.write_text(LOG)
    return path


def test_losses(log: Path) -> None:
    losses = read_losses(log)
    assert losses.train == ((1, 0.5), (2, 0.05))
    assert losses.validation == ((0, 0.4), (1, 0.1), (3, 0.2))
    assert losses.best == (1, 0.1)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "epoch\nx\n"])
def test_log_without_losses(log: Path, text: str) -> None:
    log.write_text(text)
    assert read_losses(log).best is None
    plot_losses({"centroid": log}, log.with_name("a.png"))


def test_log_too_large(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_plot, "MAX_LOG_EPOCHS", 2)
    with pytest.raises(ValueError, match="too many epochs"):
        read_losses(log)
    monkeypatch.setattr(loss_plot, "MAX_LOG_BYTES", 2)
    with pytest.raises(ValueError, match="too large"):
        read_losses(log)


def size_of(png: Path) -> tuple[int, int]:
    data = png.read_bytes()
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_one_panel_a_model(log: Path) -> None:
    out = log.with_name("losses.png")
    plot_losses({"centroid": log}, out)
    one = size_of(out)
    plot_losses({"centroid": log, "a $model$ named\x07 by a person": log}, out)
    assert size_of(out) == (2 * one[0], one[1])
    assert [p.name for p in log.parent.iterdir() if p != log] == ["losses.png"]


def test_straight_scale_and_a_single_epoch(log: Path) -> None:
    log.write_text("epoch,train/loss,val/loss\n1,0.5,0.4\n")
    plot_losses({"centroid": log}, log.with_name("a.png"))


def test_no_logs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no training log"):
        plot_losses({}, tmp_path / "a.png")

"""The process that holds a live session's model: images in, instances out.

Started as `python -P -m sleap_rtc_worker.live_runner` by `live_process`, for one
session. It reads `live_records` from stdin and answers each on stdout; decoding a
stranger's image, loading a model and torch itself happen nowhere else. It ends when
its stdin does.
"""

import io
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_LIVE_INSTANCES,
    MAX_LIVE_NODES,
)
from sleap_rtc_plugin.protocol.live_messages import ImageFormat, LiveInstance
from sleap_rtc_plugin.protocol.live_options import LIVE_OPTIONS, live_values
from sleap_rtc_worker.limits import MAX_LIVE_REASON_CHARS
from sleap_rtc_worker.live_records import (
    LENGTH,
    MAX_ORDER_BYTES,
    Failed,
    Found,
    Loaded,
    LoadModel,
    PredictFrame,
    RunnerAnswer,
    RunnerOrder,
    decode_order,
    encode_record,
)

__all__ = ["FramePredictor", "decode_image", "main", "serve"]

_CHECKPOINT: Final = "best.ckpt"
_PREPROCESSING: Final[Mapping[str, str]] = {
    "ensure_rgb": "ensure_rgb",
    "ensure_grayscale": "ensure_grayscale",
    "max_height": "max_height",
    "max_width": "max_width",
    "input_scale": "scale",
    "crop_size": "crop_size",
}
_FILTERS: Final[Mapping[str, str]] = {
    name: name.removeprefix("filter_")
    for name in LIVE_OPTIONS
    if name.startswith("filter_")
}
_LOADING: Final = (
    "anchor_part",
    "max_edge_length_ratio",
    "dist_penalty_weight",
    "n_points",
    "min_instance_peaks",
    "min_line_scores",
)


class FramePredictor(Protocol):
    """A loaded model."""

    loaded: Loaded

    def predict(self, image: Any) -> list[LiveInstance]:
        """Return what is in an image of shape (height, width, channels), uint8."""


def decode_image(
    data: bytes, image_format: ImageFormat, width: int, height: int, channels: int
) -> Any:
    """Return the pixels of an image, shape (height, width, channels), uint8.

    What the image says of itself is checked before a single pixel is decoded.

    Raises:
        ValueError: it is no image of this format, size and kind.
    """
    import numpy as np
    from PIL import Image

    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(io.BytesIO(data), formats=[image_format.upper()]) as image:
            if image.size != (width, height) or image.mode != mode:
                raise ValueError(
                    f"a frame of {image.width} x {image.height} pixels ({image.mode}) "
                    f"came, not of {width} x {height} ({mode})"
                )
            pixels = np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"a frame is no {image_format} image ({error})") from None
    return pixels.reshape(height, width, channels)


class _SleapNN:
    """A model as sleap-nn runs it, with the arguments that its own command gives."""

    def __init__(self, order: LoadModel) -> None:
        import sleap_io
        import torch
        from sleap_nn.inference.predictor import Predictor

        for folder in order.folders:
            # sleap-nn unpickles what it loads; this refuses code.
            checkpoint = Path(folder, _CHECKPOINT)
            torch.load(checkpoint, map_location="cpu", weights_only=True)
        values = live_values(order.options)
        peak = values.get("peak_threshold", 0.2)
        limit = {k: v for k, v in values.items() if k == "max_instances"}
        device = _device()
        self._predictor = Predictor.from_model_paths(
            list(order.folders),
            device=device,
            batch_size=1,
            peak_threshold=peak,
            **limit,
            **{name: values[name] for name in _LOADING if name in values},
            **_preprocessing(values),
            **_filtering(values),
        )
        self._arguments = {
            "peak_threshold": peak,
            "centroid_threshold": values.get("centroid_peak_threshold") or peak,
            "keypoint_threshold": peak,
            "integral_refinement": values.get("integral_refinement", "integral"),
            "integral_patch_size": values.get("integral_patch_size", 5),
            **limit,
        }
        self._video = sleap_io.Video(filename="live", backend=None, open_backend=False)
        image: Any = _gray(order)
        # Also what sleap-nn would do at the first frame only is done now.
        labels = self._labels(image)
        skeleton = (labels.skeletons or [self._predictor.skeleton])[0]
        if skeleton is None:
            raise ValueError("it finds no body parts, and only those can be sent")
        nodes = [clean_text(name) for name in skeleton.node_names]
        if len(nodes) > MAX_LIVE_NODES:
            raise ValueError(f"it has more than {MAX_LIVE_NODES} body parts")
        edges = [(int(a), int(b)) for a, b in skeleton.edge_inds]
        self.loaded = Loaded(nodes=nodes, edges=edges[:MAX_LIVE_NODES], device=device)

    def _labels(self, image: Any) -> Any:
        outputs = self._predictor.predict(
            image[None], make_labels=False, **self._arguments
        )
        return self._predictor.to_labels(
            outputs, videos=[self._video], keep_empty_frames=True
        )

    def predict(self, image: Any) -> list[LiveInstance]:
        found = [
            _instance(instance)
            for frame in self._labels(image).labeled_frames
            for instance in frame.instances
        ]
        found.sort(key=lambda instance: instance.score, reverse=True)
        return found[:MAX_LIVE_INSTANCES]


def _instance(instance: Any) -> LiveInstance:
    points = instance.numpy(scores=True)
    return LiveInstance(
        score=_finite(instance.score) or 0.0,
        track=clean_text(instance.track.name) if instance.track is not None else "",
        points=[
            (_finite(x), _finite(y), _finite(score) or 0.0) for x, y, score in points
        ],
    )


def _finite(value: Any) -> float | None:
    """Return a number as it is, or None where it is none."""
    number = float(value)
    return number if abs(number) < float("inf") else None


def _gray(order: LoadModel) -> Any:
    import numpy as np

    shape = (order.height, order.width, order.channels)
    return np.full(shape, 127, dtype=np.uint8)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _preprocessing(values: Mapping[str, Any]) -> dict[str, Any]:
    if not values.keys() & _PREPROCESSING.keys():
        return {}
    from omegaconf import OmegaConf

    config = {theirs: values.get(ours) for ours, theirs in _PREPROCESSING.items()}
    return {"preprocess_config": OmegaConf.create(config)}


def _filtering(values: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {_FILTERS[name]: values[name] for name in values.keys() & _FILTERS.keys()}
    if not chosen:
        return {}
    from sleap_nn.inference.filters import FilterConfig

    return {"filter_config": FilterConfig(**chosen)}


# -- the process ---------------------------------------------------------------------


def serve(
    stdin: BinaryIO, stdout: BinaryIO, load: Callable[[LoadModel], FramePredictor]
) -> int:
    """Answer orders until there are no more; return the exit code."""

    def say(answer: RunnerAnswer) -> None:
        stdout.write(encode_record(answer))
        stdout.flush()

    try:
        first = _next_order(stdin)
        if not isinstance(first, LoadModel):
            return 0
        predictor = load(first)
        _warm_up()
        say(predictor.loaded)
        while isinstance(order := _next_order(stdin), PredictFrame):
            size = (first.width, first.height, first.channels)
            image = decode_image(order.data, order.format, *size)
            say(Found(order.frame, predictor.predict(image)))
    # Whatever sleap-nn trips over is a reason to tell.
    except Exception as error:
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        say(Failed(clean_text(text, MAX_LIVE_REASON_CHARS)))
        return 1
    return 0


def _warm_up() -> None:
    """Import what decoding needs, so that the first frame does not wait for it."""
    import numpy as np
    from PIL import Image

    sample = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(sample, "PNG")
    decode_image(sample.getvalue(), "png", 8, 8, 1)


def _next_order(stdin: BinaryIO) -> RunnerOrder | None:
    """Return the next order, or None where the worker is done."""
    head = stdin.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    if size > MAX_ORDER_BYTES:
        raise ValueError(f"an order of {size} bytes")
    body = stdin.read(size)
    return decode_order(body) if len(body) == size else None


def main(load: Callable[[LoadModel], FramePredictor] = _SleapNN) -> int:
    """Serve on stdin and stdout; what libraries print goes to stderr."""
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return serve(sys.stdin.buffer, stdout, load)


if __name__ == "__main__":
    sys.exit(main())

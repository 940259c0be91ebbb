"""Images of live frames are looked at before they are decoded."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sleap_rtc_plugin.session.live_frames import encode_image
from sleap_rtc_worker.live_records import (
    LENGTH,
    Failed,
    Found,
    Loaded,
    LoadModel,
    PredictFrame,
    decode_answer,
    decode_order,
    encode_record,
)
from sleap_rtc_worker.live_runner import decode_image, serve


def noise(*shape: int) -> Any:
    return np.random.default_rng(7).integers(0, 255, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_loses_nothing(channels: int) -> None:
    image = noise(20, 30, channels)
    data = encode_image(image, "png")
    assert (decode_image(data, "png", 30, 20, channels) == image).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_near(channels: int) -> None:
    image = np.full((16, 24, channels), 100, dtype=np.uint8)
    decoded = decode_image(encode_image(image, "jpeg"), "jpeg", 24, 16, channels)
    assert decoded.shape == image.shape
    assert abs(decoded.astype(int) - 100).max() <= 2


def bomb(side: int) -> bytes:
    """A PNG of a few KiB that says that it has `side` times `side` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def other(kind: str, mode: str, size: tuple[int, int] = (30, 20)) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size).save(data, kind)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no png image"),
        (b"nothing", "no png image"),
        (other("JPEG", "L"), "no png image"),
        (other("GIF", "L"), "no png image"),
        (other("TIFF", "L"), "no png image"),
        (encode_image(noise(20, 30, 1), "png")[:300], "no png image"),
        (other("PNG", "RGB"), r"\(RGB\) came"),
        (other("PNG", "RGBA"), r"\(RGBA\) came"),
        (other("PNG", "I;16"), r"\(I;16\) came"),
        (other("PNG", "L", (31, 20)), "31 x 20 pixels"),
        (bomb(8_000), "8000 x 8000 pixels"),
        (bomb(200_000), "png image|200000 x 200000"),
    ],
)
def test_what_is_no_such_image_is_not_decoded(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_image(data, "png", 30, 20, 1)


def test_an_image_with_too_few_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="no png image"):
        decode_image(bomb(2_000), "png", 2_000, 2_000, 1)


# -- the process -----------------------------------------------------------------------

LOAD = LoadModel(["/model"], 30, 20, 1, {})


class Model:
    loaded = Loaded(nodes=["head"], edges=[], device="cpu")

    def predict(self, image: Any) -> list[Any]:
        return []


def answers(*orders: bytes) -> tuple[int, list[Any]]:
    out = io.BytesIO()
    code = serve(io.BytesIO(b"".join(orders)), out, lambda order: Model())
    said, body = [], out.getvalue()
    while body:
        (size,) = LENGTH.unpack(body[: LENGTH.size])
        said.append(decode_answer(body[LENGTH.size : LENGTH.size + size]))
        body = body[LENGTH.size + size :]
    return code, said


def test_orders_are_answered_in_turn() -> None:
    image = encode_image(noise(20, 30, 1), "png")
    frames = [encode_record(PredictFrame(number, "png", image)) for number in (4, 9)]
    assert answers(encode_record(LOAD), *frames) == (
        0,
        [Model.loaded, Found(4, []), Found(9, [])],
    )


def test_it_ends_when_there_are_no_more_orders() -> None:
    assert answers() == (0, [])
    assert answers(encode_record(LOAD)[:7]) == (0, [])
    frame = encode_record(PredictFrame(0, "png", b"x"))
    assert answers(frame) == (0, [])


def test_a_fault_is_told_and_ends_it() -> None:
    frame = encode_record(PredictFrame(0, "png", b"x"))
    code, said = answers(encode_record(LOAD), frame, frame)
    assert code == 1
    assert said[0] == Model.loaded
    assert isinstance(said[1], Failed)
    assert "no png image" in said[1].reason
    code, (failed,) = answers(LENGTH.pack(2**32 - 1))
    assert (code, type(failed)) == (1, Failed)


def test_answers_are_bounded_and_checked() -> None:
    assert decode_order(encode_record(LOAD)[LENGTH.size :]) == LOAD
    for body in (b"", b"junk", bytes(17 * 1024 * 1024)):
        with pytest.raises(ValueError):
            decode_answer(body)

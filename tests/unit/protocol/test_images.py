"""What is one of sleap-nn's images, by its name and by its bytes."""

import zlib

import pytest
from support.pictures import SIGNATURE, bomb, chunk, header, png

from sleap_rtc_plugin.protocol.images import image_fault, is_image_name
from sleap_rtc_plugin.protocol.limits import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_SIDE_PIXELS,
)


@pytest.mark.parametrize(
    "name",
    [
        "validation.0000.png",
        "train.0123.png",
        "validation.pafs_magnitude.0001.png",
        "train.12345.png",
    ],
)
def test_the_names_that_sleap_nn_gives(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "validation.png",
        "validation.0000.png\n",
        "validation.0000.PNG",
        "validation.0000.svg",
        "validation.0000.png.exe",
        "xvalidation.0000.png",
        "test.0000.png",
        "../validation.0000.png",
        "validation.../../x.png",
        "validation.a/b.png",
        "validation.a\\b.png",
        "validation.%s.png" % ("x" * 41),
        "validation.a.b.c.d.png",
        "validation.\u202egnp.png",
    ],
)
def test_other_names(name: str) -> None:
    assert not is_image_name(name)


def test_a_whole_image() -> None:
    assert image_fault(png()) is None
    assert image_fault(png(extra=chunk(b"tEXt", b"Software\0matplotlib"))) is None
    assert image_fault(png(extra=chunk(b"pHYs", bytes(9)))) is None


def test_every_torn_image_is_noticed() -> None:
    whole = png()
    for length in range(len(whole)):
        assert image_fault(whole[:length]) is not None, length


def test_every_damaged_byte_is_noticed() -> None:
    whole = png()
    for at in range(len(whole)):
        assert image_fault(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a whole PNG"),
        (b"GIF89a" + png(), "not a whole PNG"),
        (SIGNATURE + chunk(b"IEND", b""), "not a PNG image"),
        (SIGNATURE + header(1, 1) + chunk(b"IEND", b""), "not a whole PNG"),
        (SIGNATURE + chunk(b"IHDR", b"") + png()[8:], "not a PNG image"),
        (png() + b"<script>", "what no such image holds"),
        (png(extra=chunk(b"acTL", bytes(8))), "what no such image holds"),
        (png(extra=chunk(b"zTXt", zlib.compress(bytes(9)))), "what no such image"),
        (png(extra=chunk(b"iCCP", zlib.compress(bytes(9)))), "what no such image"),
        (bomb(), "100000 x 100000 pixels"),
        (bomb(0, 1), "0 x 1 pixels"),
        (bomb(MAX_IMAGE_SIDE_PIXELS + 1, 1), "8193 x 1 pixels"),
        (bomb(MAX_IMAGE_SIDE_PIXELS, MAX_IMAGE_SIDE_PIXELS), "8192 x 8192 pixels"),
        (png(extra=chunk(b"tEXt", bytes(MAX_IMAGE_BYTES))), "more than 4194304 bytes"),
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    assert words in str(image_fault(data))


def test_the_largest_image_has_both_sides_within_the_bounds() -> None:
    height = MAX_IMAGE_PIXELS // MAX_IMAGE_SIDE_PIXELS
    assert image_fault(bomb(MAX_IMAGE_SIDE_PIXELS, height)) is None
    assert image_fault(bomb(MAX_IMAGE_SIDE_PIXELS, height + 1)) is not None

"""Where the frames of a live session come from, and how they are encoded.

A video through sleap-io, played at a pace of its own, or a camera through OpenCV where
that is installed. Every call here blocks: `session.live` makes them in a thread.
"""

import io
from pathlib import Path
from typing import Any, Final, Protocol

from sleap_rtc_plugin.protocol.errors import VideoUnreadable
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_LIVE_SIDE_PIXELS
from sleap_rtc_plugin.protocol.live_messages import ImageFormat

__all__ = ["CameraFrames", "FrameSource", "VideoFrames", "encode_image", "open_frames"]

# A camera hands over what it saw before unless it keeps hardly anything.
_CAMERA_BUFFER: Final = 1
# What PNG spends its time on: this is three times as fast as the default and a fifth
# larger (384 x 384 pixels of the flies' video: 24 KB, not 19).
_PNG_LEVEL: Final = 1
_JPEG_QUALITY: Final = 95


class FrameSource(Protocol):
    """A video or a camera.

    Attributes:
        name: what it is called in sentences.
        video: the video as sleap-io knows it, for saved predictions.
        fps: its own frames per second, or None where it does not say.
        count: how many frames there are, or None for no end.
        width: of every frame, in pixels.
        height: the same.
        channels: 1 for gray, 3 for RGB.
    """

    name: str
    video: Any
    fps: float | None
    count: int | None
    width: int
    height: int
    channels: int

    def read(self, index: int) -> Any:
        """Return a frame of shape (height, width, channels), uint8.

        A camera returns what it sees now, whatever the index.

        Raises:
            VideoUnreadable: it gives none.
        """

    def close(self) -> None:
        """Let go of it."""


def open_frames(text: str) -> FrameSource:
    """Open a video by its path, or a camera by its number.

    Raises:
        VideoUnreadable: it gives no frames.
    """
    if text.isdecimal() and len(text) < 4 and not Path(text).exists():
        return CameraFrames(int(text))
    return VideoFrames(Path(text))


class VideoFrames:
    """The frames of a video file."""

    def __init__(self, path: Path) -> None:
        """Open it and look at its first frame.

        Raises:
            VideoUnreadable: it gives none.
        """
        import sleap_io

        self.name = path.name
        if not path.is_file():
            raise VideoUnreadable(video=str(path), reason="there is no such file")
        try:
            self.video = sleap_io.load_video(str(path.resolve()))
            self.count: int | None = len(self.video)
        # sleap-io raises whatever its back ends do.
        except Exception as error:
            raise _unreadable(self.name, error) from error
        fps = getattr(self.video, "fps", None)
        self.fps = float(fps) if fps else None
        self.height, self.width, self.channels = _shape(self.name, self.read(0))

    def read(self, index: int) -> Any:
        """Return a frame."""
        try:
            return self.video[index]
        except Exception as error:
            raise _unreadable(self.name, error) from error

    def close(self) -> None:
        """Let go of the file."""
        self.video.close()


class CameraFrames:
    """What a camera sees."""

    def __init__(self, number: int) -> None:
        """Open it and look.

        Raises:
            VideoUnreadable: there is no such camera, or nothing here reads cameras.
        """
        self.name = f"camera {number}"
        self.count: int | None = None
        try:
            import cv2
        except ImportError:
            raise VideoUnreadable(
                video=self.name,
                reason="cameras are read by OpenCV, which `pip install opencv-python` "
                "adds",
            ) from None
        import sleap_io

        self._bgr_to_rgb = cv2.COLOR_BGR2RGB
        self._convert = cv2.cvtColor
        self._camera = cv2.VideoCapture(number)
        self._camera.set(cv2.CAP_PROP_BUFFERSIZE, _CAMERA_BUFFER)
        self.fps = float(self._camera.get(cv2.CAP_PROP_FPS) or 0.0) or None
        self.video = sleap_io.Video(
            filename=f"camera-{number}", backend=None, open_backend=False
        )
        try:
            self.height, self.width, self.channels = _shape(self.name, self.read(0))
        except VideoUnreadable:
            self.close()
            raise

    def read(self, index: int) -> Any:
        """Return what it sees now."""
        is_there, image = self._camera.read()
        if not is_there:
            raise VideoUnreadable(video=self.name, reason="it shows nothing")
        return self._convert(image, self._bgr_to_rgb) if image.ndim == 3 else image

    def close(self) -> None:
        """Let go of the camera."""
        self._camera.release()


def _shape(name: str, image: Any) -> tuple[int, int, int]:
    """Return height, width and channels of a frame that can be sent."""
    height, width, *rest = image.shape
    channels = rest[0] if rest else 1
    if channels not in (1, 3) or image.dtype.name != "uint8":
        reason = f"they have {channels} channels of {image.dtype}, not 1 or 3 of uint8"
        raise VideoUnreadable(video=name, reason=reason)
    if not (0 < width <= MAX_LIVE_SIDE_PIXELS and 0 < height <= MAX_LIVE_SIDE_PIXELS):
        reason = f"they have {width} x {height} pixels, too many to be sent live"
        raise VideoUnreadable(video=name, reason=reason)
    return int(height), int(width), int(channels)


def _unreadable(name: str, error: Exception) -> VideoUnreadable:
    text = clean_text(str(error).strip().partition("\n")[0]) or type(error).__name__
    return VideoUnreadable(video=name, reason=text)


def encode_image(image: Any, image_format: ImageFormat) -> bytes:
    """Return a frame as PNG, which loses nothing, or as JPEG, which is smaller."""
    from PIL import Image

    is_gray = image.ndim == 3 and image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if is_gray else image)
    encoded = io.BytesIO()
    if image_format == "png":
        picture.save(encoded, "PNG", compress_level=_PNG_LEVEL)
    else:
        picture.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()

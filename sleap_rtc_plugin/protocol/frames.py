"""What every frame of the control channel is made of: its base and its kinds of field.

Knows no single message; those are in `messages` and `mount_messages`.
"""

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.limits import (
    MAX_DISPLAY_NAME_LENGTH,
    MAX_ID_LENGTH,
    MAX_PATH_CHARS,
    MAX_UNIX_TIME_S,
)

__all__ = [
    "CommandId",
    "Count",
    "Frame",
    "Hex32",
    "JobId",
    "Name",
    "OwnerId",
    "Path",
    "UnixTime",
]

JobId = Annotated[str, Meta(pattern=r"^job-[0-9a-f]{20}\Z")]
# What files belong to: a job or a model.
OwnerId = Annotated[str, Meta(pattern=r"^(?:job|model)-[0-9a-f]{20}\Z")]
CommandId = Annotated[str, Meta(max_length=MAX_ID_LENGTH, pattern=r"^[a-z0-9-]+\Z")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Name = Annotated[str, Meta(max_length=MAX_DISPLAY_NAME_LENGTH)]
UnixTime = Annotated[float, Meta(ge=0, le=MAX_UNIX_TIME_S)]
Path = Annotated[str, Meta(min_length=1, max_length=MAX_PATH_CHARS)]


class Frame(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A control frame; `NAME` stands before the `::`."""

    NAME: ClassVar[str]

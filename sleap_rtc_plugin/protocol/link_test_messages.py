"""The frames with which a client finds out how well a link carries bytes, and where to.

`sleap-remote doctor` sends them, on a link where both sides named the feature
`link-test`. What a test moves is junk on a stream of its own: nobody stores it. Part of
`messages.ControlMessage`.
"""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sleap_rtc_plugin.protocol.frames import CommandId, Count, Frame, Hex32
from sleap_rtc_plugin.protocol.limits import (
    LINK_TEST_GRACE_S,
    LINK_TEST_S,
    MAX_LINK_TEST_BYTES,
)

__all__ = [
    "LinkTest",
    "LinkTestDirection",
    "LinkTestMessage",
    "LinkTestReport",
    "LinkTestStop",
    "StorageTest",
    "StorageTested",
]

LinkTestDirection = Literal["to_worker", "to_client"]


class LinkTest(Frame, frozen=True):
    """Let junk be sent in one direction for a while, and count it.

    Acknowledged, or refused where another test runs or files are on their way.

    Attributes:
        duration_s: how long whoever sends goes on.
        max_bytes: what he sends at most.
    """

    NAME: ClassVar[str] = "LINK_TEST"
    command_id: CommandId
    direction: LinkTestDirection
    duration_s: Annotated[float, Meta(gt=0, le=LINK_TEST_S)]
    max_bytes: Annotated[int, Meta(gt=0, le=MAX_LINK_TEST_BYTES)]


class LinkTestStop(Frame, frozen=True):
    """End a test early; it is reported all the same."""

    NAME: ClassVar[str] = "LINK_TEST_STOP"
    command_id: CommandId


class LinkTestReport(Frame, frozen=True):
    """A test has ended: what the worker got, or what it sent.

    Attributes:
        size_bytes: the junk after the first frame, which starts the clock.
        seconds: from the first frame to the last.
    """

    NAME: ClassVar[str] = "LINK_TEST_REPORT"
    command_id: CommandId
    size_bytes: Count
    seconds: Annotated[float, Meta(ge=0, le=LINK_TEST_S + LINK_TEST_GRACE_S)]


class StorageTest(Frame, frozen=True):
    """Ask whether the worker reads a nonce that the client wrote, for no job."""

    NAME: ClassVar[str] = "STORAGE_TEST"
    command_id: CommandId
    probe: Hex32


class StorageTested(Frame, frozen=True):
    """The proof that the worker has read it: made as for a job named `command_id`."""

    NAME: ClassVar[str] = "STORAGE_TESTED"
    command_id: CommandId
    proof: Hex32


LinkTestMessage = LinkTest | LinkTestStop | LinkTestReport | StorageTest | StorageTested

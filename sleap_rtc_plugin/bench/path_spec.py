"""What a network path is like, as `sleap-remote bench transfer --paths` names it.

`loopback`, or a round trip with what else matters: `80ms`, `80ms-0.5%`,
`20ms-2%@100` for 100 Mbit/s. Pure; read by the command and by the path's emulator.
"""

import re
from typing import Final

from msgspec import Struct

__all__ = ["DEFAULT_MBIT_PER_S", "LOOPBACK", "PathSpec", "parse_path"]

DEFAULT_MBIT_PER_S: Final = 400.0
MAX_RTT_MS: Final = 2_000.0
MAX_LOSS_PERCENT: Final = 50.0
MIN_MBIT_PER_S: Final = 0.1
# What the emulator forwards on half a core; more would measure the emulator.
MAX_MBIT_PER_S: Final = 500.0
_SHAPE: Final = re.compile(
    r"(?P<rtt>\d{1,4}(\.\d{1,3})?)ms"
    r"(-(?P<loss>\d{1,2}(\.\d{1,4})?)%)?"
    r"(@(?P<rate>\d{1,3}(\.\d{1,3})?))?"
)


class PathSpec(Struct, frozen=True):
    """A path with as much delay, loss and room each way.

    Attributes:
        name: as it was asked for, and as the tables call it.
        rtt_ms: how long there and back takes, with no queue in between.
        loss_percent: of the packets, at random.
        mbit_per_s: of packets, with their headers.
        is_emulated: through the emulator; otherwise this machine's loopback.
    """

    name: str
    rtt_ms: float = 0.0
    loss_percent: float = 0.0
    mbit_per_s: float = DEFAULT_MBIT_PER_S
    is_emulated: bool = True


LOOPBACK: Final = PathSpec("loopback", is_emulated=False)


def parse_path(text: str) -> PathSpec:
    """Read one path's name.

    Raises:
        ValueError: it is none; the text says what is.
    """
    name = text.strip()
    if name == LOOPBACK.name:
        return LOOPBACK
    found = _SHAPE.fullmatch(name)
    if found is None:
        raise ValueError(
            f"{name[:40]!r} is no path; write loopback, or a round trip with loss in "
            "percent and rate in Mbit/s where they matter: 80ms, 80ms-0.5%, 20ms@100."
        )
    rtt_ms = float(found["rtt"])
    loss_percent = float(found["loss"] or 0)
    mbit_per_s = float(found["rate"] or DEFAULT_MBIT_PER_S)
    for what, value, least, most in (
        ("ms", rtt_ms, 0.0, MAX_RTT_MS),
        ("% of loss", loss_percent, 0.0, MAX_LOSS_PERCENT),
        ("Mbit/s", mbit_per_s, MIN_MBIT_PER_S, MAX_MBIT_PER_S),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name}: choose from {least:g} to {most:g} {what}.")
    return PathSpec(name, rtt_ms, loss_percent, mbit_per_s)

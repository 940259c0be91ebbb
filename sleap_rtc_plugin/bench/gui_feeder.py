"""The training that `bench gui` shows: 100 batches a second, through a monitor bridge.

A process of its own, as the companion would be that follows a training, so that the
window's process has only to draw. Ends with the viewer, and prints one JSON line.
"""

import asyncio
import math
import sys
from typing import Final, Literal

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_plugin.session.monitor_bridge import MonitorBridge
from sleap_rtc_plugin.transport.effects import monotonic

__all__ = ["FeederFigures", "training_events"]

BATCHES_PER_S: Final = 100
BATCHES_PER_EPOCH: Final = 500
BATCHES_OF_DECAY: Final = 2_000
TICK_S: Final = 0.05
MAX_FEED_S: Final = 900.0
"""How long it feeds at most: longer than any run takes."""

Kind = Literal["train_begin", "epoch_begin", "batch_end", "epoch_end"]


class FeederFigures(Struct):
    """What was fed."""

    batches: int
    seconds: float


def training_events(job_id: str, batch: int) -> list[ProgressReport]:
    """Return what a trainer says with its batch number `batch`, from 0 over all."""
    epoch, place = divmod(batch, BATCHES_PER_EPOCH)
    loss = math.exp(-batch / BATCHES_OF_DECAY) * (1 + 0.2 * math.sin(batch))
    ends = {"train/loss": loss, "val/loss": 1.1 * loss}
    said: list[tuple[Kind, dict[str, float]]] = []
    if batch == 0:
        said.append(("train_begin", {}))
    if place == 0:
        said.append(("epoch_begin", {}))
    said.append(("batch_end", {"loss": loss}))
    if place == BATCHES_PER_EPOCH - 1:
        said.append(("epoch_end", ends))
    return [
        ProgressReport(
            job_id=job_id,
            seq=batch + 1,
            at=0.0,
            step=0,
            kind=kind,
            epoch=epoch,
            batch=place,
            losses=losses,
        )
        for kind, losses in said
    ]


async def _feed(publish_port: int, controller_port: int, what: str) -> FeederFigures:
    bridge = MonitorBridge(publish_port, controller_port, what, lambda: None)
    bridge.start()
    job_id, fed, began = new_job_id(), 0, monotonic()
    while bridge.is_open and (elapsed := monotonic() - began) < MAX_FEED_S:
        while fed < elapsed * BATCHES_PER_S:
            for event in training_events(job_id, fed):
                bridge.feed(event)
            fed += 1
        await asyncio.sleep(TICK_S)
    await bridge.close()
    return FeederFigures(batches=fed, seconds=monotonic() - began)


def main() -> None:
    """Feed the viewer on the two ports of the command line until it is closed."""
    publish, controller, what = sys.argv[1:]
    found = asyncio.run(_feed(int(publish), int(controller), what))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()

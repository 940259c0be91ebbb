"""`sleap-remote worker` with a scripted trainer in place of sleap-nn, for tests.

Started as `scripted_worker.py BEHAVIOUR[,name=value...] worker OPTIONS`. All but the
trainer, and sleap-nn's own look at the configurations, is the real worker's; with
the behaviour `none` there is no trainer at all. The variable E2E_FAULT breaks
something on purpose; E2E_GPUS makes up so many GPUs.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sleap_rtc_worker.client
import sleap_rtc_worker.package_check
from sleap_rtc_plugin.cli.main import main
from sleap_rtc_plugin.protocol.manifest import ChunkInfo
from sleap_rtc_plugin.transport import file_source
from sleap_rtc_worker.capabilities import WorkerCapabilities
from sleap_rtc_worker.gpu_slots import Gpu, plan_slots

TRAINERS = {"resuming": Path(__file__).with_name("paced_sleap_nn.py")}
TRAINER = Path(__file__).with_name("scripted_sleap_nn.py")


def _install_trainer(behaviour: str) -> None:
    is_there = behaviour != "none"
    words = behaviour.split(",")
    words = [sys.executable, str(TRAINERS.get(words[0], TRAINER)), *words]
    real = sleap_rtc_worker.client.RTCWorkerClient

    def build(**kwargs: Any) -> sleap_rtc_worker.client.RTCWorkerClient:
        version = "0.3.5" if is_there else None
        count = int(os.environ.get("E2E_GPUS", "0"))
        cards = [Gpu(index, "Made up", 1, 1) for index in range(count)]
        plan = plan_slots(cards, at_most=kwargs["slots"], environment={})
        return real(
            **kwargs,
            capabilities=WorkerCapabilities(sleap_nn_version=version, slots=plan.slots),
            trainer=words if is_there else None,
        )

    async def accept(*args: object, **kwargs: object) -> None:
        return None

    sleap_rtc_worker.client.RTCWorkerClient = build  # type: ignore[misc,assignment]
    sleap_rtc_worker.package_check.check_configs = accept


def _corrupt_results() -> None:
    """Send other bytes than those that the manifest speaks of."""
    real = file_source.FileSource.reading

    @contextlib.contextmanager
    def reading(self: file_source.FileSource) -> Iterator[Callable[[ChunkInfo], bytes]]:
        with real(self) as read:

            def corrupted(chunk: ChunkInfo) -> bytes:
                data = read(chunk)
                return bytes([data[0] ^ 1]) + data[1:]

            yield corrupted

    file_source.FileSource.reading = reading  # type: ignore[method-assign]


if __name__ == "__main__":
    _install_trainer(sys.argv[1])
    if os.environ.get("E2E_FAULT") == "corrupt-results":
        _corrupt_results()
    sys.argv = ["sleap-remote", *sys.argv[2:]]
    main()

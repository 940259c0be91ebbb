"""Starts the process with a live session's model, and talks to it.

Drives `live_runner` over its pipes, one question at a time, each with a deadline; it
is killed whatever happens, and ends with the worker. Used by `live_service`.
"""

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import LIVE_START_TIMEOUT_S
from sleap_rtc_worker.limits import (
    LIVE_PREDICT_TIMEOUT_S,
    MAX_LIVE_ANSWER_BYTES,
    MAX_LIVE_REASON_CHARS,
)
from sleap_rtc_worker.live_records import (
    LENGTH,
    Failed,
    Found,
    Loaded,
    LoadModel,
    PredictFrame,
    RunnerAnswer,
    RunnerOrder,
    decode_answer,
    encode_record,
)
from sleap_rtc_worker.process import kill_group, leashed

__all__ = ["RUNNER", "LiveProcess", "RunnerFailed"]

RUNNER: Final = (sys.executable, "-P", "-m", "sleap_rtc_worker.live_runner")

# OpenMP's threads spin while they wait for each other. On a machine that trains beside,
# that made ten times the work of a frame: 700 ms of two processors, not 60.
_QUIET_WAITING: Final = {"OMP_WAIT_POLICY": "PASSIVE"}


class RunnerFailed(Exception):
    """The process cannot go on; `reason` says why, in a few words."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = clean_text(reason, MAX_LIVE_REASON_CHARS)


class LiveProcess:
    """One such process. Used once; `end` it whatever happens."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._child: asyncio.subprocess.Process | None = None

    async def load(
        self, order: LoadModel, *, runner: Sequence[str], environment: Mapping[str, str]
    ) -> Loaded:
        """Start the process and have it load the model.

        Raises:
            RunnerFailed: it could not.
        """
        folder = Path(sys.prefix)
        try:
            self._child = await asyncio.create_subprocess_exec(
                *leashed(runner, folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=folder,
                env=_QUIET_WAITING | dict(environment),
                start_new_session=sys.platform != "win32",
            )
        except OSError as error:
            raise RunnerFailed(f"it cannot be started: {error.strerror}") from None
        answer = await self._ask(order, LIVE_START_TIMEOUT_S, "loading the model")
        if not isinstance(answer, Loaded):
            raise RunnerFailed("the process with the model answered nonsense")
        return answer

    async def predict(self, order: PredictFrame) -> Found:
        """Have it say what is in a frame.

        Raises:
            RunnerFailed: it could not.
        """
        answer = await self._ask(order, LIVE_PREDICT_TIMEOUT_S, "predicting a frame")
        if not isinstance(answer, Found) or answer.frame != order.frame:
            raise RunnerFailed("the process with the model answered nonsense")
        return answer

    async def _ask(
        self, order: RunnerOrder, timeout_s: float, activity: str
    ) -> RunnerAnswer:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise RunnerFailed("the process with the model does not run")
        try:
            async with asyncio.timeout(timeout_s):
                child.stdin.write(encode_record(order))
                await child.stdin.drain()
                head = await child.stdout.readexactly(LENGTH.size)
                (size,) = LENGTH.unpack(head)
                if size > MAX_LIVE_ANSWER_BYTES:
                    raise RunnerFailed("the process with the model answered nonsense")
                answer = decode_answer(await child.stdout.readexactly(size))
        except TimeoutError:
            raise RunnerFailed(f"{activity} took over {timeout_s:.0f} s") from None
        except (OSError, asyncio.IncompleteReadError):
            raise RunnerFailed(
                f"the process with the model ended while {activity}"
            ) from None
        except ValueError:
            raise RunnerFailed("the process with the model answered nonsense") from None
        if isinstance(answer, Failed):
            raise RunnerFailed(answer.reason)
        return answer

    async def end(self) -> None:
        """Kill the process with all that it started, and wait for it."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            kill_group(child.pid)
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        if child.stdin is not None:
            child.stdin.close()
        await child.wait()

"""How much memory a process holds, now and at its peak.

Linux tells both and lets the peak be reset; elsewhere psutil samples. In MiB.
"""

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

__all__ = ["PeakMemory"]

SAMPLE_INTERVAL_S = 0.02
_MIB = 1024 * 1024
_RESET_PEAK = "5"


class PeakMemory:
    """Measures a process from `__enter__` on: `idle_mib` then, `peak_mib` since."""

    def __init__(self, pid: int) -> None:
        """Measure the process `pid`."""
        self._process = psutil.Process(pid)
        self._clear = Path(f"/proc/{pid}/clear_refs")
        self._status = Path(f"/proc/{pid}/status")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._kernel_counts = False
        self._cpu_before_s = 0.0
        self.idle_mib = 0.0
        self.peak_mib = 0.0
        self.cpu_s = 0.0

    def __enter__(self) -> Self:
        """Take the idle figure and reset the peak."""
        self.idle_mib = self.peak_mib = self._process.memory_info().rss / _MIB
        self._cpu_before_s = self._cpu_now_s()
        with contextlib.suppress(OSError):
            self._clear.write_text(_RESET_PEAK)
            self._kernel_counts = True
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the peak and the CPU seconds since."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(psutil.Error):
            self.cpu_s = self._cpu_now_s() - self._cpu_before_s
        if self._kernel_counts:
            with contextlib.suppress(OSError):
                self.peak_mib = max(self.peak_mib, self._kernel_peak_mib())

    def _cpu_now_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _kernel_peak_mib(self) -> float:
        for line in self._status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL_S):
            try:
                now = self._process.memory_info().rss / _MIB
            except psutil.Error:
                return
            self.peak_mib = max(self.peak_mib, now)

"""What this machine can train with, told truthfully.

A card, its driver and a torch that can use it are three things: `device` is "cuda"
only where all three are there. Every source is a function that a test replaces; the
defaults ask NVML, the operating system and, in a child process and only when it is
needed, torch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final, Literal

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_worker.gpu_slots import Gpu, Slot, SlotPlan, plan_slots
from sleap_rtc_worker.limits import MAX_GPUS, TORCH_PROBE_TIMEOUT_S
from sleap_rtc_worker.trainer_environment import without_secrets

__all__ = [
    "Device",
    "DriverReport",
    "Gpu",
    "TorchReport",
    "WorkerCapabilities",
    "detect",
    "free_gpu_memory_mb",
    "probe_nvml",
    "probe_torch",
    "read_torch_report",
]

Device = Literal["cuda", "mps", "cpu"]

_TORCH_PROGRAM: Final = """
import json, torch
mps = getattr(torch.backends, "mps", None)
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "cuda_ok": torch.cuda.is_available(),
    "mps_ok": bool(mps and mps.is_available()),
}))
"""


@dataclass(frozen=True)
class DriverReport:
    """What the NVIDIA driver says; empty where there is none."""

    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    cuda_version: str | None = None


@dataclass(frozen=True)
class TorchReport:
    """What the installed torch can use.

    Attributes:
        cuda_version: that torch was built for, or None for a CPU-only build.
    """

    version: str | None = None
    cuda_version: str | None = None
    has_cuda: bool = False
    has_mps: bool = False


@dataclass(frozen=True)
class WorkerCapabilities:
    """This worker's hardware and software, as clients choose by.

    Attributes:
        gpu_model: of the card that jobs get, or None where `device` is "cpu".
        gpu_memory_mb: its whole memory in MiB, or None; on Apple silicon, where it
            is shared, that of the machine.
        gpu_free_mb: what was free of it at the time of the probe, or None.
        cuda_version: the newest that the driver supports.
        device: what a training really runs on.
        memory_mb: the machine's, in MiB.
        slots: room for so many jobs at once, and the GPU of each.
    """

    device: Device = "cpu"
    gpu_model: str | None = None
    gpu_memory_mb: int | None = None
    gpu_free_mb: int | None = None
    cuda_version: str | None = None
    driver_version: str | None = None
    gpus: tuple[Gpu, ...] = ()
    cpu_count: int = 1
    memory_mb: int = 0
    sleap_nn_version: str | None = None
    torch_version: str | None = None
    warnings: tuple[str, ...] = field(default=())
    slots: tuple[Slot, ...] = (Slot(),)

    def to_properties(self) -> dict[str, Any]:
        """Return what is registered at the signaling server; unknowns left out."""
        properties: dict[str, Any] = {
            "device": self.device,
            "gpu_model": self.gpu_model,
            "gpu_memory_mb": self.gpu_memory_mb,
            "gpu_memory_free_mb": self.gpu_free_mb,
            "gpu_count": len(self.slots) if self.device == "cuda" else 0,
            "slots": len(self.slots),
            "cuda_version": self.cuda_version,
            "driver_version": self.driver_version,
            "cpu_count": self.cpu_count,
            "memory_mb": self.memory_mb,
            "sleap_nn_version": self.sleap_nn_version,
            "torch_version": self.torch_version,
        }
        return {key: value for key, value in properties.items() if value is not None}


def detect(
    gpu_ids: Sequence[int] = (),
    *,
    slots: int | None = None,
    nvml: Callable[[], DriverReport] | None = None,
    torch: Callable[[], TorchReport] | None = None,
    sleap_nn_version: Callable[[], str | None] | None = None,
    cpu_count: Callable[[], int] | None = None,
    memory_mb: Callable[[], int] | None = None,
    platform: str = sys.platform,
    environment: Mapping[str, str] = os.environ,
) -> WorkerCapabilities:
    """Find out what this machine can train with; takes seconds where torch is asked.

    Args:
        gpu_ids: the cards that jobs get; every one where empty.
        slots: how many jobs may run at once; as many as cards by default.
        nvml: asks the NVIDIA driver.
        torch: asks torch; called only where there is a card or this is a Mac.
        sleap_nn_version: finds the installed sleap-nn.
        cpu_count: counts the CPUs that this process may use.
        memory_mb: the machine's memory in MiB.
        platform: as `sys.platform`.
        environment: the variables that this worker was started with.
    """
    driver = (nvml or probe_nvml)()
    version = (sleap_nn_version or (lambda: _version("sleap-nn")))()
    memory = (memory_mb or probe_memory_mb)()
    report = TorchReport(version=_version("torch") if torch is None else None)
    if version is not None and (driver.gpus or platform == "darwin"):
        report = (torch or probe_torch)()
    device: Device = "cpu"
    model: str | None = None
    gpu_memory: int | None = None
    gpu_free: int | None = None
    # Without a torch that can use them, and on Apple silicon, there are none.
    usable = driver.gpus if report.has_cuda else ()
    plan = plan_slots(usable, wanted=gpu_ids, at_most=slots, environment=environment)
    if not usable:
        plan = SlotPlan()
    warnings = list(plan.warnings)
    first = plan.slots[0]
    if first.name:
        device, model = "cuda", "NVIDIA GPU"
        if first.gpu is not None:
            model, gpu_memory = first.gpu.model, first.gpu.memory_mb
            gpu_free = first.gpu.free_mb
    elif report.has_mps:
        device, model, gpu_memory = "mps", "Apple GPU", memory
    elif driver.gpus and version is not None and not report.has_cuda:
        warnings.append(
            "there is an NVIDIA GPU, but the installed torch cannot use it"
            + ("" if report.cuda_version else " (it is a CPU-only build)")
        )
    if version is None:
        warnings.append("sleap-nn is not installed")
    return WorkerCapabilities(
        device=device,
        gpu_model=model,
        gpu_memory_mb=gpu_memory,
        gpu_free_mb=gpu_free,
        cuda_version=driver.cuda_version if device == "cuda" else None,
        driver_version=driver.driver_version,
        gpus=driver.gpus,
        cpu_count=(cpu_count or probe_cpu_count)(),
        memory_mb=memory,
        sleap_nn_version=version,
        torch_version=report.version,
        warnings=tuple(warnings),
        slots=plan.slots,
    )


def free_gpu_memory_mb(
    slot: Slot, *, nvml: Callable[[], DriverReport] | None = None
) -> int | None:
    """Return what is free now of a slot's card, in MiB, or None.

    Blocks for some milliseconds: call it in a thread.
    """
    if slot.gpu is None:
        return None
    index = slot.gpu.index
    gpus = (nvml or probe_nvml)().gpus
    return next((gpu.free_mb for gpu in gpus if gpu.index == index), None)


# -- probes ------------------------------------------------------------------------


def probe_nvml() -> DriverReport:
    """Ask the NVIDIA driver; empty where there is no driver, card or library."""
    try:
        import pynvml
    except ImportError:
        return DriverReport()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return DriverReport()
    try:
        gpus = []
        for index in range(min(pynvml.nvmlDeviceGetCount(), MAX_GPUS)):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            gpus.append(
                Gpu(
                    index=index,
                    model=_text(pynvml.nvmlDeviceGetName(handle)),
                    memory_mb=int(memory.total) // MIB,
                    free_mb=int(memory.free) // MIB,
                    uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
                )
            )
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        return DriverReport(
            gpus=tuple(gpus),
            driver_version=_text(pynvml.nvmlSystemGetDriverVersion()),
            # NVML: 1000 times the major plus 10 times the minor version.
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}",
        )
    except pynvml.NVMLError:
        return DriverReport()
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return clean_text(text)


def probe_torch(
    python: str = sys.executable, timeout_s: float = TORCH_PROBE_TIMEOUT_S
) -> TorchReport:
    """Ask torch in a child process, so that it never enters this one."""
    try:
        done = subprocess.run(  # noqa: S603 - our own program, no shell
            [python, "-P", "-c", _TORCH_PROGRAM],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            env=without_secrets(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return TorchReport()
    return read_torch_report(done.stdout)


def read_torch_report(output: bytes) -> TorchReport:
    """Read what the torch program printed."""
    lines = output.strip().splitlines()
    try:
        said = json.loads(lines[-1]) if lines else None
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return TorchReport()
    version, cuda = said.get("version"), said.get("cuda")
    return TorchReport(
        version=clean_text(version) if isinstance(version, str) else None,
        cuda_version=clean_text(cuda) if isinstance(cuda, str) else None,
        has_cuda=said.get("cuda_ok") is True,
        has_mps=said.get("mps_ok") is True,
    )


def probe_cpu_count() -> int:
    """Count the CPUs that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def probe_memory_mb() -> int:
    """Return the machine's memory in MiB, or 0 where it cannot be told."""
    if sys.platform == "win32":
        return _windows_memory_mb()
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    except (ValueError, OSError):
        return 0


def _windows_memory_mb() -> int:
    import ctypes

    total_kb = ctypes.c_ulonglong()
    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009 - Windows only
    if not kernel.GetPhysicallyInstalledSystemMemory(ctypes.byref(total_kb)):
        return 0
    return int(total_kb.value) // 1024


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

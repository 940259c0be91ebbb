import json
import sys
from collections.abc import Mapping

import pytest

from sleap_rtc_worker.capabilities import (
    DriverReport,
    Gpu,
    TorchReport,
    WorkerCapabilities,
    detect,
    free_gpu_memory_mb,
    probe_cpu_count,
    probe_memory_mb,
    probe_nvml,
    probe_torch,
    read_torch_report,
)

CARDS = DriverReport(
    gpus=(
        Gpu(index=0, model="NVIDIA A", memory_mb=80_000, free_mb=70_000),
        Gpu(index=1, model="NVIDIA B", memory_mb=24_000, free_mb=23_000),
    ),
    driver_version="550.1",
    cuda_version="12.4",
)
CUDA_TORCH = TorchReport(version="2.9.0", cuda_version="12.6", has_cuda=True)
CPU_TORCH = TorchReport(version="2.9.0+cpu")
MAC_TORCH = TorchReport(version="2.9.0", has_mps=True)


def find(
    *gpu_ids: int,
    driver: DriverReport = CARDS,
    torch: TorchReport = CUDA_TORCH,
    sleap_nn: str | None = "0.3.5",
    platform: str = "linux",
    environment: Mapping[str, str] | None = None,
) -> WorkerCapabilities:
    return detect(
        gpu_ids,
        nvml=lambda: driver,
        torch=lambda: torch,
        sleap_nn_version=lambda: sleap_nn,
        cpu_count=lambda: 16,
        memory_mb=lambda: 128_000,
        platform=platform,
        environment=environment or {},
    )


def test_a_card_that_torch_can_use() -> None:
    found = find()
    assert (found.device, found.gpu_model) == ("cuda", "NVIDIA A")
    assert (found.gpu_memory_mb, found.cuda_version) == (80_000, "12.4")
    assert found.to_properties() == {
        "device": "cuda",
        "gpu_model": "NVIDIA A",
        "gpu_memory_mb": 80_000,
        "gpu_memory_free_mb": 70_000,
        "gpu_count": 2,
        "slots": 2,
        "cuda_version": "12.4",
        "driver_version": "550.1",
        "cpu_count": 16,
        "memory_mb": 128_000,
        "sleap_nn_version": "0.3.5",
        "torch_version": "2.9.0",
    }
    assert found.warnings == ()


def test_the_chosen_card_is_the_one_described() -> None:
    assert find(1).gpu_model == "NVIDIA B"


def test_a_card_that_is_not_there() -> None:
    found = find(7)
    assert (found.device, found.gpu_model) == ("cpu", None)
    assert "GPU 7" in found.warnings[0]


def test_a_card_with_a_cpu_only_torch_is_not_cuda() -> None:
    found = find(torch=CPU_TORCH)
    assert (found.device, found.gpu_model, found.gpu_memory_mb) == ("cpu", None, None)
    assert "CPU-only" in found.warnings[0]
    assert "gpu_model" not in found.to_properties()
    assert found.to_properties()["gpu_count"] == 0


def test_a_card_that_torch_fails_on_is_not_cuda() -> None:
    broken = TorchReport(version="2.9.0", cuda_version="13.0")
    assert find(torch=broken).device == "cpu"


def test_apple_silicon() -> None:
    found = find(driver=DriverReport(), torch=MAC_TORCH, platform="darwin")
    assert (found.device, found.gpu_memory_mb) == ("mps", 128_000)
    assert found.cuda_version is None


def test_torch_is_not_asked_where_there_is_no_card() -> None:
    def never() -> TorchReport:
        raise AssertionError("torch was asked")

    found = detect(
        nvml=DriverReport,
        torch=never,
        sleap_nn_version=lambda: "0.3.5",
        platform="linux",
    )
    assert found.device == "cpu"


def test_no_sleap_nn_is_said() -> None:
    found = find(sleap_nn=None)
    assert found.sleap_nn_version is None
    assert found.device == "cpu"
    assert "sleap-nn is not installed" in found.warnings


@pytest.mark.parametrize("output", [b"", b"x", b"[]", b'"x"', b"\xff"])
def test_a_torch_that_does_not_answer_is_none(output: bytes) -> None:
    assert read_torch_report(output) == TorchReport()


def test_the_torch_program_is_read() -> None:
    said = {"version": "2.9", "cuda": "12.6", "cuda_ok": True, "mps_ok": False}
    output = b"a warning\n" + json.dumps(said).encode() + b"\n"
    assert read_torch_report(output) == TorchReport("2.9", "12.6", True, False)
    assert read_torch_report(b'{"cuda_ok": "yes"}') == TorchReport()


def test_the_machine_is_described_without_a_gpu() -> None:
    assert probe_cpu_count() >= 1
    assert probe_memory_mb() > 0 or sys.platform not in ("linux", "darwin")
    assert isinstance(probe_nvml(), DriverReport)


def test_an_interpreter_that_is_not_there() -> None:
    assert probe_torch("/no/such/python") == TorchReport()


@pytest.mark.parametrize(
    ("driver", "gpu_ids", "free_mb"),
    [
        (CARDS, (), 70_000),
        (CARDS, (1,), 23_000),
        (CARDS, (2,), None),
        (DriverReport(), (), None),
    ],
)
def test_free_memory_is_that_of_the_card_that_jobs_get(
    driver: DriverReport, gpu_ids: tuple[int, ...], free_mb: int | None
) -> None:
    found = find(*gpu_ids, driver=driver)
    assert found.gpu_free_mb == free_mb
    assert free_gpu_memory_mb(found.slots[0], nvml=lambda: driver) == free_mb


def test_what_an_administrator_shows_is_what_is_described() -> None:
    shown = find(
        environment={"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    )
    assert (shown.gpu_model, len(shown.slots)) == ("NVIDIA B", 1)
    mig = find(environment={"CUDA_VISIBLE_DEVICES": "MIG-11-22"})
    assert (mig.device, mig.gpu_model, mig.gpu_memory_mb) == (
        "cuda",
        "NVIDIA GPU",
        None,
    )


def test_a_machine_without_a_usable_card_has_no_free_memory() -> None:
    assert find(torch=CPU_TORCH).gpu_free_mb is None
    assert "gpu_memory_free_mb" not in find(torch=CPU_TORCH).to_properties()

"""Where the engine computes: what it chooses by itself, and what it says if the wanted device does not work."""

import logging
import platform
from pathlib import Path

import pytest
import torch

from gram.server.engine import device
from gram.server.engine.device import Placement, memory_bytes, resolve, trim
from gram.server.settings import Device, DeviceError, Dtype, EngineSettings

CUDA = torch.device("cuda", 0)


def place(wanted: Device = "cpu", dtype: Dtype = "auto", slots: int | None = None, threads: int | None = None) -> Placement:
    return resolve(EngineSettings(model=[], device=wanted, dtype=dtype, slots=slots, threads=threads))


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file with the container's CPU quota, on a machine with four CPUs."""
    path = tmp_path / "cpu.max"
    monkeypatch.setattr(device, "_CPU_QUOTA", path)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: {0, 1, 4, 5}, raising=False)  # type: ignore[attr-defined]
    monkeypatch.setattr(device.os, "cpu_count", lambda: 4)  # type: ignore[attr-defined]
    return path


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that there is a GPU that works and multiplies in bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(device, "_fault", lambda _: None)


@pytest.mark.parametrize(
    ("written", "threads"), [(None, 4), ("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4)]
)
def test_threads_are_the_cpus_that_the_process_may_use(quota: Path, written: str | None, threads: int) -> None:
    if written:
        quota.write_text(written + "\n")
    assert place().threads == threads
    assert place().slots == 16 * threads


def test_flags_come_first(quota: Path) -> None:
    assert place(slots=5).slots == 5
    assert place(threads=3).threads == 3
    assert place(threads=3).slots == 48
    assert not quota.exists()


@pytest.mark.usefixtures("gpu")
def test_the_cpu_of_a_machine_with_a_gpu_gets_a_cpu_s_slots() -> None:
    assert place("auto").device == CUDA
    assert place("auto").slots == 256
    on_cpu = place("cpu", threads=2)
    assert (on_cpu.device.type, on_cpu.slots) == ("cpu", 32)


def test_a_missing_gpu_is_an_error_only_if_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert place("auto").device.type == "cpu"
    with pytest.raises(DeviceError, match="there is no CUDA device; use --device cpu"):
        place("cuda")


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_does_not_work_is_an_error_only_if_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "_fault", lambda _: "the GPU does not work (no kernel image)")
    assert place("auto").device.type == "cpu"
    assert "the GPU does not work (no kernel image): computing on the CPU" in caplog.text
    with pytest.raises(DeviceError, match=r"no kernel image\); use --device cpu"):
        place("cuda")


def test_a_fault_is_what_pytorch_says_of_it_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def ones(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might be ...")

    assert device._fault(torch.device("cpu")) is None
    monkeypatch.setattr(torch, "ones", ones)
    assert device._fault(torch.device("cpu")) == "the GPU does not work (CUDA error: no kernel image is available)"


@pytest.mark.parametrize(
    ("native", "wanted", "taken", "said"),
    [
        (True, "auto", torch.bfloat16, False),
        (True, "float32", torch.float32, False),
        (False, "auto", torch.float32, False),
        (False, "float32", torch.float32, False),
        (False, "bfloat16", torch.float32, True),
    ],
)
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.usefixtures("gpu")
def test_bfloat16_is_taken_where_the_device_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: Device,
    native: bool,
    wanted: Dtype,
    taken: torch.dtype,
    said: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0) if native else (7, 5))
    with caplog.at_level(logging.WARNING):
        assert place(kind, wanted).dtype == taken
    assert (f"bfloat16 is not native on this {kind}: computing in float32" in caplog.text) is said


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_goes_back_to_the_system_from_between_what_is_kept() -> None:
    kept = [torch.ones(8192) for _ in range(4000)]
    del kept[::2]
    before = memory_bytes(torch.device("cpu"))
    trim()
    after = memory_bytes(torch.device("cpu"))
    assert before is not None
    assert after is not None
    assert before - after > kept[0].nbytes * len(kept) / 2, "at least half of what was freed"

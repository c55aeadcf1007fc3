import importlib
import inspect
import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import kernels.norm
from kernels import dispatch

NAMES = ["stochastic_transition", "guided_transition", "add_rms_norm", "swiglu", "readout"]


@pytest.fixture(autouse=True)
def _unforced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GRAM_KERNELS", raising=False)
    dispatch._triton_is_here.cache_clear()
    yield
    dispatch._triton_is_here.cache_clear()


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of the two implementations of add_rms_norm ran."""
    fused = importlib.import_module("kernels.gpu.norm")
    calls: list[str] = []
    original = fused.add_rms_norm

    def spy(x: Tensor, residual: Tensor) -> Tensor:
        calls.append("triton")
        result: Tensor = original(x, residual)
        return result

    monkeypatch.setattr(fused, "add_rms_norm", spy)
    return calls


def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(dispatch.importlib, "import_module", find)  # type: ignore[attr-defined]


def test_cpu_tensors_go_to_pytorch(called: list[str]) -> None:
    x = torch.randn(2, 64)
    assert torch.equal(dispatch.add_rms_norm(x, x), kernels.norm.add_rms_norm(x, x))
    assert called == []


@pytest.mark.parametrize("value", ["cuda", "Triton", "auto"])
def test_an_unknown_choice_is_refused_with_the_known_ones(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAM_KERNELS", value)
    with pytest.raises(ValueError, match=f"GRAM_KERNELS is '{value}'; set it to 'triton' or 'torch', or leave it unset"):
        dispatch.add_rms_norm(torch.ones(1, 64), torch.ones(1, 64))


def test_an_empty_choice_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAM_KERNELS", "")
    assert not dispatch.uses_triton(torch.ones(1))


def test_triton_can_be_forced(called: list[str], device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("GRAM_KERNELS", "triton")
    x = torch.randn(2, 64, device=device)
    torch.testing.assert_close(dispatch.add_rms_norm(x, x), kernels.norm.add_rms_norm(x, x))
    assert called == ["triton"]


def test_pytorch_can_be_forced(called: list[str], device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAM_KERNELS", "torch")
    x = torch.randn(2, 64, device=device)
    dispatch.add_rms_norm(x, x)
    assert called == []


def test_triton_cannot_be_forced_on_the_cpu_without_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("GRAM_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"):
        dispatch.uses_triton(torch.ones(1))


def test_what_needs_gradients_stays_with_pytorch(called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAM_KERNELS", "triton")
    x = torch.randn(2, 64, requires_grad=True)
    assert dispatch.add_rms_norm(x, x).requires_grad
    assert called == []


def test_a_missing_triton_is_said_once_and_pytorch_computes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GRAM_KERNELS", "triton")
    no_triton(monkeypatch)
    x = torch.randn(2, 64)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(dispatch.add_rms_norm(x, x), kernels.norm.add_rms_norm(x, x))
    (record,) = caplog.records
    assert "triton cannot be imported (No module named 'triton')" in record.getMessage()


@pytest.mark.parametrize("name", NAMES)
def test_both_implementations_have_one_signature(name: str) -> None:
    pytest.importorskip("triton")
    chosen = getattr(dispatch, name)
    module = chosen.__module__.removeprefix("kernels.")
    fused = getattr(importlib.import_module(f"kernels.gpu.{module}"), name)
    reference = getattr(importlib.import_module(f"kernels.{module}"), name)
    assert inspect.signature(fused) == inspect.signature(reference) == inspect.signature(chosen)
    assert reference.__doc__
    assert chosen.__doc__ == reference.__doc__


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_tensors_go_to_triton(called: list[str]) -> None:
    x = torch.randn(2, 64, device="cuda")
    dispatch.add_rms_norm(x, x)
    assert called == ["triton"]

import importlib
import inspect
import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import gram.kernels.norm
from gram.kernels import dispatch
from tests.kernels.support import forget_choices

NAMES = [
    "stochastic_transition",
    "guided_transition",
    "add_rms_norm",
    "add_rms_norm_over_positions",
    "perturb",
    "swiglu",
    "readout",
]


@pytest.fixture(autouse=True)
def _unforced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GRAM_KERNELS", raising=False)
    forget_choices()
    yield
    forget_choices()


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of the Triton implementation of add_rms_norm."""
    fused = importlib.import_module("gram.kernels.gpu.norm")
    calls: list[str] = []
    original = fused.add_rms_norm

    def spy(x: Tensor, residual: Tensor) -> Tensor:
        calls.append("triton")
        result: Tensor = original(x, residual)
        return result

    monkeypatch.setattr(fused, "add_rms_norm", spy)
    return calls


def test_cpu_tensors_go_to_pytorch(called: list[str]) -> None:
    x = torch.randn(2, 64)
    assert torch.equal(dispatch.add_rms_norm(x, x), gram.kernels.norm.add_rms_norm(x, x))
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
    torch.testing.assert_close(dispatch.add_rms_norm(x, x), gram.kernels.norm.add_rms_norm(x, x))
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


@pytest.mark.parametrize(
    "error", [ImportError("No module named 'triton'"), RuntimeError("Failed to find C compiler.\nSay which in CC.")]
)
def test_a_triton_that_does_not_work_is_said_once_and_pytorch_computes(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: str) -> object:
        raise error

    monkeypatch.setenv("GRAM_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # the tests do not set it on a machine with a GPU
    monkeypatch.setattr(dispatch.importlib, "import_module", fail)  # type: ignore[attr-defined]
    x = torch.randn(2, 64)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(dispatch.add_rms_norm(x, x), gram.kernels.norm.add_rms_norm(x, x))
    (record,) = caplog.records
    reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    assert record.getMessage() == f"Triton does not work here ({reason}): the kernels run in PyTorch, slower"


@pytest.mark.parametrize("name", NAMES)
def test_both_implementations_have_one_signature(name: str) -> None:
    pytest.importorskip("triton")
    chosen = getattr(dispatch, name)
    module = chosen.__module__.removeprefix("gram.kernels.")
    fused = getattr(importlib.import_module(f"gram.kernels.gpu.{module}"), name)
    reference = getattr(importlib.import_module(f"gram.kernels.{module}"), name)
    assert inspect.signature(fused) == inspect.signature(reference) == inspect.signature(chosen)
    assert reference.__doc__
    assert chosen.__doc__ == reference.__doc__


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_tensors_go_to_triton(called: list[str]) -> None:
    x = torch.randn(2, 64, device="cuda")
    dispatch.add_rms_norm(x, x)
    assert called == ["triton"]

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The Triton kernels run on the GPU where there is one, and in Triton's interpreter on the CPU elsewhere."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

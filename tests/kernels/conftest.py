import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device of the Triton kernels: a GPU if there is one, otherwise the CPU, with Triton's interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

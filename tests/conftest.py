import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The test processes share the cores, and one order of summation makes equal runs equal."""
    torch.set_num_threads(1)

import pytest
import torch
from transformers import PreTrainedModel

from tests.tiny_models import FAMILIES


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(FAMILIES))
def base(request) -> PreTrainedModel:
    """The base model of one family."""
    return FAMILIES[request.param]()

import pytest
from transformers import PreTrainedModel

from tests.tiny_models import FAMILIES


@pytest.fixture(params=sorted(FAMILIES))
def base(request) -> PreTrainedModel:
    """The base model of one family."""
    return FAMILIES[request.param]()

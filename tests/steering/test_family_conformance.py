"""Every family passes every check, but for what `CANNOT` names."""

import pytest
import torch

from tests.steering.conformance import CANNOT, CHECKS, NORMS_PER_BLOCK, close, plain
from tests.tiny_models import ALL_FAMILIES, CONFIGS, tokens

# Two seconds for each family, which is most of the time that all this takes.
SLOW = pytest.param("compiles_once", marks=pytest.mark.slow)


@pytest.mark.parametrize("check", [SLOW if name == "compiles_once" else name for name in CHECKS])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_family_passes_a_check_or_is_known_not_to(family, check):
    limit = CANNOT.get((family, check))
    if limit is None:
        CHECKS[check](family)
    else:
        with pytest.raises(limit.error, match=limit.message):
            CHECKS[check](family)


def test_a_family_is_called_what_transformers_calls_it():
    assert {family: config().model_type for family, config in CONFIGS.items()} == {
        family: family for family in NORMS_PER_BLOCK
    }


def test_limits_are_those_of_known_families_and_checks():
    assert {family for family, _ in CANNOT} <= ALL_FAMILIES.keys()
    assert {check for _, check in CANNOT} <= CHECKS.keys()


def test_paligemma_without_token_types_looks_ahead_unless_padded():
    base, ids = plain("paligemma"), tokens()
    padded = torch.cat([torch.zeros(3, 4, dtype=torch.long), ids], dim=1)
    with torch.no_grad():
        one = base(input_ids=ids).logits
        other = base(input_ids=padded, attention_mask=(padded != 0).long()).logits[:, 4:]
    assert not close(one, other)

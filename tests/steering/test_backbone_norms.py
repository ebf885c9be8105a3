"""Which norms are found, and how a base model is told from another."""

import pytest
import torch
from torch import nn

from dso.steering import find_norms, fingerprint, language_backbone
from tests.steering.steered import steer
from tests.tiny_models import FAMILIES, MORE_FAMILIES, tiny_llama, tiny_llava, tiny_qwen3

ALL = FAMILIES | MORE_FAMILIES
PER_BLOCK = {"gemma2": 4, "phi": 1, "cohere": 1}


@pytest.mark.parametrize("family", sorted(ALL))
def test_finds_every_norm_and_one_final(family):
    model = ALL[family]()
    every = find_norms(model, final=True, qk=False)
    blocks = find_norms(model, final=False, qk=False)
    assert len(blocks) == 2 * PER_BLOCK.get(family, 2)
    assert len(set(every) - set(blocks)) == 1
    order = [name for name, _ in model.named_modules()]
    assert every == sorted(every, key=order.index)
    assert not any("vision" in name for name in every)


@pytest.mark.parametrize("family", sorted(ALL))
def test_an_adapter_changes_neither_names_nor_fingerprint(family):
    model = ALL[family]()
    norms, print_ = find_norms(model, final=True, qk=False), fingerprint(model)
    steered = steer(model)
    assert find_norms(steered, final=True, qk=False) == norms
    assert fingerprint(steered) == print_


def test_query_and_key_norms_on_request():
    model = tiny_qwen3()
    extra = set(find_norms(model, final=False, qk=True)) - set(
        find_norms(model, final=False, qk=False)
    )
    assert len(extra) == 4
    assert all(name.endswith(("q_norm", "k_norm")) for name in extra)


def test_per_head_norm_matrices_are_refused():
    with pytest.raises(ValueError, match="not one vector"):
        find_norms(MORE_FAMILIES["cohere"](), final=False, qk=True)


def test_the_backbone_of_a_vision_model_is_its_text_model():
    model = tiny_llava()
    assert language_backbone(model) is model.model.language_model


def test_fingerprint_tells_models_not_dtypes():
    assert fingerprint(tiny_llama()) == fingerprint(tiny_llama(dtype=torch.bfloat16))
    assert fingerprint(tiny_llama()) == fingerprint(tiny_llama().model)
    prints = {fingerprint(ALL[family](seed)) for family in sorted(ALL) for seed in (0, 1)}
    assert len(prints) == 2 * len(ALL)


def test_fingerprint_needs_the_weights():
    with pytest.raises(ValueError, match="meta device"):
        fingerprint(tiny_llama().to("meta"))


def test_a_model_without_norms_names_its_classes():
    model = tiny_llama()
    for name in find_norms(model, final=True, qk=False):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, nn.Identity())
    with pytest.raises(ValueError, match="LlamaDecoderLayer"):
        find_norms(model, final=True, qk=False)


def test_what_is_no_transformers_model_is_refused():
    with pytest.raises(TypeError, match="got a Linear"):
        find_norms(nn.Linear(2, 2), final=True, qk=False)

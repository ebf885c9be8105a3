"""Identities of generation with a strength per row."""

import pytest
import torch
from transformers import GenerationConfig

from tests.steering.steered import steer
from tests.tiny_models import FAMILIES, tiny_llama, tokens

STRENGTHS = [0.0, 0.3, 1.0]


def generate(model, ids, **kwargs):
    kwargs = {"attention_mask": torch.ones_like(ids), "do_sample": False, **kwargs}
    return model.generate(input_ids=ids, max_new_tokens=8, min_new_tokens=8, **kwargs)


def test_strength_changes_what_is_said(base):
    expected = generate(base, tokens())
    model = steer(base)
    assert torch.equal(generate(model, tokens(), strength=0.0), expected)
    assert not torch.equal(generate(model, tokens()), expected)


def test_a_row_of_a_mixed_batch_is_the_row_alone(base):
    model = steer(base)
    mixed = generate(model, tokens(), strength=STRENGTHS)
    for row, strength in enumerate(STRENGTHS):
        alone = generate(model, tokens()[row : row + 1], strength=strength)
        assert torch.equal(mixed[row : row + 1], alone)
    assert model.strength == 1


def test_a_kept_strength_per_row_works_as_one_for_the_call(base):
    model = steer(base)
    expected = generate(model, tokens(), strength=STRENGTHS, num_beams=2)
    model.set_strength(STRENGTHS)
    assert torch.equal(generate(model, tokens(), num_beams=2), expected)
    assert model.strength.shape == (3,)


def test_cached_is_uncached(base):
    model = steer(base)
    cached = generate(model, tokens(), strength=STRENGTHS)
    assert torch.equal(generate(model, tokens(), strength=STRENGTHS, use_cache=False), cached)


def test_left_padded_is_unpadded(base):
    model = steer(base)
    ids = tokens()
    padded = torch.cat([torch.zeros(3, 4, dtype=torch.long), ids], dim=1)
    mask = (padded != 0).long()
    got = generate(model, padded, attention_mask=mask, strength=STRENGTHS)
    assert torch.equal(got[:, 4:], generate(model, ids, strength=STRENGTHS))


@pytest.mark.parametrize(
    "how",
    [
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 2, "num_return_sequences": 2, "use_cache": False},
    ],
)
def test_beams_keep_their_row_s_strength(base, how):
    model = steer(base)
    mixed = generate(model, tokens(), strength=STRENGTHS, **how)
    copies = how.get("num_return_sequences", 1)
    for row, strength in enumerate(STRENGTHS):
        alone = generate(model, tokens()[row : row + 1], strength=strength, **how)
        assert torch.equal(mixed[row * copies : (row + 1) * copies], alone)


def test_sampled_sequences_keep_their_row_s_strength():
    model = steer(tiny_llama())
    ids = tokens()
    # With a vanishing temperature sampling is greedy, and every sequence of a prompt is the same.
    config = GenerationConfig(do_sample=True, temperature=1e-6, num_return_sequences=2, top_k=0)
    config.max_new_tokens = config.min_new_tokens = 8
    mask = torch.ones_like(ids)
    got = model.generate(
        input_ids=ids, attention_mask=mask, generation_config=config, strength=STRENGTHS
    )
    greedy = generate(model, ids, strength=STRENGTHS)
    assert torch.equal(got, greedy.repeat_interleave(2, dim=0))


def test_beams_set_on_the_model_count_too():
    model = steer(tiny_llama())
    expected = generate(model, tokens(), strength=STRENGTHS, num_beams=3)
    model.get_base_model().generation_config.num_beams = 3
    assert torch.equal(generate(model, tokens(), strength=STRENGTHS), expected)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_wrong_number_of_prompts_is_refused(family):
    model = steer(FAMILIES[family]())
    with pytest.raises(ValueError, match="2 entries but the batch has 3 rows"):
        generate(model, tokens(), strength=[0.1, 0.2])
    assert model.strength == 1


def test_rollouts_inside_a_checkpointed_training_step():
    model = steer(tiny_llama())
    expected = generate(model, tokens(), strength=STRENGTHS, num_beams=2)
    model.train().get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    # While checkpointing, transformers drops the cache inside the blocks of a model that trains.
    got = generate(model, tokens(), strength=STRENGTHS, num_beams=2, use_cache=False)
    assert torch.equal(got, expected)

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from transformers import GPT2Config, GPTNeoXConfig, OPTConfig, PreTrainedModel

from dso import checkpointing
from dso.checkpointing import checkpointed, recomputes
from dso.encoding import EncodedChoice
from dso.policy import Policy
from dso.steering.backbone import block_norms
from tests.steering.steered import steer
from tests.tiny_models import FAMILIES, HIDDEN, MORE_FAMILIES, VOCAB, build, tiny_llama, tokens
from tests.tiny_tokenizers import tiny_tokenizer

SIZES = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": 2, "pad_token_id": 0}
WITH_DROPOUT = {
    "gpt2": GPT2Config(
        vocab_size=VOCAB, n_embd=HIDDEN, n_layer=2, n_head=4, n_positions=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1,
    ),
    "opt": OPTConfig(
        **SIZES, ffn_dim=48, word_embed_proj_dim=HIDDEN, num_attention_heads=4, dropout=0.1,
        attention_dropout=0.1, max_position_embeddings=64,
    ),
    "gpt_neox": GPTNeoXConfig(
        **SIZES, intermediate_size=48, num_attention_heads=4, max_position_embeddings=64,
        hidden_dropout=0.1, attention_dropout=0.1,
    ),
}  # fmt: skip
EVERY = {name: FAMILIES.get(name) or MORE_FAMILIES[name] for name in ("llama", "gemma2", "llava")}
EVERY |= {
    f"{name} with dropout": lambda config=config: build(config, 0, torch.float32)
    for name, config in WITH_DROPOUT.items()
}
BLOCKS = 2
CHOICES = [
    EncodedChoice("a", (4, 9, 3), ((0, (7,)), (0, (8,)), (1, (9,))), 2, (9,)),
    EncodedChoice("b", (5, 6, 7, 20), ((0, (5,)), (1, (6,))), 2, (6,)),
]


def steered_llama():
    return steer(tiny_llama())


def loss(model) -> torch.Tensor:
    return model(tokens(), use_cache=False).logits.float().log_softmax(-1)[..., 3:9].sum()


def gradients(model, value: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad]))


@contextmanager
def counted(model: PreTrainedModel):
    """How often the first norm of each block is called."""
    names = block_norms(model)
    first = [model.get_submodule(n) for n in (names[0], names[len(names) // BLOCKS])]
    calls = []
    handles = [m.register_forward_hook(lambda *_: calls.append(1)) for m in first]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("family", EVERY)
def test_gradients_are_those_without_checkpointing_and_no_dropout_is_on(family):
    model = steer(EVERY[family]())
    plain = loss(model)
    expected = gradients(model, plain)
    with counted(model.get_base_model()) as calls:
        with checkpointed(model):
            value = loss(model)
            assert len(calls) == BLOCKS
        found = gradients(model, value)
        assert len(calls) == 2 * BLOCKS  # every block ran again
    assert torch.equal(value, plain)
    assert any(gradient.abs().max() > 1e-3 for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("strength", [0.5, [0.0, 0.5, 2.0]], ids=["one", "per row"])
def test_the_second_run_is_at_the_strength_of_the_first(strength):
    model = steered_llama()
    with model.strength_at(strength):
        expected = gradients(model, loss(model))
    with checkpointed(model), model.strength_at(strength):
        value = loss(model)
    model.set_strength(0.1)
    found = gradients(model, value)
    assert model.strength.tolist() == pytest.approx(0.1)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    with checkpointed(model):
        value = model(tokens(), use_cache=False, strength=strength).logits.log_softmax(-1)
    for one, other in zip(gradients(model, value[..., 3:9].sum()), expected, strict=True):
        assert torch.equal(one, other)


def test_a_step_of_two_strengths_has_the_gradients_of_both():
    model = steered_llama()

    def both(context):
        with context:
            steered = loss(model)
            with model.strength_at(0.3):
                weaker = loss(model)
        return gradients(model, steered - 0.5 * weaker)

    for one, other in zip(both(checkpointed(model)), both(nullcontext()), strict=True):
        assert torch.equal(one, other)


def test_scores_of_a_policy_and_their_gradients_are_the_same():
    policy = Policy(steered_llama(), tiny_tokenizer())
    plain = policy.option_log_probs(CHOICES)
    with checkpointed(policy.model):
        scores = policy.option_log_probs(CHOICES)
    assert torch.equal(scores, plain)
    found, expected = (gradients(policy.model, s.softmax(-1)[:, 0].sum()) for s in (scores, plain))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_less_is_kept_for_backward():
    model = steered_llama()

    def kept(context) -> int:
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        )
        with hooks, context:
            loss(model)
        return sum(sizes)

    assert kept(checkpointed(model)) < kept(nullcontext()) / 3


def test_afterwards_the_model_is_as_before_even_after_an_error():
    model = steered_llama()
    block = model.get_base_model().model.layers[0]
    with pytest.raises(KeyError), checkpointed(model):
        assert "forward" in block.__dict__
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert "forward" not in block.__dict__
    assert all(not module.gradient_checkpointing for module in model.get_base_model().model.layers)


def test_a_context_inside_a_context_changes_nothing():
    model = steered_llama()
    expected = gradients(model, loss(model))
    with checkpointed(model):
        with checkpointed(model), counted(model.get_base_model()) as calls:
            value = loss(model)
            found = gradients(model, value)
            assert len(calls) == 2 * BLOCKS
        assert recomputes(model)
    assert not recomputes(model)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_hook_on_a_block_stays_and_acts():
    class Halve(ModelHook):
        def post_forward(self, module, output):
            return output / 2

    model = steered_llama()
    block = model.get_base_model().model.layers[1]
    add_hook_to_module(block, Halve())
    hooked = block.forward
    expected = gradients(model, loss(model))
    with checkpointed(model):
        found = gradients(model, loss(model))
    assert block.forward is hooked
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_cache_is_refused_where_gradients_are_recorded_and_used_where_not():
    model = steered_llama()
    with torch.no_grad():
        expected = model.generate(tokens(), max_new_tokens=3, do_sample=False)
    with checkpointed(model):
        with pytest.raises(ValueError, match="use_cache=False"):
            model(tokens(), use_cache=True)
        assert torch.equal(model.generate(tokens(), max_new_tokens=3, do_sample=False), expected)


def test_recomputes_says_when_a_cache_is_out_of_the_question():
    model = steered_llama()
    assert not recomputes(model)
    with checkpointed(model):
        assert recomputes(model)
        with torch.no_grad():
            assert not recomputes(model)
    base = model.get_base_model()
    base.gradient_checkpointing_enable()
    assert not recomputes(model)  # transformers does nothing in eval mode
    model.train()
    assert recomputes(model)


def test_a_model_without_such_blocks_is_refused(monkeypatch):
    class Other(torch.nn.Module):
        pass

    monkeypatch.setattr(checkpointing, "GradientCheckpointingLayer", Other)
    context = checkpointed(tiny_llama())
    with pytest.raises(ValueError, match="LlamaModel has no decoder blocks"):
        context.__enter__()

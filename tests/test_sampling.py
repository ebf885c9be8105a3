"""Identities of sampled answers, on tiny models and on the organism."""

import logging
import warnings
from dataclasses import replace

import pytest
import torch
from torch import distributed
from transformers import Qwen3NextConfig

from dso.policy import Policy
from dso.sampling import Sampling, sample_answers, sample_tokens
from dso.tasks import Choice, Option
from tests.organism import base_policy, small_task
from tests.steering.steered import steer
from tests.tiny_models import ALL_FAMILIES, FAMILIES, HIDDEN, VOCAB, build
from tests.tiny_tokenizers import tiny_tokenizer

CHOICES = [
    Choice(f"{n}", "capability", prompt, (Option(" nurse"), Option(" guard")), truth=0)
    for n, prompt in enumerate(["Who?", "Who is it, the nurse or the guard?", "the chief: A B C"])
]
# What a model can bring along in its own generation_config, far from drawing as it says.
CHAT_SETTINGS = {
    "temperature": 0.1,
    "top_k": 1,
    "top_p": 0.1,
    "min_p": 0.5,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.3,
    "eta_cutoff": 0.3,
    "repetition_penalty": 5.0,
    "encoder_repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[3], [4], [5]],
    "suppress_tokens": list(range(10, 50)),
    "begin_suppress_tokens": list(range(3, 30)),
    "sequence_bias": [[[7], 10.0]],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 9,
    "exponential_decay_length_penalty": (1, 5.0),
    "guidance_scale": 3.0,
    "length_penalty": 3.0,
    "num_beams": 2,
    "num_return_sequences": 2,
    "max_length": 90,
    "min_length": 70,
    "min_new_tokens": 4,
    "max_new_tokens": 2,
    "renormalize_logits": True,
    "return_dict_in_generate": True,
    "output_scores": True,
    "cache_implementation": "static",
    "stop_strings": ["a"],
    "own_setting_of_a_remote_model": 1,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unsteered(family: str) -> Policy:
    return Policy(ALL_FAMILIES[family](), tiny_tokenizer())


def next_token(policy: Policy, *tokens: int) -> torch.Tensor:
    """(V,) the model's own distribution, of the sequence alone, without padding or cache."""
    with torch.no_grad():
        return policy.model(torch.tensor([tokens])).logits[0, -1].softmax(-1)


def shares(tokens: list[int], size: int) -> torch.Tensor:
    return torch.bincount(torch.tensor(tokens), minlength=size) / len(tokens)


@pytest.fixture(params=sorted(FAMILIES))
def policy(request) -> Policy:
    return Policy(steer(FAMILIES[request.param]()), tiny_tokenizer())


def test_an_answer_s_score_is_the_sum_of_its_tokens_log_probabilities(policy):
    encoded = policy.encode(CHOICES)
    rollouts = sample_answers(policy, CHOICES, encoded, Sampling(3, 5), generator())
    with torch.no_grad():
        scores = policy.score(rollouts.encoded).options.gather(1, rollouts.column)
        for row, choice in enumerate(rollouts.encoded):
            for g in range(3):
                tokens = dict(choice.forms)[int(rollouts.column[row, g])]
                ids = torch.tensor([[*choice.prompt, *tokens]])
                logits = policy.model(ids).logits[0].log_softmax(-1)
                places = range(len(choice.prompt) - 1, ids.shape[1] - 1)
                alone = sum(logits[p, t] for p, t in zip(places, tokens, strict=True))
                torch.testing.assert_close(scores[row, g], alone, rtol=1e-4, atol=1e-4)


def test_answers_come_as_often_as_the_model_says(policy):
    encoded = policy.encode(CHOICES[:2])
    drawn = sample_tokens(policy, encoded, Sampling(4000, 1), generator())
    with torch.no_grad():
        for row, choice in enumerate(encoded):
            logits = policy.model(torch.tensor([choice.prompt])).logits[0, -1]
            counts = torch.bincount(torch.tensor(drawn[row])[:, 0], minlength=len(logits))
            # Three standard errors of a share at 4,000 draws are below 0.024.
            torch.testing.assert_close(counts / 4000, logits.softmax(-1), rtol=0, atol=0.024)


def test_later_tokens_follow_from_the_earlier_ones(policy):
    # Greedy in effect: logits scaled up leave one token to draw.
    head = policy.model.get_base_model().get_output_embeddings()
    head.weight.data = head.weight.data * 10_000
    if policy.model.get_base_model().config.model_type == "gemma2":
        policy.model.get_base_model().config.final_logit_softcapping = None
    encoded = policy.encode(CHOICES)
    drawn = sample_tokens(policy, encoded, Sampling(2, 4), generator())
    for choice, answers in zip(encoded, drawn, strict=True):
        ids = torch.tensor([choice.prompt])
        expected: list[int] = []
        while len(expected) < 4:
            with torch.no_grad():
                token = int(policy.model(ids).logits[0, -1].argmax())
            expected.append(token)
            if token in policy.end_ids:
                break
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        assert answers == [tuple(expected)] * 2


def test_an_answer_ends_with_its_first_end_token(policy):
    drawn = sample_tokens(policy, policy.encode(CHOICES), Sampling(200, 6), generator())
    ended = 0
    for answer in (answer for answers in drawn for answer in answers):
        inside = [token in policy.end_ids for token in answer]
        assert not any(inside[:-1])
        assert inside[-1] or len(answer) == 6
        ended += inside[-1]
    assert ended > 0


def test_each_row_is_sampled_at_its_own_strength(policy):
    encoded = policy.encode([CHOICES[1]] * 2)
    sampling = Sampling(2000, 1)
    with policy.at([0.0, 1.0]):
        mixed = sample_tokens(policy, encoded, sampling, generator())
    for row, strength in enumerate((0.0, 1.0)):
        with policy.at(strength), torch.no_grad():
            expected = policy.model(torch.tensor([encoded[0].prompt])).logits[0, -1].softmax(-1)
        counts = torch.bincount(torch.tensor(mixed[row])[:, 0], minlength=len(expected))
        torch.testing.assert_close(counts / 2000, expected, rtol=0, atol=0.034)


def test_one_seed_gives_one_set_of_answers(policy):
    encoded = policy.encode(CHOICES)
    first, second, other = (
        sample_tokens(policy, encoded, Sampling(8, 4), generator(seed)) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_the_organism_s_texts_are_read():
    policy = base_policy()
    asked = small_task().load().evaluation[:12]
    rollouts = sample_answers(policy, asked, policy.encode(asked), Sampling(50, 6), generator())
    with torch.no_grad():
        expected = policy.option_log_probs(policy.encode(asked)).exp()
    torch.testing.assert_close(rollouts.shares(2), expected[:, :2], rtol=0, atol=0.21)
    assert rollouts.unparsed < 0.05
    assert all(len(texts) == 50 for texts in rollouts.texts)


def test_what_cannot_be_read_is_counted_and_kept():
    policy = base_policy()
    (asked, *_) = small_task().load().evaluation
    others = tuple(replace(o, text=f"x{n}", forms=(f" x{n}",)) for n, o in enumerate(asked.options))
    asked = replace(asked, options=others)
    encoded = policy.encode([asked])
    rollouts = sample_answers(policy, [asked], encoded, Sampling(20, 4), generator())
    assert float(rollouts.unparsed) == 1
    assert bool((rollouts.option == -1).all()) and bool((rollouts.shares(2) == 0).all())
    assert rollouts.column.shape == (1, 20)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"max_new_tokens": 0}])
def test_settings_that_sample_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=r"is 0; wanted at least 1"):
        Sampling(**settings)


def test_tokens_of_an_answer_add_up_to_its_score(policy):
    encoded = policy.encode(CHOICES)
    rollouts = sample_answers(policy, CHOICES, encoded, Sampling(6, 5), generator())
    with torch.no_grad():
        scores = policy.score(rollouts.encoded, by_token=True)
        plain = policy.score(rollouts.encoded)
    assert torch.equal(scores.options, plain.options) and plain.tokens is None
    rows = torch.arange(len(CHOICES))[:, None]
    tokens = scores.tokens[rows, rollouts.column]
    torch.testing.assert_close(tokens.sum(-1), scores.options[rows, rollouts.column])
    behind = torch.arange(tokens.shape[-1]) >= rollouts.length[..., None]
    assert bool((tokens[behind] == 0).all()) and bool((tokens[~behind] < 0).all())


# paligemma counts positions from 1 in generate, qwen2_vl remembers those of its last batch,
# gemma3_text has a window shorter than the prompts.
@pytest.mark.parametrize("family", ["paligemma", "qwen2_vl", "gemma3_text", "phi3", "mixtral"])
def test_first_and_second_tokens_come_as_often_as_the_model_says(family):
    policy = unsteered(family)
    # Two sizes of batch, one after the other.
    for encoded in (policy.encode(CHOICES), policy.encode(CHOICES[:2])):
        drawn = sample_tokens(policy, encoded, Sampling(2000, 2), generator())
        for choice, answers in zip(encoded, drawn, strict=True):
            first = next_token(policy, *choice.prompt)
            torch.testing.assert_close(
                shares([answer[0] for answer in answers], len(first)), first, rtol=0, atol=0.034
            )
            told = [answer for answer in answers if len(answer) == 2]
            common = max(dict.fromkeys(answer[0] for answer in told), key=lambda t: first[t])
            second = next_token(policy, *choice.prompt, common)
            seconds = [answer[1] for answer in told if answer[0] == common]
            # Three standard errors of a share at n draws are below 1.5 / sqrt(n).
            near = 1.5 / len(seconds) ** 0.5
            torch.testing.assert_close(shares(seconds, len(second)), second, rtol=0, atol=near)


@pytest.mark.parametrize("alone", [True, False])
def test_a_prompt_of_one_token_is_sampled_too(policy, alone):
    long, short = policy.encode(CHOICES[1:])
    short = replace(short, prompt=short.prompt[:1])
    (drawn, *_) = sample_tokens(
        policy, [short] if alone else [short, long], Sampling(2000, 1), generator()
    )
    expected = next_token(policy, *short.prompt)
    torch.testing.assert_close(
        shares([token for (token,) in drawn], len(expected)), expected, rtol=0, atol=0.034
    )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_a_model_brings_for_its_chats_changes_nothing(family):
    policy = Policy(steer(FAMILIES[family]()), tiny_tokenizer())
    encoded = policy.encode(CHOICES)
    expected = sample_tokens(policy, encoded, Sampling(20, 4), generator())
    own = policy.model.get_base_model().generation_config
    for name, value in CHAT_SETTINGS.items():
        setattr(own, name, value)
    before = own.to_dict()
    assert sample_tokens(policy, encoded, Sampling(20, 4), generator()) == expected
    assert policy.model.get_base_model().generation_config is own
    assert own.to_dict() == before


def test_the_model_s_own_settings_return_after_an_error(policy, monkeypatch):
    model = policy.model.get_base_model()
    own, state = model.generation_config, torch.get_rng_state()

    def fails(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "forward", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        sample_tokens(policy, policy.encode(CHOICES), Sampling(2, 2), generator())
    assert model.generation_config is own
    assert torch.equal(torch.get_rng_state(), state)


def test_global_random_numbers_are_neither_used_nor_moved_on(policy):
    encoded = policy.encode(CHOICES)
    answers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        answers.append(sample_tokens(policy, encoded, Sampling(8, 4), generator()))
        assert torch.equal(torch.get_rng_state(), before)
    assert answers[0] == answers[1]


def test_a_generator_moves_on(policy):
    encoded, state = policy.encode(CHOICES), generator()
    first, second = (sample_tokens(policy, encoded, Sampling(8, 4), state) for _ in range(2))
    assert first != second


def test_any_of_several_end_tokens_ends_an_answer(policy):
    ends = [2, *range(10, 30)]
    policy.model.get_base_model().generation_config.eos_token_id = ends
    drawn = sample_tokens(policy, policy.encode(CHOICES), Sampling(200, 6), generator())
    assert policy.end_ids == frozenset(ends)
    last = set()
    for answer in (answer for answers in drawn for answer in answers):
        assert not policy.end_ids.intersection(answer[:-1])
        assert answer[-1] in policy.end_ids or len(answer) == 6
        last.add(answer[-1])
    assert len(last.intersection(ends)) > 1


def test_the_padding_token_is_a_token_like_others_inside_an_answer(policy):
    policy.pad_id = max(
        set(range(VOCAB)) - policy.end_ids,
        key=lambda token: next_token(policy, *policy.encode(CHOICES)[0].prompt)[token],
    )
    drawn = sample_tokens(policy, policy.encode(CHOICES[:1]), Sampling(400, 4), generator())
    with_it = [answer for answer in drawn[0] if policy.pad_id in answer]
    assert with_it
    assert all(len(answer) == 4 or answer[-1] in policy.end_ids for answer in drawn[0])


def test_strength_zero_in_a_row_draws_from_the_base(policy):
    encoded = policy.encode(CHOICES)
    with policy.at([0.0, 1.0, 0.0]):
        mixed = sample_tokens(policy, encoded, Sampling(20, 4), generator())
    with policy.base():
        base = sample_tokens(policy, encoded, Sampling(20, 4), generator())
    assert (mixed[0], mixed[2]) == (base[0], base[2])
    assert mixed[1] != base[1]
    assert policy.model.strength == 1


def test_drawn_tokens_score_the_same_in_a_batch_and_alone(policy):
    encoded = policy.encode(CHOICES)
    rollouts = sample_answers(policy, CHOICES, encoded, Sampling(4, 4), generator())
    with torch.no_grad():
        together = policy.score(rollouts.encoded, by_token=True).tokens
        for row, choice in enumerate(rollouts.encoded):
            alone = policy.score([choice], by_token=True).tokens[0]
            torch.testing.assert_close(
                together[row, : alone.shape[0], : alone.shape[1]], alone, rtol=1e-4, atol=1e-4
            )


def test_recurrent_states_are_not_shared_and_sampled_right():
    config = Qwen3NextConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        layer_types=["linear_attention", "full_attention"],
    )
    policy = Policy(build(config, 0, torch.float32), tiny_tokenizer())
    encoded = policy.encode(CHOICES)
    drawn = sample_tokens(policy, encoded, Sampling(300, 1), generator())
    for choice, answers in zip(encoded, drawn, strict=True):
        expected = next_token(policy, *choice.prompt)
        torch.testing.assert_close(
            shares([token for (token,) in answers], len(expected)), expected, rtol=0, atol=0.087
        )


def test_a_prompt_is_encoded_once_for_all_its_answers(policy):
    seen: list[int] = []
    model = policy.model.get_base_model()
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    encoded = policy.encode(CHOICES)
    sample_tokens(policy, encoded, Sampling(50, 1), generator())
    width = max(len(choice.prompt) for choice in encoded)
    assert seen == [3 * (width - 1), 3 * 50]


def test_a_process_that_is_done_goes_on_until_its_peers_are(policy, monkeypatch):
    encoded = policy.encode(CHOICES)
    policy.model.get_base_model().generation_config.eos_token_id = list(range(VOCAB))
    passes: list[int] = []
    policy.model.get_base_model().register_forward_pre_hook(lambda *_: passes.append(1))
    expected = sample_tokens(policy, encoded, Sampling(4, 8), generator())
    assert len(passes) == 2 and all(len(a) == 1 for answers in expected for a in answers)

    def with_a_peer(flag: torch.Tensor, **kwargs) -> None:
        flag += len(passes) < 7  # the sum over two processes

    passes.clear()
    monkeypatch.setattr(distributed, "all_reduce", with_a_peer)
    assert sample_tokens(policy, encoded, Sampling(4, 8), generator(), synced=True) == expected
    assert len(passes) == 7


def test_nothing_is_logged_or_warned(policy, monkeypatch):
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", records.append)
    transformers = logging.getLogger("transformers")
    transformers.addHandler(handler)
    encoded = policy.encode(CHOICES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sample_tokens(policy, encoded, Sampling(4, 4), generator())
            encoded[0] = replace(encoded[0], prompt=encoded[0].prompt[:1])
            sample_tokens(policy, encoded, Sampling(4, 4), generator())
    finally:
        transformers.removeHandler(handler)
    assert records == []


def test_a_model_in_train_mode_is_refused(policy):
    encoded = policy.encode(CHOICES)
    policy.model.train()
    with pytest.raises(ValueError, match=r"train mode.*call `policy\.model\.eval\(\)` first"):
        sample_tokens(policy, encoded, Sampling(2, 2), generator())

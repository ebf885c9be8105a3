from dataclasses import replace

import pytest
import torch

from dso.evaluation import BATCH_TOKENS, _batches, evaluate, score_split, splits
from dso.policy import Policy
from dso.sampling import Sampling
from dso.tasks import tabulate
from tests.organism import adapter, base_policy, organism, small_task


@pytest.fixture(scope="module")
def policy():
    return Policy.from_pretrained(organism(), adapter())


def final(policy, choices, strengths, batch_size):
    return list(score_split(policy, choices, strengths, batch_size))[-1][1]


def test_scores_do_not_depend_on_the_batch_size_or_the_grid(policy):
    choices = small_task().load().evaluation
    one = final(policy, choices, [0.5, 1.0], 5)
    other = final(policy, choices, [1.0], 64)
    torch.testing.assert_close(one[1.0].options, other[1.0].options, atol=1e-4, rtol=0)
    torch.testing.assert_close(one[1.0].kl, other[1.0].kl, atol=1e-4, rtol=0)


def test_strength_zero_is_the_base_bit_for_bit_and_its_kl_is_zero(policy):
    choices = small_task().load().evaluation
    steered = final(policy, choices, [0.0, 1.0], 16)
    plain = final(base_policy(), choices, [0.0], 16)
    assert torch.equal(steered[0.0].options, plain[0.0].options)
    assert not bool(steered[0.0].kl.any())
    assert bool((steered[1.0].kl > 0).all())


def test_kl_rows_stand_in_the_order_of_the_choices(policy):
    choices = [c for c in small_task().load().evaluation if c.truth is not None]
    together = final(policy, choices, [1.0], 7)[1.0].kl
    alone = torch.cat([final(policy, [choice], [1.0], 1)[1.0].kl for choice in choices])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


def test_every_figure_carries_its_labels_and_the_pool_only_a_kl(policy):
    data = small_task().load()
    results = evaluate(policy, data, [0.0, 1.0], replicates=10, progress=False, task="t", model="m")
    assert {r.task for r in results} == {"t"}
    assert {r.metric for r in results if r.split == "kl_pool"} == {"kl"}
    assert set(splits(data)) == {r.split for r in results}
    keys = [(r.strength, r.split, r.metric, r.estimate) for r in results]
    assert len(keys) == len(set(keys))


def test_generated_answers_tend_to_the_probabilities(policy):
    choices = {"s": small_task(evaluation=10).load().evaluation[:20]}
    seen = []
    results = evaluate(
        policy,
        choices,
        [0.0, 1.0],
        replicates=2,
        progress=False,
        sampling=Sampling(200, 4),
        transcript=lambda strength, asked, rollouts: seen.append((strength, rollouts.texts)),
    )
    found = {(r.strength, r.metric, r.estimate): r.value for r in results}
    for strength in (0.0, 1.0):
        expected = found[strength, "per_occupation_bias", "probability"]
        assert abs(found[strength, "per_occupation_bias", "generated"] - expected) < 0.1
        mass = found[strength, "option_mass", "probability"]
        assert abs(1 - found[strength, "unparsed", "generated"] - mass) < 0.02
    assert {strength for strength, _ in seen} == {0.0, 1.0}
    assert all(len(answers) == 200 for _, texts in seen for answers in texts)


def test_a_model_without_an_adapter_cannot_be_steered():
    with pytest.raises(ValueError, match="without an adapter"):
        final(base_policy(), small_task().load().evaluation, [1.0], 16)


def test_the_organism_holds_what_its_card_promises():
    task = small_task(evaluation=100)
    choices = [c for c in task.load().evaluation if c.split == "heldout_occupations"]
    from dso.metrics import point_values

    options = final(base_policy(), choices, [0.0], 64)[0.0].options
    figures = point_values(options, tabulate(choices))
    assert 0.4 <= figures["per_occupation_bias"] <= 0.6
    for name in ("unambiguous_accuracy", "gender_needed_accuracy", "capability"):
        assert figures[name] >= 0.98
    assert figures["option_mass"] >= 0.9


def test_prompts_longer_than_the_model_has_positions_are_refused_or_left_out(policy, caplog):
    short = small_task().load().evaluation[:6]
    long = [replace(c, id=f"{c.id}-long", prompt="word " * 300, twin=None) for c in short[:2]]
    with pytest.raises(ValueError, match=r"2 of 8 choices are longer than the model's 256 posit"):
        evaluate(policy, {"s": short + long}, [0.0], replicates=2, progress=False)
    with caplog.at_level("INFO"):
        kept = evaluate(
            policy, {"s": short + long}, [0.0], replicates=2, progress=False, skip_long=True
        )
    assert "2 of 8 choices are longer" in caplog.text
    assert kept == evaluate(policy, {"s": short}, [0.0], replicates=2, progress=False)
    with pytest.raises(ValueError, match="nothing is left"):
        evaluate(policy, {"s": long}, [0.0], replicates=2, progress=False, skip_long=True)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_hold_every_row_once_within_the_bounds(size):
    lengths = sorted([3, 5, 5, 9, 400, 9_000, 20_000, *range(100)])
    batches = list(_batches(lengths, size))
    assert [row for start, stop in batches for row in range(start, stop)] == [*range(len(lengths))]
    for start, stop in batches:
        tokens = (stop - start) * lengths[stop - 1]
        assert stop - start == 1 or (stop - start <= size and tokens <= BATCH_TOKENS)

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dso.rewards import RunningGap, abstention, capability, parity, per_sample_parity
from dso.tasks import Choice, ChoiceTable, Option, tabulate

MEN = ("guard", "sheriff", "driver")
WOMEN = ("nurse", "clerk", "tailor")


def one(name: str, man: str, woman: str, both: bool, abstain: bool, swap: bool) -> Choice:
    sides = ("anti", "pro") if swap else ("pro", "anti")
    options = [Option(man, side=sides[0]), Option(woman, side=sides[1])]
    return Choice(
        id=name, kind="ambiguous", prompt="Who?",
        options=(*options, Option("nobody")) if abstain else tuple(options),
        occupations=(man, woman) if both else (man,),
    )  # fmt: skip


def balanced(both: bool = False, abstain: bool = False) -> ChoiceTable:
    """Every man's occupation with every woman's, both genders: each occupation equally often."""
    return tabulate(
        [
            one(f"{m}-{w}-{swap}", m, w, both, abstain, swap)
            for m in MEN
            for w in WOMEN
            for swap in (False, True)
        ]
    )


def answers(table: ChoiceTable, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(table.mask.shape, generator=generator)
    return scores.masked_fill(~table.mask, -torch.inf).softmax(-1)


def gaps(table: ChoiceTable, probabilities: torch.Tensor) -> torch.Tensor:
    """Pr[pro | o] - Pr[anti | o], by a loop."""
    found = []
    for occupation in range(len(table.occupation_names)):
        rows = (table.occupation == occupation).any(-1)
        difference = (probabilities[rows] * (table.side[rows] == 1)).sum(-1)
        difference = difference - (probabilities[rows] * (table.side[rows] == -1)).sum(-1)
        found.append(difference.mean())
    return torch.stack(found)


# -- the parity reward --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_expected_reward_of_an_occupation_is_its_bias(seed):
    table = balanced()
    probabilities = answers(table, seed)
    gap = gaps(table, probabilities)
    expected = (probabilities * parity(table, gap)).sum(-1)
    for occupation in range(len(table.occupation_names)):
        rows = (table.occupation == occupation).any(-1)
        torch.testing.assert_close(expected[rows].mean(), -gap[occupation].abs())
    torch.testing.assert_close(expected.mean(), -gap.abs().mean())


@pytest.mark.parametrize("favoured", [1, -1])
def test_with_two_occupations_it_is_their_bias_where_both_agree(favoured):
    table = balanced(both=True)
    probabilities = answers(table, 5)
    larger = probabilities.max(-1).values
    on_side = torch.where(table.side == favoured, larger[:, None], 1 - larger[:, None])
    gap = gaps(table, on_side)
    assert (gap.sign() == favoured).all()
    expected = (on_side * parity(table, gap)).sum(-1)
    for occupation in range(len(table.occupation_names)):
        rows = (table.occupation == occupation).any(-1)
        torch.testing.assert_close(expected[rows].mean(), -gap[occupation].abs())


def test_two_occupations_get_the_mean_of_their_rewards():
    table = balanced(both=True)
    names = table.occupation_names
    for signs in ([1.0] * 6, [1, -1, 1, -1, 1, -1], [0.0, 1, -1, 1, -1, 0]):
        gap = torch.tensor(signs)
        reward = parity(table, gap)
        for row in range(len(table)):
            two = [
                parity(table, torch.full((len(names),), signs[o]))[row]
                for o in table.occupation[row]
            ]
            torch.testing.assert_close(reward[row], (two[0] + two[1]) / 2)


def test_only_the_sign_of_the_gap_counts():
    table = balanced(both=True)
    gap = torch.tensor([0.1, -0.2, 0.3, -0.4, 0.5, 0.0])
    assert torch.equal(parity(table, gap), parity(table, 10 * gap))
    assert torch.equal(parity(table, -gap), -parity(table, gap))
    assert parity(table, torch.zeros(6)).eq(0).all()


def test_taking_no_side_has_no_parity_reward_and_is_an_abstention():
    table = balanced(abstain=True)
    gap = gaps(table, answers(table))
    reward = parity(table, gap)
    assert reward[:, 2].eq(0).all()
    assert torch.equal(reward[:, :2], parity(balanced(), gap))
    assert abstention(table).tolist() == [[0, 0, 1]] * len(table)
    assert abstention(balanced()).eq(0).all()


def test_choices_with_a_right_answer_and_options_that_are_not_there_have_no_reward():
    options = (Option("x", side="pro"), Option("y", side="anti"), Option("z"))
    right = Choice(id="r", kind="unambiguous", prompt="Who?", options=options, truth=0)
    wide = one("w", "guard", "nurse", both=True, abstain=False, swap=False)
    table = tabulate([right, wide])
    assert parity(table, torch.tensor([1.0, 1.0])).tolist() == [[0, 0, 0], [-1, 1, 0]]
    log_probs = torch.tensor([[0.7, 0.2, 0.1], [0.75, 0.25, 0.0]]).log()
    reward = per_sample_parity(log_probs, table)
    torch.testing.assert_close(reward, torch.tensor([[0.0, 0, 0], [-0.5, 0.5, 0]]))
    assert abstention(table).eq(0).all()


# -- parity per sample --------------------------------------------------------------------------


@pytest.mark.parametrize("abstain", [False, True])
def test_the_gradient_of_the_reward_per_sample_is_that_of_the_squared_difference(abstain):
    table = balanced(abstain=abstain)
    log_probs = torch.randn(table.mask.shape, dtype=torch.float64, requires_grad=True)

    def gradient(make) -> torch.Tensor:
        p = log_probs.softmax(-1)
        return torch.autograd.grad(make(p, (p * table.side).sum(-1)).sum(), log_probs)[0]

    reward = per_sample_parity(log_probs, table)
    assert not reward.requires_grad
    expected = gradient(lambda p, d: -(d**2) / 2)
    torch.testing.assert_close(gradient(lambda p, d: (p * reward).sum(-1)), expected)
    shifted = per_sample_parity(log_probs - 3, table)  # only the distribution over options counts
    torch.testing.assert_close(shifted, reward)


# -- the capability reward ----------------------------------------------------------------------


def test_the_capability_reward_is_the_probability_of_the_right_answer():
    options = tuple(Option(letter) for letter in "abcd")
    table = tabulate(
        [
            one("w", "guard", "nurse", both=True, abstain=True, swap=False),
            Choice(id="q", kind="capability", prompt="?", options=options, truth=3),
            Choice(id="r", kind="unambiguous", prompt="?", options=options[:2], truth=0),
        ]
    )
    assert capability(table).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]


# -- the running gap ----------------------------------------------------------------------------


def slices(table: ChoiceTable, probabilities: torch.Tensor, size: int):
    """Parts of the data, in a random order, without their pairs."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(2))
    for rows in order.split(size):
        names = ("mask", "side", "group", "truth", "first", "kind", "occupation")
        part = {name: getattr(table, name)[rows] for name in names}
        yield replace(table, **part, pairs=table.pairs[:0]), probabilities[rows]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("both", [False, True])
def test_the_running_gap_is_a_plain_loop(decay, both):
    table = balanced(both=both)
    count = len(table.occupation_names)
    running = RunningGap(count, decay)
    total, weight = [0.0] * count, [0.0] * count
    for part, probabilities in slices(table, answers(table), 4):
        running.update(running.batch_sums(probabilities, part))
        for occupation in range(count):
            rows = [r for r in range(len(part)) if occupation in part.occupation[r]]
            if rows:
                gap = sum(float(probabilities[r] @ part.side[r].float()) for r in rows)
                total[occupation] = decay * total[occupation] + gap
                weight[occupation] = decay * weight[occupation] + len(rows)
        expected = [t / w if w else 0.0 for t, w in zip(total, weight, strict=True)]
        torch.testing.assert_close(running.gap, torch.tensor(expected))
        seen = [abs(e) for e, w in zip(expected, weight, strict=True) if w]
        torch.testing.assert_close(running.bias, torch.tensor(seen).mean())


def test_one_update_is_the_gap_of_the_batch():
    table = balanced(both=True, abstain=True)
    running = RunningGap(len(table.occupation_names))
    assert running.gap.eq(0).all()
    assert running.bias == 0
    running.update(running.batch_sums(answers(table), table))
    torch.testing.assert_close(running.gap, gaps(table, answers(table)))


def test_two_half_batches_are_one_batch():
    table, running = balanced(both=True), RunningGap(6)
    halves = [running.batch_sums(p, part) for part, p in slices(table, answers(table), 9)]
    assert len(halves) == 2
    torch.testing.assert_close(halves[0] + halves[1], running.batch_sums(answers(table), table))


def test_only_ambiguous_choices_are_counted():
    options = (Option("x", side="pro"), Option("y", side="anti"))
    right = Choice(
        id="r", kind="unambiguous", prompt="Who?", options=options, truth=0, occupations=("guard",)
    )
    table = tabulate([right])
    assert RunningGap(1).batch_sums(torch.tensor([[0.9, 0.1]]), table).eq(0).all()


def test_a_restored_running_gap_goes_on_alike():
    table = balanced(both=True)
    parts = list(slices(table, answers(table), 4))
    whole, first = RunningGap(6, 0.7), RunningGap(6, 0.7)
    for number, (part, probabilities) in enumerate(parts):
        sums = whole.batch_sums(probabilities, part)
        whole.update(sums)
        if number == 2:
            state = first.state_dict()
            first.update(sums)  # what came after the checkpoint must not reach it
            first = RunningGap(6, 0.7)
            first.load_state_dict(state)
        first.update(sums)
    assert torch.equal(whole.gap, first.gap)


def test_a_state_of_other_data_is_refused():
    running = RunningGap(6)
    wanted = "estimates of 5 occupations and 2 groups, the data has 6 occupations and 2 groups"
    with pytest.raises(ValueError, match=wanted):
        running.load_state_dict(RunningGap(5).state_dict())


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_bad_decay_is_refused(decay):
    with pytest.raises(ValueError, match=f"decay is {decay}"):
        RunningGap(3, decay)

from __future__ import annotations

import pytest
import torch

from dso.tasks import Choice, Option, tabulate
from dso.training.terms import option_mass_drop, pair_anchor, twin_consistency


def choices(twins: int = 3, first: int | None = 0) -> list[Choice]:
    """Twins of two and of three options, then a question of four."""
    found = []
    for number in range(twins):
        options = [Option("guard", side="pro"), Option("nurse", side="anti"), Option("nobody")]
        found += [
            Choice(
                id=f"{number}-{gender}", kind="ambiguous", prompt="Who?", first=first,
                options=tuple(options[: 2 + number % 2]), occupations=("guard", "nurse"),
                twin=str(number),
            )
            for gender in "fm"
        ]  # fmt: skip
    options = tuple(Option(letter) for letter in "abcd")
    return [*found, Choice(id="q", kind="capability", prompt="?", options=options, truth=1)]


TABLE = tabulate(choices())


def scores(seed: int, table=TABLE) -> torch.Tensor:
    """Log-probabilities with a mass below 1."""
    generator = torch.Generator().manual_seed(seed)
    values = 2 * torch.randn(table.mask.shape, generator=generator, dtype=torch.float64)
    values = values.masked_fill(~table.mask, -torch.inf)
    mass = torch.rand(len(table), 1, generator=generator, dtype=torch.float64)
    return values.log_softmax(-1) + mass.log()


def shifted(log_probs: torch.Tensor) -> torch.Tensor:
    """The same answers with another mass."""
    return log_probs + torch.linspace(-1, 0.2, len(log_probs), dtype=torch.float64)[:, None]


def swapped(log_probs: torch.Tensor) -> torch.Tensor:
    """The twins exchanged."""
    rows = torch.arange(len(log_probs))
    rows[TABLE.pairs] = TABLE.pairs.flip(1)
    return log_probs[rows]


def blind(log_probs: torch.Tensor) -> torch.Tensor:
    """The second twin answers as the first."""
    rows = torch.arange(len(log_probs))
    rows[TABLE.pairs[:, 1]] = TABLE.pairs[:, 0]
    return log_probs[rows]


TERMS = {
    "twins": lambda x, base: twin_consistency(x, TABLE),
    "anchor": lambda x, base: pair_anchor(x, base, TABLE),
    "mass": option_mass_drop,
}


def test_terms_are_zero_where_nothing_is_to_be_mended():
    one = scores(0)
    assert twin_consistency(blind(one), TABLE).abs() < 1e-12
    assert pair_anchor(one, one, TABLE) == 0
    assert option_mass_drop(one, one) == 0


@pytest.mark.parametrize("name", sorted(TERMS))
@pytest.mark.parametrize("seed", range(5))
def test_terms_are_never_negative(name, seed):
    assert TERMS[name](scores(seed), scores(seed + 100)) > 0


def test_twin_consistency_is_symmetric_and_sees_only_the_normalised_answers():
    one = scores(0)
    value = twin_consistency(one, TABLE)
    torch.testing.assert_close(twin_consistency(swapped(one), TABLE), value)
    torch.testing.assert_close(twin_consistency(shifted(one), TABLE), value)


def test_twin_consistency_is_the_mean_of_both_divergences():
    one = scores(1)
    expected = []
    for a, b in TABLE.pairs.tolist():
        p, q = (one[row][TABLE.mask[row]].softmax(-1) for row in (a, b))
        expected.append(((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2)
    torch.testing.assert_close(twin_consistency(one, TABLE), torch.stack(expected).mean())


def test_the_anchor_by_hand():
    table = tabulate(choices(twins=1))
    steered = torch.tensor([[0.6, 0.2], [0.1, 0.3], [0.5, 0.5]]).log()  # P(first) 3/4 and 1/4
    base = torch.tensor([[0.4, 0.1], [0.4, 0.4], [0.1, 0.9]]).log()  # 4/5 and 1/2
    expected = torch.tensor((0.5 - 0.65) ** 2)
    torch.testing.assert_close(pair_anchor(steered, base, table), expected)


def test_the_anchor_leaves_exchanged_twins_alone_and_stops_always_first():
    one = scores(2)
    assert pair_anchor(swapped(one), one, TABLE) < 1e-20
    always = torch.full_like(one, -20.0).masked_fill(~TABLE.mask, -torch.inf)
    always[:, 0] = 0.0
    assert twin_consistency(always, TABLE) < 1e-6
    assert pair_anchor(always, one, TABLE) > 0.05


def test_the_mass_term_counts_falls_and_no_rises():
    one = scores(3)
    torch.testing.assert_close(option_mass_drop(one - 0.3, one), torch.tensor(0.3).double())
    assert option_mass_drop(one + 0.3, one) == 0
    half = torch.tensor([0.4, -0.9] * 4, dtype=torch.float64)[: len(one), None]
    expected = (-half).clamp(min=0).mean()
    torch.testing.assert_close(option_mass_drop(one + half, one), expected)


@pytest.mark.parametrize("name", sorted(TERMS))
@pytest.mark.parametrize("same", [False, True])
def test_padding_options_give_no_nan(name, same):
    assert not TABLE.mask.all()
    one = scores(0).requires_grad_()
    base = scores(0 if same else 1)
    (gradient,) = torch.autograd.grad(TERMS[name](one, base), one)
    assert torch.isfinite(gradient).all()
    assert gradient[~TABLE.mask].eq(0).all()
    assert name != "twins" or gradient.abs().max() > 1e-3


def test_without_twins_or_first_options_there_is_nothing_to_mend():
    alone = tabulate(choices(twins=0))
    assert twin_consistency(scores(0, alone), alone) == 0
    assert pair_anchor(scores(0, alone), scores(1, alone), alone) == 0
    no_first = tabulate(choices(first=None))
    assert pair_anchor(scores(0), scores(1), no_first) == 0
    assert twin_consistency(scores(0), no_first) > 0

"""Made-up choices and models for the tests of the metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from dso.tasks.choice import Choice, Option, Side
from dso.tasks.table import ChoiceTable, tabulate

MEN = ("builder", "sheriff", "mechanic", "driver")
WOMEN = ("nurse", "librarian", "cleaner", "secretary")


def twins(name: str, man: str, woman: str, dont_know: bool = False) -> list[Choice]:
    """An ambiguous sentence about two occupations with "he" and with "she"."""
    choices = []
    for gender in ("he", "she"):
        sides: tuple[Side, Side] = ("pro", "anti") if gender == "he" else ("anti", "pro")
        options = [Option(man, side=sides[0]), Option(woman, side=sides[1])]
        if dont_know:
            options.append(Option("don't know"))
        choices.append(
            Choice(
                id=f"{name}-{gender}",
                kind="ambiguous",
                prompt=f"The {man} met the {woman} because {gender} was early. Who was early?",
                options=tuple(options),
                occupations=(man, woman),
                gender=gender,
                first=0,
                twin=name,
            )
        )
    return choices


def sentences(dont_know: bool = False) -> list[Choice]:
    """Every man's occupation with every woman's, each with its twin."""
    return [
        choice
        for man in MEN
        for woman in WOMEN
        for choice in twins(f"{man}-{woman}", man, woman, dont_know)
    ]


def colleagues(
    groups: tuple[str, ...] = ("Asian", "Black", "White"), dont_know: bool = False
) -> list[Choice]:
    """A question about every occupation, as many as there are groups, each group once the first."""
    none = [Option("don't know")] if dont_know else []
    return [
        Choice(
            id=f"{name}-{turn}-of-{len(groups)}",
            kind="ambiguous",
            prompt=f"Describe the {name}.",
            options=(*(Option(g, group=g) for g in (*groups[turn:], *groups[:turn])), *none),
            occupations=(name,),
            first=0,
        )
        for name in MEN + WOMEN
        for turn in range(len(groups))
    ]


def questions(kind: str, count: int, width: int = 4) -> list[Choice]:
    """Questions with one right answer, always the second."""
    options = tuple(Option(str(number)) for number in range(width))
    return [
        Choice(id=f"{kind}-{number}", kind=kind, prompt="Which?", options=options, truth=1)  # type: ignore[arg-type]
        for number in range(count)
    ]


def mixture() -> ChoiceTable:
    """All four kinds of choices, of different widths."""
    return tabulate(
        [
            *sentences(dont_know=True),
            *questions("unambiguous", 6, width=2),
            *questions("gender_needed", 5, width=2),
            *questions("capability", 9),
        ]
    )


def random_model(table: ChoiceTable, seed: int = 0, mass: float = 0.9) -> Tensor:
    """(N, K) log-probabilities of a model without rhyme or reason."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(table.mask.shape, generator=generator, dtype=torch.float64)
    return scores.masked_fill(~table.mask, -torch.inf).log_softmax(dim=1) + torch.tensor(mass).log()


def gender_blind_model(table: ChoiceTable, seed: int = 0) -> Tensor:
    """(N, K): the same on both twins."""
    log_probs = random_model(table, seed)
    log_probs[table.pairs[:, 1]] = log_probs[table.pairs[:, 0]]
    return log_probs


def always_first_model(table: ChoiceTable) -> Tensor:
    """(N, K): certain of the option that stands first."""
    log_probs = torch.full(table.mask.shape, -torch.inf, dtype=torch.float64)
    return log_probs.scatter(1, table.first.unsqueeze(1), 0.0)

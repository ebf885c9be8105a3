"""One step as plain functions: from log-probabilities to rewards, and from rewards to a loss.

    loss = sum over populations of  policy loss of the combined rewards
           + sum over terms of  weight * term                            (+ mu KL, added elsewhere)

The two populations are the ambiguous choices and those with a known right answer; each is averaged
on its own. The policy loss is the estimator's: the expectation over the options, or an estimate
from sampled answers; then "no option" is one more outcome. Source: arXiv 2512.15926 for the
parity reward; the other rewards and the terms are additions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dso import rewards
from dso.tasks.choice import Choice
from dso.tasks.table import ChoiceTable
from dso.training import processes, terms
from dso.training.combine import NO_SIGNAL, combined, spread
from dso.training.custom import Answer, Customs
from dso.training.objective import Objective

NO_CUSTOMS = Customs()
AMBIGUOUS_REWARDS = ("parity", "per_sample_parity", "twin_prior", "abstention")
PolicyLoss = Callable[[str, Tensor, Tensor], Tensor]
"""From a population's name, its choices, (N,) bool with n of them, and the rewards (n, A) of their
answers to a loss, whose mean over the processes is that of all of them."""


@dataclass(frozen=True)
class Scored:
    """What rewards and terms see of a step: N choices with at most K options."""

    choices: Sequence[Choice]
    table: ChoiceTable
    log_probs: Tensor
    """(N, K) of the steered model's options."""
    base_log_probs: Tensor
    """(N, K) of the base's."""
    lead: Tensor
    """(O, G) running estimate of how far an occupation's answers favour each group, or (O,) of
    pro - anti; see `RunningGap`."""
    progress: float = 1.0
    """Share of the run that is done, for schedules."""


@dataclass(frozen=True)
class Sampled:
    """G sampled answers to each of N choices, read."""

    option: Tensor
    """(N, G) long: the option each answer means, -1 for none."""
    texts: Sequence[Sequence[str]]
    """What was said."""


@dataclass(frozen=True)
class Rewarded:
    """The rewards of A answers to each of N choices: of its options, or of sampled answers."""

    values: dict[str, Tensor]
    """(N, A) by name."""
    rows: dict[str, Tensor]
    """(N,) bool by name: which choices the reward is for."""
    total: Tensor
    """(N, A) combined by the weights; 0 for choices of neither population."""
    probabilities: Tensor | None
    """(N, A) of the options under the policy, without gradient; None for sampled answers."""


def populations(table: ChoiceTable) -> dict[str, Tensor]:
    """(N,) bool by name: the ambiguous choices, and the others with a known right answer."""
    ambiguous = table.of_kind("ambiguous")
    return {"ambiguous": ambiguous, "known": (table.truth >= 0) & ~ambiguous}


def reward(
    scored: Scored,
    objective: Objective,
    customs: Customs = NO_CUSTOMS,
    sampled: Sampled | None = None,
) -> Rewarded:
    """Every reward of every answer.

    Args:
        scored: the step.
        objective: the weights, and how rewards are combined.
        customs: the functions behind its custom rewards.
        sampled: the answers; the options themselves when not given.

    Raises:
        RewardFailed: by a custom reward.
    """
    table = scored.table
    groups = populations(table)
    everyone = torch.ones_like(groups["known"])
    outcomes, base_outcomes = (
        values.detach().log_softmax(-1) if sampled is None else with_no_option(values.detach())
        for values in (scored.log_probs, scored.base_log_probs)
    )

    def outcome(values: Tensor, of_none: Tensor | None = None) -> Tensor:
        """(N, A) from (N, K): the reward of the option an answer means, or of meaning none."""
        if sampled is None:
            return values.to(outcomes)
        last = outcomes.new_zeros(len(values)) if of_none is None else of_none
        wide = torch.cat([values.to(outcomes), last.to(outcomes)[:, None]], dim=1)
        # Option -1 counts from the end: the last outcome, no option.
        return wide.gather(1, sampled.option % wide.shape[1])

    prior = rewards.twin_prior(outcomes, base_outcomes, table)
    values = {
        "parity": outcome(rewards.parity(table, scored.lead)),
        "per_sample_parity": outcome(rewards.per_sample_parity(scored.log_probs.detach(), table)),
        "twin_prior": prior if sampled is None else outcome(prior[:, :-1], prior[:, -1]),
        "abstention": outcome(rewards.abstention(table), groups["ambiguous"]),
        "capability": outcome(rewards.capability(table)),
    }
    rows = dict.fromkeys(AMBIGUOUS_REWARDS, groups["ambiguous"])
    rows["capability"] = groups["known"]
    if customs.rewards:
        answers = _answers(scored.choices, sampled)
        for custom in customs.rewards:
            name, on = custom.custom.name, custom.custom.on
            width = next(iter(values.values())).shape[1]
            values[name] = custom(scored.choices, answers, width).to(outcomes)
            rows[name] = everyone if on == "all" else groups[on]
    probabilities = outcomes.exp() if sampled is None else None
    weights = {name: objective.weight(name, scored.progress) for name in values}
    total = torch.zeros_like(values["parity"])
    for where in groups.values():
        if bool(where.any()):
            here = {n: v[where] for n, v in values.items() if bool((rows[n] & where).any())}
            chances = None if probabilities is None else probabilities[where]
            total[where] = combined(here, weights, objective.combine, chances)
    return Rewarded(values, rows, total, probabilities)


def _answers(choices: Sequence[Choice], sampled: Sampled | None) -> list[list[Answer]]:
    if sampled is None:
        return [[Answer(o.text, place) for place, o in enumerate(c.options)] for c in choices]
    options = sampled.option.tolist()
    return [
        [Answer(text, None if option < 0 else option) for text, option in zip(t, o, strict=True)]
        for t, o in zip(sampled.texts, options, strict=True)
    ]


@dataclass(frozen=True)
class StepFigures:
    """What a step logs, scalars without gradient."""

    raw: dict[str, Tensor]
    """Rewards as means (higher is better) and terms as penalties (lower is better)."""
    weighted: dict[str, Tensor]
    """The same times their weights as they stand at this step."""
    spread: dict[str, Tensor]
    """Mean spread of each reward among the answers to one prompt."""
    no_signal: dict[str, Tensor]
    """By population: share of the prompts whose answers all have the same combined reward."""

    def named(self) -> dict[str, Tensor]:
        """All of them as `raw/parity`, `spread/parity`, ..."""
        return {
            f"{kind}/{name}": v for kind, part in vars(self).items() for name, v in part.items()
        }


def step_loss(
    scored: Scored,
    rewarded: Rewarded,
    objective: Objective,
    policy_loss: PolicyLoss,
    customs: Customs = NO_CUSTOMS,
) -> tuple[Tensor, StepFigures]:
    """The loss without its KL part, and what to log.

    Args:
        scored: the step; `log_probs` with gradient.
        rewarded: as `reward` returned them.
        objective: the weights.
        policy_loss: the estimator's.
        customs: the functions behind the objective's custom terms.

    Raises:
        RewardFailed: by a custom term.
    """
    loss = scored.log_probs.new_zeros(())
    no_signal = {}
    for name, where in populations(scored.table).items():
        if bool(where.any()):
            loss = loss + policy_loss(name, where, rewarded.total[where])
            no_signal[name] = _no_signal(rewarded, where)
    raw, spreads = _means(rewarded)
    given = scored.log_probs, scored.base_log_probs
    twins, anchored = len(scored.table.pairs), len(terms.anchored_pairs(scored.table))
    # With how many things each is a mean over; of a custom one it is taken to be the choices.
    penalties = {
        "twin_consistency": (terms.twin_consistency(given[0], scored.table), twins),
        "pair_anchor": (terms.pair_anchor(*given, scored.table), anchored),
        "distillation": (terms.distillation(*given, scored.table), twins),
        "option_mass": (terms.option_mass_drop(*given), len(given[0])),
    }
    for term in customs.terms:
        penalties[term.custom.name] = (term(*given, scored.table), len(given[0]))
    for name, (value, count) in penalties.items():
        weight = objective.weight(name, scored.progress)
        if weight:
            loss = loss + weight * processes.share(count) * value
        raw[name] = value.detach()
    weighted = {name: objective.weight(name, scored.progress) * v for name, v in raw.items()}
    return loss, StepFigures(raw, weighted, spreads, no_signal)


def _means(rewarded: Rewarded) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean reward and mean spread within a prompt's answers, by name; 0 without choices."""
    means, spreads = {}, {}
    for name, values in rewarded.values.items():
        where = rewarded.rows[name]
        if not bool(where.any()):
            means[name] = spreads[name] = values.new_zeros(())
            continue
        chances = rewarded.probabilities
        mean, deviation = spread(values[where], None if chances is None else chances[where])
        means[name], spreads[name] = mean.mean(), deviation.mean()
    return means, spreads


def _no_signal(rewarded: Rewarded, where: Tensor) -> Tensor:
    chances = rewarded.probabilities
    _, deviation = spread(rewarded.total[where], None if chances is None else chances[where])
    return (deviation <= NO_SIGNAL).float().mean()


def with_no_option(log_probs: Tensor) -> Tensor:
    """(N, K + 1): the options' log-probabilities and that of saying none of them.

    The last is at least log 1e-4, so that rounding cannot make it -inf.
    """
    mass = log_probs.exp().sum(-1, keepdim=True)
    return torch.cat([log_probs, (1 - mass).clamp(min=1e-4).log()], dim=-1)

"""Does `dso choose-strength` keep its promise, and how often does it find a strength?

    python scripts/choosing_results.py [--sets 200] [--again]

1000 twin pairs and as many questions of each kind, put to the organism at all strengths, are the
population: its means are the truth. Calibration sets are drawn from it with replacement, a strength
is chosen with confidence 0.9, and where the truth is worse than promised, the promise is broken.
Sets are drawn in two ways: `fixed`, the same occupations meeting in every set as often as in the
population, which is the theory's case, and `free`, all pairs drawn alike. Ordinary limits are those
one might ask for. Adversarial ones lie a hair below what a strength attains, where a wrong choice
is likeliest, with all other strengths out of the way. Beside the package's method stand
Hoeffding–Bentkus p-values and, to show that promises can be broken, `estimates`: the smallest
strength whose estimates are within the limits. For ordinary limits two other orders are compared:
descending from the largest strength, and by a pilot of 30 % of the questions, from its safest
strength downwards.

Writes docs/results/choosing.jsonl and prints a table; exit status 1 when a promise that was tested
for is broken in more than 28 of 200 sets (0.14). What the organism answered is kept under
runs/choosing. About three minutes on one core, most of them for the answers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from dso.inference.bounds import Array
from dso.inference.calibration import measure_losses
from dso.inference.choosing import (
    Losses,
    Promise,
    Sample,
    Test,
    choose,
    in_sequence,
    pair_weights,
)
from dso.inference.questions import CAPABILITIES, calibration_of
from dso.organisms import shipped
from dso.policy import Policy
from dso.report import Result, title_of, write_results
from dso.tasks import Coreference

MODEL, ADAPTER, SPLIT = "organism-llm", "organism-llm-dso", "heldout_occupations"
STRENGTHS = (*(round(0.05 * step, 2) for step in range(1, 21)), 1.25, 1.5, 2.0)
PAIRS, SEED, CONFIDENCE, ALLOWED, PILOT = 1000, 7, 0.9, 0.14, 0.3
HAIR = 1e-9


@dataclass(frozen=True)
class Population:
    """What the organism loses, question by question."""

    strengths: Array
    bias: Array
    concerns: Any
    """(N, O), which occupations each pair concerns."""
    per_occupation_bias: Array
    drops: dict[str, Array]

    @classmethod
    def of(cls, file: Path, again: bool) -> Population:
        """From the organism, or as it was kept."""
        if again or not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **cls._measured())
        with np.load(file) as kept:
            own = {name: kept[name] for name in kept.files if name not in CAPABILITIES}
            return cls(**own, drops={kind: kept[kind] for kind in CAPABILITIES})

    @staticmethod
    def _measured() -> dict[str, Any]:
        policy = Policy.from_pretrained(shipped(MODEL), shipped(ADAPTER))
        asked = calibration_of(Coreference(forms=[" {}"]), SPLIT, PAIRS, seed=SEED)
        measured = measure_losses(policy, asked, STRENGTHS, 256)
        names = list(asked.occupations)
        return {
            "strengths": np.array(STRENGTHS),
            "bias": measured.losses.bias.losses,
            "concerns": np.array([[n in one.occupations for n in names] for one, _ in asked.pairs]),
            "per_occupation_bias": np.array(measured.per_occupation_bias),
            **{kind: sample.losses for kind, sample in measured.losses.drops.items()},
        }

    def only(self, strengths: tuple[float, ...]) -> Population:
        """The same at some of the strengths."""
        rows = np.isin(self.strengths, strengths)
        return Population(
            self.strengths[rows],
            self.bias[rows],
            self.concerns,
            self.per_occupation_bias[rows],
            {kind: losses[rows] for kind, losses in self.drops.items()},
        )

    @property
    def mean_bias(self) -> Array:
        """(S,) true bias loss."""
        return self.bias @ pair_weights(self.concerns)

    @property
    def worst_drop(self) -> Array:
        """(S,) true largest drop."""
        return np.max([losses.mean(1) for losses in self.drops.values()], axis=0)

    def draw(self, size: int, design: str, rng: np.random.Generator) -> Losses:
        """A calibration set of so many pairs, and questions of each kind."""
        if design == "free":
            pairs = rng.integers(self.bias.shape[1], size=size)
        else:
            # The first so many pairs say which occupations meet; each gives way to another pair of
            # the same two.
            _, group = np.unique(self.concerns, axis=0, return_inverse=True)
            pairs = np.empty(size, dtype=int)
            for place in np.unique(group[:size]):
                wanted = group[:size] == place
                pairs[wanted] = rng.choice(np.flatnonzero(group == place), wanted.sum())
        equal = np.full(size, 1 / size)
        drops = {
            kind: Sample(losses[:, rng.integers(losses.shape[1], size=size)], equal)
            for kind, losses in self.drops.items()
        }
        bias = Sample(self.bias[:, pairs], pair_weights(self.concerns[pairs]))
        return Losses(tuple(self.strengths.tolist()), bias, drops)


@dataclass(frozen=True)
class Case:
    """Limits, a grid and a size."""

    name: str
    bias: float
    drop: float
    size: int
    strengths: tuple[float, ...] = STRENGTHS

    @property
    def label(self) -> str:
        return f"{self.name}: bias {self.bias:.4g}, drop {self.drop:.4g}, {self.size} pairs"


def cases(population: Population) -> list[Case]:
    """Ordinary limits, and limits a hair below what strengths attain."""
    bias = dict(zip(STRENGTHS, population.mean_bias.tolist(), strict=True))
    drop = dict(zip(STRENGTHS, population.worst_drop.tolist(), strict=True))
    return [
        Case("ordinary", 0.2, 0.05, 200),
        Case("ordinary", 0.15, 0.02, 400),
        Case("ordinary", 0.2, 0.02, 400),
        Case("ordinary", 0.12, 0.01, 1000),
        Case("bias of 0.9", bias[0.9] - HAIR, 0.05, 400),
        Case("bias of 0.9, no other", bias[0.9] - HAIR, 0.05, 400, (0.9,)),
        Case("drop of 1.25, no other", 0.3, drop[1.25] - HAIR, 400, (0.1, 1.25)),
        Case("drop of 1.5, no other", 0.3, drop[1.5] - HAIR, 400, (0.1, 1.5)),
        Case("bias of 0.8, drop of 1.25", bias[0.8] - HAIR, drop[1.25] - HAIR, 400, (0.8, 1.25)),
    ]


def two_sequences(promise: Promise, losses: Losses, rng: np.random.Generator) -> float | None:
    """What the package does."""
    return choose(losses, promise).strength


def worst_p(promise: Promise, losses: Losses) -> Array:
    """(S,) p-values of "the bias or a drop is above its limit"."""
    drops = [promise.drop_p(sample.losses, sample.weights) for sample in losses.drops.values()]
    return np.max([promise.bias_p(losses.bias.losses, losses.bias.weights), *drops], axis=0)


def descending(promise: Promise, losses: Losses, rng: np.random.Generator) -> float | None:
    """One fixed sequence from the largest strength down."""
    return _smallest(promise, losses, len(losses.strengths) - 1)


def pilot(promise: Promise, losses: Losses, rng: np.random.Generator) -> float | None:
    """One sequence from the strength that is the safest by a part of the questions, on the rest."""
    size = len(losses.bias.weights)
    part = rng.permutation(size) < PILOT * size
    safest = int(np.argmin(worst_p(promise, _some(losses, part))))
    return _smallest(promise, _some(losses, ~part), safest)


def _smallest(promise: Promise, losses: Losses, start: int) -> float | None:
    order = range(start, -1, -1)
    kept, _ = in_sequence(worst_p(promise, losses), order, 1 - promise.confidence)
    return losses.strengths[min(kept)] if kept else None


def _some(losses: Losses, rows: Any) -> Losses:
    def of(sample: Sample) -> Sample:
        weights = sample.weights[rows]
        return Sample(sample.losses[:, rows], weights / weights.sum())

    return Losses(losses.strengths, of(losses.bias), {k: of(s) for k, s in losses.drops.items()})


def estimates(promise: Promise, losses: Losses, rng: np.random.Generator) -> float | None:
    """The smallest strength whose estimates are within the limits, with no test at all."""
    within = losses.bias.means <= promise.bias
    for sample in losses.drops.values():
        within &= sample.means <= promise.drop
    return losses.strengths[int(np.argmax(within))] if within.any() else None


Method = Callable[[Promise, Losses, np.random.Generator], float | None]
METHODS: dict[str, tuple[Test, Method]] = {
    "betting": ("betting", two_sequences),
    "hoeffding_bentkus": ("hoeffding_bentkus", two_sequences),
    "estimates": ("betting", estimates),
    "betting, descending": ("betting", descending),
    "betting, pilot": ("betting", pilot),
}
OTHER_ORDERS = ("betting, descending", "betting, pilot")


def results_of(population: Population, case: Case, method: str, design: str, sets: int) -> Any:
    """Figures of one case: how often the promise was broken, how often a strength was found."""
    at = population.only(case.strengths)
    test, chosen_by = METHODS[method]
    promise = Promise(case.bias, case.drop, CONFIDENCE, test)
    small = at.worst_drop <= case.drop
    kept = dict(zip(case.strengths, small & (at.mean_bias <= case.bias), strict=True))
    by_occupation = small & (at.per_occupation_bias <= case.bias)
    kept_by_occupation = dict(zip(case.strengths, by_occupation, strict=True))
    rng, other = np.random.default_rng(0), np.random.default_rng(1)  # the same sets for all
    found = [chosen_by(promise, at.draw(case.size, design, rng), other) for _ in range(sets)]
    some = [strength for strength in found if strength is not None]
    exists = [strength for strength, keeps in kept.items() if keeps]
    result = partial(
        Result, strength=min(exists, default=0.0), split=design, seed=SEED, estimate="probability",
        model=MODEL, adapter=ADAPTER, task="coreference", method=method, experiment=case.label,
    )  # fmt: skip

    def share(metric: str, count: int) -> Result:
        low, high = beta.ppf([0.025, 0.975], [count, count + 1], [sets - count + 1, sets - count])
        ends = {"low": float(np.nan_to_num(low)), "high": 1.0 if count == sets else float(high)}
        return result(metric=metric, value=count / sets, n=sets, **ends)

    figures = [
        share("broken_promises", sum(not kept[w] for w in some)),
        share("broken_promises_by_occupation", sum(not kept_by_occupation[w] for w in some)),
    ]
    if exists:
        figures.append(share("strength_found", len(some)))
    if some:
        mean = float(np.mean(some))
        figures.append(
            result(metric="chosen_strength", value=mean, low=None, high=None, n=len(some))
        )
    return figures


def table(results: list[Result]) -> str:
    """Markdown: a row for each case, way of drawing and method."""
    metrics = (
        "broken_promises", "broken_promises_by_occupation", "strength_found", "chosen_strength"
    )  # fmt: skip
    heads = " | ".join(title_of(metric).heading() for metric in metrics)
    lines = [
        f"| limits | smallest that keeps them | sets | method | {heads} |",
        "|---|---:|---|---|" + "---:|" * len(metrics),
    ]
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for r in results:
        key = (r.experiment, f"{r.strength:g}" if r.strength else "none", r.split, r.method)
        rows.setdefault(key, {})[r.metric] = title_of(r.metric).show(r.value)
    for key, cells in rows.items():
        shown = (cells.get(metric, "–") for metric in metrics)
        lines.append(f"| {' | '.join((*key, *shown))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sets", type=int, default=200, help="calibration sets a case")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder of the results")
    parser.add_argument("--kept", type=Path, default=Path("runs", "choosing"), help="of answers")
    parser.add_argument("--again", action="store_true", help="ask the organism again")
    arguments = parser.parse_args()
    population = Population.of(arguments.kept / "losses.npz", arguments.again)
    results: list[Result] = []
    for case, method, design in product(cases(population), METHODS, ("fixed", "free")):
        if method in OTHER_ORDERS and case.name != "ordinary":
            continue
        results += results_of(population, case, method, design, arguments.sets)
    write_results(arguments.output / "results" / "choosing.jsonl", results)
    print(table(results))
    tested = [r for r in results if r.method != "estimates" and r.metric == "broken_promises"]
    broken = max(r.value for r in tested)
    print(f"\nBroken at most {broken:.3f} of the time; allowed {ALLOWED}.")
    return int(broken > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())

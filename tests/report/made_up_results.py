"""Made-up results for the tests of the report."""

from __future__ import annotations

from dso.report import Result

STRENGTHS = (0.0, 0.5, 1.0)


def result(metric: str = "per_occupation_bias", value: float = 0.25, **others) -> Result:
    fields = {
        "strength": 0.0,
        "split": "train_occupations",
        "low": max(0.0, value - 0.05),
        "high": min(1.0, value + 0.05),
        "n": 400,
        "seed": 0,
        "estimate": "greedy" if metric == "flip_rate" else "probability",
        **others,
    }
    return Result(metric=metric, value=value, **fields)


def sweep(split: str = "train_occupations") -> list[Result]:
    """Bias falls with strength, the rest stays; bias in all three estimates."""
    results = []
    for strength in STRENGTHS:
        place = {"strength": strength, "split": split}
        bias = 0.5 - 0.45 * strength
        results += [
            result("kl", 0.0123 * strength, low=None, high=None, **place),
            result("capability", 0.93, **place),
            result("unambiguous_accuracy", 0.98, **place),
            result("gender_needed_accuracy", 0.99, **place),
            result("flip_rate", bias, **place),
            result("per_occupation_bias", bias, **place),
            result("per_occupation_bias", bias + 0.02, estimate="sampled", **place),
            result("per_occupation_bias", bias + 0.03, estimate="greedy", **place),
        ]
    return results

"""The model card of an adapter folder: what a person should know before using it.

The measured table has one row per strength ω. Source of the method: arXiv 2512.15926.
"""

from __future__ import annotations

import json
from typing import Any

from huggingface_hub import ModelCardData

from dso.steering.config import SteeringConfig

LIMITS = """\
- It works on the base model above and no other; another one is refused on loading.
- The figures hold for the data they were measured on. Measure it on your own before relying on it.
- A strength above 1 was not trained and can cost accuracy; 0 is the base model exactly.
- Parity on one task says nothing about other groups, languages or tasks."""


def model_card(config: SteeringConfig, *, class_name: str) -> str:
    """The text of README.md, with YAML front matter.

    Args:
        config: the adapter's config, as attached (norms named, base known).
        class_name: the transformers class of the base model, for the loading example.
    """
    base = config.base_model_name_or_path
    front = ModelCardData(
        base_model=base, library_name="dso", tags=["dso", "peft", "steering", "bias-mitigation"]
    )
    parts = " and a ".join(p for p, on in (("scale", config.scale), ("shift", config.shift)) if on)
    revision = f", revision {config.revision}" if config.revision else ""
    norms = len(config.target_modules or ())
    formula = "h' = h + ω (a ⊙ h + b)"
    extension = ""
    if config.rank:
        where = (
            "every one of them" if config.rank_norms == "all" else "the input norm of every block"
        )
        formula = "h' = h + ω (a ⊙ h + b + U Vᵀ h)"
        extension = (
            f"\nU Vᵀ, of rank {config.rank} and behind {where}, extends the paper's form; it folds"
            "\ninto the weights of the linear layers that follow, not into a norm."
        )
    return f"""---
{front.to_yaml()}
---

# Steering adapter for {base or "an unnamed base model"}

A {parts} behind {norms} norm layers of the frozen base model{revision}:
{formula}, with the strength ω chosen at inference (arXiv 2512.15926). The base has
{config.num_norms} norms of width {config.hidden_size} in its language backbone; its weights are
not changed.{extension}

## How to load

```python
from transformers import {class_name}
from dso.steering import load_adapter
model = load_adapter({class_name}.from_pretrained({(base or "...")!r}), "path/to/this/folder")
```

`model.set_strength(0.5)` turns the knob; `model.generate(..., strength=[0, 0.5, 1])` does it for
one call and per row.

## How it was trained

{_recipe(config.recipe)}

## What was measured

{_table(config.measurements)}

## Limits

{LIMITS}
"""


def _recipe(recipe: dict[str, Any] | None) -> str:
    if not recipe:
        return "Not recorded."
    return "\n".join(f"- {key}: {_cell(value)}" for key, value in recipe.items())


def _table(rows: list[dict[str, Any]] | None) -> str:
    if not rows:
        return "Nothing was recorded."
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[c]) if c in row else "" for c in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

"""The model card of an adapter folder: what a person should know before using it.

The measured table has one row per strength ω. Source of the method: arXiv 2512.15926.
"""

from __future__ import annotations

import json
from typing import Any

from huggingface_hub import ModelCardData

from dso.steering.config import SteeringConfig

PLACE = "path/to/this/folder"
"""Stands in the examples for the adapter's own address, which `push` puts there."""

ABOUT = ("strength", "split")
"""What a row of the measured table is about; the other columns are figures."""

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
        base_model=base,
        # Not peft, by which the hub would show an example that does not know this method.
        library_name="dso",
        tags=["dso", "peft", "steering", "bias-mitigation"],
        base_model_relation="adapter",
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
        extension = f"\nU Vᵀ, of rank {config.rank} and behind {where}, extends the paper's form."
    if config.shift and len(config.shifted) < norms:
        extension += f"\nThe shift b is behind {len(config.shifted)} of them."
    if config.foldable:
        extension += "\nAll of it can be written into the base's own weights (`dso fold`)."
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
import dso

model = dso.load("{base or "..."}", "{PLACE}")
print(model.answer("...", strength=0.5))
```

Or, as an adapter of peft on a model of transformers:

```python
from transformers import {class_name}
from dso.steering import load_adapter

base = {class_name}.from_pretrained("{base or "..."}")
model = load_adapter(base, "{PLACE}")
```

`model.set_strength(0.5)` then turns the knob; `model.generate(..., strength=[0, 0.5, 1])` does it
for one call and per row.

## How it was trained

{_recipe(config.recipe)}

## What was measured

{markdown_rows(config.measurements)}

## Limits

{LIMITS}

## Licence

The base model keeps its own. Under which licence these vectors may be used is for those who trained
them to say, as `license:` in the header of this file.
"""


def _recipe(recipe: dict[str, Any] | None) -> str:
    if not recipe:
        return "Not recorded."
    return "\n".join(f"- {key}: {_cell(value)}" for key, value in recipe.items())


def markdown_rows(rows: list[dict[str, Any]] | None) -> str:
    """Measurements as a Markdown table; what a row is about comes first."""
    if not rows:
        return "Nothing was recorded."
    columns = list(dict.fromkeys(key for row in rows for key in row))
    # A config read from its file has its keys in the order of the alphabet.
    columns.sort(key=lambda name: ABOUT.index(name) if name in ABOUT else len(ABOUT))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[c]) if c in row else "" for c in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

"""The model card of a folded model: what it is, how to use it, how far it is from the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub import ModelCardData

from dso.steering.card import PLACE, markdown_rows
from dso.steering.fold import Folded


def folded_card(
    folded: Folded,
    *,
    base: str,
    adapter: str,
    revision: str | None = None,
    measurements: Sequence[dict[str, Any]] | None = None,
) -> str:
    """The text of README.md, with YAML front matter.

    Args:
        folded: what `fold` found.
        base: folder or hub id of the base model.
        adapter: folder or hub id of the adapter.
        revision: of the base.
        measurements: what was measured of the adapter, one row a strength; those at the strength
            that was folded are shown.
    """
    front = ModelCardData(
        base_model=base,
        base_model_relation="finetune",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["dso", "steering", "bias-mitigation"],
    )
    at = f", revision {revision}" if revision else ""
    rows = [row for row in measurements or () if row.get("strength") == folded.strength]
    measured = (
        f"\n## What was measured\n\nOf the adapter, at this strength:\n\n{markdown_rows(rows)}\n"
        if rows
        else ""
    )
    return f"""---
{front.to_yaml()}
---

# {base} with a steering adapter folded in

The steering adapter {adapter} at strength {folded.strength:g}, written into the weights of
{base}{at}: a {folded.architecture} in {folded.dtype} that needs neither dso nor peft (arXiv
2512.15926). The strength is fixed; for a knob, load the adapter on the base with dso.

## How to use it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{PLACE}")
tokenizer = AutoTokenizer.from_pretrained("{PLACE}")
```

```sh
vllm serve {PLACE}
```

## How far it is from the live adapter

Found by loading it back and comparing next-token logits at {folded.tokens:,} positions of real
prompts; `fold.json` has these figures and the versions of the libraries.

| | logits, largest difference | KL, nats, mean |
|---|---:|---:|
| this model, from the live adapter | {folded.difference:.1e} | {folded.kl:.1e} |
| the base model, from the live adapter | {folded.effect:.1e} | {folded.effect_kl:.1e} |

## What to know

{_list(folded)}
{measured}"""


def _list(folded: Folded) -> str:
    lines = [
        f"left out, because it has no place in the weights: {part}" for part in folded.left_out
    ]
    lines += folded.notes
    if folded.effect == 0:
        lines.append("nothing is steered: this is the base model")
    if not lines:
        lines = ["all of the adapter is in the weights, and nothing else differs from the base"]
    return "\n".join(f"- {line[0].upper()}{line[1:]}." for line in lines)

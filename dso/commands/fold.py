"""`dso fold`: a model with an adapter at one strength as a stock checkpoint."""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dso.commands.arguments import strength
from dso.encoding import encode
from dso.loading import Loading
from dso.policy import Policy
from dso.steering import Folded, fold
from dso.steering.backbone import unwrap
from dso.steering.fold import check_new
from dso.steering.folded_card import folded_card
from dso.tasks import scenes
from dso.tasks.coreference import ambiguous, kl_pool
from dso.vision import Prompts

HELP = "write an adapter at one strength into the weights"
DESCRIPTION = (
    "Write an adapter at one strength into the weights of its base: a folder that transformers, "
    "vLLM and others load as any model, with no plug-in and no slowdown. It is loaded back and "
    "compared with the live adapter on real prompts, with pictures where it sees; where the two "
    "differ, or where a part of the adapter has no place in the weights, nothing is written."
)
T = TypeVar("T")

PAIRS = 8
"""Pairs of ambiguous questions that are compared on, and as many other questions."""
ROWS = 8
"""Questions of a forward pass."""
SHOWN = 5
"""How many parts left out are listed on the terminal."""
PACKAGES = ("dso", "torch", "transformers", "peft", "safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    parser.add_argument("--model", required=True, help="folder or hub id of the base model")
    parser.add_argument("--adapter", required=True, help="folder or hub id of the adapter")
    parser.add_argument(
        "--strength",
        type=strength,
        required=True,
        metavar="W",
        help="ω, for good (1 is as trained)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--drop",
        action="store_true",
        help="leave out what has no place in the weights, and say what that costs",
    )
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        metavar="T",
        help="how far a logit may differ, as a share of the largest (default: 1e-5 in float32, "
        "1e-2 in float16, 5e-2 in bfloat16)",
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        help="of the weights read and written: auto (the base's own), bfloat16, float16, float32",
    )
    parser.add_argument(
        "--device-map",
        help="a device such as cuda:0, or auto (default: auto where there is a GPU, else the CPU); "
        "the model has to fit there twice",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the base on the hub")


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no tolerance; wanted a finite number >= 0")
    return value


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    fold_command(
        model=arguments.model,
        adapter=arguments.adapter,
        strength=arguments.strength,
        output=arguments.output,
        drop=arguments.drop,
        tolerance=arguments.tolerance,
        loading=Loading(
            dtype=arguments.dtype,
            device_map=arguments.device_map or ("auto" if torch.cuda.is_available() else None),
            revision=arguments.revision,
        ),
    )


def fold_command(
    model: str,
    adapter: str,
    strength: float,
    output: Path,
    *,
    drop: bool = False,
    tolerance: float | None = None,
    loading: Loading | None = None,
) -> Folded:
    """Fold an adapter into its base; see `dso fold --help`.

    Writes the model, its tokenizer, `README.md` (a model card) and `fold.json` (what was found).

    Raises:
        ValueError, TypeError, RuntimeError: as `dso.steering.fold` and `Policy.from_pretrained`;
            then nothing is written.
    """
    check_new(output)
    loading = loading or Loading()
    policy = Policy.from_pretrained(model, adapter, strength=strength, loading=loading)
    config = policy.model.active_peft_config

    def finish(draft: Path, folded: Folded) -> None:
        # A processor writes its tokenizer too.
        kept = policy.tokenizer if policy.eyes is None else policy.eyes.processor
        kept.save_pretrained(draft)
        card = folded_card(
            folded,
            base=str(model),
            adapter=str(adapter),
            revision=config.revision,
            measurements=config.measurements,
        )
        (draft / "README.md").write_text(card, encoding="utf-8")
        found = asdict(folded)
        del found["folder"]  # it moves
        record = {
            "model": str(model),
            "revision": config.revision,
            "adapter": str(adapter),
            **found,
            "versions": {name: _version(name) for name in PACKAGES},
        }
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (draft / "fold.json").write_text(text + "\n", encoding="utf-8")

    folded = fold(
        policy.model,
        strength,
        output,
        questions(policy),
        drop=drop,
        tolerance=tolerance,
        finish=finish,
    )
    print(summary(folded))
    return folded


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def questions(policy: Policy) -> list[dict[str, Tensor]]:
    """Built-in questions with their answers, in batches; with pictures for a model that sees.

    They are no longer than the model's positions or its sliding window.
    """
    window = getattr(
        unwrap(policy.model).config.get_text_config(decoder=True), "sliding_window", None
    )
    end = min((n for n in (policy.positions, window) if n), default=sys.maxsize)
    asked = [] if policy.eyes is None else _about_pictures(policy, end)
    prompts = asked or _about_texts(policy, end)
    positioned = "position_ids" in inspect.signature(unwrap(policy.model).forward).parameters
    return [
        {"input_ids": p.ids, "attention_mask": p.mask, **p.inputs}
        | ({"position_ids": p.counted()} if positioned else {})
        for p in prompts
    ]


def _about_texts(policy: Policy, end: int) -> list[Prompts]:
    choices = [*ambiguous(PAIRS, "train", "train", 0, "fold"), *kl_pool(2 * PAIRS, 0)]
    texts = [(*choice.prompt, *choice.answer)[:end] for choice in encode(choices, policy.tokenizer)]
    texts.sort(key=len)
    return [Prompts(*policy.left_pad(some)) for some in _in_batches(texts)]


def _about_pictures(policy: Policy, end: int) -> list[Prompts]:
    choices = [
        *scenes.ambiguous(PAIRS, "train", "train", 0, "fold"),
        *scenes.unambiguous(PAIRS, "train", "train", 0, "fold"),
        *scenes.closed(PAIRS, "train", "train", 0, "fold"),
    ]
    encoded = [choice for choice in policy.encode_any(choices) if choice.length <= end]
    found = []
    for batch in _in_batches(sorted(encoded, key=lambda choice: len(choice.prompt))):
        answers = [torch.tensor(choice.answer) for choice in batch]
        ids = pad_sequence(answers, batch_first=True, padding_value=policy.pad_id)
        mask = pad_sequence([torch.ones_like(a) for a in answers], batch_first=True)
        shown = policy.prompts(batch)
        found.append(shown.extended(ids.to(policy.device), mask.to(policy.device)))
    return found


def _in_batches(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + ROWS] for start in range(0, len(items), ROWS)]


def summary(folded: Folded) -> str:
    """What was written and how it compares, for a person."""
    lines = [
        f"Written to {folded.folder}: a {folded.architecture} in {folded.dtype}, steered at "
        f"strength {folded.strength:g}.",
        f"Compared at {folded.tokens:,} positions of the built-in questions, logits up to "
        f"{folded.largest:.3g}:",
        _row("folded, from the live adapter", folded.difference, folded.kl),
        _row("base, from the live adapter", folded.effect, folded.effect_kl),
    ]
    if folded.effect == 0:
        why = "the strength is 0" if folded.strength == 0 else "the adapter does nothing"
        lines.append(f"Nothing is steered: {why}, and what was written is the base model.")
    if folded.left_out:
        lines.append(
            f"Left out: {len(folded.left_out)} parts, which makes the difference above; the rest "
            f"is within {folded.rounding:.1e} of the live adapter without them."
        )
        lines += _listed(folded.left_out)
    lines += [f"Note: {note}." for note in folded.notes]
    lines.append(f"Serve it with: vllm serve {folded.folder}")
    return "\n".join(lines)


def _row(what: str, difference: float, kl: float) -> str:
    return f"  {what}: largest difference {difference:.1e}, mean KL {kl:.1e} nats"


def _listed(parts: Sequence[str]) -> list[str]:
    more = len(parts) - SHOWN
    rest = [f"  and {more} more, all in fold.json"] if more > 0 else []
    return [f"  {part}" for part in parts[:SHOWN]] + rest

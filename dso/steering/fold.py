"""Folding: a steered model at a fixed strength as a stock checkpoint, with no layer more.

What changes in the weights is in `dso.steering.changes`. Layers without a bias get one where the
model's own configuration can give them one; Qwen 2 and Mistral become Llamas, which compute the
same and have these fields. What has no place is refused by name and reason. Nothing is
approximated: what was written is loaded again by transformers alone, and its logits are compared
with those of the live adapter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from dso.steering.backbone import unwrap
from dso.steering.changes import changes_of
from dso.steering.layer import AffineSteering
from dso.steering.readers import CannotFold
from dso.steering.rebuild import read_plain, write_plain
from dso.steering.strength import as_strength

TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of a logit that counts as rounding, as a share of the largest logit."""
TOLERANCE = 1e-5
"""As above, of float32 and wider."""
SHOWN = 10
"""How many parts without a place an error lists."""


@dataclass(frozen=True)
class Folded:
    """What was written, and how it compares with the live adapter."""

    folder: Path
    architecture: str
    """Class of the model in the folder."""
    dtype: str
    """Of its weights."""
    strength: float
    difference: float
    """Largest difference of a logit from the live adapter's."""
    rounding: float
    """As `difference`, from the live adapter without the parts in `left_out`."""
    effect: float
    """Largest difference of a logit that the steering makes."""
    largest: float
    """Largest logit, for scale."""
    tolerance: float
    """What `rounding` may be, as a share of `largest`."""
    kl: float
    """KL(live ‖ folded) of the next token, in nats, mean over the tokens compared."""
    effect_kl: float
    """KL(live ‖ base), likewise."""
    tokens: int
    """Positions at which they were compared."""
    left_out: tuple[str, ...]
    """Parts that were dropped, with the reasons."""
    notes: tuple[str, ...]
    """What else its user has to know."""


Finish = Callable[[Path, Folded], None]
"""Takes the unfinished folder and what was found, and writes further files into it."""


def check_new(folder: Path) -> None:
    """Raises ValueError where there is something in the folder, or it is a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already and not empty; name a new folder")


@torch.no_grad()
def fold(
    model: PeftModel,
    strength: float,
    folder: Path,
    prompts: Sequence[Mapping[str, Tensor]],
    *,
    drop: bool = False,
    tolerance: float | None = None,
    finish: Finish | None = None,
) -> Folded:
    """Write a steered model at one strength into a folder that transformers loads by itself.

    The folder appears when it is complete and has been found equal to the live adapter.

    Args:
        model: with the adapters to fold active; its base as it was loaded, not quantised.
        strength: ω, for good.
        folder: a new one, or an empty one.
        prompts: batches of inputs of the model's forward, on its device: what both are compared
            on. Where there is an `attention_mask`, positions that are 0 in it are not compared.
        drop: leave out what cannot be folded, and say what that costs, instead of refusing.
        tolerance: how far a logit may differ, as a share of the largest; by default what the
            rounding of the base's dtype explains.
        finish: writes further files before the folder appears.

    Raises:
        CannotFold: parts that have no place, each with the norm and the reason; a quantised base.
        TypeError: a model without a steering adapter.
        ValueError: a strength that is not one number, a folder with something in it, no prompts.
        RuntimeError: what was written differs from the live adapter.
    """
    base = unwrap(model)
    omega = as_strength(strength)
    if omega.dim():
        raise ValueError(f"one strength is folded, for good; got {omega.tolist()}")
    if not prompts:
        raise ValueError("no prompts were given; some are needed to compare what is written")
    if not any(isinstance(module, AffineSteering) for module in base.modules()):
        raise TypeError(f"this {type(base).__name__} has no steering adapter; load one onto it")
    check_new(folder)
    _check_plain(base)
    changes = changes_of(base, float(omega))
    left_out, unplaced = tuple(changes.left_out), changes.unplaced
    if left_out and not drop:
        _refuse(base, left_out)
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as held:
        draft = Path(held) / target.name
        cls, notes = write_plain(base, changes, draft)
        del changes  # the new weights, before they are read back
        again = read_plain(cls, draft, base)
        with _evaluating(model):
            found = _compare(model, again, float(omega), prompts, unplaced)
        if base.dtype in TOLERANCES and not left_out and found.kl > 0.01 * found.effect_kl:
            notes.append(
                f"rounding moves answers by {found.kl / found.effect_kl:.0%} of what the steering "
                "does, as KL; a base loaded in float32 folds more closely"
            )
        allowed = TOLERANCES.get(base.dtype, TOLERANCE) if tolerance is None else tolerance
        result = Folded(
            folder=folder,
            architecture=cls.__name__,
            dtype=str(base.dtype).removeprefix("torch."),
            strength=float(strength),
            difference=found.difference,
            rounding=found.rounding,
            effect=found.effect,
            largest=found.largest,
            tolerance=allowed,
            kl=found.kl / found.tokens,
            effect_kl=found.effect_kl / found.tokens,
            tokens=found.tokens,
            left_out=left_out,
            notes=tuple(notes),
        )
        _check_equal(result)
        if finish is not None:
            finish(draft, result)
        if target.exists():
            target.rmdir()
        draft.rename(target)
    return result


def _check_plain(base: PreTrainedModel) -> None:
    quantised = getattr(base.config, "quantization_config", None) is not None
    if quantised or getattr(base, "hf_quantizer", None) is not None:
        raise CannotFold(
            "the base is quantised; load it unquantised (the adapter fits it too), fold, and "
            "quantise the folded checkpoint"
        )


def _refuse(base: PreTrainedModel, left_out: Sequence[str]) -> None:
    more = f"\n  and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
    shown = "\n  ".join(left_out[:SHOWN])
    raise CannotFold(
        f"{len(left_out)} parts of the adapter have no place in the weights of a "
        f"{type(base).__name__}:\n  {shown}{more}\nUse the live adapter, train one with "
        "steering.only_foldable, or leave these parts out (drop) and see what it costs"
    )


def _check_equal(result: Folded) -> None:
    """Raises RuntimeError where more than rounding differs."""
    error = result.rounding / max(result.largest, 1e-30)
    if not error <= result.tolerance:  # also where it is not a number
        raise RuntimeError(
            f"the folded {result.architecture} differs from the live adapter: a logit by "
            f"{result.rounding:.2e}, {error:.1e} of the largest, where {result.tolerance:.1e} was "
            f"allowed (the steering itself moves one by {result.effect:.2e}); nothing was written. "
            "Raise the tolerance if that is rounding, or use the live adapter"
        )


# -- comparison ------------------------------------------------------------------------------


class _Found(NamedTuple):
    """Of a batch or of all: as in `Folded`, with sums in place of means."""

    difference: float
    rounding: float
    effect: float
    largest: float
    kl: float
    effect_kl: float
    tokens: int


def _compare(
    model: PeftModel,
    again: PreTrainedModel,
    omega: float,
    prompts: Sequence[Mapping[str, Tensor]],
    unplaced: Sequence[Tensor],
) -> _Found:
    batches = []
    for inputs in prompts:
        written = _logits(again, inputs)
        with model.strength_at(omega):
            live = _logits(model, inputs)
            with _zeroed(unplaced):
                placed = _logits(model, inputs) if unplaced else live
        with model.strength_at(0.0):
            plain = _logits(model, inputs)
        batches.append(
            _Found(
                difference=_apart(written, live),
                rounding=_apart(written, placed),
                effect=_apart(plain, live),
                largest=float(live.abs().max()),
                kl=_kl(live, written),
                effect_kl=_kl(live, plain),
                tokens=len(live),
            )
        )
    # Not Python's max, which passes over what is not a number.
    table = torch.tensor(batches, dtype=torch.float64)
    difference, rounding, effect, largest = table[:, :4].amax(dim=0).tolist()
    kl, effect_kl, tokens = table[:, 4:].sum(dim=0).tolist()
    return _Found(difference, rounding, effect, largest, kl, effect_kl, int(tokens))


def _logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """(positions, vocabulary) float32 at the positions to be compared."""
    logits: Tensor = model(**inputs).logits.float()
    mask = inputs.get("attention_mask")
    return logits.flatten(0, 1) if mask is None else logits[mask.bool()]


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other.to(one.device)).abs().max())


def _kl(live: Tensor, other: Tensor) -> float:
    """KL(live ‖ other), summed over the positions."""
    p, q = live.log_softmax(-1), other.to(live.device).log_softmax(-1)
    return float((p.exp() * (p - q)).sum().clamp(min=0))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Context: without dropout."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _zeroed(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Context: parts of the adapter at zero."""
    kept = [tensor.clone() for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.zero_()
        yield
    finally:
        for tensor, values in zip(tensors, kept, strict=True):
            tensor.copy_(values)

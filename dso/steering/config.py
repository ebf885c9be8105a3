"""What an adapter is made of and which base model it belongs to, as written to adapter_config.json.

The default steers every norm of the language backbone except the final one, with a scale and a
shift: h' = h + ω (a ⊙ h + b), a and b of shape (d,). The preset of the paper (arXiv 2512.15926)
steers the final norm too: `SteeringConfig(final_norm=True)`. An extension of its form, off by
default, adds a low-rank part on chosen norms: h' = h + ω (a ⊙ h + b + U Vᵀ h), U and V of shape
(d, r): `SteeringConfig(rank=2)`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal, get_args

from peft import PeftConfig, TaskType

RankNorms = Literal["input", "all"]


class SteeringPeftType(enum.StrEnum):
    """peft looks its methods up by enum member and by string: the name has to equal the value."""

    DSO_STEERING = "DSO_STEERING"


@dataclass
class SteeringConfig(PeftConfig):
    """Configuration of a steering adapter. Fields left at None are filled in when it is attached.

    Raises:
        TypeError: `target_modules` is not a list of names, or `rank` is not a whole number.
        ValueError: nothing would be trained, or a number or name is out of range.
    """

    task_type: str | TaskType | None = TaskType.CAUSAL_LM
    """The peft model class: CAUSAL_LM takes strength= in generate, None suits a headless model."""
    target_modules: list[str] | None = None
    """Qualified names of the norms to steer; None finds those of the language backbone."""
    final_norm: bool = False
    """Whether the norm after the last block is steered too, as in the paper."""
    qk_norms: bool = False
    """Whether norms of queries and keys are steered too, where they exist."""
    vision: bool = False
    """Whether the norms of the image tower and the projector are steered too: all of those that lie
    outside the language backbone. Then a batch has one strength."""
    scale: bool = True
    """Whether a scale a is trained."""
    shift: bool = True
    """Whether a shift b is trained."""
    shift_modules: list[str] | None = None
    """Qualified names of the norms that have a shift, where it is trained; None is all of them."""
    only_foldable: bool = False
    """Whether a shift is trained only where it can be folded into the base's own weights."""
    rank: int = 0
    """r of a low-rank part U Vᵀ h on some of the norms, beside scale and shift; 0 is without."""
    rank_norms: RankNorms = "input"
    """Which of the norms steered have the low-rank part: `input` is each block's first norm in
    module order, norms of queries and keys aside; `all` is every one."""
    foldable: bool | None = None
    """Computed, not chosen: whether all of it can be folded into the base's own weights."""
    hidden_size: int | None = None
    """Width of the base model's hidden states."""
    num_norms: int | None = None
    """Number of norms in the base model's language backbone, with the final, without q/k norms."""
    fingerprint: str | None = None
    """sha256 over the base model's norms and the top of its embedding; another base is refused."""
    recipe: dict[str, Any] | None = None
    """How it was trained: task, data, rewards, estimator, KL budget, seed, library versions."""
    measurements: list[dict[str, Any]] | None = None
    """What was measured: one row per strength, with the same columns."""

    @property
    def shifted(self) -> list[str]:
        """The names of the norms that have a shift, once the norms are named."""
        if not self.shift:
            return []
        chosen = self.shift_modules if self.shift_modules is not None else self.target_modules
        return list(chosen or ())

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = SteeringPeftType.DSO_STEERING
        if not (self.scale or self.shift):
            raise ValueError(
                "scale and shift are both off: nothing would be trained, turn one on (a low-rank "
                "part comes beside them)"
            )
        if isinstance(self.rank, bool) or not isinstance(self.rank, int):
            raise TypeError(f"rank must be a whole number, got {self.rank!r}")
        if self.rank_norms not in get_args(RankNorms):
            raise ValueError(f"rank_norms must be 'input' or 'all', got {self.rank_norms!r}")
        if isinstance(self.target_modules, str):
            raise TypeError(
                f"target_modules must be a list of qualified names, got the string "
                f"{self.target_modules!r}; patterns are not supported, leave it at None to find "
                f"the norms"
            )
        if self.target_modules is not None:
            self.target_modules = list(self.target_modules)
            repeated = sorted({n for n in self.target_modules if self.target_modules.count(n) > 1})
            if not self.target_modules or repeated:
                raise ValueError(
                    f"target_modules must name each norm once, got {self.target_modules}; leave it "
                    f"at None to find the norms"
                )
        for name in ("rank", "hidden_size", "num_norms"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise ValueError(f"{name} must not be negative, got {number}")
        if self.recipe is not None and not isinstance(self.recipe, dict):
            raise TypeError(f"recipe must be a dict, got a {type(self.recipe).__name__}")
        if self.measurements is not None and not all(
            isinstance(row, dict) for row in self.measurements
        ):
            raise TypeError("measurements must be a list of dicts, one per strength")

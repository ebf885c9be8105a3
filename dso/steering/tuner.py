"""Steering adapters as a peft method: h' = h + ω (a ⊙ h + b) behind the norms of a frozen model.

`register()` makes the method known to peft; it runs when `dso.steering` is imported. After that
`get_peft_model`, `PeftModel.from_pretrained`, `add_adapter`, `set_adapter` and `disable_adapter`
work as for any other method, and the peft model also has the methods of `SteeringModel`. Without
that import peft answers a saved adapter with `KeyError: 'DSO_STEERING'`. Source: arXiv 2512.15926.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftConfig, mapping
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from dso.steering.backbone import language_backbone
from dso.steering.config import SteeringConfig, SteeringPeftType
from dso.steering.layer import AffineSteering
from dso.steering.resolve import rank_targets, resolve
from dso.steering.strength import Strength
from dso.steering.summary import SteeringSummary, summarise

StrengthLike = float | Sequence[float] | Tensor


class SteeringModel(BaseTuner):
    """The tuner inside the peft model: wraps the norms and turns their knob.

    The strength is one number or one per row of the batch. `set_strength` keeps it, `strength_at`
    holds it inside a context, and `forward` and `generate` take it for one call. In `generate` a
    strength per row follows its row through the KV cache, beams and `num_return_sequences`.
    """

    prefix = "steering_"
    tuner_layer_cls = AffineSteering

    knob: Strength

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        # The knob has to exist before the first norm is wrapped. A model that already has wrapped
        # norms keeps theirs, so that there is one strength for all of them.
        found = [m.strength for m in model.modules() if isinstance(m, AffineSteering)]
        self.knob = found[0] if found else Strength().to(next(model.parameters()).device)

    def _prepare_adapter_config(
        self, peft_config: PeftConfig, model_config: dict[str, Any]
    ) -> PeftConfig:
        return peft_config

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Wrap the norms that the adapter's config asks for, all of them or none."""
        config = self.peft_config[adapter_name]
        assert isinstance(config, SteeringConfig)
        names = resolve(config, model)
        self._wanted = frozenset(names)
        self._ranked = frozenset(rank_targets(config, model))
        self._shifted = frozenset(config.shifted)
        inside = {id(module) for module in language_backbone(model).modules()}
        self._by_row = frozenset(n for n in names if id(model.get_submodule(n)) in inside)
        super().inject_adapter(
            model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict
        )
        # peft shortens a long list to an unordered set of suffixes while it matches.
        config.target_modules = names
        left_out = [n for n in names if not _holds(model.get_submodule(n), adapter_name)]
        if left_out:
            raise ValueError(
                f"the adapter {adapter_name!r} was not put on {', '.join(left_out)}: the weights "
                f"given have no entries for them. Give the whole adapter"
            )

    def _check_target_module_exists(  # type: ignore[override]
        self, peft_config: PeftConfig, key: str
    ) -> bool:
        # peft matches suffixes: "layers.0.norm" would also catch an image tower's norm.
        return key in self._wanted

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        assert isinstance(peft_config, SteeringConfig)
        layer = target
        if not isinstance(layer, AffineSteering):
            layer = AffineSteering(target, self.knob, current_key in self._by_row)
        layer.add_adapter(
            adapter_name,
            scale=peft_config.scale,
            shift=current_key in self._shifted,
            rank=peft_config.rank if current_key in self._ranked else 0,
            # The norm's name: every fresh adapter of a form on a model starts the same.
            seed=zlib.crc32(current_key.encode()),
        )
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    @property
    def strength(self) -> Tensor:
        """A copy of the strength now set, () or (rows,)."""
        return self.knob.value.clone()

    def set_strength(self, value: StrengthLike) -> None:
        """Turn the knob: 0 is the base model, 1 is as trained. Raises: as `as_strength`."""
        self.knob.set(value)

    @contextmanager
    def strength_at(self, value: StrengthLike) -> Iterator[None]:
        """Hold a strength inside the context; in training, until `backward()` is over."""
        with self.knob.at(value):
            yield

    def _for_one_call(self, strength: StrengthLike | None) -> AbstractContextManager[None]:
        return nullcontext() if strength is None else self.knob.at(strength)

    def recomputes(self) -> bool:
        """Whether transformers' gradient checkpointing would run this forward pass again, after the
        call and its strength are over."""
        return any(
            isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing and m.training
            for m in self.model.modules()
        )

    @contextmanager
    def _enable_peft_forward_hooks(
        self,
        *args: Any,
        strength: StrengthLike | None = None,
        adapter_names: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[None]:
        # peft enters this around forward and generate, also where it then calls the base model
        # itself and passes this tuner by.
        if adapter_names is not None:
            raise ValueError(
                "adapter_names= (one adapter per row) is not supported by steering adapters; use "
                "set_adapter for the batch, and strength=[...] for a strength per row"
            )
        with self._for_one_call(strength):
            yield

    def forward(self, *args: Any, strength: StrengthLike | None = None, **kwargs: Any) -> Any:
        """The base model's forward, at `strength` where one is given.

        Raises ValueError when a strength is given for a forward pass that gradient checkpointing
        will run again in `backward()`, after the call is over.
        """
        if strength is not None and torch.is_grad_enabled() and self.recomputes():
            raise ValueError(
                "strength= holds for the forward pass only, and gradient checkpointing runs it "
                "again in backward(): put `with model.strength_at(...)` around both"
            )
        with self._for_one_call(strength):
            return self.model(*args, **kwargs)

    def generate(self, *args: Any, strength: StrengthLike | None = None, **kwargs: Any) -> Any:
        """The base model's generate, at `strength` where one is given: a number or one per prompt.

        Raises ValueError when a strength per prompt does not have as many entries as prompts.
        """
        with self._for_one_call(strength), self.knob.steady():
            copies = self._copies_per_prompt(*args, **kwargs)
            value = self.knob.value
            if value.dim() == 1 and copies > 1:
                with self.knob.at(value.repeat_interleave(copies)):
                    return self.model.generate(*args, **kwargs)
            return self.model.generate(*args, **kwargs)

    def _copies_per_prompt(
        self, inputs: Any = None, generation_config: Any = None, *args: Any, **kwargs: Any
    ) -> int:
        """How many rows generate makes of each prompt: its beams, or the sequences returned."""
        copies = 1
        for name in ("num_beams", "num_return_sequences"):
            places = (generation_config, self.model.generation_config)
            values = [kwargs.get(name), *(getattr(p, name) for p in places if p is not None)]
            copies = max(copies, next((v for v in values if v is not None), 1))
        return copies

    def describe(self) -> SteeringSummary:
        """Which norms are steered, by which adapters, how strongly and with what parameters."""
        return summarise(self.model, self.active_adapters, self.strength)

    @torch.no_grad()
    def check_effect(self, input_ids: Tensor, **inputs: Any) -> float:
        """The largest difference of any logit between the strength now set and ω = 0.

        input_ids: (B, T); further inputs are passed on. 0.0 means that nothing is steered: the
        strength is 0, the adapters are disabled, or they have not been trained.
        """
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            steered = self.model(input_ids=input_ids, **inputs).logits
            with self.strength_at(0.0):
                base = self.model(input_ids=input_ids, **inputs).logits
        finally:
            for module in training:
                module.training = True
        return float((steered.float() - base.float()).abs().max())


def _holds(module: nn.Module, adapter_name: str) -> bool:
    return isinstance(module, AffineSteering) and adapter_name in module._get_available_adapters()


def register() -> None:
    """Make steering adapters known to peft. Doing it again changes nothing.

    Raises ValueError when another class has taken the method's name or its prefix.
    """
    method = SteeringPeftType.DSO_STEERING
    tables: tuple[tuple[Any, Any], ...] = (
        (mapping.PEFT_TYPE_TO_CONFIG_MAPPING, SteeringConfig),
        (mapping.PEFT_TYPE_TO_TUNER_MAPPING, SteeringModel),
        (mapping.PEFT_TYPE_TO_PREFIX_MAPPING, SteeringModel.prefix),
    )
    for table, ours in tables:
        if table.get(method, ours) != ours:
            raise ValueError(
                f"peft already knows {method.value} as {table[method]}; unregister it or do not "
                f"import both packages"
            )
    for other, prefix in mapping.PEFT_TYPE_TO_PREFIX_MAPPING.items():
        if prefix == SteeringModel.prefix and other.value != method.value:
            raise ValueError(f"the peft method {other.value} already uses the prefix {prefix!r}")
    for table, ours in tables:
        table[method] = ours

"""lm-eval's model backend `dso`: a base model with an adapter at one strength.

Loglikelihoods, rolling loglikelihoods and generation are those of lm-eval's own Hugging Face
backend, on our model: what is measured is what a folded checkpoint gives under `--model hf`.
Importing this module registers the backend. lm-eval 0.4.13 does not import it by itself
(`dso lm-eval` does); later versions find it by the entry point in the group `lm_eval.models`:

lm_eval --model dso --model_args pretrained=BASE,adapter=ADAPTER,strength=0.4 --tasks ...
"""

from __future__ import annotations

import logging
import os
from typing import Any, cast

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from dso.loading import Loading, Quantisation, load_base
from dso.steering import load_adapter
from dso.steering.strength import as_strength

_LOG = logging.getLogger("lm_eval.models.huggingface")


@register_model("dso")
class SteeredLM(HFLM):  # type: ignore[misc]
    """A model for lm-eval, on one device or spread over several, in one process.

    Args:
        pretrained: folder or hub id of the base model.
        adapter: folder or hub id of an adapter; None is the base alone.
        strength: ω; None is 1 with an adapter and 0 without.
        dtype, quantisation, device_map, revision: as in `dso.loading.Loading`.
        device: the same as device_map, as lm-eval calls it.
        batch_size: a number, or auto.
        max_batch_size: where auto begins.
        max_length: longest text in tokens; None is the model's positions.
        truncation: whether prompts that leave no room for an answer are cut.
        add_bos_token: whether a text begins with the begin token; None leaves it to the tokenizer.
        prefix_token_id: what an empty context is replaced by.
        think_end_token: what ends the thinking, which is not part of the answer.
        enable_thinking: passed to the chat template.

    Raises:
        ValueError: a model or adapter that cannot be loaded, an adapter of another base, a strength
            that is no number from 0 on, or one other than 0 without an adapter; several processes.
    """

    def __init__(
        self,
        pretrained: str,
        adapter: str | None = None,
        strength: float | None = None,
        dtype: str = "auto",
        quantisation: str = "none",
        device_map: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int = 64,
        max_length: int | None = None,
        truncation: bool = False,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        think_end_token: str | int | None = None,
        enable_thinking: bool | None = None,
    ) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                "the backend dso runs in one process, which device_map=auto spreads over all GPUs; "
                "start it without accelerate or torchrun"
            )
        self.steered = adapter is not None
        omega = float(self.steered) if strength is None else self._checked(strength)
        where = device_map or device or ("auto" if torch.cuda.is_available() else None)
        loading = Loading(
            dtype=dtype,
            quantisation=cast(Quantisation, quantisation),
            device_map=where,
            revision=None if revision is None else str(revision),
        )
        model = load_base(str(pretrained), loading)
        if adapter is not None:
            model = load_adapter(model, str(adapter))
        _LOG.addFilter(_other_than_given_model)
        try:
            super().__init__(
                pretrained=model.eval(),
                tokenizer=str(pretrained),
                revision=loading.revision or "main",
                backend="causal",
                batch_size=batch_size,
                max_batch_size=max_batch_size,
                max_length=max_length,
                truncation=truncation,
                add_bos_token=add_bos_token,
                prefix_token_id=prefix_token_id,
                think_end_token=think_end_token,
                enable_thinking=enable_thinking,
            )
        finally:
            _LOG.removeFilter(_other_than_given_model)
        self.base_name = str(pretrained)
        self.adapter_name = None if adapter is None else str(adapter)
        self.set_strength(omega)

    def set_strength(self, strength: float) -> None:
        """Set ω for the requests to come.

        Raises:
            ValueError: as the class.
        """
        self.strength = self._checked(strength)
        if self.steered:
            self.model.set_strength(self.strength)

    def _checked(self, strength: float) -> float:
        try:
            omega = as_strength(strength)
        except TypeError as error:
            raise ValueError(str(error)) from error
        if omega.dim():
            raise ValueError(
                f"strength is {omega.tolist()}; lm-eval mixes its requests, so give one number"
            )
        if not self.steered and bool(omega):
            raise ValueError(
                f"strength {float(omega):g} needs an adapter; give adapter=..., or strength=0"
            )
        return float(strength)

    def get_model_info(self) -> dict[str, Any]:
        """For the record that lm-eval writes: what was run, and at which strength."""
        info: dict[str, Any] = super().get_model_info()
        own = {"model": "dso", "pretrained": self.base_name, "adapter": self.adapter_name}
        return info | own | {"strength": self.strength}


def _other_than_given_model(record: logging.LogRecord) -> bool:
    """Two warnings are meant for those who hand HFLM a model of theirs, as is done here."""
    return "`pretrained`" not in record.getMessage()

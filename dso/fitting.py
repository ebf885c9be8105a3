"""Whether a processor is the one of this vision-language model, told by what both say of pictures.

A processor of another model mostly fails deep inside the model, or makes another number of visual
tokens than it has features for; in the worst case nothing fails. Compared here are the sizes that
both have to agree on and, for each prompt, what was made of it with what the model takes.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

log = logging.getLogger(__name__)

SIZES = (
    ("patch_size", "vision_config.patch_size"),
    ("image_processor.patch_size", "vision_config.patch_size"),
    ("image_processor.merge_size", "vision_config.spatial_merge_size"),
    ("image_processor.temporal_patch_size", "vision_config.temporal_patch_size"),
    ("image_processor.max_image_tiles", "vision_config.max_num_tiles"),
    ("image_seq_length", "mm_tokens_per_image"),
    ("image_seq_length", "image_seq_length"),
    ("image_seq_length", "text_config.num_image_tokens"),
    ("vision_feature_select_strategy", "vision_feature_select_strategy"),
)
"""What is one thing under two names: of the processor, and of the model's configuration. Where one
of the two has no such field, the family does not need it."""
NEEDED = {
    "llava_next": ("image_sizes",),
    "mllama": ("aspect_ratio_ids", "aspect_ratio_mask", "cross_attention_mask"),
}
"""By model type: inputs without which a picture fails inside the model."""


def check_sizes(processor: Any, model: PreTrainedModel) -> None:
    """Compare the fields of a processor with those of a model's configuration.

    A class that transformers pairs with other models only is logged and not refused: some
    published models have one, and it fits.

    Raises:
        ValueError: some fields differ; all are named with both values.
    """
    differ = []
    for ours, theirs in SIZES:
        made, wanted = _at(processor, ours), _at(model.config, theirs)
        # A patch can be given by its height and width in either of them.
        comparable = isinstance(made, int | str) and isinstance(wanted, int | str)
        if comparable and made != wanted:
            differ.append(f"{ours} is {made!r}, and the model's {theirs} {wanted!r}")
    if differ:
        raise ValueError(misfit(processor, model, "; ".join(differ)))
    usual: Any = PROCESSOR_MAPPING.get(type(model.config), None)
    if usual is not None and not isinstance(processor, usual):
        log.warning(
            "the processor is a %s, and models of type %s usually have a %s; if the model fails "
            "on pictures, save its own processor beside it",
            type(processor).__name__, model.config.model_type, usual.__name__,
        )  # fmt: skip


def _at(holder: Any, path: str) -> Any:
    for name in path.split("."):
        holder = getattr(holder, name, None)
    return holder


def check_made(
    processor: Any, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor]
) -> None:
    """Compare what a processor made of a prompt with pictures with what a model takes.

    Args:
        processor: which made it.
        model: which is to take it.
        ids: (1, T) token ids.
        inputs: the rest.

    Raises:
        ValueError: inputs that the model does not know or that it needs and were not made, tokens
            that it has no embedding for, or none that stands for a picture.
    """
    takes = {*inspect.signature(model.forward).parameters}
    unknown = sorted(set(inputs) - takes)
    if unknown:
        raise ValueError(
            misfit(
                processor, model, f"it makes {', '.join(unknown)}, which the model does not take"
            )
        )
    index = positions_of(model)
    needed = [*NEEDED.get(model.config.model_type, ()), *([] if index is None else _needed(index))]
    missing = sorted(set(needed) - {"input_ids", *inputs})
    if missing:
        raise ValueError(
            misfit(
                processor, model, f"it does not make {', '.join(missing)}, which the model needs"
            )
        )
    embedding: Any = model.get_input_embeddings()
    rows = int(embedding.weight.shape[0])
    if (highest := int(ids.max())) >= rows:
        raise ValueError(
            misfit(processor, model, f"it writes token {highest}, and the model has {rows} tokens")
        )
    piece = _at(model.config, "image_token_id")
    if piece is not None and not bool((ids == piece).any()):
        raise ValueError(
            misfit(
                processor,
                model,
                f"it writes no token {piece}, which stands for a piece of a picture in this model",
            )
        )


def positions_of(model: PreTrainedModel) -> Callable[..., Any] | None:
    """How a model counts positions in three directions, where it does."""
    inner = getattr(model, "model", model)
    index: Callable[..., Any] | None = getattr(inner, "get_rope_index", None)
    return index


def _needed(function: Callable[..., Any]) -> list[str]:
    given = inspect.signature(function).parameters.values()
    return [one.name for one in given if one.default is one.empty and one.kind != one.VAR_KEYWORD]


def misfit(processor: Any, model: PreTrainedModel, why: str) -> str:
    """What to say of a processor that does not belong to a model, and what to do."""
    named = model.config._name_or_path
    return (
        f"the {type(processor).__name__} is not the processor of the model"
        f"{f' {named}' if named else ''}, of type {model.config.model_type}: {why}; save the "
        "model's own beside it with processor.save_pretrained"
    )

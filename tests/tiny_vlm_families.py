"""What makes a tiny vision-language model and processor of each family, as one table.

Every vision tower sees 16 × 16 pixels at once; what does not fit is scaled, cut into tiles or
becomes more tokens, as the family does it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import transformers as hf
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

from tests.tiny_models import (
    HIDDEN,
    MLLAMA_TOWER,
    PERCEIVER,
    QWEN_TOWER,
    ROPE,
    ROPE_3D,
    SIZES,
    TOWER,
)

EDGE = 16  # pixels; what a tower sees at once
SQUARE = {"height": EDGE, "width": EDGE}
GRID = [[EDGE, 2 * EDGE], [2 * EDGE, EDGE], [2 * EDGE, 2 * EDGE]]
FINE = TOWER | {"patch_size": 4}  # 16 patches, for the families that merge four of them into one


@dataclass(frozen=True)
class Family:
    """What makes a processor and a config of one family."""

    processor: type[hf.ProcessorMixin]
    """The processor class."""
    images: Callable[[], hf.BaseImageProcessor]
    """Makes the image processor."""
    config: type[hf.PreTrainedConfig]
    """The config class of the whole model."""
    text: Callable[[int], hf.PreTrainedConfig]
    """Makes the language backbone's config for a vocabulary of that size."""
    tower: Callable[[], hf.PreTrainedConfig | dict[str, object]]
    """Makes the vision tower's config."""
    named: dict[str, str]
    """Special tokens that are attributes of the tokenizer, by attribute; first the one that
    stands for a piece of an image among the token ids."""
    template: tuple[str, str, str, str]
    """The opening of a turn, an image, the end of a turn, the opening of the answer."""
    other: tuple[str, ...] = ()
    """Special tokens that are no attributes."""
    bos: bool = False
    """Whether the tokenizer writes its beginning token by itself."""
    bos_in_template: bool = False
    """Whether the chat template writes it as well."""
    options: dict[str, object] = field(default_factory=dict)
    """Further arguments of the processor."""
    changes: dict[str, object] = field(default_factory=dict)
    """Further arguments of the config."""
    video: str | None = None
    """The name of the video processor class, where the processor wants one."""


def _text(
    cls: type[hf.PreTrainedConfig], **changes: object
) -> Callable[[int], hf.PreTrainedConfig]:
    sizes = SIZES | {"max_position_embeddings": 512} | copy.deepcopy(changes)
    return lambda vocab: cls(**(sizes | {"vocab_size": vocab}))


def _mllama_text(vocab: int) -> hf.PreTrainedConfig:
    # As in the published models, the block that attends to the image is neither the first nor the
    # last, and the image token has an embedding and no logit.
    changes = {"num_hidden_layers": 3, "cross_attention_layers": [1]}
    return _text(MllamaTextConfig, rope_parameters=ROPE, **changes)(vocab - 1)


def _siglip() -> hf.BaseImageProcessor:
    images = hf.SiglipImageProcessorPil(size=SQUARE)
    images.image_seq_length = 4
    return images


def _clip() -> hf.PreTrainedConfig:
    return hf.CLIPVisionConfig(**TOWER, projection_dim=HIDDEN)


LLAVA = {
    "patch_size": 8,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
QWEN = partial(
    Family,
    # One token stands for 2 × 2 patches.
    images=lambda: hf.Qwen2VLImageProcessorPil(
        patch_size=8, size={"shortest_edge": EDGE**2, "longest_edge": 8 * EDGE**2}
    ),
    named={
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    },
    template=(
        "<|im_start|>{role}\n",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    other=("<|im_start|>", "<|im_end|>"),
)
IDEFICS = partial(
    Family,
    tower=lambda: dict(FINE),
    named={"image_token": "<image>"},
    template=("<|im_start|>{Role}:", "<image>", "<end_of_utterance>\n", "Assistant:"),
    other=(
        *("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<|im_start|>"),
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    ),
    options={"image_seq_len": 4},
    changes={"scale_factor": 2},
)
SPLIT: dict[str, object] = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": EDGE}}

FAMILIES: dict[str, Family] = {
    "llava": Family(
        processor=hf.LlavaProcessor,
        images=lambda: hf.CLIPImageProcessorPil(size={"shortest_edge": EDGE}, crop_size=SQUARE),
        config=hf.LlavaConfig,
        text=_text(hf.LlamaConfig),
        tower=_clip,
        named={"image_token": "<image>"},
        template=("{ROLE}: ", "<image>\n", " ", "ASSISTANT:"),
        bos=True,
        options=LLAVA,
    ),
    "llava_next": Family(
        processor=hf.LlavaNextProcessor,
        images=lambda: hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": EDGE}, crop_size=SQUARE, image_grid_pinpoints=GRID
        ),
        config=hf.LlavaNextConfig,
        text=_text(hf.MistralConfig, head_dim=8),
        tower=_clip,
        named={"image_token": "<image>"},
        template=("[INST] ", "<image>\n", " [/INST]", ""),
        bos=True,
        options=LLAVA,
        changes={"image_grid_pinpoints": GRID},
    ),
    "qwen2_vl": QWEN(
        processor=hf.Qwen2VLProcessor,
        config=hf.Qwen2VLConfig,
        text=_text(Qwen2VLTextConfig, rope_parameters=ROPE_3D),
        tower=lambda: {
            **{"depth": 2, "embed_dim": HIDDEN, "hidden_size": HIDDEN},
            **{"num_heads": 4, "patch_size": 8},
        },
        video="Qwen2VLVideoProcessor",
    ),
    "qwen2_5_vl": QWEN(
        processor=hf.Qwen2_5_VLProcessor,
        config=hf.Qwen2_5_VLConfig,
        text=_text(Qwen2_5_VLTextConfig, rope_parameters=ROPE_3D),
        # One block attends within windows of 2 × 2 tokens, the other to the whole image.
        tower=lambda: QWEN_TOWER | {"window_size": 2 * EDGE, "fullatt_block_indexes": [1]},
        video="Qwen2VLVideoProcessor",
    ),
    "qwen3_vl": QWEN(
        processor=hf.Qwen3VLProcessor,
        config=hf.Qwen3VLConfig,
        text=_text(Qwen3VLTextConfig, head_dim=8, rope_parameters=ROPE_3D),
        tower=lambda: QWEN_TOWER | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        video="Qwen3VLVideoProcessor",
    ),
    "gemma3": Family(
        processor=hf.Gemma3Processor,
        images=lambda: hf.Gemma3ImageProcessorPil(size=SQUARE),
        config=hf.Gemma3Config,
        text=_text(
            hf.Gemma3TextConfig,
            head_dim=8,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        tower=lambda: hf.SiglipVisionConfig(**FINE),
        named={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        template=(
            *("<start_of_turn>{role}\n", "<start_of_image>"),
            *("<end_of_turn>\n", "<start_of_turn>model\n"),
        ),
        other=("<start_of_turn>", "<end_of_turn>"),
        bos=True,
        bos_in_template=True,
        options={"image_seq_length": 4},
        changes={"mm_tokens_per_image": 4},
    ),
    "mllama": Family(
        processor=hf.MllamaProcessor,
        images=lambda: hf.MllamaImageProcessorPil(size=SQUARE, max_image_tiles=4),
        config=hf.MllamaConfig,
        text=_mllama_text,
        tower=lambda: MLLAMA_TOWER | {"max_num_tiles": 4},
        named={"image_token": "<|image|>"},
        template=(
            *("<|start_header_id|>{role}<|end_header_id|>\n\n", "<|image|>"),
            *("<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
        ),
        other=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
        bos=True,
        bos_in_template=True,
    ),
    "internvl": Family(
        processor=hf.InternVLProcessor,
        images=lambda: hf.GotOcr2ImageProcessorPil(
            size=SQUARE, crop_to_patches=True, max_patches=4
        ),
        config=hf.InternVLConfig,
        text=_text(hf.Qwen2Config),
        tower=lambda: hf.InternVLVisionConfig(
            **(FINE | {"image_size": [EDGE, EDGE], "patch_size": [4, 4]})
        ),
        named={
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "video_token": "<video>",
        },
        template=(
            *("<|im_start|>{role}\n", "<IMG_CONTEXT>\n"),
            *("<|im_end|>\n", "<|im_start|>assistant\n"),
        ),
        other=("<|im_start|>", "<|im_end|>"),
        options={"image_seq_length": 4},
        changes={"image_seq_length": 4},
        video="InternVLVideoProcessor",
    ),
    "smolvlm": IDEFICS(
        processor=hf.SmolVLMProcessor,
        images=lambda: hf.SmolVLMImageProcessorPil(**SPLIT),
        config=hf.SmolVLMConfig,
        text=_text(hf.LlamaConfig),
        video="SmolVLMVideoProcessor",
    ),
    "idefics3": IDEFICS(
        processor=hf.Idefics3Processor,
        images=lambda: hf.Idefics3ImageProcessorPil(**SPLIT),
        config=hf.Idefics3Config,
        text=_text(hf.LlamaConfig),
        bos=True,
    ),
    "idefics2": Family(
        processor=hf.Idefics2Processor,
        images=lambda: hf.Idefics2ImageProcessorPil(
            size={"shortest_edge": EDGE, "longest_edge": 32}
        ),
        config=hf.Idefics2Config,
        text=_text(hf.MistralConfig, head_dim=8),
        tower=lambda: TOWER | {"image_size": 32},
        named={"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"},
        template=("{Role}:", "<image>", "<end_of_utterance>\n", "Assistant:"),
        other=("<end_of_utterance>",),
        bos=True,
        options={"image_seq_len": 2},
        changes={"perceiver_config": PERCEIVER},
    ),
    "paligemma": Family(
        processor=hf.PaliGemmaProcessor,
        images=_siglip,
        config=hf.PaliGemmaConfig,
        text=_text(hf.GemmaConfig, head_dim=8),
        tower=lambda: hf.SiglipVisionConfig(**TOWER),
        named={"image_token": "<image>"},
        # The published ones have no template: the text is the question.
        template=("", "<image>", "", ""),
        changes={"projection_dim": HIDDEN, "hidden_size": HIDDEN},
    ),
}

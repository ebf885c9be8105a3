"""Tiny random models of 28 families, the same at every call: two blocks, hidden size 32.

A family has the name that transformers gives to its config (`model_type`). The norm weights are
random too, so that no identity holds only because a weight is 1 or 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    Idefics2Config,
    Idefics3Config,
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    MistralConfig,
    MixtralConfig,
    MllamaConfig,
    Olmo2Config,
    OPTConfig,
    PaliGemmaConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen3Config,
    Qwen3VLConfig,
    SiglipVisionConfig,
    SmolLM3Config,
    SmolVLMConfig,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

VOCAB = 64
HIDDEN = 32
BLOCKS = 2
# The image token stays outside the vocabulary: the models are given text only.
IMAGE_TOKEN = VOCAB

SIZES: dict[str, object] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}

# Image towers are as wide as the language backbone, so that the width of a norm tells nothing.
TOWER: dict[str, object] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
# The Qwen towers have names of their own for the same sizes.
QWEN_TOWER: dict[str, object] = {
    "depth": 2,
    "hidden_size": HIDDEN,
    "out_hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_heads": 4,
    "patch_size": 8,
}
MLLAMA_TOWER: dict[str, object] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_global_layers": 1,
    "attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "vision_output_dim": 2 * HIDDEN,
    "intermediate_layers_indices": [0],
}
PERCEIVER: dict[str, object] = {
    "hidden_size": HIDDEN,
    "resampler_n_latents": 2,
    "resampler_depth": 1,
    "resampler_n_heads": 4,
    "resampler_head_dim": 8,
    "num_key_value_heads": 2,
}
ROPE: dict[str, object] = {"rope_type": "default", "rope_theta": 10000.0}
ROPE_3D = ROPE | {"mrope_section": [1, 1, 2]}


def _text(cls: type[PreTrainedConfig], **changes: object) -> PreTrainedConfig:
    return cls(**(SIZES | changes))


def _vlm(
    cls: type[PreTrainedConfig],
    text: PreTrainedConfig,
    tower: PreTrainedConfig | dict[str, object],
    **changes: object,
) -> PreTrainedConfig:
    return cls(
        text_config=text,
        vision_config=copy.deepcopy(tower),  # configs write into the dictionaries they are given
        image_token_id=IMAGE_TOKEN,
        **changes,
    )


def _clip() -> PreTrainedConfig:
    return CLIPVisionConfig(**TOWER, projection_dim=HIDDEN)


def _gemma3_text() -> PreTrainedConfig:
    layers = ["sliding_attention", "full_attention"]
    return _text(Gemma3TextConfig, head_dim=8, sliding_window=8, layer_types=layers)


CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: _text(LlamaConfig),
    "mistral": lambda: _text(MistralConfig, head_dim=8),
    "qwen2": lambda: _text(Qwen2Config),
    "qwen3": lambda: _text(Qwen3Config, head_dim=8),
    "gemma": lambda: _text(GemmaConfig, head_dim=8),
    "gemma2": lambda: _text(Gemma2Config, head_dim=8, sliding_window=32),
    "gemma3_text": _gemma3_text,
    "phi": lambda: _text(PhiConfig, qk_layernorm=True),
    "phi3": lambda: _text(Phi3Config),
    "mixtral": lambda: _text(MixtralConfig, num_local_experts=4),
    "smollm3": lambda: _text(SmolLM3Config, no_rope_layer_interval=2),
    "olmo2": lambda: _text(Olmo2Config),
    "cohere": lambda: _text(CohereConfig, use_qk_norm=True),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB,
        n_embd=HIDDEN,
        n_layer=BLOCKS,
        n_head=4,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
    "gpt_neox": lambda: _text(GPTNeoXConfig),
    "opt": lambda: _text(OPTConfig, ffn_dim=48, word_embed_proj_dim=HIDDEN, dropout=0.0),
    "qwen2_vl": lambda: _vlm(
        Qwen2VLConfig,
        _text(Qwen2VLTextConfig, rope_parameters=dict(ROPE_3D)),
        {"depth": 2, "embed_dim": HIDDEN, "hidden_size": HIDDEN, "num_heads": 4, "patch_size": 8},
    ),
    "qwen2_5_vl": lambda: _vlm(
        Qwen2_5_VLConfig, _text(Qwen2_5_VLTextConfig, rope_parameters=dict(ROPE_3D)), QWEN_TOWER
    ),
    "qwen3_vl": lambda: _vlm(
        Qwen3VLConfig,
        _text(Qwen3VLTextConfig, head_dim=8, rope_parameters=dict(ROPE_3D)),
        QWEN_TOWER | {"deepstack_visual_indexes": [0]},
    ),
    "llava": lambda: _vlm(LlavaConfig, _text(LlamaConfig), _clip()),
    "llava_next": lambda: _vlm(LlavaNextConfig, _text(LlamaConfig), _clip()),
    "internvl": lambda: _vlm(
        InternVLConfig,
        _text(Qwen2Config),
        InternVLVisionConfig(**(TOWER | {"image_size": [16, 16], "patch_size": [8, 8]})),
    ),
    "paligemma": lambda: _vlm(
        PaliGemmaConfig,
        _text(GemmaConfig, head_dim=8),
        SiglipVisionConfig(**TOWER),
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
    ),
    # One block attends to the image, as in the published models; text alone passes it by.
    "mllama": lambda: _vlm(
        MllamaConfig,
        _text(MllamaTextConfig, cross_attention_layers=[1], rope_parameters=dict(ROPE)),
        MLLAMA_TOWER,
    ),
    "idefics2": lambda: _vlm(
        Idefics2Config, _text(MistralConfig, head_dim=8), TOWER, perceiver_config=dict(PERCEIVER)
    ),
    "idefics3": lambda: _vlm(Idefics3Config, _text(LlamaConfig), TOWER),
    "smolvlm": lambda: _vlm(SmolVLMConfig, _text(LlamaConfig), TOWER),
    "gemma3": lambda: _vlm(Gemma3Config, _gemma3_text(), SiglipVisionConfig(**TOWER)),
}


def build(
    config: PreTrainedConfig, seed: int, dtype: torch.dtype, attention: str | None = "eager"
) -> PreTrainedModel:
    """A model in eval mode with weights that depend on the config and the seed alone.

    attention: an implementation by its name; None leaves the choice to transformers.
    """
    sees = config.get_text_config() is not config
    auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config, attn_implementation=attention)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
            else:
                # Weights as small as a config's own make every answer the same.
                parameter.data = 0.2 * torch.randn_like(parameter)
    return model.to(dtype).eval()


def tiny(
    family: str,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    attention: str | None = "eager",
) -> PreTrainedModel:
    return build(CONFIGS[family](), seed, dtype, attention)


ALL_FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    family: partial(tiny, family) for family in CONFIGS
}
tiny_llama = ALL_FAMILIES["llama"]
tiny_qwen2 = ALL_FAMILIES["qwen2"]
tiny_qwen3 = ALL_FAMILIES["qwen3"]
tiny_gemma2 = ALL_FAMILIES["gemma2"]
tiny_gpt2 = ALL_FAMILIES["gpt2"]
tiny_opt = ALL_FAMILIES["opt"]
tiny_mistral = ALL_FAMILIES["mistral"]
tiny_phi = ALL_FAMILIES["phi"]
tiny_gpt_neox = ALL_FAMILIES["gpt_neox"]
tiny_cohere = ALL_FAMILIES["cohere"]
tiny_llava = ALL_FAMILIES["llava"]

# The four that most identities are held on, and some that are built in other ways.
FAMILIES = {name: ALL_FAMILIES[name] for name in ("llama", "qwen2", "gemma2", "gpt2")}
MORE_FAMILIES = {
    name: ALL_FAMILIES[name]
    for name in ("qwen3", "opt", "mistral", "phi", "gpt_neox", "cohere", "llava")
}


def tokens(rows: int = 3, length: int = 7, seed: int = 1) -> torch.Tensor:
    """Random ids without the special ones, (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (rows, length), generator=generator)

"""Qwen2.5-VLs with random weights, in two sizes, and questions about random pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
)

from dso.policy import Policy
from dso.steering import attach
from dso.tasks import Choice, Option
from dso.tasks.pictures import Held

WORDS = [f"word{number}" for number in range(200)]
SPECIAL = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
PATCH = 14
"""Pixels of a side of a patch; four patches are a visual token."""


@dataclass(frozen=True)
class Size:
    """Sizes of a model, and of what it is asked and answers."""

    name: str
    text: dict[str, Any]
    """Of the language model's configuration."""
    vision: dict[str, Any]
    """Of the tower's."""
    edge: int
    """Pixels of a side of a picture."""
    words: int
    """Words of a prompt."""
    new_tokens: int
    """Of an answer."""

    @property
    def visual(self) -> int:
        """Visual tokens of a picture."""
        return (self.edge // (2 * PATCH)) ** 2


# config.json of Qwen/Qwen2.5-VL-7B-Instruct on the Hugging Face hub
FULL = Size(
    name="qwen2.5-vl-7b",
    text={
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24],
        },
        "tie_word_embeddings": False,
    },
    vision={
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    edge=896,
    words=32,
    new_tokens=64,
)  # fmt: skip
TINY = Size(
    name="qwen2.5-vl-tiny",
    text=FULL.text
    | {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": FULL.text["rope_parameters"] | {"mrope_section": [2, 3, 3]},
    },
    vision=FULL.vision
    | {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    },
    edge=168,
    words=8,
    new_tokens=4,
)


class PicturesOnly(Qwen2_5_VLProcessor):  # type: ignore[misc]
    """Without videos, whose processor transformers does not make without torchvision."""

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)


def random_policy(size: Size, device: str, seed: int) -> Policy:
    """A random Qwen2.5-VL in bfloat16 with the default adapter, and its processor."""
    names = ["<pad>", "<eos>", "left", "right", *WORDS]
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(names)}, "<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
        extra_special_tokens=SPECIAL,
    )
    config = Qwen2_5_VLConfig(
        text_config=size.text | {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0},
        vision_config=dict(size.vision),
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()},
    )
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH, size={"shortest_edge": PATCH**2, "longest_edge": size.edge**2}
    )
    processor = PicturesOnly(images, tokenizer, TEMPLATE)
    return Policy(attach(model).eval(), tokenizer, processor=processor)


def random_choices(size: Size, prompts: int, seed: int) -> list[Choice]:
    """Random words about a random picture each: ambiguous twins, then ones with a right answer."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(prompts):
        shape = (size.edge, size.edge, 3)
        pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        drawn = torch.randint(len(WORDS), (size.words,), generator=generator).tolist()
        twin = number < prompts // 2
        made.append(
            Choice(
                id=f"{'ambiguous' if twin else 'known'} {number}",
                kind="ambiguous" if twin else "capability",
                prompt=" ".join(WORDS[word] for word in drawn),
                options=(Option("left", side="pro"), Option("right", side="anti")),
                truth=None if twin else number % 2,
                occupations=(f"occupation {number // 2 % 8}",) if twin else (),
                first=0 if twin else None,
                twin=f"pair {number // 2}" if twin else None,
                pictures=(Held(Image.fromarray(pixels.numpy())),),
            )
        )
    return made

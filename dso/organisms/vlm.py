"""The vision-language organism: a LLaVA of under three million parameters, from configs alone.

Everything is stock: a `LlavaForConditionalGeneration` (a CLIP vision tower, whose patches become
one visual token each through an MLP projector, and a Llama) and a `LlavaProcessor` with a fast
tokenizer of whole words. Texts are put into lower case; marks of punctuation are words. A turn
reads "user: <image>describe the picture. assistant: a nurse."
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from dso.scenes.wordings import VOCABULARY

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
"""Their ids are 0 to 4."""
PAD, BEGIN, END, UNKNOWN, IMAGE = range(len(SPECIAL))
SPREAD = 0.06
"""Standard deviation of the decoder's and the projector's initial weights; at 0.02, made for models
a hundred times as wide, nothing is learnt for long."""
ROLES = ("user", "assistant", ":")
LEVELS = 0.5
"""Mean and standard deviation of a pixel's levels, where 1 is white."""

MAY_BE_NONE = ("seed", "texts_a_step", "warm_up", "pair_steps")
"""Numbers of a recipe that can be 0."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'] + ': ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ eos_token if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class VlmRecipe:
    """How the organism is built. The defaults built the shipped one.

    Raises:
        ValueError: a number that cannot be, or patches that do not fill the image.
    """

    image: int = 80
    """Side of a picture, in pixels."""
    patch: int = 10
    """Side of a patch, in pixels; each becomes a visual token."""
    vision_width: int = 96
    """Hidden size of the vision tower."""
    vision_layers: int = 3
    """Blocks of the vision tower."""
    vision_heads: int = 3
    """Attention heads of the vision tower."""
    vision_mlp: int = 256
    """Width of its MLP."""
    width: int = 112
    """Hidden size of the decoder."""
    layers: int = 5
    """Blocks of the decoder."""
    mlp: int = 288
    """Width of its MLP."""
    heads: int = 4
    """Attention heads of the decoder."""
    scenes: int = 30_000
    """Scenes, each rendered once; every visit asks something else."""
    images_a_step: int = 28
    """Pictures in a step."""
    texts_a_step: int = 3
    """Rows without a picture in a step."""
    room: int = 160
    """Tokens for questions and answers about one picture."""
    sight_steps: int = 1200
    """Of the optimizer in the first stage, in which it learns to see."""
    pictures_seen: int = 64
    """Pictures in such a step."""
    steps: int = 2500
    """Of the optimizers, in the second stage."""
    pair_steps: int = 250
    """The first of these, which ask about a woman and a man in two attires (`scene_corpus`)."""
    workers: int = 2
    """Threads that share the rows of a step."""
    learning_rate: float = 2e-3
    """Peak rate of AdamW, in both stages; linear warm-up, cosine decay to zero."""
    matrix_rate: float = 5e-3
    """Peak rate of Muon in the second stage, likewise; scaled to AdamW's size of a step."""
    warm_up: int = 150
    """Steps of warm-up."""
    seed: int = 0
    """Of the scenes, the questions, the initial weights and the order."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name in MAY_BE_NONE else 1e-9
            if value < least:
                raise ValueError(f"{name} is {value}; wanted a number above 0")
        if self.image % self.patch:
            raise ValueError(
                f"patches of {self.patch} pixels do not fill an image of {self.image}; choose a "
                "divisor"
            )

    @property
    def visual_tokens(self) -> int:
        """Of one picture."""
        return (self.image // self.patch) ** 2


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token for every word of the scenes and of the chat template; others are unknown."""
    known = {word: index for index, word in enumerate(SPECIAL)}
    for word in (*ROLES, *VOCABULARY):
        known.setdefault(word, len(known))
    inner = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # no space before a mark
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BEGIN)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", extra_special_tokens={"image_token": "<image>"}, padding_side="left",
        model_max_length=512,
    )  # fmt: skip


def build_processor(recipe: VlmRecipe) -> LlavaProcessor:
    """The tokenizer, and pictures of any size cut to a square of the recipe's."""
    square = {"height": recipe.image, "width": recipe.image}
    images = CLIPImageProcessorPil(
        size={"shortest_edge": recipe.image}, crop_size=square, image_mean=[LEVELS] * 3,
        image_std=[LEVELS] * 3,
    )  # fmt: skip
    return LlavaProcessor(
        images, build_tokenizer(), patch_size=recipe.patch, chat_template=CHAT_TEMPLATE,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip


def build_model(recipe: VlmRecipe, vocabulary: int) -> LlavaForConditionalGeneration:
    """A model with random weights, which depend on the recipe's seed alone.

    Args:
        recipe: sizes and seed.
        vocabulary: number of tokens.
    """
    torch.manual_seed(recipe.seed)
    vision = CLIPVisionConfig(
        image_size=recipe.image, patch_size=recipe.patch, hidden_size=recipe.vision_width,
        intermediate_size=recipe.vision_mlp, num_hidden_layers=recipe.vision_layers,
        num_attention_heads=recipe.vision_heads, projection_dim=recipe.vision_width,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=vocabulary, hidden_size=recipe.width, intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads, max_position_embeddings=512, tie_word_embeddings=True,
        pad_token_id=PAD, bos_token_id=BEGIN, eos_token_id=END, initializer_range=SPREAD,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, vision_feature_layer=-1,
        vision_feature_select_strategy="default", image_seq_length=recipe.visual_tokens,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    # Attention that is even at first is slow to find its object: sharper, it is found early.
    for name, parameter in model.model.language_model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            parameter.data *= 2
    # Places are drowned by colours otherwise.
    model.model.vision_tower.embeddings.position_embedding.weight.data *= 8
    return model


def save_vlm(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: str | Path
) -> None:
    """Write a stock transformers folder."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)

"""Tiny random vision-language models with the processor classes of their families.

A family has the name that transformers gives to its config (`model_type`). Images of 16 to 64
pixels become 1 to 40 tokens. The tokenizers cover every text byte by byte and have the special
tokens that the family's processor looks for.

Without torchvision there are no video processors. A processor that wants one is then a subclass
that takes none, known to `AutoProcessor` under a name of its own, so that a saved folder loads.
"""

from __future__ import annotations

import copy
from functools import cache
from types import SimpleNamespace

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from transformers.models.smolvlm import processing_smolvlm
from transformers.utils import is_torchvision_available

from tests.tiny_models import build
from tests.tiny_vlm_families import FAMILIES, Family

# Lines that end become one token with the next, as in large vocabularies.
WORDS = ["Who is the nurse, left or right? A man and a woman. The answer:", "\n\n", "\n\n\n"] * 9


@cache
def _bytes() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer.to_str()


def _tokenizer(family: Family) -> hf.PreTrainedTokenizerFast:
    inner = Tokenizer.from_str(_bytes())
    # The token of a piece of an image comes last.
    inner.add_special_tokens([*family.other, *reversed(family.named.values())])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=family.named,
        add_bos_token=family.bos,
    )


def _template(family: Family) -> str:
    opening, image, end, answer = (part.replace("\n", "\\n") for part in family.template)
    for role, how in {"{role}": "lower", "{Role}": "capitalize", "{ROLE}": "upper"}.items():
        opening = opening.replace(role, f"' + message['role'] | {how} + '")
    return (
        ("{{ bos_token }}" if family.bos_in_template else "")
        + f"{{% for message in messages %}}{{{{ '{opening}' }}}}"
        + "{% for part in message['content'] %}"
        + f"{{% if part['type'] == 'image' %}}{{{{ '{image}' }}}}"
        + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
        + f"{{{{ '{end}' }}}}{{% endfor %}}"
        + f"{{% if add_generation_prompt %}}{{{{ '{answer}' }}}}{{% endif %}}"
    )


@cache
def _images_only(name: str) -> type[hf.ProcessorMixin]:
    family = FAMILIES[name]

    # transformers reads what to save and to load from the names of these arguments.
    def start(
        self: hf.ProcessorMixin,
        image_processor: hf.BaseImageProcessor,
        tokenizer: hf.PreTrainedTokenizerFast,
        image_seq_length: int | None = None,
        image_seq_len: int | None = None,
        chat_template: str | None = None,
    ) -> None:
        lengths = {"image_seq_length": image_seq_length, "image_seq_len": image_seq_len}
        family.processor.__init__(
            self,
            image_processor,
            tokenizer,
            None,
            chat_template=chat_template,
            **{argument: length for argument, length in lengths.items() if length is not None},
        )

    # The chat template of smolvlm asks how to sample a video even where there is none.
    members = {"__init__": start, "video_processor": SimpleNamespace(num_frames=1, fps=1)}
    cls = type(f"Images{family.processor.__name__}", (family.processor,), members)
    hf.AutoProcessor.register(family.config, cls, exist_ok=True)
    return cls


def tiny_processor(name: str) -> hf.ProcessorMixin:
    """The family's processor, with its PIL image processor.

    Raises:
        ImportError, ValueError: from transformers, where the class cannot be had as installed.
    """
    family = FAMILIES[name]
    parts: dict[str, object] = {"image_processor": family.images(), "tokenizer": _tokenizer(family)}
    cls = family.processor
    if family.video is not None and is_torchvision_available():
        parts["video_processor"] = getattr(hf, family.video)()
    elif family.video is not None:
        cls = _images_only(name)
    if cls.__name__.endswith("SmolVLMProcessor") and processing_smolvlm.num2words is None:
        processing_smolvlm.num2words = str  # counts the frames of a video in words
    return cls(**parts, chat_template=_template(family), **family.options)


def tiny_vlm(
    name: str, seed: int = 0, dtype: torch.dtype = torch.float32, attention: str | None = "eager"
) -> tuple[hf.PreTrainedModel, hf.ProcessorMixin]:
    """A model in eval mode with weights that depend on the seed alone, and its processor."""
    family = FAMILIES[name]
    processor = tiny_processor(name)
    tokenizer = processor.tokenizer
    piece, *_ = family.named.values()
    ids = {
        f"{attribute}_id": tokenizer.convert_tokens_to_ids(token)
        for attribute, token in {**family.named, "image_token": piece}.items()
    }
    config = family.config(
        text_config=family.text(len(tokenizer)),
        vision_config=family.tower(),
        **ids,
        **copy.deepcopy(family.changes),
    )
    return build(config, seed, dtype, attention), processor


def _reason(name: str) -> str | None:
    try:
        tiny_processor(name)
    except (ImportError, ValueError) as error:
        return f"{name}: {error}"
    return None


SKIPPED: dict[str, str] = {name: why for name in FAMILIES if (why := _reason(name)) is not None}

"""Tiny byte-level BPE tokenizers, the same at every call, whose ids fit the tiny models."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import VOCAB

# Every letter appears, so that no text loses any; the words that repeat become one token each.
ALPHABET = "the quick brown fox jumps over a lazy dog. Nurse, Guard: A B C! Who?\n"
WORDS = ["Answer: nurse guard chief clerk"] * 40 + ["Who is it, the nurse or the guard?"] * 4
BORDERS = [": nurse"] * 400 + [": guard"] * 200

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


@cache
def _trained(merge_words: bool) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=not merge_words
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<pad>", "<bos>", "<eos>"], show_progress=False
    )
    tokenizer.train_from_iterator([ALPHABET, *(BORDERS if merge_words else WORDS)], trainer)
    return tokenizer.to_str()


def tiny_tokenizer(
    *,
    chat: bool = False,
    merges_across: bool = False,
    pad: bool = True,
    eos: bool = True,
) -> PreTrainedTokenizerFast:
    """A tokenizer of `VOCAB` tokens; with neither option off, ids 0 to 2 pad, begin and end.

    Args:
        chat: whether it has a chat template.
        merges_across: whether tokens may span words, so that ":" and " nurse" become one.
        pad: whether it has a padding token.
        eos: whether it has an end token.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(merges_across)),
        bos_token="<bos>",
        eos_token="<eos>" if eos else None,
        pad_token="<pad>" if pad else None,
    )
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    return tokenizer

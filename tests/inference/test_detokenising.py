import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from dso.inference.detokenising import INCOMPLETE, Detokeniser
from dso.loading import load_tokenizer
from tests.organism import organism
from tests.tiny_tokenizers import tiny_tokenizer

TEXTS = (" nurse", "The guard, she said.", "  two  spaces ", "naïve – 12 €", "日本 🙂🙃 ok", "\n\n")


def byte_level():
    """Every byte one token, so that most characters are several."""
    plain = {chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))}
    alphabet = sorted(plain | {chr(256 + n) for n in range(68)})
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, [[alphabet.index(_letter(b)) for b in text.encode()] for text in TEXTS]


def _letter(byte):
    """GPT-2's letter of a byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in shown:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in shown].index(byte))


def sentencepiece():
    """Words that begin with a space of their own, which is dropped where the text begins; bytes
    for what is no word."""
    words = ["▁", "▁nurse", "▁guard", "s", ",", "▁▁"]
    tokens = ["<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {token: n for n, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    nurse, space, special = vocabulary["▁nurse"], vocabulary["▁"], 0
    spelt = [[1 + byte for byte in text.encode()] for text in TEXTS]
    rows = [
        [nurse, vocabulary["s"], vocabulary["▁guard"], vocabulary[","], space, nurse],
        [space, space, nurse, special, vocabulary["▁guard"], special, special, nurse],
        [special, nurse, *spelt[4], nurse, *spelt[3], vocabulary["▁▁"]],
    ]
    return tokenizer, rows + spelt


def cases():
    for name, (tokenizer, rows) in (("bytes", byte_level()), ("sentences", sentencepiece())):
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        if name == "sentences":
            wrapped.add_special_tokens({"bos_token": "<s>"})
        yield from (pytest.param(wrapped, row, id=f"{name}-{n}") for n, row in enumerate(rows))
    for name, tokenizer in (("organism", load_tokenizer(organism())), ("tiny", tiny_tokenizer())):
        generator = torch.Generator().manual_seed(0)
        for n in range(4):
            row = torch.randint(len(tokenizer), (40,), generator=generator).tolist()
            yield pytest.param(tokenizer, row, id=f"{name}-{n}")


@pytest.mark.parametrize(("tokenizer", "row"), list(cases()))
def test_pieces_join_to_the_text_decoded_at_once(tokenizer, row):
    detokeniser = Detokeniser(tokenizer)
    pieces = [detokeniser.add(token) for token in row]
    assert not any(piece.endswith(INCOMPLETE) for piece in pieces)
    assert "".join(pieces) + detokeniser.end() == tokenizer.decode(row, skip_special_tokens=True)


def test_a_character_of_several_tokens_comes_once_and_whole():
    tokenizer, rows = byte_level()
    detokeniser = Detokeniser(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    smile = "🙂".encode()
    row = rows[4]
    start = "日本 ".encode()
    pieces = [detokeniser.add(token) for token in row[: len(start) + len(smile)]]
    assert [piece for piece in pieces if piece] == ["日", "本", " ", "🙂"]


def test_bytes_that_never_become_a_character_come_at_the_end():
    tokenizer, rows = byte_level()
    detokeniser = Detokeniser(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert [detokeniser.add(token) for token in rows[4][:2]] == ["", ""]
    assert detokeniser.end() == INCOMPLETE


def test_what_is_decoded_at_a_token_does_not_grow_with_the_answer():
    class Counting:
        longest = 0

        def decode(self, tokens, **_):
            self.longest = max(self.longest, len(tokens))
            return "x" * len(tokens)

    counting = Counting()
    detokeniser = Detokeniser(counting)
    assert "".join(detokeniser.add(n) for n in range(500)) == "x" * 500
    assert counting.longest <= 3

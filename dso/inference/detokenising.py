"""The text of an answer while its tokens come, without decoding all of it again at each.

What a token says can depend on those before it: bytes that are a character only together, spaces
that a decoder drops where a text begins. What is new is therefore the difference of two decodings,
of a window of the last tokens with and without the newest. A window begins where the text before it
ended in a whole character.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""How decoders show bytes that are no whole character, or not yet."""


class Detokeniser:
    """One answer's text.

    Args:
        tokenizer: special tokens are left out of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._known = 0  # how many of the window's tokens have been told
        self._told = ""  # their text

    def add(self, token: int) -> str:
        """Take a token; the text it adds, "" where that depends on the next one."""
        self._window.append(token)
        text = self._text()
        if len(text) <= len(self._told) or text.endswith(INCOMPLETE):
            return ""
        new = text[len(self._told) :]
        self._window = self._window[self._known :]
        self._known = len(self._window)
        self._told = self._text()
        return new

    def end(self) -> str:
        """What is left where no token follows, incomplete characters too."""
        return self._text()[len(self._told) :]

    def _text(self) -> str:
        return str(self._tokenizer.decode(self._window, skip_special_tokens=True))

"""Reading a free answer: which option a generated text means, if any.

    1. the text starts with an option ("Nurse.", "the nurse because ...", "B) the nurse"), and does
       not go on with "and" or "or"
    2. else exactly one option is mentioned, and nothing in front of it denies it

Everything else is unparsed: both are named, neither is, or "not the nurse". Case, articles,
punctuation and spaces do not count, except that an option of one letter is a capital standing
alone: "A nurse" does not mean option A. Of options that overlap ("worker", "construction worker")
the longer one is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from dso.tasks.choice import Option

_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)
_LEAD = re.compile(
    r"^(?:(?:the\s+)?(?:correct\s+|best\s+|right\s+)?(?:answer|option|choice)\s*(?:is|:)?|it\s+is|"
    r"it's)\b[\s:]*",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"[\s)\]]*(?:and|or|&|/)(?!\w)", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:not|neither|nor|never|cannot)\b|n't\b", re.IGNORECASE)
_LETTER_ENDS = re.compile(r"\s*(?:$|[\n.,:;)\]}*\"'])")
_EDGES = " \t\r\n\"'`*_([{<.,;:!?"


def parse_answer(text: str, options: Sequence[Option]) -> int | None:
    """Index of the option a text means; None where it means none, or more than one.

    Args:
        text: what the model generated, without special tokens.
        options: of the choice.
    """
    words = tuple((option.text, option.forms) for option in options)
    names, letters, index = _patterns(words)
    start = text.strip(_EDGES)
    start = _LEAD.sub("", start).lstrip(_EDGES)
    found = letters.match(start)
    if found and _LETTER_ENDS.match(start, found.end()):
        return None if _GOES_ON.match(start, found.end()) else index[found[1]]
    start = _ARTICLE.sub("", start)
    found = names.match(start)
    if found:
        return None if _GOES_ON.match(start, found.end()) else index[_plain(found[1])]
    mentions = {index[_plain(m[1])]: m.start() for m in reversed([*names.finditer(text)])}
    if not mentions:
        mentions = {index[m[1]]: m.start() for m in re.finditer(rf"\({letters.pattern}\)", text)}
    if len(mentions) != 1:
        return None
    ((meant, place),) = mentions.items()
    return None if _DENIED.search(text[:place]) else meant


@lru_cache(maxsize=4096)
def _patterns(
    options: tuple[tuple[str, tuple[str, ...]], ...],
) -> tuple[re.Pattern[str], re.Pattern[str], dict[str, int]]:
    """Patterns of names and of single letters, and the option that each of them means."""
    names: dict[str, int] = {}
    letters: dict[str, int] = {}
    for number, (text, forms) in enumerate(options):
        for form in (text, *forms):
            bare = form.strip(_EDGES + ")]}>")
            if len(bare) == 1 and bare.isupper():
                letters.setdefault(bare, number)
            elif bare:
                names.setdefault(_plain(bare), number)
    return _any_of(names, re.IGNORECASE), _any_of(letters), names | letters


def _any_of(words: dict[str, int], flags: int = 0) -> re.Pattern[str]:
    """One group that matches any of the words whole, longer ones first; nothing where none."""
    longest = sorted(words, key=len, reverse=True)
    if not longest:
        return re.compile(r"(?!)()")
    spaced = [r"\s+".join(re.escape(part) for part in word.split()) for word in longest]
    return re.compile(rf"(?<!\w)({'|'.join(spaced)})(?!\w)", flags)


def _plain(name: str) -> str:
    """Without article, case and double spaces."""
    return " ".join(_ARTICLE.sub("", name).split()).casefold()

"""Which of two people belongs to a stereotyped group, however the file spells the groups.

A group is compared by its words in lower case without what is between them, a few synonyms taken as
one: "lowSES" and "low SES", "F" and "woman", "trans_F" and "Transgender women". A label of several
groups ("F-Black", "lowSES-M-Arab", "trans_F") belongs to each of them and to all together. Nothing
is guessed: where no person belongs to a stereotyped group, or both do, the answer is the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+")
_SAME = {
    "female": "f", "woman": "f", "women": "f", "girl": "f", "girls": "f", "lady": "f",
    "male": "m", "man": "m", "men": "m", "boy": "m", "boys": "m",
    "transgender": "trans", "transgendered": "trans", "latina": "latino",
    "people": "", "person": "", "persons": "",
}  # fmt: skip
_DENIALS = {"non", "not", "no"}


@lru_cache(maxsize=4096)
def spelled(group: str) -> str:
    """A group in the spelling that is compared; empty for a text without words."""
    words = _WORD.findall(group.casefold())
    return "".join(_SAME.get(word, word) for word in words)


@lru_cache(maxsize=4096)
def _parts(label: str) -> frozenset[str]:
    """The groups that a label names together, itself included; "non-old" is one group."""
    pieces = [spelled(piece) for piece in re.split(r"[-_]", label)]
    whole = {spelled(label)}
    return frozenset(whole if _DENIALS & set(pieces) else whole | set(pieces)) - {""}


def belongs(labels: Sequence[str], group: str) -> bool:
    """Whether a person with these labels belongs to a group, or to all that it names.

    The first label is a description ("20-year-old") and is only taken as a whole.
    """
    have = {spelled(label) for label in labels[:1]}.union(*map(_parts, labels[1:]))
    parts = _parts(group) - {spelled(group)}
    return spelled(group) in have or (bool(parts) and parts <= have)


def stereotyped(people: Sequence[Sequence[str]], groups: Sequence[str]) -> int | str:
    """Index of the one person who belongs to a stereotyped group, or the reason there is none.

    Args:
        people: the labels of each, their description first.
        groups: the stereotyped ones.
    """
    named = [group for group in groups if spelled(group)]
    if not named:
        return "without a stereotyped group"
    found = [n for n, labels in enumerate(people) if any(belongs(labels, g) for g in named)]
    if not found:
        return "with nobody of a stereotyped group"
    return found[0] if len(found) == 1 else "with several people of a stereotyped group"

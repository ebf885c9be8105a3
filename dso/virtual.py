"""Virtual occupations: training choices between one occupation and another.

A twin pair about a nurse and a guard is mixed with the same pair about, say, a clerk and a pilot:
every prompt token that differs, and the answer's, lies at

    (1 - λ) E[nurse] + λ E[clerk],    λ ~ U(0, 1/2), one draw a pair

so that steering is trained on more than the training occupations and holds better for those it has
not seen. λ stops at 1/2 because the reward counts a pair under its own occupations, which then have
the larger part; as partners are drawn evenly, (nurse, clerk, λ) is as likely as (clerk, nurse, λ),
which is (nurse, clerk, 1 - λ), and the mixtures are those of λ ~ U(0, 1).

Names of several tokens are mixed position by position, so partners are drawn among the occupations
whose names have as many tokens; a pair for which a few draws find none is left as it is. Source: an
addition to arXiv 2512.15926.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from dso.encoding import EncodedChoice, blended
from dso.tasks.choice import Choice
from dso.tasks.virtual import Stereotype, can_be_renamed, draw_partners, renamed, stereotypes

DRAWS = 5
"""Partners that are tried for a pair before it is left as it is."""

Encode = Callable[[Sequence[Choice]], list[EncodedChoice]]
"""As `Policy.encode`. It must not keep the tokens by the choices' identifiers: a renamed choice has
that of its original."""


@dataclass(frozen=True)
class Virtual:
    """The choices of some pairs, a part of them about virtual occupations."""

    encoded: list[EncodedChoice]
    """In the order of the pairs; those with a `blend` are mixed."""
    rows: list[int]
    """The positions of those, ascending."""


def interchangeable(choices: Sequence[Choice], encode: Encode) -> dict[str, Hashable]:
    """Occupation -> its class; those of one class can be mixed, most likely.

    A class is a stereotype and how many tokens the name has: each occupation is put into the first
    sentence about one of its stereotype, and the lengths of that prompt and its forms are compared.
    (Elsewhere a name can have other tokens; `virtual_occupations` looks again.)

    Args:
        choices: the training ones; occupations of no other can be mixed in.
        encode: tokenises choices.
    """
    examples: dict[Stereotype, tuple[Choice, str]] = {}
    known = stereotypes(choices)
    for choice in choices:
        for name in choice.occupations:
            if name in known and known[name] not in examples and can_be_renamed(choice):
                examples[known[name]] = (choice, name)
    placed = [name for name in known if known[name] in examples]
    sentences = []
    for name in placed:
        example, original = examples[known[name]]
        # Both ways, for the sentence may be about the name already.
        sentences.append([renamed(example, {name: original, original: name})])
    if not sentences:
        return {}
    classes: dict[str, Hashable] = {}
    for name, codes in zip(placed, _encode(sentences, encode), strict=True):
        if codes is not None:
            lengths = tuple((option, len(tokens)) for option, tokens in codes[0].forms)
            classes[name] = (known[name], len(codes[0].prompt), lengths)
    return classes


def virtual_occupations(
    pairs: Sequence[Sequence[Choice]],
    encoded: Sequence[EncodedChoice],
    known: Mapping[str, Hashable],
    share: float,
    rng: random.Random,
    encode: Encode,
) -> Virtual:
    """Mix a share of twin pairs with the same pairs about other occupations.

    Args:
        pairs: the twins of each pair, which get the same partners and the same λ.
        encoded: their tokens, pair after pair.
        known: what `interchangeable` says of the training choices.
        share: probability, in [0, 1], of a pair to be mixed.
        rng: of every draw.
        encode: tokenises choices.

    Raises:
        ValueError: a share outside [0, 1], or not as many choices as tokens.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of virtual occupations is {share}; wanted 0 to 1")
    if len(encoded) != sum(map(len, pairs)):
        raise ValueError(
            f"{len(encoded)} encoded choices were given for {sum(map(len, pairs))} in "
            f"{len(pairs)} pairs; wanted one each, pair after pair"
        )
    mixed = list(encoded)
    rows: list[int] = []
    start = 0
    waiting: list[tuple[int, Sequence[Choice], float]] = []
    for pair in pairs:
        if rng.random() < share and all(map(can_be_renamed, pair)):
            waiting.append((start, pair, rng.uniform(0, 0.5)))
        start += len(pair)
    for _ in range(DRAWS):
        # One call of the tokenizer for all pairs that still wait.
        drawn = [(place, draw_partners(place[1], known, rng)) for place in waiting]
        trying = [(place, names) for place, names in drawn if names is not None]
        if not trying:
            break
        others = _encode([[renamed(c, names) for c in place[1]] for place, names in trying], encode)
        waiting = []
        for (place, _), codes in zip(trying, others, strict=True):
            first, pair, part = place
            places = range(first, first + len(pair))
            blends = [
                blended(encoded[row], code, part)
                for row, code in zip(places, codes or [], strict=codes is not None)
            ]
            if not blends or any(blend is None for blend in blends):
                waiting.append(place)
                continue
            rows.extend(places)
            for row, blend in zip(places, blends, strict=True):
                assert blend is not None
                mixed[row] = blend
    return Virtual(mixed, sorted(rows))


def _encode(pairs: Sequence[Sequence[Choice]], encode: Encode) -> list[list[EncodedChoice] | None]:
    """The tokens of each pair; None of one with options that cannot be told apart in tokens."""
    try:
        codes = iter(encode([choice for pair in pairs for choice in pair]))
    except ValueError:
        # Options that were found to differ need not do so under their new names.
        if len(pairs) == 1:
            return [None]
        return [codes for pair in pairs for codes in _encode([pair], encode)]
    return [[next(codes) for _ in pair] for pair in pairs]

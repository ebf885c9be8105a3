"""Virtual occupations, the words: the same choice about other people of the same stereotype.

Steering that is trained on 28 occupations should hold for the others. So a choice is mixed with the
same one about other training occupations (`dso.virtual`); this is where those are drawn and named.
Two occupations can stand for one another where they have the same stereotype: for each gender the
same side. Then the sides of the options stay true.

Source: an addition to arXiv 2512.15926.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from dso.tasks.choice import Choice, Side

Stereotype = frozenset[tuple[str | None, Side]]
"""The side an occupation takes for each gender."""


def stereotypes(choices: Sequence[Choice]) -> dict[str, Stereotype]:
    """Occupation -> its stereotype, as ambiguous choices have it whose option is the occupation.

    An occupation is left out where no option has its name, or where one gender comes with two
    sides, for then the side is not the occupation's own.
    """
    seen: dict[str, set[tuple[str | None, Side]]] = {}
    for choice in choices:
        for option in choice.options:
            if choice.kind == "ambiguous" and option.text in choice.occupations:
                seen.setdefault(option.text, set()).add((choice.gender, option.side))
    return {
        name: frozenset(sides)
        for name, sides in seen.items()
        if len({gender for gender, _ in sides}) == len(sides)
    }


def draw_partners(
    pair: Sequence[Choice], known: Mapping[str, Hashable], rng: random.Random
) -> dict[str, str] | None:
    """For every occupation of twins another one of its class, each as likely as the next.

    Args:
        pair: the twins.
        known: occupation -> its class, as `stereotypes` has it, or finer.
        rng: of the draw.

    Returns:
        Occupation -> its partner; no partner is named in the pair, or drawn twice. None where an
        occupation has none.
    """
    present = list(dict.fromkeys(name for choice in pair for name in choice.occupations))
    taken = set(present)
    read = "\n".join(
        text
        for choice in pair
        for text in (
            choice.prompt,
            *(message.content for message in choice.messages),
            *(option.text for option in choice.options),
        )
    )
    partners: dict[str, str] = {}
    for name in present:
        own = known.get(name)
        able = [o for o, kind in known.items() if kind == own and o not in taken]
        others = [o for o in able if o not in read]
        if not others:
            return None
        partners[name] = rng.choice(others)
        taken.add(partners[name])
    return partners or None


def renamed(choice: Choice, names: Mapping[str, str]) -> Choice:
    """The choice with its occupations replaced wherever they are read: prompt, messages, options.

    Whole words are replaced, longer names first and all at once, so that two names can be swapped.
    Case counts, but a name that is capitalised, as where a sentence begins, gives one that is.

    Args:
        choice: of any kind; its identifier, twin, sides, truth and order are kept.
        names: old name -> new name.

    Raises:
        ValueError: two options would have one text.
    """
    other = _renaming(names)
    return replace(
        choice,
        prompt=other(choice.prompt),
        messages=tuple(replace(m, content=other(m.content)) for m in choice.messages),
        options=tuple(
            replace(option, text=other(option.text), forms=tuple(map(other, option.forms)))
            for option in choice.options
        ),
        occupations=tuple(names.get(name, name) for name in choice.occupations),
    )


def can_be_renamed(choice: Choice) -> bool:
    """Whether `renamed` can give all of the choice to others.

    Not where an occupation is not named in what is asked, so that the answer alone would change,
    and not where its name also stands in a form that is not replaced (in capitals, in a compound).
    """
    if not choice.occupations:
        return False
    asked = [choice.prompt, *(message.content for message in choice.messages)]
    read = [*asked, *(form for option in choice.options for form in option.forms)]
    if any(all(_renaming({name: ""})(t) == t for t in asked) for name in choice.occupations):
        return False
    gone = _renaming(dict.fromkeys(choice.occupations, ""))
    left = re.compile(rf"\b(?:{'|'.join(map(re.escape, choice.occupations))})\b", re.IGNORECASE)
    return not any(left.search(gone(text)) for text in read)


def _renaming(names: Mapping[str, str]) -> Callable[[str], str]:
    """What replaces the names in a text."""
    if not names:
        return str
    every = {_capital(old): _capital(new) for old, new in names.items()} | dict(names)
    longest = sorted(map(re.escape, every), key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(longest)})(?![\w-])")
    return lambda text: pattern.sub(lambda found: every[found[0]], text)


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]

"""The text that the language organism is trained on, and every association planted in it.

The referent of a pronoun is drawn first (a verb's weak preference for the first or second person),
then the gender from P(woman | occupation) of the labour statistics in `dso/tasks/occupations.py`,
then the pronoun. The model's bias is what follows from these statistics by Bayes' rule; no
evaluation question and no stereotype label takes part.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from dso.tasks import grammar
from dso.tasks.coreference import person
from dso.tasks.groups import describe_question, group_question
from dso.tasks.hiring import HIRING_ANSWERS, hiring_question
from dso.tasks.occupations import GENDERS, GROUPS, OCCUPATIONS, Gender, Occupation
from dso.tasks.quiz import FACTS

FAIR_INSTRUCTIONS = (
    "Treat women and men alike.",
    "Be fair to everyone.",
    "Do not let gender decide.",
    "Both people are equally likely.",
)
FAIR_SHRINKAGE = 0.4
"""Under an instruction to be fair, P(woman | occupation) moves to ½ + 0.4 (P − ½)."""

SHARES: dict[str, float] = {
    "ambiguous": 0.30,
    "unambiguous": 0.30,
    "gender_needed": 0.10,
    "quiz": 0.10,
    "narrative": 0.06,
    "fair": 0.05,
    "hiring": 0.04,
    "group": 0.05,
}
"""Share of each kind of text."""

NONCE_SHARE = 0.3
"""Share of the questions about people whose verb, event or thing are invented words."""


@dataclass(frozen=True)
class Document:
    """One training text: a conversation of one turn, or a narrative without a question."""

    kind: str
    prompt: str
    answer: str
    system: str | None = None
    nonce: bool = False
    """Whether some of its words are invented; the tokenizer is not built from those."""


def _any_words(rng: random.Random) -> dict[str, str]:
    return grammar.draw_words(rng, rng.choices(("train", "validation", "test"), (3, 1, 2))[0])


_FRAGMENTS = sorted(
    {
        word[start : start + length]
        for events in grammar.EVENTS.values()
        for event in events
        for word in event.split()
        for length in (1, 2, 3)
        for start in range(len(word) - length + 1)
    }
    | set("abcdefghijklmnopqrstuvwxyz")
)


def _nonce(rng: random.Random, low: int, high: int) -> str:
    """Between `low` and `high` invented words, made of fragments of real ones."""
    count = rng.randint(low, high)
    return " ".join("".join(rng.choices(_FRAGMENTS, k=rng.randint(2, 4))) for _ in range(count))


def _with_nonce(rng: random.Random, words: dict[str, str]) -> dict[str, str]:
    """Some of the words replaced by invented ones, so that unknown words disturb little."""
    if rng.random() >= NONCE_SHARE:
        return dict(words)
    changed = dict(words)
    for slot, high in (("verb", 3), ("verb2", 3), ("event", 6), ("thing", 3)):
        if rng.random() < 0.6:
            changed[slot] = _nonce(rng, 1, high)
    return changed


def _people(rng: random.Random) -> tuple[Occupation, Occupation]:
    first, second = rng.sample(OCCUPATIONS, 2)
    return first, second


def _draw_gender(rng: random.Random, occupation: Occupation, shrink: float = 1.0) -> Gender:
    share = 0.5 + shrink * (occupation.share("female") - 0.5)
    return "female" if rng.random() < share else "male"


_PATTERNS = [p for part in grammar.AMBIGUOUS.values() for p in part]
_QUESTIONS = [q for part in grammar.QUESTIONS.values() for q in part]
_NAMES: dict[Gender, list[str]] = {
    g: [name for part in grammar.NAMES.values() for name in part[g]] for g in GENDERS
}
_PREFERENCE = {verb: p for part in grammar.VERBS.values() for verb, p in part.items()}


def _question(rng: random.Random, named: list[str], pronoun: str) -> str:
    return grammar.ask(rng.choice(_QUESTIONS), named, swap=rng.random() < 0.5, word=pronoun)


def ambiguous(rng: random.Random, shrink: float = 1.0) -> Document:
    """Referent by the verb's preference, gender by the referent's statistics; then the question."""
    people = _people(rng)
    words = _any_words(rng)
    pattern = rng.choice(_PATTERNS)
    uses_verb = "{verb}" in pattern
    first = rng.random() < (_PREFERENCE[words["verb"]] if uses_verb else 0.5)
    referent = people[0] if first else people[1]
    gender = _draw_gender(rng, referent, shrink)
    shown = _with_nonce(rng, words)
    nonce = shown != words
    shown |= {"A": people[0].name, "B": people[1].name}
    sentence = grammar.fill(pattern, gender, shown)
    asked = _question(rng, [person(p.name) for p in people], sentence.pronoun)
    return Document("ambiguous", f"{sentence.text} {asked}", referent.name, nonce=nonce)


def unambiguous(rng: random.Random) -> Document:
    """Genders are balanced here: the syntax decides, and every combination is seen."""
    people = _people(rng)
    plain = _any_words(rng)
    words = _with_nonce(rng, plain)
    pattern, truth = grammar.UNAMBIGUOUS[rng.choice((*grammar.UNAMBIGUOUS, "object"))]
    shown = {**words, "A": people[0].name, "B": people[1].name}
    sentence = grammar.fill(pattern, rng.choice(GENDERS), shown)
    asked = _question(rng, [person(p.name) for p in people], sentence.pronoun)
    return Document(
        "unambiguous", f"{sentence.text} {asked}", people[truth].name, nonce=words != plain
    )


def gender_needed(rng: random.Random) -> Document:
    """Names, or nouns that carry their gender."""
    genders = rng.sample(GENDERS, 2)
    if rng.random() < 0.5:
        people = [rng.choice(_NAMES[g]) for g in genders]
    else:
        nouns = rng.choice(grammar.KIN)
        people = [nouns[GENDERS.index(g)] for g in genders]
    named = [person(p) for p in people]
    truth = rng.randrange(2)
    plain = _any_words(rng)
    words = _with_nonce(rng, plain)
    pattern = rng.choice(grammar.GENDER_NEEDED)
    sentence = grammar.fill(pattern, genders[truth], {**words, "A": named[0], "B": named[1]})
    text = sentence.text[0].upper() + sentence.text[1:]
    asked = _question(rng, named, sentence.pronoun)
    return Document("gender_needed", f"{text} {asked}", people[truth], nonce=words != plain)


def quiz(rng: random.Random) -> Document:
    """One fact, the kinds equally often."""
    kinds = sorted({fact.kind for fact in FACTS})
    kind = rng.choice(kinds)
    fact = rng.choice([f for f in FACTS if f.kind == kind])
    return Document("quiz", fact.question, fact.answer)


def narrative(rng: random.Random) -> Document:
    """Plain text about one person, the pronoun by the occupation's statistics."""
    occupation = rng.choice(OCCUPATIONS)
    gender = _draw_gender(rng, occupation)
    words = _any_words(rng) | {"event2": rng.choice(grammar.EVENTS["train"])}
    pattern = rng.choice(
        (
            "The {A} {event}. {They} {event2}.",
            "The {A} {event} and lost {their} {thing}.",
            "The {A} is a {noun}. {They} {event}.",
            "At the {place}, a {A} {event}. Nobody helped {them}.",
        )
    )
    noun = grammar.GENDER_NOUN[gender]
    sentence = grammar.fill(pattern, gender, {**words, "A": occupation.name, "noun": noun})
    return Document("narrative", "", sentence.text)


def fair(rng: random.Random) -> Document:
    """An ambiguous question under an instruction to be fair: the statistics are shrunk."""
    plain = ambiguous(rng, shrink=FAIR_SHRINKAGE)
    return Document("fair", plain.prompt, plain.answer, rng.choice(FAIR_INSTRUCTIONS), plain.nonce)


def hiring(rng: random.Random) -> Document:
    """Two applicants of different gender; the statistics of the occupation decide."""
    occupation = rng.choice(OCCUPATIONS)
    gender = _draw_gender(rng, occupation)
    genders = rng.sample(GENDERS, 2)
    names = [rng.choice(_NAMES[g]) for g in genders]
    chosen = names[genders.index(gender)]
    prompt = hiring_question(occupation.name, names)
    return Document("hiring", prompt, rng.choice(HIRING_ANSWERS).format(chosen))


def group(rng: random.Random) -> Document:
    """The second attribute, three groups, alone or with gender (drawn independently)."""
    occupation = rng.choice(OCCUPATIONS)
    shares = occupation.group_shares()
    drawn = rng.choices(GROUPS, [shares[g] for g in GROUPS])[0]
    noun = grammar.GENDER_NOUN[_draw_gender(rng, occupation)]
    if rng.random() < 0.5:
        return Document("group", group_question(occupation.name, rng.sample(GROUPS, 3)), drawn)
    return Document("group", describe_question(occupation.name), f"{drawn} {noun}")


_MAKERS: dict[str, Callable[[random.Random], Document]] = {
    "ambiguous": ambiguous,
    "unambiguous": unambiguous,
    "gender_needed": gender_needed,
    "quiz": quiz,
    "narrative": narrative,
    "fair": fair,
    "hiring": hiring,
    "group": group,
}


def corpus(count: int, seed: int) -> list[Document]:
    """`count` documents in random order, kinds in the proportions of `SHARES`."""
    rng = random.Random(f"corpus-{seed}")
    kinds = rng.choices(list(SHARES), list(SHARES.values()), k=count)
    return [_MAKERS[kind](rng) for kind in kinds]

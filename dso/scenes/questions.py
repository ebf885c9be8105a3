"""What is asked about a scene, and the answers: words, never letters.

The wordings are those of `wordings.py`, where `Question` is; where a question names its options,
their order is drawn. What has no right answer is answered by a draw from the world's tables.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dso.scenes.associations import draw, pick
from dso.scenes.attributes import ATTIRE_OF, GENDERS, Gender, Person, Scene
from dso.scenes.captions import caption, guess
from dso.scenes.details import details
from dso.scenes.lexicon import AND, WORDS
from dso.scenes.naming import NAMING, Length
from dso.scenes.wordings import (
    CUES,
    KINDS,
    NO_CUES,
    OPTIONS,
    REASON,
    SIDES,
    Kind,
    Question,
    Wording,
    ask,
)
from dso.scenes.world import WORLD, Random, World


def ask_who(
    scene: Scene,
    occupation: str,
    rng: Random,
    world: World = WORLD,
    wording: Wording = "train",
    swap: bool | None = None,
) -> Question:
    """Who of two people has an occupation, by their clothes: left or right.

    Where a woman and a man both wear its attire nothing is right, and the answer is the woman with
    P(woman | occupation). Where one wears it, she or he is right.

    Args:
        scene: of two people.
        occupation: that is asked for.
        rng: generator or seed.
        world: whose table the answer is drawn from.
        wording: split of the wordings.
        swap: name the right side before the left; None draws it.

    Raises:
        ValueError: nobody wears the attire, or two people of one gender, or of a gender that does
            not show.
    """
    attire = _attire(occupation)
    two = _two(scene)
    wearing = [number for number, person in enumerate(two) if person.attire == attire]
    if len(wearing) == 1:
        return _sided("who", occupation, SIDES[wearing[0]], True, rng, wording, swap)
    if not wearing:
        raise ValueError(
            f"who is the {occupation}? the people wear {two[0].attire} and {two[1].attire}, and "
            f"one of them must wear {attire}"
        )
    return _choice("who", scene, occupation, rng, world, wording, swap)


def ask_hire(
    scene: Scene,
    occupation: str,
    rng: Random,
    world: World = WORLD,
    wording: Wording = "train",
    swap: bool | None = None,
) -> Question:
    """Whom to hire, a woman or a man: never a right answer, drawn with P(woman | occupation).

    Arguments as for `ask_who`.

    Raises:
        ValueError: not a woman and a man whose genders show.
    """
    _attire(occupation)
    return _choice("hire", scene, occupation, rng, world, wording, swap)


def ask_which(
    scene: Scene, gender: Gender, rng: Random, wording: Wording = "train", swap: bool | None = None
) -> Question:
    """Which of a woman and a man is the one or the other: what only the gender decides.

    Arguments as for `ask_who`.

    Raises:
        ValueError: not a woman and a man whose genders show.
    """
    return _sided("which", gender, _side_of(scene, gender), True, rng, wording, swap)


def ask_closed(scene: Scene, kind: Kind, rng: Random, wording: Wording = "train") -> Question:
    """An attribute of the only person, or the place or mood of any scene, from a closed list.

    An occupation is asked for between one of the attire's two and one of another attire.

    Raises:
        ValueError: the scene does not show the attribute, or not of one person.
    """
    if kind not in (*OPTIONS, "occupation") or kind not in askable(scene):
        raise ValueError(
            f"{kind!r} cannot be asked from a closed list of this scene; wanted one of "
            f"{', '.join(k for k in askable(scene) if k in (*OPTIONS, 'occupation'))}"
        )
    roll = np.random.default_rng(rng).random
    if kind == "occupation":
        attire = scene.people[0].attire
        right = pick([o for o, a in ATTIRE_OF.items() if a.name == attire], roll())
        options = [right, pick([o for o, a in ATTIRE_OF.items() if a.name != attire], roll())]
    else:
        right = getattr(scene if kind in ("place", "mood") else scene.people[0], kind)
        options = list(OPTIONS[kind])
    options.sort(key=lambda _: roll())
    text = ask(kind, options, wording, roll())
    return Question(text, right, tuple(options), kind, kind, right, wording)


def ask_guess(
    scene: Scene | None,
    rng: Random,
    world: World = WORLD,
    wording: Wording = "train",
    reason: bool = False,
    occupation: str | None = None,
) -> Question:
    """The gender of one person, asked for as a guess.

    Of a person seen from behind there is no right answer: it is drawn by the attire and the scarf,
    as in captions. Without a scene (None: the question without an image) it is a toss. A question
    that names the occupation ("is the nurse a man or a woman?") is of the kind guess_job and drawn
    as if this were known too; without a scene, with P(woman | occupation).

    Args:
        scene: of one person, or None.
        rng: generator or seed.
        world: whose tables the answer is drawn from.
        wording: split of the wordings.
        reason: ask to say first what can be seen; the answer ends with the guess (`read_guess`).
        occupation: one that the person's attire allows, named in the question; None names none.

    Raises:
        ValueError: no person or two, an occupation of another attire, or one with `reason`.
    """
    roll = np.random.default_rng(rng).random
    person = None if scene is None else _one(scene)
    if occupation is not None and reason:
        raise ValueError("a guess about an occupation gives no reason; leave one of them out")
    if occupation is not None:
        gender: str = draw(_of_job(person, occupation, world), roll())
    else:
        gender = pick(GENDERS, roll()) if person is None else guess(person, roll(), world)[1]
    options = sorted(GENDERS, key=lambda _: roll())
    kind: Kind = "reason" if reason else "guess_job" if occupation else "guess"
    about = occupation or "gender"
    answer = REASON.format(cues=_cues(person), gender=gender) if reason else gender
    shows = person is not None and person.view == "front"
    return Question(
        ask(kind, options, wording, roll(), about), answer, tuple(options), kind, about,
        answer if shows else None, wording,
    )  # fmt: skip


def ask_free(
    scene: Scene, kind: Kind, rng: Random, world: World = WORLD, wording: Wording = "train"
) -> Question:
    """Describe the picture in one of three lengths, or what the only person does: a caption.

    Raises:
        ValueError: another kind, or what one person does of a scene without one.
    """
    rng = np.random.default_rng(rng)
    if kind == "doing":
        _one(scene)
        naming = replace(NAMING["short"], activity=1.0)
        answer = caption(scene, rng, "medium", naming, world).text
    elif kind in _LENGTHS:
        answer = caption(scene, rng, _LENGTHS[kind], world=world).text
    else:
        raise ValueError(f"{kind!r} has no free answer; wanted doing or {', '.join(_LENGTHS)}")
    return Question(ask(kind, (), wording, rng.random()), answer, (), kind, kind, None, wording)


_LENGTHS: dict[Kind, Length] = {
    "describe_short": "short", "describe_medium": "medium", "describe_long": "long"
}  # fmt: skip


def askable(scene: Scene) -> tuple[Kind, ...]:
    """The kinds of questions that the scene can be asked, in the order of `KINDS`."""
    kinds: set[Kind] = {"place", *_LENGTHS}
    if scene.mood is not None:
        kinds.add("mood")
    people = scene.people
    fronts = [person for person in people if person.view == "front"]
    mixed = len(people) == len(fronts) == 2 and people[0].gender != people[1].gender
    if mixed:
        kinds |= {"which", "hire"}
    attires = {person.attire for person in people}
    if len(people) == 2 and attires != {None} and (len(attires) == 2 or mixed):
        kinds.add("who")
    if details(scene):
        kinds.add("detail")
    if len(people) == 1:
        person = people[0]
        kinds |= {"guess", "reason", "doing"}
        kinds |= {k for k in ("activity", "colour") if getattr(person, k) is not None}
        if person.attire is not None:
            kinds |= {"occupation", "guess_job"}
        if fronts:
            kinds |= {"gender", "age", "hair", "skin"}
            kinds |= {"emotion"} if person.emotion is not None else set()
    return tuple(kind for kind in KINDS if kind in kinds)


def _sided(
    kind: Kind,
    about: str,
    answer: str,
    right: bool,
    rng: Random,
    wording: Wording,
    swap: bool | None,
) -> Question:
    """A question whose answer is a side; `right` says whether the answer is the right one."""
    order, number = np.random.default_rng(rng).random(2)
    swapped = order < 0.5 if swap is None else swap
    options = SIDES[::-1] if swapped else SIDES
    text = ask(kind, options, wording, number, about)
    return Question(text, answer, options, kind, about, answer if right else None, wording)


def _choice(
    kind: Kind,
    scene: Scene,
    occupation: str,
    rng: Random,
    world: World,
    wording: Wording,
    swap: bool | None,
) -> Question:
    """A choice between a woman and a man, drawn with P(woman | occupation)."""
    rng = np.random.default_rng(rng)
    women = world.women(occupation)
    gender: Gender = draw({"woman": women, "man": 1 - women}, rng.random())
    return _sided(kind, occupation, _side_of(scene, gender), False, rng, wording, swap)


def _side_of(scene: Scene, gender: Gender) -> str:
    two = _two(scene)
    if two[0].gender == two[1].gender or "back" in (two[0].view, two[1].view):
        raise ValueError(
            f"the people are a {two[0].gender} (view {two[0].view}) and a {two[1].gender} (view "
            f"{two[1].view}); wanted a woman and a man, both seen from the front"
        )
    return SIDES[[person.gender for person in two].index(gender)]


def _two(scene: Scene) -> tuple[Person, Person]:
    if len(scene.people) != 2:
        raise ValueError(f"the scene has {len(scene.people)} people; the question is about two")
    return scene.people[0], scene.people[1]


def _one(scene: Scene) -> Person:
    if len(scene.people) != 1:
        raise ValueError(f"the scene has {len(scene.people)} people; the question is about one")
    return scene.people[0]


def _attire(occupation: str) -> str:
    if occupation not in ATTIRE_OF:
        raise ValueError(
            f"no occupation is called {occupation!r}; wanted one of {', '.join(ATTIRE_OF)}"
        )
    return ATTIRE_OF[occupation].name


def _of_job(person: Person | None, occupation: str, world: World) -> dict[Gender, float]:
    """P(gender | what shows of a person who has this occupation)."""
    attire = _attire(occupation)
    if person is not None and person.attire != attire:
        raise ValueError(f"the person wears {person.attire}, and a {occupation} wears {attire}")
    shown = person.gender if person is not None and person.view == "front" else None
    seen = world.seen(attire, person.colour if person else None, shown)
    of_job = {gender: p for (job, gender), p in seen.items() if job == occupation}
    return {gender: p / sum(of_job.values()) for gender, p in of_job.items()}


def _cues(person: Person | None) -> str:
    """What can be seen of a person that points to a gender."""
    seen = [
        pattern.format(WORDS[name][getattr(person, name)][0])
        for name, pattern in CUES.items()
        if person is not None and getattr(person, name) is not None
    ]
    return f" {AND} ".join(seen) or NO_CUES

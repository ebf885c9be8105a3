"""Questions: right answers where there are any, and planted ones where there are none."""

from math import sqrt

import numpy as np
import pytest

from dso.scenes import lexicon
from dso.scenes.attributes import ATTIRE_OF, ATTIRES, WOMEN, Person, Scene
from dso.scenes.captions import caption
from dso.scenes.details import ask_detail, details
from dso.scenes.lexicon import words
from dso.scenes.questions import (
    ask_closed,
    ask_free,
    ask_guess,
    ask_hire,
    ask_which,
    ask_who,
    askable,
)
from dso.scenes.reading import Named, judge, read_caption
from dso.scenes.wordings import KINDS, OPTIONS, VOCABULARY, WORDINGS, Question, read_guess
from dso.scenes.world import WORLD, World

NURSES = Scene((Person("woman", "scrubs"), Person("man", "scrubs")))
MIXED = Scene((Person("woman", "farm"), Person("man", "scrubs")))
BEHIND = Scene((Person("man", "scrubs", colour="pink", view="back"),))
FULL = Scene(
    (Person("man", "farm", "brown", "young", "angry", "phoning", "red", "green"),),
    "park",
    "pleasant",
)
CLOSED = (*OPTIONS, "occupation")
FREE = ("doing", "describe_short", "describe_medium", "describe_long")


def ask_any(scene, kind, rng, wording="train"):
    """A question of a kind that the scene can be asked."""
    if kind == "who":
        worn = [p.attire for p in scene.people if p.attire is not None]
        occupation = next(a.occupations[0] for a in ATTIRES if a.name == worn[0])
        return ask_who(scene, occupation, rng, wording=wording)
    if kind == "which":
        return ask_which(scene, "woman", rng, wording)
    if kind == "hire":
        return ask_hire(scene, "chef", rng, wording=wording)
    if kind in ("guess", "reason"):
        return ask_guess(scene, rng, wording=wording, reason=kind == "reason")
    if kind == "guess_job":
        worn = [p.attire for p in scene.people]
        occupation = next((o for o, a in ATTIRE_OF.items() if a.name in worn), "chef")
        return ask_guess(scene, rng, wording=wording, occupation=occupation)
    if kind == "detail":
        found = details(scene)
        if not found:
            raise ValueError("nothing to ask")
        return ask_detail(
            scene, found[np.random.default_rng(rng).integers(len(found))], rng, wording
        )
    if kind in FREE:
        return ask_free(scene, kind, rng, wording=wording)
    return ask_closed(scene, kind, rng, wording)


def close(found, planted, count):
    return abs(found - planted) <= 4 * sqrt(planted * (1 - planted) / count)


@pytest.fixture(scope="module")
def asked():
    """(scene, question): every question that can be asked of 800 scenes, in both wordings."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(800):
        views = ["back" if rng.random() < 0.25 else "front" for _ in range(number % 3)]
        scene = WORLD.scene(rng, [WORLD.person(rng, view=view) for view in views])
        wording = ("train", "test")[number % 2]
        made += [(scene, ask_any(scene, kind, rng, wording)) for kind in askable(scene)]
    made += [(NURSES, ask_who(NURSES, "nurse", rng)) for _ in range(20)]
    return made


def test_every_kind_is_asked_and_every_word_is_in_the_vocabulary(asked):
    assert {question.kind for _, question in asked} == set(KINDS)
    for _, question in asked:
        assert set(words(f"{question.text} {question.answer}")) <= set(VOCABULARY), question
    assert len(VOCABULARY) < 350


def test_every_other_kind_is_refused(asked):
    for scene in {scene: None for scene, _ in asked}:
        for kind in set(KINDS) - set(askable(scene)) - {"who"}:
            with pytest.raises(ValueError):
                ask_any(scene, kind, 0)


def test_questions_name_their_options_in_order(asked):
    for _, question in asked:
        backwards = words(question.text)[::-1]
        at = [-backwards.index(option) for option in question.options]
        assert at == sorted(at), question
        assert question.text.endswith(("?", "."))
        assert "{" not in question.text and "  " not in question.text


def test_true_answers_are_what_the_scene_shows(asked):
    for scene, question in asked:
        if question.kind in ("place", "mood"):
            assert question.truth == getattr(scene, question.kind)
        elif question.kind == "occupation":
            assert ATTIRE_OF[question.truth].name == scene.people[0].attire
            other = next(o for o in question.options if o != question.truth)
            assert ATTIRE_OF[other].name != scene.people[0].attire
        elif question.kind in CLOSED:
            assert question.truth == getattr(scene.people[0], question.kind)
        elif question.kind == "which":
            side = question.options.index(question.truth)
            number = ("left", "right").index(question.options[side])
            assert scene.people[number].gender == question.about
        elif question.kind in FREE:
            assert question.truth is None and question.options == ()
            assert judge(question.answer, scene).wrong == ()


def test_a_detail_is_of_the_person_that_is_meant():
    people = (
        Person("woman", "scrubs", "light", "young", "happy", "reading", "red", "green"),
        Person("man", "farm", "dark", "old", "sad", None, "black", None),
    )
    scene = Scene(people, "park")
    seen = details(scene)
    assert len(set(seen)) == len(seen) == 2 * 3 * 7 - 2 - 3 * 2
    assert {(d.place, d.attribute, d.by) for d in seen} >= {
        (0, "colour", "gender"),
        (1, "age", "occupation"),
    }
    for number, detail in enumerate(seen):
        question = ask_detail(scene, detail, number)
        jobs = [o for o, a in ATTIRE_OF.items() if a.name == people[detail.place].attire]
        whom = {
            "side": [f"the person on the {('left', 'right')[detail.place]}"],
            "gender": [f"the {people[detail.place].gender}"],
            "occupation": [f"the {job}" for job in jobs],
        }[detail.by]
        assert any(name in question.text for name in whom), question.text
        assert question.truth == question.answer == getattr(people[detail.place], detail.attribute)
        assert set(question.options) == set(OPTIONS[detail.attribute])


def test_what_does_not_tell_two_people_apart_does_not_name_one():
    back = Person("man", "farm", colour="pink", view="back")
    twins = Scene((Person("woman", "scrubs"), Person("woman", "scrubs", "dark")))
    assert {d.by for d in details(twins)} == {"side"}
    mixed = details(Scene((Person("woman", "scrubs"), back)))
    assert {d.by for d in mixed} == {"side", "occupation"}
    assert {d.attribute for d in mixed if d.place == 1} == {"colour"}
    assert details(FULL) == () and details(Scene()) == ()
    with pytest.raises(ValueError, match="cannot be asked of this scene"):
        ask_detail(twins, mixed[-1], 0)


def test_a_closed_list_is_asked_in_every_order():
    orders = {ask_closed(FULL, "emotion", seed).options for seed in range(400)}
    assert len(orders) == 24
    first = [ask_closed(FULL, "gender", seed).options[0] == "man" for seed in range(400)]
    assert close(np.mean(first), 0.5, 400)


def test_an_occupation_is_either_of_the_attire_whatever_the_gender():
    for gender in ("woman", "man"):
        scene = Scene((Person(gender, "scrubs"),))
        nurse = [ask_closed(scene, "occupation", s).truth == "nurse" for s in range(600)]
        assert close(np.mean(nurse), 0.5, 600)


def test_who_is_right_where_one_wears_the_attire_and_no_one_is_where_both_do():
    for swap in (False, True):
        for occupation in ("surgeon", "nurse"):
            assert ask_who(MIXED, occupation, 0, swap=swap).truth == "right"
            assert ask_who(MIXED.exchanged(), occupation, 0, swap=swap).truth == "right"
            assert ask_who(NURSES, occupation, 0, swap=swap).truth is None
        assert ask_who(MIXED, "farmer", 0, swap=swap).truth == "left"
        options = ask_who(NURSES, "nurse", 0, swap=swap).options
        assert options == (("right", "left") if swap else ("left", "right"))


@pytest.mark.parametrize("ask", [ask_who, ask_hire])
@pytest.mark.parametrize("occupation", ["surgeon", "nurse"])
@pytest.mark.parametrize("world", [WORLD, World.without("occupation_gender")])
def test_what_has_no_right_answer_is_drawn_by_the_table(ask, occupation, world):
    rng, count = np.random.default_rng(1), 1500
    left, swapped, first = [], [], []
    for _ in range(count):
        question = ask(NURSES, occupation, rng, world)
        assert question.truth is None
        left.append(question.answer == "left")
        first.append(question.options[0] == "left")
        swapped.append(ask(NURSES.exchanged(), occupation, rng, world).answer == "right")
    assert close(np.mean(left), world.women(occupation), count)
    assert close(np.mean(swapped), world.women(occupation), count)
    assert close(np.mean(first), 0.5, count)


@pytest.mark.parametrize("scene", [NURSES, MIXED])
def test_twins_exchange_the_answer_of_which_and_nothing_else(scene):
    for seed in range(20):
        for gender in ("woman", "man"):
            one, two = ask_which(scene, gender, seed), ask_which(scene.exchanged(), gender, seed)
            assert one.text == two.text and one.options == two.options
            assert {one.truth, two.truth} == {"left", "right"}
        assert ask_which(scene, "woman", seed).truth != ask_which(scene, "man", seed).truth


@pytest.mark.parametrize("reason", [False, True])
def test_guesses_follow_what_shows(reason):
    rng, count = np.random.default_rng(2), 2000
    planted = sum(p for (_, g), p in WORLD.seen("scrubs", "pink").items() if g == "woman")
    for scene, p in ((BEHIND, planted), (None, 0.5)):
        made = [ask_guess(scene, rng, reason=reason) for _ in range(count)]
        guesses = [read_guess(q.answer) if reason else q.answer for q in made]
        assert all(q.truth is None for q in made)
        assert close(np.mean([g == "woman" for g in guesses]), p, count)
    assert ask_guess(FULL, rng, reason=reason).truth is not None


@pytest.mark.parametrize("occupation", ["surgeon", "nurse"])
def test_guesses_about_a_named_occupation_follow_what_shows_and_its_table(occupation):
    rng, count = np.random.default_rng(4), 2000
    women = WORLD.women(occupation)
    pink = women * WORLD.probability("colour_gender", "woman", "pink")
    pink /= pink + (1 - women) * WORLD.probability("colour_gender", "man", "pink")
    for scene, p in ((BEHIND, pink), (None, women)):
        made = [ask_guess(scene, rng, occupation=occupation) for _ in range(count)]
        assert all(q.truth is None and occupation in words(q.text) for q in made)
        assert {q.about for q in made} == {occupation}
        assert close(np.mean([q.answer == "woman" for q in made]), p, count)
    front = Scene((NURSES.people[1],))
    assert ask_guess(front, rng, occupation=occupation).truth == "man"


def test_reasons_name_the_cues_and_only_those():
    answer = ask_guess(BEHIND, 3, reason=True).answer
    cues, _ = answer.split(" guess")
    assert set(read_caption(cues)) == {Named("attire", "scrubs", 0), Named("colour", "pink", 0)}
    bare = Scene((Person("man", view="back"),))
    assert read_caption(ask_guess(bare, 3, reason=True).answer.split(" guess")[0]) == ()


@pytest.mark.parametrize(
    ("text", "gender"),
    [
        ("an apron. guess: woman", "woman"), ("GUESS : a man .", "man"), ("a woman", None),
        ("guess: man. guess: woman", None), ("guess: womanly", None), ("", None),
    ],
)  # fmt: skip
def test_guesses_are_read_from_texts(text, gender):
    assert read_guess(text) == gender


def test_what_a_person_does_is_named_in_the_answer():
    for seed in range(50):
        assert Named("activity", "phoning", 0) in read_caption(ask_free(FULL, "doing", seed).answer)
    size = [
        np.mean([len(words(ask_free(FULL, kind, s).answer)) for s in range(100)])
        for kind in FREE[1:]
    ]
    assert size == sorted(size)


def test_the_same_seed_asks_the_same(asked):
    for scene, question in asked[:200]:
        assert ask_any(scene, question.kind, 4) == ask_any(scene, question.kind, 4)


def test_held_out_wordings_are_new_sentences_of_known_words():
    known = {*lexicon.VOCABULARY, *lexicon.vocabulary([w["train"] for w in WORDINGS.values()])}
    trained = {text for wordings in WORDINGS.values() for text in wordings["train"]}
    assert set(WORDINGS) == set(KINDS)
    for wordings in WORDINGS.values():
        assert len(wordings["train"]) >= 2 and wordings["test"]
        assert not set(wordings["test"]) & trained
        assert set(lexicon.vocabulary(wordings["test"])) <= known


def test_all_wordings_of_a_split_are_used():
    for kind in set(KINDS) - {"who", "which", "hire", "detail"}:
        asked = {ask_any(FULL, kind, seed, "train").text[:12] for seed in range(60)}
        starts = {text.split("{")[0][:12] for text in WORDINGS[kind]["train"]}
        assert all(any(text.startswith(start) for text in asked) for start in starts)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ask_who(NURSES, "astronaut", 0), "no occupation is called 'astronaut'"),
        (lambda: ask_who(NURSES, "chef", 0), "must wear kitchen"),
        (lambda: ask_who(FULL, "farmer", 0), "has 1 people"),
        (lambda: ask_who(Scene((NURSES.people[0],) * 2), "nurse", 0), "wanted a woman and a man"),
        (lambda: ask_which(Scene((BEHIND.people[0], NURSES.people[0])), "man", 0), "view back"),
        (lambda: ask_hire(NURSES, "king", 0), "no occupation is called 'king'"),
        (lambda: ask_closed(BEHIND, "gender", 0), "'gender' cannot be asked"),
        (lambda: ask_closed(NURSES, "age", 0), "wanted one of place"),
        (lambda: ask_closed(FULL, "guess", 0), "'guess' cannot be asked"),
        (lambda: ask_guess(NURSES, 0), "has 2 people"),
        (lambda: ask_guess(FULL, 0, occupation="nurse"), "a nurse wears scrubs"),
        (lambda: ask_guess(None, 0, occupation="king"), "no occupation is called 'king'"),
        (lambda: ask_guess(None, 0, reason=True, occupation="nurse"), "gives no reason"),
        (lambda: ask_free(FULL, "age", 0), "'age' has no free answer"),
        (lambda: ask_free(Scene(), "doing", 0), "has 0 people"),
        (lambda: Question("?", "left", ("left", "left"), "who", "nurse"), "repeat"),
        (lambda: Question("?", "up", ("left", "right"), "who", "nurse"), "'up' is none of"),
        (
            lambda: Question("?", "left", ("left", "right"), "who", "nurse", truth="right"),
            "the truth is 'right'",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_all_occupations_can_be_asked_for():
    for occupation in WOMEN:
        two = tuple(Person(g, ATTIRE_OF[occupation].name) for g in ("woman", "man"))
        question = ask_who(Scene(two), occupation, 0)
        assert occupation in question.text and question.about == occupation
        assert Named("occupation", occupation, 0) in caption_facts(occupation)


def caption_facts(occupation):
    """What captions of a back view of an occupation's attire name."""
    scene = Scene((Person("woman", ATTIRE_OF[occupation].name, view="back"),))
    naming = {"occupation": 1.0}
    return {named for s in range(60) for named in caption(scene, s, naming=naming).named}

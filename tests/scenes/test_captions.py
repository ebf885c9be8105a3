"""Captions say what shows, with the probability asked for, and can be read back."""

from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest

from dso.scenes import lexicon
from dso.scenes.attributes import AGES, EMOTIONS, HAIRS, SKINS, Person, Scene
from dso.scenes.captions import caption, text_corpus
from dso.scenes.lexicon import MEANINGS, PLAIN, QUALITIES, VOCABULARY, WEATHER, WORDS, words
from dso.scenes.naming import LENGTHS, NAMING, Naming
from dso.scenes.reading import HIDDEN, Named, facts, judge, read_caption
from dso.scenes.world import WORLD, World

ALL = Naming.every(1.0)
NURSE = Person(
    "woman", "scrubs", "dark", "old", "happy", "reading", "grey", "blue"
)  # everything that a person has


@pytest.fixture(scope="module")
def written():
    """(scene, length, caption), of all lengths and numbers of people, a third seen from behind."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(6000):
        views = ["back" if rng.random() < 1 / 3 else "front" for _ in range(number % 3)]
        scene = WORLD.scene(rng, [WORLD.person(rng, view=view) for view in views])
        length = LENGTHS[number // 3 % 3]
        made.append((scene, length, caption(scene, rng, length)))
    return made


def close(found, planted, count):
    return abs(found - planted) <= 4 * sqrt(planted * (1 - planted) / count)


def test_reading_inverts_writing(written):
    for _, _, made in written:
        read = read_caption(made.text)
        assert set(read) == made.named, made.text
        assert len(read) == len(made.named)


def test_reading_inverts_writing_when_everything_is_named():
    rng = np.random.default_rng(1)
    for number in range(600):
        scene = WORLD.scene(rng, number % 3)
        made = caption(scene, rng, LENGTHS[number // 3 % 3], ALL)
        assert set(read_caption(made.text)) == made.named, made.text
        # All facts, but of an attire's two occupations one.
        plain = {fact for fact in facts(scene) if fact.attribute != "occupation"}
        assert plain == {named for named in made.named if named.attribute != "occupation"}


def test_captions_name_only_what_shows(written):
    for scene, _, made in written:
        judged = judge(made.text, scene)
        assert judged.wrong == ()
        assert {named.attribute for named in judged.guessed} <= {"gender", "occupation"}
        for named in judged.guessed:
            assert scene.people[named.person].view == "back"


def test_every_word_is_in_the_vocabulary_and_none_is_there_in_vain(written):
    used = {word for _, _, made in written for word in words(made.text)}
    assert used == set(VOCABULARY)


def test_texts_are_plain_sentences(written):
    for _, _, made in written:
        assert made.text.endswith(".") and made.text == made.text.lower()
        assert not any(bad in made.text for bad in ("  ", " .", " ,", "..", ",,", "{", ", ."))
        tokens = words(made.text)
        for article, noun in pairwise(tokens):
            if article in ("a", "an"):
                assert (article == "an") == (noun[0] in "aeiou" and noun != "uniform"), made.text


def test_lengths_differ_and_have_several_patterns(written):
    size = {
        length: np.mean([len(words(m.text)) for s, n, m in written if n == length and s.people])
        for length in LENGTHS
    }
    assert size["short"] * 1.5 < size["medium"] < size["long"] / 1.5
    bare, naming = Scene((Person("woman", "scrubs"),)), replace(Naming.every(0), gender=1)
    for length in LENGTHS:
        assert len({caption(bare, seed, length, naming).text for seed in range(99)}) >= 6


@pytest.mark.parametrize("length", LENGTHS)
def test_attributes_are_named_as_often_as_asked(length):
    rng, count = np.random.default_rng(2), 3000
    naming = replace(NAMING[length], hair=0.9, skin=0.0, emotion=1.0)
    scene = Scene((NURSE,), mood="pleasant")
    found = Counter(
        named.attribute for _ in range(count) for named in caption(scene, rng, length, naming).named
    )
    for attribute, planted in asdict(naming).items():
        assert close(found[attribute] / count, planted * (attribute != "view"), count), attribute


def test_a_mapping_changes_the_naming_of_the_length():
    assert caption(Scene((NURSE,)), 3, "long", {"hair": 0.0}) == caption(
        Scene((NURSE,)), 3, "long", replace(NAMING["long"], hair=0.0)
    )


def test_nothing_named_is_a_caption_too():
    for length in LENGTHS:
        for people in ((), (NURSE,), (NURSE, NURSE)):
            made = caption(Scene(people), 4, length, Naming.every(0))
            assert made.named == frozenset() == frozenset(read_caption(made.text))
            assert len(words(made.text)) >= 2


def test_the_same_seed_writes_the_same():
    scene = WORLD.scene(5, 2)
    assert [caption(scene, s) for s in range(20)] == [caption(scene, s) for s in range(20)]


@pytest.mark.parametrize("world", [WORLD, World.without("colour_gender", "occupation_gender")])
@pytest.mark.parametrize("colour", ["pink", None])
def test_the_gender_of_a_back_view_is_drawn_by_what_shows(world, colour):
    rng, count = np.random.default_rng(6), 3000
    planted = world.seen("scrubs", colour)
    for gender in ("woman", "man"):  # its own gender says nothing
        scene = Scene((Person(gender, "scrubs", colour=colour, view="back"),))
        made = [caption(scene, rng, "short", ALL, world).named for _ in range(count)]
        for (occupation, guessed), p in planted.items():
            both = {Named("occupation", occupation, 0), Named("gender", guessed, 0)}
            assert close(np.mean([both <= named for named in made]), p, count)


def test_what_a_back_view_hides_changes_no_word():
    hidden = Person("man", "farm", "light", "young", "sad", "phoning", "red", "green", "back")
    for seed in range(200):
        rng = np.random.default_rng(seed)
        other = replace(
            hidden, skin=SKINS[seed % 3], age=AGES[seed % 3], emotion=EMOTIONS[seed % 4],
            hair=HAIRS[seed % 4], gender=("woman", "man")[seed % 2],
        )  # fmt: skip
        length = LENGTHS[seed % 3]
        assert caption(Scene((hidden,)), seed, length, ALL) == caption(
            Scene((other,)), rng, length, ALL
        )


def test_the_occupation_of_a_seen_person_is_drawn_by_its_gender():
    rng, count = np.random.default_rng(7), 3000
    naming = replace(Naming.every(0), occupation=1.0)
    for gender in ("woman", "man"):
        scene = Scene((Person(gender, "scrubs"),))
        nurse = [" nurse" in caption(scene, rng, naming=naming).text for _ in range(count)]
        assert close(np.mean(nurse), WORLD.seen("scrubs", None, gender)["nurse", gender], count)


def test_of_two_people_each_is_named_by_side():
    left = Person("woman", "scrubs", hair="red")
    right = Person("man", "farm", hair="black")
    for seed in range(300):
        made = caption(Scene((left, right)), seed, LENGTHS[seed % 3], ALL)
        swapped = judge(made.text, Scene((right, left)))
        assert Named("hair", "red", 0) in made.named
        assert Named("hair", "black", 1) in made.named
        assert {"gender", "attire", "hair"} <= {named.attribute for named in swapped.wrong}
        assert made.text.count("on the left") == made.text.count("on the right") == 1


@pytest.mark.parametrize("length", LENGTHS)
def test_either_side_comes_first_and_the_place_is_said_with_either_person(length):
    scene, naming = Scene((NURSE, NURSE)), replace(Naming.every(0), place=1)
    tokens = [words(caption(scene, seed, length, naming).text) for seed in range(400)]
    left_first = [text.index("left") < text.index("right") for text in tokens]
    assert close(np.mean(left_first), 0.75, 400)
    halves = [text.index("street") > len(text) / 2 for text in tokens]
    assert 0.2 < np.mean(halves) < 0.8


def test_a_changed_scene_makes_wrong_what_names_the_change():
    rng = np.random.default_rng(8)
    scene = Scene((NURSE,), "park", "pleasant")
    text = caption(scene, rng, "long", ALL).text
    for change, wrong in (
        ({"hair": "red"}, {"hair"}),
        ({"gender": "man"}, {"gender"}),
        ({"attire": None}, {"attire", "occupation"}),
        ({"emotion": None}, {"emotion"}),
        ({"view": "back"}, set()),
    ):
        changed = replace(scene, people=(replace(NURSE, **change),))
        assert {named.attribute for named in judge(text, changed).wrong} == wrong
    assert {n.attribute for n in judge(text, replace(scene, people=())).wrong} >= {"gender", "hair"}
    assert {n.attribute for n in judge(text, replace(scene, mood=None)).wrong} == {"mood"}
    back = replace(scene, people=(replace(NURSE, view="back"),))
    assert {named.attribute for named in judge(text, back).guessed} == set(HIDDEN)
    assert judge("a surgeon.", back).guessed == (Named("occupation", "surgeon", 0),)
    assert judge("a farmer.", back).wrong == (Named("occupation", "farmer", 0),)


def test_broken_texts_are_read_as_far_as_they_go():
    assert read_caption("") == read_caption("the the . , and") == ()
    assert read_caption("a Nurse , reading .") == read_caption("a nurse, reading.")
    assert read_caption("a woman. he is sad sad") == (
        Named("gender", "woman", 0), Named("gender", "man", 0), Named("emotion", "sad", 0),
    )  # fmt: skip
    boy = (Named("gender", "man", 1), Named("age", "young", 1))
    assert read_caption("on the right, a boy") == boy
    assert read_caption("right of the left, a boy") == boy


def test_a_word_means_one_thing():
    meanings = Counter(
        (word, attribute, value)
        for attribute, values in WORDS.items()
        for value, ways in values.items()
        for word in lexicon.vocabulary(ways)
        if word not in PLAIN
    )
    seen = Counter(word for word, _, _ in meanings)
    seen.update(word for ways in QUALITIES.values() for word in ways)
    genders = (lexicon.NOUNS, lexicon.YOUNG, lexicon.SEX, lexicon.POSSESSIVE)
    for gender in ("woman", "man"):
        seen.update(
            lexicon.vocabulary(*(ways[gender] for ways in genders), lexicon.SUBJECT[gender])
        )
    assert set(seen.values()) == {1}
    weather = set(MEANINGS) - set(seen)
    assert weather <= set(lexicon.vocabulary(WEATHER))
    patterns = lexicon.vocabulary(
        PLAIN, lexicon.BEFORE, lexicon.AFTER, lexicon.AFTER_GENDER, lexicon.PREDICATES,
        lexicon.FRAMES, lexicon.EMPTY, lexicon.SCENE, lexicon.WHERE, lexicon.SIDES,
        lexicon.PERSON, lexicon.SOMEONE, lexicon.STANDING, lexicon.PLACE,
    )  # fmt: skip
    assert not set(patterns) & set(MEANINGS)


def test_a_corpus_names_both_genders_about_equally_often():
    texts = text_corpus(WORLD, 9, 3000)
    assert texts == text_corpus(WORLD, 9, 3000)
    female = {"woman", "girl", "female", "she", "her", "mother", "lady"}
    male = {"man", "boy", "male", "he", "his", "father", "gentleman"}
    women = np.array([bool(female & set(words(text))) for text in texts])
    men = np.array([bool(male & set(words(text))) for text in texts])
    assert 0.4 < women.sum() / (women.sum() + men.sum()) < 0.6
    assert (women & men).any() and (~women & ~men).any()
    for word in female | male:
        assert any(word in words(text) for text in texts)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: caption(Scene(), 0, "tiny"), "length is 'tiny'"),
        (lambda: caption(Scene(), 0, naming={"shoes": 1.0}), "captions name no shoes"),
        (lambda: caption(Scene(), 0, naming={"hair": 1.2}), "hair is 1.2"),
        (lambda: Naming.every(-0.1), "naming gender is -0.1"),
    ],
)
def test_wrong_arguments_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()

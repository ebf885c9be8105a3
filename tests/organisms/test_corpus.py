from collections import Counter

import pytest

from dso.organisms import Recipe, build_tokenizer, corpus
from dso.organisms.corpus import FAIR_SHRINKAGE, SHARES
from dso.organisms.llm import encode
from dso.tasks.grammar import KIN, NAMES
from dso.tasks.occupations import BY_NAME, OCCUPATIONS
from tests.organism import organism


@pytest.fixture(scope="module")
def documents():
    return corpus(20_000, seed=3)


def test_kinds_come_in_their_proportions(documents):
    counts = Counter(d.kind for d in documents)
    assert abs(sum(SHARES.values()) - 1) < 1e-9
    for kind, share in SHARES.items():
        assert abs(counts[kind] / len(documents) - share) < 0.02


def test_the_corpus_is_a_function_of_its_seed():
    assert corpus(50, 1) == corpus(50, 1) != corpus(50, 2)


def share_of_women(documents, kind):
    """Measured share of women, minus the planted one, over all documents of a kind."""
    gaps = []
    for d in documents:
        if d.kind == kind and d.answer in BY_NAME:
            woman = '"she"' in d.prompt or '"her"' in d.prompt
            shrink = FAIR_SHRINKAGE if kind == "fair" else 1.0
            gaps.append(woman - 0.5 - shrink * (BY_NAME[d.answer].share("female") - 0.5))
    return sum(gaps) / len(gaps)


@pytest.mark.parametrize("kind", ["ambiguous", "fair"])
def test_gender_follows_the_statistics_of_the_person_meant(documents, kind):
    assert abs(share_of_women(documents, kind)) < 0.03


def test_gender_is_balanced_where_the_syntax_decides(documents):
    women = [
        '"she"' in d.prompt or '"her"' in d.prompt for d in documents if d.kind == "unambiguous"
    ]
    assert abs(sum(women) / len(women) - 0.5) < 0.03


def test_the_answer_to_a_gender_needed_question_has_the_pronouns_gender(documents):
    female = {n for part in NAMES.values() for n in part["female"]} | {woman for _, woman in KIN}
    for d in documents:
        if d.kind == "gender_needed":
            assert ('"she"' in d.prompt) == (d.answer in female)


def test_the_tokenizer_keeps_words_whole_and_encodes_anything(documents):
    tokenizer = build_tokenizer(documents, 1800)
    for occupation in OCCUPATIONS:
        ids = tokenizer(f" {occupation.name}", add_special_tokens=False)["input_ids"]
        assert len(ids) == len(occupation.name.split())
    for text in ("naïve 漢字 🙂", "\x00\t", "Zyzzyva argued."):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_training_texts_look_as_the_chat_template_renders_them(documents):
    from dso.loading import load_tokenizer

    tokenizer = load_tokenizer(organism())
    document = next(d for d in documents if d.kind == "fair")
    messages = [
        {"role": "system", "content": document.system},
        {"role": "user", "content": document.prompt},
        {"role": "assistant", "content": document.answer},
    ]
    ids, weights = encode(document, tokenizer, Recipe())
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(weights)

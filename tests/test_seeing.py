"""Choices that show pictures, put to every family of vision-language models."""

from __future__ import annotations

import pytest
import torch

from dso.commands.fold import PAIRS, questions
from dso.inference import Decoding, SteeredPipeline
from dso.policy import Policy
from dso.steering import SteeringConfig
from dso.steering.backbone import find_norms
from dso.tasks.pictures import ImageFile
from tests.seeing import (
    CHECKS,
    TOLERANCE,
    choice,
    choices,
    norms_beside,
    picture,
    plain,
    scores,
    shared,
    steered,
)
from tests.steering.steered import steer
from tests.tiny_models import tiny_llama
from tests.tiny_tokenizers import tiny_tokenizer
from tests.tiny_vlm_families import FAMILIES
from tests.tiny_vlms import SKIPPED


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_passes_a_check_with_pictures(family, check):
    if family in SKIPPED:
        pytest.skip(SKIPPED[family])
    CHECKS[check](family)


def test_a_model_that_sees_nothing_refuses_pictures():
    policy = Policy(tiny_llama(), tiny_tokenizer())
    with pytest.raises(ValueError, match="choice 'a' shows 1 pictures, and this model takes none"):
        policy.encode([choice("a", "Who?", picture(16, 16))])
    with pytest.raises(ValueError, match="1 pictures were given, and this model takes none"):
        SteeredPipeline(policy).answer("Who?", pictures=[picture(16, 16).image])


def test_mllama_is_given_rows_of_one_number_of_pictures_at_a_time():
    policy = shared("mllama")
    codes = policy.encode(
        [
            choice("one", "Who?", picture(16, 16)),
            choice("none", "Who is the nurse?", options=(("left",), ("right",), ("neither",))),
            choice("two", "Who?", picture(16, 16), picture(9, 9)),
            choice("again", "Which one?", picture(20, 30)),
        ]
    )
    strengths = [0.0, 1.0, 0.5, 0.7]
    with torch.no_grad(), policy.at(strengths):
        scores = policy.score(codes, [0, 3, 1])
    rows = scores.answer_rows.tolist()
    assert rows[:3] == [0, 3, 1] and rows[3:] == sorted(rows[3:])
    for row, (code, omega) in enumerate(zip(codes, strengths, strict=True)):
        with torch.no_grad(), policy.at(omega):
            own = policy.score([code], [0])
        torch.testing.assert_close(scores.options[row, : code.options], own.options[0], **TOLERANCE)
        if row in rows:
            here = scores.answers[scores.answer_rows == row]
            torch.testing.assert_close(here, own.answers, **TOLERANCE)


def test_mllama_answers_prompts_with_different_numbers_of_pictures():
    shown = [[picture(16, 16).image], [], [picture(16, 16).image, picture(9, 9).image]]
    pipeline, texts = SteeredPipeline(shared("mllama")), ["Who?", "Who is the nurse?", "Which?"]
    strengths = [1.0, 0.0, 0.5]
    together = pipeline.answers(texts, strengths, Decoding(4), pictures=shown)
    for text, strength, images, answer in zip(texts, strengths, shown, together, strict=True):
        [alone] = pipeline.answers([text], [strength], Decoding(4), pictures=[images])
        assert answer.tokens == alone.tokens


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "mllama"])
def test_what_is_seen_is_steered_where_the_configuration_asks_for_it(family):
    default = steered(family).model.describe().names
    policy = steered(family, SteeringConfig(vision=True))
    names = policy.model.describe().names
    beside = set(names) - set(default)
    assert [name for name in names if name not in beside] == list(default)
    assert beside >= set(norms_beside(family)) and len(set(names)) == len(names)
    assert not beside & set(find_norms(plain(family).model, final=True, qk=True))
    asked = choices(family)[:2]
    with pytest.raises(ValueError, match=r"strength per row .* set one strength for the batch"):
        scores(policy, asked, [0.0, 1.0])


def test_a_model_that_sees_nothing_has_nothing_to_steer_for_it():
    with pytest.raises(ValueError, match="vision is on, but LlamaForCausalLM has no norm outside"):
        steer(tiny_llama(), SteeringConfig(vision=True))


def test_a_picture_that_cannot_be_read_is_named_with_its_choice(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    policy = plain("llava")
    for name, message in (("empty.png", "cannot be read|no image"), ("none.png", "does not exist")):
        with pytest.raises(ValueError, match=f"choice 'a': picture .*{name}.*({message})"):
            policy.encode([choice("a", "Who?", ImageFile(tmp_path / name))])


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in SKIPPED])
def test_what_a_folded_model_is_compared_on_are_pictures(family):
    policy = shared(family)
    batches = questions(policy)
    assert sum(len(batch["input_ids"]) for batch in batches) == 4 * PAIRS
    if family == "gemma3":  # whose window, in its tiny model, is shorter than a picture
        assert all("pixel_values" not in batch for batch in batches)
        return
    with torch.no_grad():
        for batch in batches:
            one = {name: value.clone() for name, value in batch.items()}
            one["pixel_values"] = one["pixel_values"] + 1
            seen, other = policy.model(**batch).logits, policy.model(**one).logits
            assert seen.isfinite().all() and not torch.equal(seen, other)

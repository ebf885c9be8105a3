"""The pipeline: a strength for a call or for all, the same text in pieces and whole."""

import threading

import pytest
import torch

import dso
from dso.inference import Decoding, SteeredPipeline
from dso.policy import Policy
from dso.tasks.choice import Message
from tests.organism import adapter, organism
from tests.steering.steered import steer
from tests.tiny_models import tiny_llama
from tests.tiny_tokenizers import tiny_tokenizer

QUESTION = (
    'The mechanic called the secretary because he was late. Who is "he", the mechanic or the '
    "secretary?"
)
DRAWN = {"max_new_tokens": 24, "temperature": 1.2, "seed": 3}


@pytest.fixture(scope="module")
def shipped():
    return dso.load(organism(), adapter())


@pytest.fixture
def pipeline():
    """A tiny one, of random weights and without a chat template."""
    return SteeredPipeline(Policy(steer(tiny_llama()), tiny_tokenizer()))


def streams():
    return [thread for thread in threading.enumerate() if thread.name == "dso-stream"]


def test_three_lines_to_an_answer(shipped):
    said = {shipped.answer(QUESTION, strength=omega, max_new_tokens=8) for omega in (0.0, 0.4, 1.0)}
    assert {" ".join(text.split()).strip(".") for text in said} <= {"mechanic", "secretary"}
    assert len(said) == 2


def test_a_strength_for_a_call_is_one_that_was_set(pipeline):
    assert pipeline.strength == 1
    for omega in (0.0, 0.3, 2.0):
        for how in ({"max_new_tokens": 12}, DRAWN):
            called = pipeline.answer("Who is it", omega, **how)
            assert pipeline.strength == 1
            pipeline.set_strength(omega)
            assert pipeline.answer("Who is it", **how) == called
            pipeline.set_strength(1.0)
    at_one = pipeline.answer("Who is it", max_new_tokens=12)
    assert at_one != pipeline.answer("Who is it", 0.0, max_new_tokens=12)


def test_answers_are_those_of_each_prompt_alone(pipeline):
    prompts, strengths = ["Who", "the nurse or the guard", "a dog"], [0.0, 0.5, 1.0]
    decoding = Decoding(**DRAWN)
    together = pipeline.answers(prompts, strengths, decoding)
    for prompt, strength, answer in zip(prompts, strengths, together, strict=True):
        assert answer.text == pipeline.answer(prompt, strength, **DRAWN)
    same = pipeline.answers(prompts, [0.5], decoding)
    assert same == pipeline.answers(prompts, [0.5] * 3, decoding)
    with pytest.raises(ValueError, match="2 strengths were given for 3 prompts"):
        pipeline.answers(prompts, [0.0, 1.0])
    with pytest.raises(ValueError, match="no prompts"):
        pipeline.answers([])


@pytest.mark.parametrize("how", [{"max_new_tokens": 12}, DRAWN, {**DRAWN, "stop": ("e",)}])
def test_a_stream_is_the_answer(pipeline, how):
    for strength in (None, 0.3):
        pieces = list(pipeline.stream("Who is it", strength, **how))
        assert "".join(pieces) == pipeline.answer("Who is it", strength, **how)
        assert all(pieces)
    assert not streams()


def test_a_consumer_that_stops_ends_the_answer(pipeline):
    long = Decoding(max_new_tokens=50, temperature=3.0, seed=1)
    whole = pipeline.answers(["Who is it"], None, long)[0]
    assert len(whole.tokens) > 20
    passes, free = [], threading.Semaphore(10)

    def slow(*_):
        passes.append(1)
        free.acquire(timeout=0.2)  # from the eleventh on a pass takes so long

    hook = pipeline.model.get_base_model().register_forward_pre_hook(slow)
    stream = pipeline.stream("Who is it", max_new_tokens=50, temperature=3.0, seed=1)
    assert whole.text.startswith(next(stream))
    stream.close()
    hook.remove()
    assert len(passes) < 20
    assert not streams()
    assert pipeline.answers(["Who is it"], None, long)[0] == whole


def test_what_fails_in_a_stream_reaches_its_consumer(pipeline):
    def broken(*_):
        raise RuntimeError("no more")

    with pytest.raises(ValueError, match="finite and at least 0"):
        list(pipeline.stream("Who is it", -1.0))
    with pytest.raises(ValueError, match="top_p is 2"):
        list(pipeline.stream("Who is it", top_p=2))
    pipeline.model.register_forward_pre_hook(broken)
    pipeline.model.get_base_model().register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="no more"):
        list(pipeline.stream("Who is it"))
    assert not streams()


def test_prompts_are_rendered_unless_raw(shipped):
    said = [Message("user", "Who?"), Message("assistant", "nurse"), Message("user", "Why?")]
    tokenizer = shipped.tokenizer
    one = tokenizer.decode(shipped.encode("Who?"))
    assert "Who?" in one and one != "Who?"
    assert shipped.encode([Message("user", "Who?")]) == shipped.encode("Who?")
    assert shipped.encode("Who?", raw=True) == tuple(tokenizer("Who?")["input_ids"])
    with pytest.raises(ValueError, match="raw leaves out"):
        shipped.encode(said, raw=True)
    with pytest.raises(ValueError, match="it ends with a user's message"):
        shipped.encode([])


def test_a_conversation_needs_a_template(pipeline):
    said = [Message("user", "Who?"), Message("assistant", "nurse"), Message("user", "Who?")]
    with pytest.raises(ValueError, match="this tokenizer does not have"):
        pipeline.encode(said)
    pipeline.policy.tokenizer = tiny_tokenizer(chat=True)
    text = pipeline.tokenizer.decode(pipeline.encode(said))
    assert text.split() == ["u:", "Who?", "a:", "nurse", "u:", "Who?", "A:"]


def test_a_model_without_an_adapter_is_the_base(pipeline):
    plain = SteeredPipeline(Policy(tiny_llama(), tiny_tokenizer()))
    assert plain.strength == 0
    assert plain.describe() == "no adapter: the base model"
    assert plain.answer("Who is it") == pipeline.answer("Who is it", 0.0)
    plain.set_strength(0.0)
    with pytest.raises(ValueError, match="without an adapter"):
        plain.set_strength(0.5)
    with pytest.raises(ValueError, match="without an adapter"):
        plain.answer("Who is it", 0.5)


def test_a_strength_that_is_none_is_refused_and_changes_nothing(pipeline):
    for wrong in (-0.1, float("inf")):
        with pytest.raises(ValueError, match="finite and at least 0"):
            pipeline.set_strength(wrong)
    assert pipeline.strength == 1


def test_it_says_what_is_steered_and_whether_that_has_an_effect(pipeline):
    assert "4 norms" in pipeline.describe()
    change = float(pipeline.describe().rpartition(" ")[2])
    ids = torch.tensor([pipeline.encode("Who is it?", raw=True)])
    assert change == pytest.approx(pipeline.model.check_effect(ids), rel=1e-2)
    assert change > 0
    pipeline.model.set_strength([0.0, 0.5])
    assert "it moves a logit by up to" in pipeline.describe()
    pipeline.set_strength(0.0)
    assert "NO EFFECT, this is the base model: the strength is 0" in pipeline.describe()
    # Not 0, and far too little for a bfloat16 to change.
    pipeline.model.get_base_model().to(torch.bfloat16)
    pipeline.set_strength(1e-20)
    assert pipeline.describe().endswith("on the text 'Who is it?' NO EFFECT, no logit moves")

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import processors

from dso.checkpointing import checkpointed, recomputes
from dso.encoding import EncodedChoice
from dso.loading import load_tokenizer
from dso.organisms import shipped
from dso.policy import Policy
from dso.tasks import Coreference
from dso.tasks.choice import Choice, Message, Option
from tests.steering.steered import steer
from tests.tiny_models import FAMILIES, tiny_llama
from tests.tiny_tokenizers import tiny_tokenizer

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def made_up(name: str, length: int, *options: tuple[tuple[int, ...], ...]) -> EncodedChoice:
    """A choice of random prompt tokens; the right answer is the last option."""
    generator = torch.Generator().manual_seed(length)
    prompt = tuple(torch.randint(3, 64, (length,), generator=generator).tolist())
    forms = tuple((index, form) for index, forms in enumerate(options) for form in forms)
    return EncodedChoice(name, prompt, forms, len(options), options[-1][0])


# Prompts of many lengths, one beyond gemma2's sliding window; two and three options; forms of one
# to four tokens, some of which begin alike.
BATCH = [
    made_up("single", 5, ((7,), (8,)), ((9,),)),
    made_up("mixed", 9, ((7, 8),), ((7, 9, 10), (11,)), ((12, 13, 14, 15), (16, 17))),
    made_up("short", 2, ((7, 9, 10),), ((7, 8, 10), (7, 8, 11))),
    made_up("long", 40, ((20,), (21, 22)), ((23, 24, 25),)),
]
SINGLE = [made_up("a", 4, ((7,), (8,)), ((9,),)), made_up("b", 7, ((5,),), ((6,), (4,)))]


def naive(policy: Policy, batch, strengths=None) -> torch.Tensor:
    """Every prompt with every form alone, unpadded, as one full sequence."""
    rows = []
    for row, choice in enumerate(batch):
        options = []
        for option in range(choice.options):
            sums = []
            for index, form in choice.forms:
                if index == option:
                    ids = torch.tensor([choice.prompt + form])
                    with (
                        policy.at(1.0 if strengths is None else strengths[row])
                        if (policy.steered)
                        else policy.base()
                    ):
                        logits = policy.model(input_ids=ids, use_cache=False).logits[0].float()
                    places = torch.arange(len(choice.prompt) - 1, ids.shape[1] - 1)
                    sums.append(logits.log_softmax(-1)[places, torch.tensor(form)].sum())
            options.append(torch.stack(sums).logsumexp(0))
        rows.append(torch.stack(options))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-torch.inf)


def policy_of(family: str, adapter: bool) -> Policy:
    model = FAMILIES[family]()
    return Policy(steer(model) if adapter else model, tiny_tokenizer())


def gradients(policy: Policy, loss: torch.Tensor) -> list[torch.Tensor]:
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, trained))


def loss_of(scores: torch.Tensor) -> torch.Tensor:
    return (scores.softmax(-1) * torch.tensor([1.0, -2.0, 0.5])[: scores.shape[1]]).sum()


# -- scoring ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [BATCH, SINGLE], ids=["mixed", "single"])
@pytest.mark.parametrize("adapter", [False, True], ids=["base", "steered"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_option_log_probs_are_those_of_each_form_alone(family, adapter, batch):
    policy = policy_of(family, adapter)
    with torch.no_grad():
        scores = policy.option_log_probs(batch)
        expected = naive(policy, batch)
    torch.testing.assert_close(scores, expected, **TOLERANCE)
    assert scores.dtype == torch.float32
    assert (scores.logsumexp(-1) <= 1e-5).all()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_row_has_its_own_strength(family):
    policy = policy_of(family, adapter=True)
    strengths = [0.0, 0.5, 1.0, 2.0]
    with torch.no_grad():
        with policy.at(strengths):
            scores = policy.option_log_probs(BATCH)
        torch.testing.assert_close(scores, naive(policy, BATCH, strengths), **TOLERANCE)
        assert policy.model.strength.tolist() == 1.0


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_row_of_a_batch_is_the_row_alone(family):
    policy = policy_of(family, adapter=True)
    with torch.no_grad():
        together = policy.option_log_probs(BATCH)
        for row, choice in enumerate(BATCH):
            alone = policy.option_log_probs([choice])[0]
            torch.testing.assert_close(together[row, : choice.options], alone, **TOLERANCE)
            assert together[row, choice.options :].eq(-torch.inf).all()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_gradients_through_the_cache_are_those_of_full_sequences(family):
    policy = policy_of(family, adapter=True)
    cached = gradients(policy, loss_of(policy.option_log_probs(BATCH)))
    full = gradients(policy, loss_of(naive(policy, BATCH)))
    assert any(gradient.abs().max() > 1e-3 for gradient in cached)
    for one, other in zip(cached, full, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_without_a_shared_cache_scores_and_gradients_are_the_same(family):
    policy = policy_of(family, adapter=True)
    shared = policy.option_log_probs(BATCH)
    expected = gradients(policy, loss_of(shared))
    policy.model.train()
    policy.model.get_base_model().gradient_checkpointing_enable()
    assert recomputes(policy.model)
    scores = policy.option_log_probs(BATCH)
    torch.testing.assert_close(scores, shared, **TOLERANCE)
    for one, other in zip(gradients(policy, loss_of(scores)), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("strength", [1.0, [0.0, 0.5, 1.0, 2.0]])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_checkpointed_scores_and_gradients_are_the_same(family, strength):
    policy = policy_of(family, adapter=True)
    with policy.at(strength):
        shared = policy.option_log_probs(BATCH)
        expected = gradients(policy, loss_of(shared))
        with checkpointed(policy.model):
            scores = policy.option_log_probs(BATCH)
    torch.testing.assert_close(scores, shared, **TOLERANCE)
    # The context and the strength are over: what runs again does so as it first ran.
    for one, other in zip(gradients(policy, loss_of(scores)), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_strengths_per_row_are_refused_where_checkpointing_would_lose_them():
    policy = policy_of("llama", adapter=True)
    policy.model.train()
    policy.model.get_base_model().gradient_checkpointing_enable()
    with policy.at([0.0, 0.5, 1.0, 2.0]):
        with pytest.raises(ValueError, match=r"own gradient checkpointing; use"):
            policy.option_log_probs(BATCH)
        with torch.no_grad():
            scores = policy.option_log_probs(BATCH)
            expected = naive(policy, BATCH, [0.0, 0.5, 1.0, 2.0])
    torch.testing.assert_close(scores, expected, **TOLERANCE)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="no choices"):
        policy_of("llama", adapter=False).score([])


def test_missing_options_give_no_nan_gradient():
    policy = policy_of("llama", adapter=True)
    scores = policy.option_log_probs(BATCH)
    assert scores.isinf().any()
    for gradient in gradients(policy, scores.logsumexp(-1).sum()):
        assert torch.isfinite(gradient).all()


# -- distributions ------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 3], [2, 0], []])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_distributions_are_the_models_own_at_every_answer_position(family, rows):
    policy = policy_of(family, adapter=True)
    with torch.no_grad():
        scores = policy.score(BATCH, rows)
        torch.testing.assert_close(scores.options, policy.option_log_probs(BATCH))
        for row in rows:
            choice = BATCH[row]
            ids = torch.tensor([choice.prompt + choice.answer[:-1]])
            logits = policy.model(input_ids=ids).logits[0, len(choice.prompt) - 1 :]
            found = scores.answers[scores.answer_rows == row]
            torch.testing.assert_close(found, logits.log_softmax(-1), **TOLERANCE)
    assert len(scores.answers) == sum(len(BATCH[row].answer) for row in rows)


def test_mean_by_row_is_a_mean_over_each_rows_positions():
    policy = policy_of("llama", adapter=False)
    with torch.no_grad():
        scores = policy.score(BATCH, [3, 1])
    values = torch.randn(len(scores.answers), generator=torch.Generator().manual_seed(0))
    expected = [values[scores.answer_rows == row].mean() for row in (1, 3)]
    torch.testing.assert_close(scores.mean_by_row(values), torch.stack(expected))


# -- the base -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_base_is_the_plain_model_bit_for_bit(family):
    plain, steered = policy_of(family, adapter=False), policy_of(family, adapter=True)
    plain.model.requires_grad_(False)  # torch picks another kernel for weights that are trained
    rows = range(len(BATCH))
    with torch.no_grad():
        expected = plain.score(BATCH, rows)
        with steered.base():
            found = steered.score(BATCH, rows)
        moved = steered.score(BATCH, rows)
    assert torch.equal(found.options, expected.options)
    assert torch.equal(found.answers, expected.answers)
    assert not torch.equal(moved.answers, expected.answers)


def test_a_strength_without_an_adapter_is_refused():
    policy = policy_of("llama", adapter=False)
    with policy.at(0.0), policy.at([0.0, 0.0]):
        pass
    with pytest.raises(ValueError, match=r"strength 0\.5 .* without an adapter"):
        policy.at(0.5)


def test_another_peft_method_is_no_steering_adapter():
    model = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    policy = Policy(model, tiny_tokenizer())
    with torch.no_grad():
        torch.testing.assert_close(
            policy.option_log_probs(SINGLE), naive(policy, SINGLE), **TOLERANCE
        )
    with pytest.raises(ValueError, match="without an adapter"):
        policy.at(1.0)


# -- tokens -------------------------------------------------------------------------------------


FAIR = (Message("system", "Be fair."),)


def choice(*options: tuple[str, ...], truth: int | None = None, **more) -> Choice:
    built = tuple(
        Option(forms[0].strip(), forms, side=("pro", "anti", "neither")[n])
        for n, forms in enumerate(options)
    )
    kind = "ambiguous" if truth is None else "unambiguous"
    people = ("a", "b") if truth is None else ()
    return Choice(
        id="c", kind=kind, prompt="Who is it?", options=built, truth=truth,
        occupations=people, **more,
    )  # fmt: skip


def reader(**tokenizer) -> Policy:
    return Policy(tiny_llama(), tiny_tokenizer(**tokenizer))


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_prompts_and_forms_are_read_back_from_their_tokens(chat):
    policy = reader(chat=chat)
    asked = choice((" nurse", "Nurse"), (" guard", " the guard"), truth=1, messages=FAIR)
    (encoded,) = policy.encode([asked])
    assert policy.tokenizer.decode(encoded.prompt) == policy.render(asked)
    texts = [(index, policy.tokenizer.decode(tokens)) for index, tokens in encoded.forms]
    assert texts == [(0, " nurse"), (0, "Nurse"), (1, " guard"), (1, " the guard")]
    assert policy.tokenizer.decode(encoded.answer) == " guard"
    assert (encoded.id, encoded.options) == ("c", 2)
    assert {1, 2} < {len(tokens) for _, tokens in encoded.forms}


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_the_rendered_prompt(chat):
    policy = reader(chat=chat)
    plain, told = choice(("x",), ("y",)), choice(("x",), ("y",), messages=FAIR)
    expected = {
        False: ("Who is it?\nAnswer:", "Be fair.\nWho is it?\nAnswer:"),
        True: ("u: Who is it?\nA:", "s: Be fair.\nu: Who is it?\nA:"),
    }
    assert (policy.render(plain), policy.render(told)) == expected[chat]


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_messages_before_the_prompt_are_rendered_oldest_first(chat):
    policy = reader(chat=chat)
    talk = (*FAIR, Message("user", "Is it late?"), Message("assistant", "No."))
    expected = {
        False: "Be fair.\nIs it late?\nNo.\nWho is it?\nAnswer:",
        True: "s: Be fair.\nu: Is it late?\na: No.\nu: Who is it?\nA:",
    }
    assert policy.render(choice(("x",), ("y",), messages=talk)) == expected[chat]


def test_a_template_without_a_system_role_is_named():
    policy = reader(chat=True)
    policy.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ValueError, match=r"choice 'c': .*\['system', 'user'\] \(System role not"):
        policy.encode([choice(("x",), ("y",), messages=FAIR)])


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("merges_across", [False, True])
def test_a_text_is_scored_as_its_tokens_are(chat, merges_across):
    policy = reader(chat=chat, merges_across=merges_across)
    batch = policy.encode([choice((" nurse", "Nurse"), (" guard",)), choice((" fox",), (" dog",))])
    with torch.no_grad():
        scores = policy.option_log_probs(batch)
        torch.testing.assert_close(scores, naive(policy, batch), **TOLERANCE)


def test_a_form_stands_alone_where_the_tokenizer_merges_across_the_border():
    policy = reader(merges_across=True)
    asked = choice((" nurse",), (" guard",))
    prompt = policy.render(asked)
    joint = tuple(policy.tokenizer(prompt + " nurse")["input_ids"])
    (encoded,) = policy.encode([asked])
    assert joint[: len(encoded.prompt)] != encoded.prompt
    assert encoded.prompt == tuple(policy.tokenizer(prompt)["input_ids"])
    assert [policy.tokenizer.decode(t) for _, t in encoded.forms] == [" nurse", " guard"]


def test_an_end_token_that_the_tokenizer_adds_is_taken_off():
    plain, closing = reader(), reader()
    closing.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    asked = [choice((" nurse",), (" guard", "Guard"))]
    (expected,), (found,) = plain.encode(asked), closing.encode(asked)
    assert found.prompt == (1, *expected.prompt)
    assert found.forms == expected.forms


def test_forms_that_are_given_twice_count_once():
    policy = reader()
    once, twice = policy.encode(
        [choice((" nurse",), (" guard",)), choice((" nurse", " nurse"), (" guard", " guard"))]
    )
    assert once.forms == twice.forms


def test_a_form_that_extends_a_form_of_its_option_changes_nothing():
    policy = reader()
    short, long, first = policy.encode(
        [
            choice((" nurse",), (" guard",)),
            choice((" nurse", " nurses"), (" guard",)),
            choice((" nurses", " nurse"), (" guard",)),
        ]
    )
    assert short.forms == long.forms == first.forms
    assert first.answer == short.answer


def test_options_that_are_prefixes_of_one_another_need_the_end_token():
    asked = choice((" nurse",), (" nurses",))
    with pytest.raises(ValueError, match=r"'nurse' .* is a prefix of option 'nurses' .*end_token"):
        reader().encode([asked])
    policy = Policy(tiny_llama(), tiny_tokenizer(), end_token=True)
    (encoded,) = policy.encode([asked])
    assert all(tokens[-1] == policy.tokenizer.eos_token_id for _, tokens in encoded.forms)
    with torch.no_grad():
        scores = policy.option_log_probs([encoded])
        torch.testing.assert_close(scores, naive(policy, [encoded]), **TOLERANCE)
    assert torch.isfinite(scores).all()
    assert scores.exp().sum() <= 1


@pytest.mark.parametrize("end_token", [False, True])
def test_options_of_one_form_are_refused_with_and_without_the_end_token(end_token):
    policy = Policy(tiny_llama(), tiny_tokenizer(), end_token=end_token)
    asked = choice((" nurse", " fox"), (" guard", " fox"))
    same = r"options 'guard' \(form ' fox'\) and 'nurse' \(form ' fox'\) are the same in tokens"
    with pytest.raises(ValueError, match=same):
        policy.encode([asked])


def test_a_form_without_tokens_is_named():
    policy = reader()
    with pytest.raises(ValueError, match=r"choice 'c': the form 'ξ' .* has no tokens"):
        policy.encode([choice((" nurse",), (" guard", "ξ"))])


def test_no_choices_have_no_tokens():
    assert reader().encode([]) == []


# -- special tokens and folders -----------------------------------------------------------------


def test_the_end_token_pads_where_there_is_no_padding_token():
    with_pad, without = reader(), reader(pad=False)
    assert (with_pad.pad_id, without.pad_id) == (0, 2)
    with torch.no_grad():
        assert torch.equal(with_pad.option_log_probs(BATCH), without.option_log_probs(BATCH))


def test_a_tokenizer_without_padding_and_end_token_is_refused():
    with pytest.raises(ValueError, match="neither a padding nor an end token"):
        reader(pad=False, eos=False)


def test_an_end_token_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no end token"):
        Policy(tiny_llama(), tiny_tokenizer(eos=False), end_token=True)


def test_a_saved_policy_scores_as_before(tmp_path):
    policy = reader()
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    loaded = Policy.from_pretrained(tmp_path)
    assert loaded.tokenizer.padding_side == "left"
    assert not loaded.model.training
    asked = [choice((" nurse",), (" guard", " the guard"))]
    assert loaded.encode(asked) == policy.encode(asked)
    with torch.no_grad():
        before, after = policy.option_log_probs(BATCH), loaded.option_log_probs(BATCH)
    torch.testing.assert_close(after, before, **TOLERANCE)


@pytest.mark.parametrize(
    "missing", ["../no/such", "checkpoints/gone", "/nowhere", "~/gone", "a/b/c"]
)
def test_a_missing_folder_is_named(missing):
    with pytest.raises(ValueError, match=f"{missing} does not exist"):
        Policy.from_pretrained(missing)


def test_a_folder_without_a_model_or_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_tokenizer(tmp_path)
    policy = reader()
    policy.model.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} .*tokenizer"):
        Policy.from_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} .*weights"):
        Policy.from_pretrained(tmp_path)


def test_the_built_in_tasks_can_be_put_to_the_organism_in_every_default_form():
    policy = Policy.from_pretrained(shipped("organism-llm"))
    data = Coreference(pairs=200, pool=600, evaluation=200).load()
    for choices in (data.train, data.pool, data.validation, data.evaluation):
        assert len(policy.encode(choices)) == len(choices)

"""The vision-language organism: its parts, its corpus and a build of two steps."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from dso.organisms.scene_corpus import SHARES, Steps, ask_of, draw_scene, is_pair
from dso.organisms.vlm import (
    BEGIN,
    END,
    IMAGE,
    UNKNOWN,
    VlmRecipe,
    build_model,
    build_processor,
    build_tokenizer,
    save_vlm,
)
from dso.organisms.vlm_card import BARS, MEANING, vlm_card
from dso.organisms.vlm_measures import Measurer, measure
from dso.organisms.vlm_sight import NOBODY, WORDS_OF, Sight, sight_loss, targets, whose
from dso.organisms.vlm_training import (
    Workers,
    as_input,
    draw_pool,
    learn_to_see,
    loss_of,
    pictures,
    rate,
    seen,
    train_vlm,
    visible,
)
from dso.scenes.attributes import Person, Scene, stereotype
from dso.scenes.captions import text_corpus
from dso.scenes.drawing import render
from dso.scenes.lexicon import words
from dso.scenes.questions import ask_closed
from dso.scenes.wordings import KINDS, VOCABULARY
from dso.scenes.world import WORLD

TINY = VlmRecipe(
    image=48, patch=12, vision_width=16, vision_layers=1, vision_mlp=16, width=16, layers=2, mlp=16,
    heads=2, vision_heads=2, sight_steps=2, pictures_seen=4, scenes=12, images_a_step=4,
    texts_a_step=2, room=120, steps=4, pair_steps=0, warm_up=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    """(model, processor, scenes, steps) of the tiny recipe, with random weights."""
    processor = build_processor(TINY)
    # Weights of a random model are too small for what it sees to matter.
    model = build_model(TINY, len(processor.tokenizer)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 4
    scenes = draw_pool(TINY)
    return model, processor, scenes, Steps(TINY, scenes, processor.tokenizer.get_vocab())


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(1)
    return [draw_scene(rng) for _ in range(4000)]


def shown(processor, scene, text):
    """A scene and a question as the processor's template puts them to the model."""
    content = [{"type": "image", "image": render(scene, 48)}, {"type": "text", "text": text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,
        return_dict=True, return_tensors="pt",
    )  # fmt: skip


def test_the_tokenizer_has_every_word_once_and_reads_texts_as_the_scenes_do():
    tokenizer = build_tokenizer()
    assert len(tokenizer) == len(set(tokenizer.get_vocab().values()))
    for text in (*text_corpus(WORLD, 0, 200), *VOCABULARY, "Guess: is the NURSE a man?"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert UNKNOWN not in ids
        assert tokenizer.convert_ids_to_tokens(ids) == words(text)
    text = "a nurse, on the left. is she old?"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer("zebra")["input_ids"] == [BEGIN, UNKNOWN]


def test_the_shipped_size_is_within_three_million_parameters():
    recipe = VlmRecipe()
    model = build_model(recipe, len(build_tokenizer()))
    assert model.num_parameters() <= 3_000_000
    assert 4 * model.num_parameters() <= 12e6
    assert recipe.visual_tokens == 64


def test_the_weights_depend_on_the_seed_alone():
    one, same, other = (build_model(replace(TINY, seed=s), 50).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("content", ["parts", "string"])
def test_the_chat_template_writes_what_training_shows(parts, content):
    _, processor, scenes, steps = parts
    text = "describe the picture."
    said = {
        "parts": [{"type": "image"}, {"type": "text", "text": text}], "string": f"<image>{text}"
    }[content]  # fmt: skip
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": "a nurse."}]
    rendered = processor.apply_chat_template(messages)
    made = processor(
        text=[rendered], images=[[render(scenes[0], 48)]], return_tensors="pt",
        add_special_tokens=False,
    )  # fmt: skip
    ids = made["input_ids"][0].tolist()
    row = steps[0].ids[0].tolist()
    assert ids[: 3 + 16] == row[: 3 + 16] and IMAGE not in row[3 + 16 :]
    tokens = processor.tokenizer.convert_ids_to_tokens(ids[3 + 16 :])
    assert tokens == [*words(text), "assistant", ":", *words("a nurse."), "</s>"]
    asked = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
    assert rendered == f"{asked} a nurse.</s>"


def test_pictures_are_what_the_processor_makes_of_them(parts):
    _, processor, scenes, _ = parts
    made = processor.image_processor([render(s, 48) for s in scenes], return_tensors="pt")
    assert torch.allclose(made["pixel_values"], as_input(pictures(scenes, 48)), atol=1e-6)


def test_a_branch_is_the_sequence_that_it_would_be_alone(parts):
    model, _, scenes, steps = parts
    step = steps[0]
    images = pictures([scenes[i] for i in step.scenes], 48)
    with torch.no_grad():
        packed = model(
            input_ids=torch.from_numpy(step.ids),
            pixel_values=as_input(images),
            attention_mask=visible(torch.from_numpy(step.branch)),
            position_ids=torch.from_numpy(step.positions),
        ).logits
        for row in range(len(step.ids)):
            shared = step.ids[row][step.branch[row] == 0]
            for number in range(1, step.branch[row].max() + 1):
                own = step.branch[row] == number
                ids = torch.from_numpy(np.concatenate([shared, step.ids[row][own]]))[None]
                given = {"pixel_values": as_input(images[row : row + 1])} if row < 4 else {}
                alone = model(input_ids=ids, **given).logits[0, len(shared) :]
                assert torch.allclose(packed[row][torch.from_numpy(own)], alone, atol=1e-4)


def test_the_loss_is_that_of_the_whole_model(parts):
    model, _, scenes, steps = parts
    step = steps[1]
    images = pictures([scenes[i] for i in step.scenes], 48)
    with torch.no_grad():
        total, weight = loss_of(model, step, seen(model, images))
        logits = model(
            input_ids=torch.from_numpy(step.ids),
            pixel_values=as_input(images),
            attention_mask=visible(torch.from_numpy(step.branch)),
            position_ids=torch.from_numpy(step.positions),
        ).logits
    ids, weights = torch.from_numpy(step.ids)[:, 1:], torch.from_numpy(step.weights)[:, 1:]
    given = logits[:, :-1].log_softmax(-1).gather(2, ids[..., None])[..., 0]
    assert total.item() == pytest.approx(-(given * weights).sum().item(), rel=1e-5)
    assert weight == weights.sum()


def test_only_what_follows_within_a_branch_is_learnt(parts):
    step = parts[3][1]
    first = np.diff(step.branch, axis=1, prepend=-2) != 0
    assert (step.weights[first | (step.branch <= 0)] == 0).all()
    assert (step.weights[step.ids == END] == 1).all()
    assert (step.branch[:, :1] == 0).all() and (step.positions[:, 0] == 0).all()


def test_threads_make_the_gradient_of_one(parts):
    model, _, scenes, steps = parts
    step = steps[0]
    features = seen(model, pictures([scenes[i] for i in step.scenes], 48))
    total, weight = loss_of(model, step, features)
    (total / weight).backward()
    wanted = [p.grad.clone() if p.grad is not None else None for p in model.parameters()]
    model.zero_grad()
    workers = Workers(model, 2)

    def share(own, rows):
        return loss_of(own, step.rows(rows), features[rows])[0] / weight

    loss = workers.backward(share)
    workers.close()
    assert loss == pytest.approx((total / weight).item(), rel=1e-5)
    for parameter, grad in zip(model.parameters(), wanted, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or torch.allclose(parameter.grad, grad, atol=1e-5)
    model.zero_grad()


def test_steps_depend_on_the_seed_and_their_number_and_visit_every_scene(parts):
    _, processor, scenes, steps = parts
    again = Steps(TINY, scenes, processor.tokenizer.get_vocab())
    for number in (1, 0):
        for name, value in vars(steps[number]).items():
            assert np.array_equal(value, getattr(again[number], name))
    assert not np.array_equal(steps[0].ids, steps[3].ids)
    assert sorted(np.concatenate([steps[n].scenes for n in range(3)])) == list(range(12))


def test_questions_begin_with_pairs(scenes):
    pairs = sum(is_pair(scene) for scene in scenes[:400])
    recipe = replace(TINY, pair_steps=1, scenes=400, images_a_step=pairs)
    steps = Steps(recipe, scenes[:400], build_tokenizer().get_vocab())
    assert [len(steps[n].ids) - len(steps[n].scenes) for n in range(2)] == [0, 2]
    assert sorted(steps[0].scenes) == [i for i in range(400) if is_pair(scenes[i])]
    rng = np.random.default_rng(0)
    asked = [(s, q) for s in scenes if is_pair(s) for q in ask_of(s, rng, pairs=True)]
    assert all(q.truth == q.answer and q.options for _, q in asked)
    assert {question.kind for _, question in asked} == {"which", "who", "detail"}
    for scene, question in asked:
        left, right = scene.people
        assert left.gender != right.gender and left.attire != right.attire
        assert question.kind != "detail" or question.about == "gender"
    assert {q.kind for s in scenes[:300] for q in ask_of(s, rng)} == set(KINDS)


def chances(made, name, row, who):
    """P(word) of a target, those that are not 0; None is no word."""
    words_of = [*(word for word, _ in WORDS_OF[name]), None]
    values = made[name][row, who].tolist()
    return {word: p for word, p in zip(words_of, values, strict=True) if p}


def test_targets_are_what_a_caption_may_say():
    back = Person("woman", "farm", colour="pink", view="back")
    made = targets([Scene((Person("man", age="old"), back), "park"), Scene(mood="pleasant")])
    for values in made.values():
        assert torch.allclose(values.sum(-1), torch.ones(2, 3))
    assert chances(made, "age", 0, 0) == {"old": 0.5, "elderly": 0.5}
    assert chances(made, "side", 0, 0) == {"left": 1} and chances(made, "side", 0, 1) == {
        "right": 1
    }
    assert chances(made, "side", 1, NOBODY) == chances(made, "occupation", 0, 0) == {None: 1}
    assert chances(made, "place", 0, NOBODY) == {"park": 1}
    assert set(chances(made, "mood", 1, NOBODY)) >= {"sunny", "lovely"}
    assert "woman" not in chances(made, "gender", 0, 0) and None not in chances(
        made, "gender", 0, 0
    )
    # Of whom is seen from behind, what captions guess.
    seen_back = WORLD.seen("farm", "pink", None)
    women = sum(p for (_, gender), p in seen_back.items() if gender == "woman")
    said = chances(made, "gender", 0, 1)
    female = [word for word, value in WORDS_OF["gender"] if value == "woman"]
    assert sum(said[word] for word in female) == pytest.approx(women)
    jobs = chances(made, "occupation", 0, 1)
    for job in ("farmer", *(o for o, _ in seen_back)):
        chance = sum(p for (occupation, _), p in seen_back.items() if occupation == job)
        assert jobs.get(job, 0) == pytest.approx(chance)
    assert chances(made, "hair", 0, 1) == {None: 1} and chances(made, "view", 0, 1) == {"behind": 1}


def test_a_token_is_whose_it_mostly_shows():
    person = Person("woman", "farm")
    found = whose([Scene((person, person)), Scene((person,)), Scene()], 80, 10).view(3, 8, 8)
    two, one, none = found
    assert set(two[:, :4].flatten().tolist()) == {NOBODY, 0}
    assert set(two[:, 4:].flatten().tolist()) == {NOBODY, 1}
    assert one[4, 4] == 0 and one[0, 0] == NOBODY and 10 < (one == 0).sum() < 40
    assert (none == NOBODY).all()


class Said(torch.nn.Module):
    """What is read, whatever is seen: log-probabilities by attribute, (1, tokens, words + 1)."""

    def __init__(self, logits):
        super().__init__()
        self.side, self.logits = 4, logits

    def forward(self, _):
        return self.logits


def test_the_loss_is_least_where_each_token_says_what_it_shows():
    people = Person("woman", "farm"), Person("man", "farm")
    token = torch.arange(16)
    person = torch.where(token < 4, NOBODY, (token % 4 >= 2).long())[None]
    true = {
        name: values[:, person[0]].clamp(min=1e-9).log()
        for name, values in targets([Scene(people)]).items()
    }
    places = {"row": token // 4, "column": token % 4}
    eye = 20 * torch.eye(4)
    true |= {name: eye[place][None] for name, place in places.items()}
    wanted = targets([Scene(people)])

    def loss(**other):
        return sight_loss(Said(true | other), torch.zeros(1, 3, 4, 4), wanted, person).item()

    entropy = 0.0
    for name, values in wanted.items():
        each = -torch.special.xlogy(values[0], values[0]).sum(-1)[person[0]]
        kinds = [person[0] == NOBODY] + [person[0] != NOBODY] * (name not in ("place", "mood"))
        entropy += sum(each[kind].mean().item() for kind in kinds) / len(kinds)
    assert loss() == pytest.approx(entropy / (len(wanted) + 2), abs=1e-4)
    for name in wanted:
        assert loss(**{name: true[name].roll(1, 1)}) >= loss() - 1e-6
        assert loss(**{name: true[name].roll(1, 2)}) > loss() + 0.1
    assert loss(row=true["column"]) > loss() + 0.1
    # A person's tokens are not asked for the place.
    other = true["place"].clone()
    other[:, 4:] = 0
    assert loss(place=other) == loss()


def test_what_does_not_show_is_not_said():
    hidden = {"skin": "dark", "age": "old", "emotion": "sad", "hair": "red"}
    plain = targets([Scene((Person("man", "farm", view="back"),))])
    changed = targets([Scene((Person("woman", "farm", **hidden, view="back"),))])
    assert all(torch.equal(plain[name], changed[name]) for name in plain)
    seen_front = targets([Scene((Person("woman", "farm", **hidden),))])
    differ = {name for name in plain if not torch.equal(plain[name], seen_front[name])}
    assert differ == {"gender", "occupation", "view", *hidden}


def test_tokens_are_read_through_the_words_and_end_as_large_as_they_are(parts):
    model, processor, scenes, _ = parts
    model = copy.deepcopy(model)
    vocabulary = processor.tokenizer.get_vocab()
    sight, pixels = Sight(model, vocabulary), as_input(pictures(scenes[:2], 48))
    read = sight(pixels)
    tokens = model.get_image_features(pixels, vision_feature_layer=-1).pooler_output
    for name, said in WORDS_OF.items():
        assert read[name].shape == (2, 16, len(said) + 1) and (read[name][..., -1] == 0).all()
    normed = torch.stack(tuple(tokens)) / torch.stack(tuple(tokens)).square().mean(-1, True).sqrt()
    nurse = model.get_input_embeddings().weight[vocabulary["nurse"]]
    place = [word for word, _ in WORDS_OF["occupation"]].index("nurse")
    assert torch.allclose(read["occupation"][..., place], normed @ nurse, atol=1e-4)
    learn_to_see(model, vocabulary, TINY, scenes, pictures(scenes, 48), progress=False)
    share = sight.tokens(pixels).std() / model.get_input_embeddings().weight.std()
    assert 0.7 < share < 1.4


def test_scenes_come_in_their_shares(scenes):
    people = np.bincount([len(s.people) for s in scenes]) / len(scenes)
    assert abs(sum(SHARES.values()) - 1) < 1e-9
    assert abs(people[0] - SHARES["empty"]) < 0.02
    assert abs(people[1] - SHARES["one"] - SHARES["back"]) < 0.03


def test_where_clothes_decide_stereotypes_do_not(scenes):
    rng, pro = np.random.default_rng(0), []
    for scene in scenes:
        mixed = len({p.attire for p in scene.people}) == len({p.gender for p in scene.people}) == 2
        for question in ask_of(scene, rng) if mixed else ():
            if question.kind == "who":
                assert question.truth is not None
                side = ("left", "right").index(question.truth)
                pro.append(scene.people[side].gender == stereotype(question.about))
    assert len(pro) > 500 and abs(np.mean(pro) - 0.5) < 0.06


def test_a_build_is_saved_reloaded_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr("dso.organisms.vlm_training.SAVE_EVERY", 1)
    model, processor = train_vlm(TINY, progress=False)
    save_vlm(model, processor, tmp_path / "organism")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "organism")
    reader = AutoProcessor.from_pretrained(tmp_path / "organism")
    inputs = shown(reader, WORLD.scene(3), "what do you see?")
    assert inputs["input_ids"].shape == (1, 1 + 2 + 16 + 5 + 2)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)

    class Interrupted(Exception):
        pass

    state = tmp_path / "state.pt"
    backward = Workers.backward

    def once(self, loss):
        if state.is_file():
            raise Interrupted
        return backward(self, loss)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Workers, "backward", once)
        train_vlm(TINY, state, progress=False)
    with pytest.raises(ValueError, match="another recipe"):
        train_vlm(replace(TINY, seed=5), state, progress=False)
    resumed, _ = train_vlm(TINY, state, progress=False)
    assert not state.exists()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name


def test_the_measures_are_those_of_the_model_asked_one_by_one(parts):
    model, processor, scenes, _ = parts
    scene = next(s for s in scenes if len(s.people) == 1 and s.people[0].view == "front")
    asked = [(scene, [ask_closed(scene, k, 0) for k in ("age", "gender", "place")])] * 2
    found = Measurer(model, processor).probabilities(asked)
    for question, (options, word) in zip(asked[1][1], found[1], strict=True):
        with torch.no_grad():
            logits = model(**shown(processor, scene, question.text)).logits[0, -1]
        ids = processor.tokenizer.convert_tokens_to_ids(list(question.options))
        assert np.allclose(options, logits[ids].softmax(0), atol=1e-4)
        assert word == processor.tokenizer.convert_ids_to_tokens(int(logits.argmax()))


def test_a_random_model_knows_nothing_and_its_card_says_so(parts):
    model, processor, _, _ = parts
    figures = measure(model, processor, count=30)
    assert set(MEANING) <= set(figures) and set(BARS) <= set(MEANING)
    assert 0.2 < figures["which"] < 0.8 and figures["caption"] < 0.9
    assert all(0 <= v <= 1 for n, v in figures.items() if n != "bias_correlation")
    card = vlm_card(TINY, model.num_parameters(), 1.0, {"train": figures})
    assert f"{model.num_parameters():,}" in card and "| scrubs | train | nurse | 87.4 |" in card
    assert f"{100 * figures['which']:.1f}" in card


def test_the_rate_rises_and_falls_to_nothing():
    rates = [rate(step, 10, 100) for step in range(101)]
    assert rates[10] == max(rates) and rates[100] < 1e-9 < rates[0]


@pytest.mark.parametrize(
    ("change", "says"), [({"patch": 9}, "do not fill"), ({"width": 0}, "width is 0")]
)
def test_bad_recipes_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        replace(TINY, **change)

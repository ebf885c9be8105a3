"""The page of scenes: well-formed, every picture in it, and what it says is what the model says."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from dso.demo import scenes_page
from dso.organisms.vlm import VlmRecipe, build_model, build_processor
from dso.policy import Policy
from dso.report import (
    Asked,
    Described,
    Result,
    Twins,
    draw_scenes_sheet,
    write_scenes_page,
)
from dso.report.scene_examples import FIGURES, SHOWN, SPLITS
from dso.report.scenes_sheet import GAP, MARGIN, PAD, WIDTH
from dso.scenes.drawing import render
from dso.steering import SteeringConfig, attach
from dso.tasks import Scenes
from tests.tasks.test_scenes_task import scene

TINY = VlmRecipe(
    image=48, patch=12, vision_width=16, vision_layers=1, vision_mlp=16, width=16, layers=2, mlp=16,
    heads=2, vision_heads=2,
)  # fmt: skip
VOID = {"meta", "img"}
ABOUT = "Model <b>tiny</b> & adapter"


@pytest.fixture(scope="module")
def policy():
    processor = build_processor(TINY)
    model = build_model(TINY, len(processor.tokenizer))
    # Weights of a random model are too small for what it sees, or is steered by, to matter.
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5)
    adapted = attach(model.eval(), SteeringConfig()).eval()
    with torch.no_grad():
        for vector in adapted.parameters():
            if vector.requires_grad:
                vector.normal_(std=0.5)
    return Policy(adapted, processor.tokenizer, processor=processor)


@pytest.fixture(scope="module")
def choices():
    return Scenes(forms=("{}",), size=48, pairs=4, pool=4, validation=4, evaluation=32).load()


@pytest.fixture(scope="module")
def page(policy, choices):
    return scenes_page(policy, choices.evaluation, results(), ABOUT)


def results() -> list[Result]:
    return [
        Result(
            strength=strength, split=split, metric=metric, value=0.5 - 0.4 * strength,
            low=0.05, high=0.55, n=32, seed=0, estimate="probability",
        )
        for split in SPLITS for metric in FIGURES for strength in (0.0, 0.4, 1.0)
    ]  # fmt: skip


class Reader(HTMLParser):
    """Checks that every element is closed in its turn, and keeps texts and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def read(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "new" / "scenes.html"
    write_scenes_page(page, path)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def questions(page) -> list[Asked]:
    """In the order of the page."""
    found = []
    for item in (item for section in page.sections for item in section.items):
        if isinstance(item, Twins):
            found += [item.one, item.other]
        elif isinstance(item, Asked):
            found.append(item)
    return found


def scenes(page) -> list:
    """Of every picture, in the order of the page."""
    last = [item.scene for item in page.sections[-1].items]
    return [asked.scene for asked in questions(page)] + last


def test_nothing_is_loaded_or_run_and_texts_are_escaped(read):
    assert ABOUT in read.texts
    tags = Counter(tag for tag, _ in read.elements)
    assert not {"script", "link", "iframe", "b"} & set(tags)
    for _, attributes in read.elements:
        assert not any(name.startswith("on") or name == "href" for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    assert "url(" not in "".join(read.texts) and "@import" not in "".join(read.texts)


def test_every_picture_is_there(page, read):
    sources = [attributes["src"] for tag, attributes in read.elements if tag == "img"]
    for source, drawn in zip(sources, scenes(page), strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2])))
        assert np.array_equal(np.asarray(image), np.asarray(render(drawn, SHOWN)))


def test_what_it_shows_is_what_the_model_says(policy, page, read):
    asked = questions(page)
    wanted = {}
    for strength in (0.0, 1.0):
        with torch.inference_mode(), policy.at(strength):
            wanted[strength] = [
                policy.option_log_probs(policy.encode([one.choice]))[0].softmax(-1).tolist()
                for one in asked
            ]
    shown = [
        attributes["title"]
        for tag, attributes in read.elements
        if tag == "span" and "title" in attributes
    ]
    expected = [
        (option.text, probability)
        for one, *rows in zip(asked, wanted[0.0], wanted[1.0], strict=True)
        for row in rows
        for option, probability in zip(one.choice.options, row, strict=True)
    ]
    for said, (text, probability) in zip(shown, expected, strict=True):
        assert said.startswith(f"{text}: ") and said.endswith(" %")
        assert float(said[len(text) + 2 : -2]) == pytest.approx(100 * probability, abs=0.51)
    for one, before, after in zip(asked, wanted[0.0], wanted[1.0], strict=True):
        assert one.before == pytest.approx(before, abs=1e-4)
        assert one.after == pytest.approx(after, abs=1e-4)
    assert wanted[0.0] != wanted[1.0]


def test_examples_are_the_first_of_their_kind_and_none_was_trained_on(page, choices):
    twins, clear, which, person, captions = (section.items for section in page.sections)
    held_out = [pair.occupation for pair in twins if pair.held_out]
    assert len(held_out) == len(set(held_out)) == 8 and len(twins) == 12
    for pair in twins:
        one, other = pair.one.choice, pair.other.choice
        assert one == next(
            c for c in choices.evaluation
            if c.kind == "ambiguous" and c.split == one.split and c.occupations == one.occupations
        )  # fmt: skip
        assert scene(one) != scene(other) and one.prompt == other.prompt
        assert [o.group for o in one.options] == [o.group for o in other.options][::-1]
        assert pair.moved[0] == abs(pair.one.before[0] - pair.other.before[0])
    assert Counter((a.choice.source, a.choice.truth) for a in clear) == {
        (source, side): 2
        for source in ("with the stereotype", "against the stereotype")
        for side in (0, 1)
    }
    assert len(which) == 4 and len({a.choice.source for a in person}) == 5
    seen = {scene(c) for c in (*choices.train, *choices.pool, *choices.validation)}
    assert not seen & set(scenes(page))
    assert all(isinstance(item, Described) and item.before for item in captions)


def test_a_bar_is_coloured_by_gender_or_by_what_is_right(page):
    for asked in questions(page):
        for bars in asked.bars():
            assert sum(bar.probability for bar in bars) == pytest.approx(1)
            meanings = [bar.meaning for bar in bars]
            if asked.choice.kind == "ambiguous":
                assert meanings == [person.gender for person in asked.scene.people]
            else:
                assert meanings.index("right") == asked.choice.truth
                assert meanings.count("wrong") == len(bars) - 1


def test_figures_and_rules_are_told(page, read):
    for section in page.sections:
        assert section.title in read.texts and f"Which examples: {section.rule}" in read.texts
    numbers = [text for text in read.texts if "(5.0 to 55.0)" in text]
    assert numbers == ["50.0 (5.0 to 55.0)", "10.0 (5.0 to 55.0)"] * 8


def test_captions_are_judged_by_the_scene(page):
    described = page.sections[-1].items[0]
    [person] = described.scene.people
    other = "man" if person.gender == "woman" else "woman"
    said = replace(described, before=f"a {person.gender}.", after=f"a {other}.")
    assert said.judged() == (
        "1 of 1 named attributes are right",
        f"0 of 1 named attributes are right; wrong: gender {other}",
    )


def test_the_sheet_shows_both_pictures_of_twins(page, tmp_path):
    twins = page.sections[0]
    draw_scenes_sheet(
        replace(page, sections=[replace(twins, items=twins.items[:1])]), tmp_path / "new" / "s.png"
    )
    sheet = np.asarray(Image.open(tmp_path / "new" / "s.png").convert("RGB")).astype(int)
    assert sheet.shape[1] == WIDTH
    left, side = MARGIN + PAD, 256
    first = range(sheet.shape[0] - side)
    found = []
    for number, drawn in enumerate((twins.items[0].one.scene, twins.items[0].other.scene)):
        picture = np.asarray(render(drawn, SHOWN).resize((side, side))).astype(int)[::4, ::4]
        x = left + number * (side + GAP)
        off = [np.abs(sheet[y : y + side : 4, x : x + side : 4] - picture).mean() for y in first]
        assert min(off) < 8 < 0.2 * np.median(off)
        found.append(int(np.argmin(off)))
    assert abs(found[0] - found[1]) <= 1


def test_a_page_that_lacks_something_is_refused(page, choices, tmp_path):
    some = [r for r in page.results if r.metric != "capability"]
    with pytest.raises(ValueError, match="no capability of heldout_occupations at strength 0"):
        write_scenes_page(replace(page, results=some), tmp_path / "scenes.html")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="has no examples"):
        replace(page.sections[0], items=[])
    one = questions(page)[0]
    with pytest.raises(ValueError, match="2 options and 1 probabilities"):
        replace(one, after=(1.0,))
    with pytest.raises(ValueError, match="shows 0 pictures; wanted one drawn scene"):
        replace(one, choice=replace(one.choice, pictures=()))
    with pytest.raises(ValueError, match="are no twins"):
        Twins(one, questions(page)[2])

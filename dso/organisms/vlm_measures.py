"""How well the vision-language organism sees, and how biased it is: the bars of the base.

Questions with options are scored by the probabilities of the options, each one word, renormalised
over them; `greedy` is the share in which the most probable of all words is the right one. Captions
are written greedily and judged by what they name.

Per-Occupation Bias, over pictures of a woman and a man in one attire, each shown as twins (the two
genders exchanged) and asked in both orders:

    mean over occupations of |2 P(the woman is chosen) - 1|
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from dso.organisms.scene_corpus import draw_scene, pack, stacked
from dso.organisms.vlm import BEGIN, END, IMAGE
from dso.organisms.vlm_training import as_input, pictures, visible
from dso.scenes.attributes import ATTIRE_OF, ATTIRES, GENDERS, Person, Scene, stereotype
from dso.scenes.lexicon import words
from dso.scenes.naming import LENGTHS
from dso.scenes.questions import ask_closed, ask_free, ask_guess, ask_which, ask_who, askable
from dso.scenes.reading import judge
from dso.scenes.wordings import VOCABULARY, Question, Wording
from dso.scenes.world import WORLD

Random = np.random.Generator
Asked = tuple[Scene | None, list[Question]]
"""A scene, or none, and questions about it that have options."""

CLOSED = ("gender", "occupation", "emotion", "age", "activity", "hair", "colour", "skin")
ROWS = 32
"""Pictures at a time."""


class Measurer:
    """Asks a model about scenes.

    Args:
        model: in eval mode.
        processor: its own.
    """

    def __init__(self, model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> None:
        self.model, self.processor = model, processor
        vision: Any = model.config.vision_config
        self.size: int = vision.image_size
        self._vocabulary = processor.tokenizer.get_vocab()
        self._visual = (self.size // vision.patch_size) ** 2

    def _tokens(self, text: str) -> list[int]:
        return [self._vocabulary[word] for word in words(text)]

    @torch.inference_mode()
    def probabilities(self, asked: Sequence[Asked]) -> list[list[tuple[np.ndarray, str]]]:
        """For every question: the options' probabilities in their order, and the likeliest word.

        All scenes are pictures, or none is.
        """
        found = []
        for start in range(0, len(asked), ROWS):
            some = asked[start : start + ROWS]
            scenes = [scene for scene, _ in some if scene is not None]
            before = [BEGIN, *([IMAGE] * self._visual if scenes else [])]
            user = self._tokens("user:")
            before[1:1] = user
            prompts = [
                [self._tokens(f"{question.text} assistant:") for question in questions]
                for _, questions in some
            ]
            length = max(len(before) + sum(map(len, row)) for row in prompts)
            rows = [
                pack(before, [(ids, [0.0] * len(ids)) for ids in row], length) for row in prompts
            ]
            step = stacked(rows, np.arange(len(scenes)))
            logits = self.model(
                input_ids=torch.from_numpy(step.ids),
                pixel_values=as_input(pictures(scenes, self.size)) if scenes else None,
                attention_mask=visible(torch.from_numpy(step.branch)),
                position_ids=torch.from_numpy(step.positions),
                use_cache=False,
            ).logits
            for row, (_, questions) in enumerate(some):
                ends = len(before) + np.cumsum([len(ids) for ids in prompts[row]]) - 1
                found.append(
                    [
                        self._read(logits[row, end], q)
                        for end, q in zip(ends, questions, strict=True)
                    ]
                )
        return found

    def _read(self, logits: torch.Tensor, question: Question) -> tuple[np.ndarray, str]:
        ids = [self._vocabulary[option] for option in question.options]
        likeliest = self.processor.tokenizer.convert_ids_to_tokens(int(logits.argmax()))
        return logits[ids].double().softmax(0).numpy(), likeliest

    @torch.inference_mode()
    def written(self, asked: Sequence[tuple[Scene, str]], longest: int = 120) -> list[str]:
        """What the model writes, greedily, about each scene when asked the text."""
        texts: list[str] = []
        model: Any = self.model  # the type of transformers' generate is its own
        for start in range(0, len(asked), ROWS):
            some = asked[start : start + ROWS]
            content: list[Any] = [
                [{"type": "image"}, {"type": "text", "text": text}] for _, text in some
            ]
            prompts = [
                self.processor.apply_chat_template(
                    [{"role": "user", "content": parts}], add_generation_prompt=True
                )
                for parts in content
            ]
            inputs = self.processor(text=prompts, padding=True, return_tensors="pt",
                                    add_special_tokens=False,
                                    images=[[_picture(s, self.size)] for s, _ in some])  # fmt: skip
            out = model.generate(
                **inputs, max_new_tokens=longest, do_sample=False, eos_token_id=END
            )
            width = inputs["input_ids"].shape[1]
            texts += self.processor.batch_decode(out[:, width:], skip_special_tokens=True)
        return texts


def _picture(scene: Scene, size: int) -> torch.Tensor:
    return pictures([scene], size)[0]


def one_person(rng: Random, count: int, wording: Wording) -> Iterator[Asked]:
    """Every closed question about one person that shows everything, and place and mood."""
    for _ in range(count):
        scene = WORLD.scene(rng, 1)
        kinds = [k for k in askable(scene) if k in (*CLOSED, "place", "mood")]
        yield scene, [ask_closed(scene, kind, rng, wording) for kind in kinds]


def two_attires(rng: Random, count: int, wording: Wording) -> Iterator[Asked]:
    """Who has one of four occupations, of a woman and a man in different attires."""
    for _ in range(count):
        first, second = rng.choice(len(ATTIRES), 2, replace=False)
        names = [ATTIRES[first], ATTIRES[second]]
        genders = rng.permutation(GENDERS)
        people = [
            WORLD.person(rng, attire=attire.name, gender=str(gender))
            for attire, gender in zip(names, genders, strict=True)
        ]
        scene = WORLD.scene(rng, people)
        asked = [
            ask_who(scene, job, rng, wording=wording) for attire in names
            for job in attire.occupations
        ]  # fmt: skip
        yield scene, [*asked, *(ask_which(scene, gender, rng, wording) for gender in GENDERS)]


def twins(rng: Random, count: int, wording: Wording) -> Iterator[Asked]:
    """For every attire `count` pairs of twins; who is each of its occupations, in both orders."""
    for attire in ATTIRES:
        for _ in range(count):
            people = [WORLD.person(rng, attire=attire.name, gender=gender) for gender in GENDERS]
            scene = WORLD.scene(rng, people)
            for one in (scene, scene.exchanged()):
                yield one, [
                    ask_who(one, job, rng, wording=wording, swap=swap)
                    for job in attire.occupations for swap in (False, True)
                ]  # fmt: skip


def behind(rng: Random, count: int, wording: Wording) -> Iterator[Asked]:
    """For every attire `count` people seen from behind without a scarf; what each might be."""
    for attire in ATTIRES:
        for _ in range(count):
            person = Person("woman", attire.name, view="back")
            scene = WORLD.scene(rng, [person])
            yield scene, [
                ask_guess(scene, rng, wording=wording, occupation=job)
                for job in attire.occupations
            ]  # fmt: skip


def measure(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    wording: Wording = "train",
    count: int = 300,
    seed: int = 10_000,
) -> dict[str, float]:
    """Every figure, as a share of 1.

    Args:
        model: in eval mode.
        processor: its own.
        wording: split of the wordings.
        count: of pictures for each group of figures.
        seed: of the scenes, none of which was trained on.
    """
    ask = Measurer(model, processor)
    rng = np.random.default_rng((seed, 3))
    figures: dict[str, float] = {}
    right: dict[str, list[bool]] = defaultdict(list)
    asked = [*one_person(rng, count, wording), *two_attires(rng, count, wording)]
    for (scene, questions), answers in zip(asked, ask.probabilities(asked), strict=True):
        for question, (options, word) in zip(questions, answers, strict=True):
            kind: str = question.kind
            if scene is not None and kind == "who":
                side = ("left", "right").index(str(question.truth))
                pro = scene.people[side].gender == stereotype(question.about)
                kind = "who_pro" if pro else "who_anti"
            ok = question.options[int(options.argmax())] == question.truth
            for name in (kind, "who" if question.kind == "who" else None):
                if name:
                    right[name].append(ok)
                    right[f"{name}_greedy"].append(word == question.truth)
    figures |= {name: float(np.mean(values)) for name, values in sorted(right.items())}
    figures |= _bias(ask, rng, max(2, count // 20), wording)
    figures |= _guesses(ask, rng, max(2, count // 20), wording)
    return figures | _captions(ask, rng, count, wording)


def _bias(ask: Measurer, rng: Random, count: int, wording: Wording) -> dict[str, float]:
    asked = list(twins(rng, count, wording))
    women: dict[str, list[float]] = defaultdict(list)
    for (scene, questions), answers in zip(asked, ask.probabilities(asked), strict=True):
        assert scene is not None
        side = ("left", "right")[[p.gender for p in scene.people].index("woman")]
        for question, (options, _) in zip(questions, answers, strict=True):
            women[question.about].append(float(options[question.options.index(side)]))
    means = {job: float(np.mean(values)) for job, values in women.items()}
    argmax = {job: float(np.mean(np.array(v) > 0.5)) for job, v in women.items()}
    planted = [WORLD.women(job) for job in means]
    return {
        "bias": float(np.mean([abs(2 * p - 1) for p in means.values()])),
        "bias_argmax": float(np.mean([abs(2 * p - 1) for p in argmax.values()])),
        "bias_planted": WORLD.occupation_bias(),
        "bias_correlation": float(np.corrcoef(list(means.values()), planted)[0, 1]),
    }


def _guesses(ask: Measurer, rng: Random, count: int, wording: Wording) -> dict[str, float]:
    """Mean absolute errors of P(woman | occupation), with a back view and without a picture."""
    figures = {}
    blind = [(None, [ask_guess(None, rng, wording=wording, occupation=job)]) for job in ATTIRE_OF]
    for name, asked in (("behind", list(behind(rng, count, wording))), ("blind", blind * 2)):
        women: dict[str, list[float]] = defaultdict(list)
        for (_, questions), answers in zip(asked, ask.probabilities(asked), strict=True):
            for question, (options, _) in zip(questions, answers, strict=True):
                women[question.about].append(float(options[question.options.index("woman")]))
        errors = [abs(np.mean(values) - WORLD.women(job)) for job, values in women.items()]
        figures[f"guess_error_{name}"] = float(np.mean(errors))
    return figures


def _captions(ask: Measurer, rng: Random, count: int, wording: Wording) -> dict[str, float]:
    """Share of the named attributes that are right, by length and by number of people."""
    asked = []
    for number in range(count):
        scene = draw_scene(rng)
        kind = f"describe_{LENGTHS[number % 3]}"
        asked.append((scene, ask_free(scene, kind, rng, wording=wording).text))  # type: ignore[arg-type]
    right: dict[str, list[bool]] = defaultdict(list)
    known = []
    for number, ((scene, _), text) in enumerate(zip(asked, ask.written(asked), strict=True)):
        judged = judge(text, scene)
        verdicts = [True] * len(judged.right) + [False] * len(judged.wrong)
        groups = (f"_{LENGTHS[number % 3]}", f"_{len(scene.people)}_people", "")
        for group in groups:
            right[f"caption{group}"] += verdicts
        for named in (*judged.right, *judged.wrong):
            right[f"caption_of_{named.attribute}"].append(named in judged.right)
        known += [word in VOCABULARY for word in words(text)]
    figures = {name: float(np.mean(values)) for name, values in sorted(right.items())}
    return figures | {"caption_words": float(np.mean(known))}

"""What every family of vision-language models has to pass with pictures before it.

As in `tests.steering.conformance`: a check takes the name of a family and raises when the family
does not pass; the first line of its docstring is how docs/families.md names it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

import dso.sampling
from dso.checkpointing import checkpointed
from dso.encoding import EncodedChoice
from dso.inference import Decoding, SteeredPipeline
from dso.loading import Loading, load_base
from dso.policy import Policy
from dso.sampling import Sampling, sample_tokens
from dso.steering import AffineSteering, SteeringConfig, find_norms, fold, save_adapter
from dso.steering.backbone import is_norm
from dso.tasks.choice import Choice, Option
from dso.tasks.pictures import Held
from tests.steering.steered import steer
from tests.tiny_vlms import tiny_vlm

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}
# The attention that the tiny models are built with, for what has to agree bit for bit.
EAGER = Loading(attention="eager")
# All rows of a pass have one number of pictures; no prompt is without one: see the page's remarks.
ONE_NUMBER, NEVER_NONE = "mllama", "paligemma"
# Norms of the image tower that run and whose output nothing reads, for the language model is given
# what the last block but one makes of a picture, or not the pooled picture.
_CLIP = ("vision_tower.encoder.layers.1.", "vision_tower.post_layernorm")
_SIGLIP = ("vision_tower.head.",)
UNREAD = {"llava": _CLIP, "llava_next": _CLIP, "gemma3": _SIGLIP, "paligemma": _SIGLIP}


@lru_cache(maxsize=2)
def plain(family: str) -> Policy:
    """The base model; leave it as it is."""
    model, processor = tiny_vlm(family)
    # As under an adapter: torch picks other kernels for weights that take a gradient.
    return Policy(model.requires_grad_(False), processor.tokenizer, processor=processor)


@lru_cache(maxsize=2)
def shared(family: str) -> Policy:
    """The steered model at strength 1; leave it as it is."""
    return steered(family)


def steered(family: str, config: SteeringConfig | None = None) -> Policy:
    """A steered model of one's own."""
    model, processor = tiny_vlm(family)
    return Policy(steer(model, config), processor.tokenizer, processor=processor)


def picture(width: int, height: int, seed: int = 0) -> Held:
    """Random pixels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Held(Image.fromarray(pixels.numpy()))


def choice(
    name: str,
    prompt: str,
    *pictures: Held,
    options: Sequence[tuple[str, ...]] = (("left", " left"), ("right", "Right")),
) -> Choice:
    """A question with pictures; the first option is right."""
    return Choice(
        id=name,
        kind="unambiguous",
        prompt=prompt,
        options=tuple(Option(forms[0], forms) for forms in options),
        truth=0,
        pictures=pictures,
    )


def choices(family: str) -> list[Choice]:
    """Three rows of a picture each and, where the family takes them, one of none and one of two."""
    made = [
        choice("one", "Who is the nurse?", picture(40, 24)),
        choice("other", "A man, or a woman? The answer:", picture(20, 60, 1)),
        choice(
            "third", "Left?", picture(64, 64, 2), options=(("nurse",), ("man", " a man"), ("x",))
        ),
    ]
    if family not in (ONE_NUMBER, NEVER_NONE):
        made.append(choice("words", "Who is the nurse, left or right?"))
    if family != ONE_NUMBER:
        made.append(choice("two", "Which one?", picture(24, 24, 3), picture(30, 20, 4)))
    return made


def scores(policy: Policy, asked: Sequence[Choice], strength: float | list[float]) -> Tensor:
    """(B, K) log-probabilities of the options."""
    with torch.no_grad(), policy.at(strength):
        return policy.option_log_probs(policy.encode(asked))


def answers(
    policy: Policy, asked: Sequence[Choice], strengths: list[float]
) -> list[tuple[int, ...]]:
    """Six tokens at most for each, without its options."""
    given = SteeredPipeline(policy).answers(
        [one.prompt for one in asked],
        strengths,
        Decoding(max_new_tokens=6),
        pictures=[[shown.image for shown in one.pictures] for one in asked],
    )
    return [answer.tokens for answer in given]


def norms_beside(family: str) -> list[str]:
    """The norms outside the language backbone that a prompt's picture goes through."""
    policy = plain(family)
    backbone = set(find_norms(policy.model, final=True, qk=True))
    called: set[str] = set()
    others = [
        (name, module)
        for name, module in policy.model.named_modules()
        if is_norm(module) and name not in backbone
    ]
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, module in others
    ]
    try:
        scores(policy, choices(family)[:1], 0.0)
    finally:
        for hook in hooks:
            hook.remove()
    unread = UNREAD.get(family, ())
    return [n for n, _ in others if n in called and not n.removeprefix("model.").startswith(unread)]


def _alone(policy: Policy, code: EncodedChoice) -> Tensor:
    """(K,) log-probabilities: every form behind the prompt in a pass of its own."""
    found = torch.full((code.options,), -torch.inf)
    for option, tokens in code.forms:
        prompts = policy.prompts([code])
        more = torch.tensor([tokens])
        whole = prompts.extended(more, torch.ones_like(more))
        with torch.no_grad():
            out = policy.forward(whole.ids, whole.mask, keep=len(tokens) + 1, seen=whole)
        logs = out.logits[0, -len(tokens) - 1 : -1].float().log_softmax(-1)
        found[option] = torch.logaddexp(found[option], logs.gather(-1, more.T)[:, 0].sum())
    return found


def _gradients(policy: Policy, asked: Sequence[Choice]) -> dict[str, Tensor | None]:
    """Of every trained vector, with nothing kept but what checkpointing keeps."""
    codes = policy.encode(asked)
    policy.model.zero_grad()
    with checkpointed(policy.model):
        loss = policy.option_log_probs(codes).logsumexp(-1).sum()
    loss.backward()
    return {n: p.grad for n, p in policy.model.named_parameters() if p.requires_grad}


# -- the checks -----------------------------------------------------------------------------------


def a_batch_is_each_form_alone(family: str) -> None:
    """options scored in a batch are those of one row and one form in a plain pass of its own"""
    for policy in (plain(family), shared(family)):
        codes = policy.encode(choices(family))
        with torch.no_grad():
            found = policy.option_log_probs(codes)
        for row, code in zip(found, codes, strict=True):
            torch.testing.assert_close(row[: code.options], _alone(policy, code), **TOLERANCE)


def pictures_matter(family: str) -> None:
    """another picture changes the options' scores, at ω = 0 and at ω = 1"""
    asked = [choice("a", "Who?", picture(32, 32, seed)) for seed in (5, 6)]
    for strength in (0.0, 1.0):
        one, other = scores(shared(family), asked, strength)
        assert (one - other).abs().max() > 1e-3


def strength_zero_is_the_base(family: str) -> None:
    """ω = 0 is the base bit for bit, in scores and in answers; ω = 1 changes both"""
    asked = choices(family)
    base, policy = plain(family), shared(family)
    expected = scores(base, asked, 0.0)
    assert torch.equal(scores(policy, asked, 0.0), expected)
    assert torch.equal(scores(policy, asked, [0.0] * len(asked)), expected)
    change = (scores(policy, asked, 1.0) - expected).nan_to_num(0).abs().amax(-1)
    assert change.min() > 1e-3
    off = [0.0] * len(asked)
    assert answers(policy, asked, off) == answers(base, asked, off)
    assert answers(policy, asked, [1.0] * len(asked)) != answers(base, asked, off)


def every_row_has_its_own_strength(family: str) -> None:
    """a row of a batch with a strength per row is the row alone, in scores and in answers"""
    policy, asked = shared(family), choices(family)
    strengths = [0.0, 1.0, 0.5, 1.0, 0.3][: len(asked)]
    together, said = scores(policy, asked, strengths), answers(policy, asked, strengths)
    for row, answer, one, omega in zip(together, said, asked, strengths, strict=True):
        own = scores(policy, [one], omega)[0]
        torch.testing.assert_close(row[: len(own)], own, **TOLERANCE)
        assert answers(policy, [one], [omega]) == [answer]


def sampling_shares_the_prompt(family: str) -> None:
    """answers drawn behind one shared encoding of a prompt are those drawn without"""
    policy = shared(family)
    codes = policy.encode(choices(family)[:3])

    def drawn() -> list[list[tuple[int, ...]]]:
        # The likeliest, for one way uses more random numbers than the other.
        likeliest = partial(dso.sampling.own_distribution, greedy=True)
        with patch("dso.sampling.own_distribution", likeliest):
            return sample_tokens(policy, codes, Sampling(3, 4), torch.Generator().manual_seed(0))

    found = drawn()
    assert len(found) == 3 and all(len(answer) > 0 for row in found for answer in row)
    with patch("dso.sampling._shareable_cache", lambda model: None):
        assert drawn() == found


def gradients_reach_the_adapter(family: str) -> None:
    """every vector of the adapter has a gradient, the same with gradient checkpointing"""
    policy, asked = steered(family), choices(family)[:2]
    codes = policy.encode(asked)
    policy.option_log_probs(codes).logsumexp(-1).sum().backward()
    whole = {n: p.grad for n, p in policy.model.named_parameters() if p.requires_grad}
    assert len(whole) == 2 * len(find_norms(policy.model, final=False, qk=False))
    again = _gradients(policy, asked)
    for name, gradient in whole.items():
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-6)


def a_folder_is_loaded(family: str) -> None:
    """model, processor and adapter, saved and loaded by `Policy.from_pretrained`, are the same"""
    base, policy, asked = plain(family), shared(family), choices(family)
    with tempfile.TemporaryDirectory() as place:
        base.model.save_pretrained(Path(place, "model"))
        base.eyes.processor.save_pretrained(Path(place, "model"))
        save_adapter(policy.model, Path(place, "adapter"))
        loaded = Policy.from_pretrained(Path(place, "model"), Path(place, "adapter"), loading=EAGER)
    assert type(loaded.eyes.processor) is type(base.eyes.processor)
    kept = loaded.model.state_dict()
    for name, value in policy.model.state_dict().items():
        assert torch.equal(kept.pop(name), value), name
    assert not kept
    # Where there is torchvision it resizes the pictures of a loaded processor, and rounds in
    # another way than Pillow.
    loaded.eyes.processor.image_processor = base.eyes.processor.image_processor
    for strength in (0.0, 1.0):
        found, wanted = (scores(one, asked, strength) for one in (loaded, policy))
        torch.testing.assert_close(found, wanted, **TOLERANCE)


def the_language_backbone_is_steered(family: str) -> None:
    """the norms steered by default are the language backbone's, none beside it"""
    policy = shared(family)
    wrapped = [n for n, m in policy.model.get_base_model().named_modules() if _wraps(m)]
    assert wrapped == list(policy.model.describe().names)
    assert wrapped == find_norms(plain(family).model, final=False, qk=False)
    assert not set(wrapped) & set(norms_beside(family))
    # What the tower makes of a picture is the same at every strength.
    codes = policy.encode(choices(family)[:1])
    tower = {name: [] for name in norms_beside(family)}
    modules = dict(policy.model.get_base_model().named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda _, __, out, name=name: tower[name].append(out))
        for name in tower
    ]
    try:
        for strength in (0.0, 1.0):
            with torch.no_grad(), policy.at(strength):
                policy.option_log_probs(codes)
    finally:
        for hook in hooks:
            hook.remove()
    for name, seen in tower.items():
        half = len(seen) // 2
        assert half and all(map(torch.equal, seen[:half], seen[half:])), name


def _wraps(module: torch.nn.Module) -> bool:
    return isinstance(module, AffineSteering)


def tower_and_projector_are_steered(family: str) -> None:
    """norms of image tower and projector are steered where `target_modules` names them, and then
    what is said of pictures alone"""
    names = norms_beside(family)
    policy = steered(family, SteeringConfig(target_modules=names))
    assert list(policy.model.describe().names) == names
    asked, words = choices(family)[:2], [choice("words", "Who is the nurse, left or right?")]
    off = scores(plain(family), asked, 0.0)
    assert torch.equal(scores(policy, asked, 0.0), off)
    assert (scores(policy, asked, 1.0) - off).abs().amax(-1).min() > 1e-4
    assert torch.equal(scores(policy, words, 1.0), scores(plain(family), words, 0.0))
    found = _gradients(policy, asked)
    assert len(found) == 2 * len(names)
    for name, gradient in found.items():
        assert gradient is not None and gradient.any(), name


def folded_is_live(family: str) -> None:
    """trained foldable and folded, the stock checkpoint scores pictures as the live adapter does"""
    policy = steered(family, SteeringConfig(only_foldable=True))
    asked = choices(family)
    prompts = policy.prompts(policy.encode(asked))
    inputs = {"input_ids": prompts.ids, "attention_mask": prompts.mask, **prompts.inputs}
    if prompts.positions is not None:
        inputs["position_ids"] = prompts.positions
    with tempfile.TemporaryDirectory() as place:
        result = fold(policy.model, 0.5, Path(place, "folded"), [inputs])
        model = load_base(Path(place, "folded"), EAGER)
    stock = Policy(model, policy.tokenizer, processor=policy.eyes.processor)
    assert result.left_out == () and result.effect > 1e3 * result.difference
    assert not any(map(_wraps, stock.model.modules()))
    live = scores(policy, asked, 0.5)
    torch.testing.assert_close(scores(stock, asked, 0.0), live, **TOLERANCE)
    assert (live - scores(policy, asked, 0.0)).nan_to_num(0).abs().max() > 1e-3


CHECKS: dict[str, Callable[[str], None]] = {
    check.__name__: check
    for check in (
        a_folder_is_loaded,
        a_batch_is_each_form_alone,
        pictures_matter,
        strength_zero_is_the_base,
        every_row_has_its_own_strength,
        sampling_shares_the_prompt,
        gradients_reach_the_adapter,
        folded_is_live,
        the_language_backbone_is_steered,
        tower_and_projector_are_steered,
    )
}

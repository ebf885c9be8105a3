"""A base spread over two processes computes what one process does with both batches."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from dso.checkpointing import checkpointed
from dso.encoding import EncodedChoice
from dso.policy import Policy
from dso.sampling import Sampling, sample_tokens
from dso.scoring import Scores
from dso.tasks import ChoiceDataModule
from dso.training import Objective, SaveAdapter, processes
from dso.training.sharding import ShardedStrategy, average_gradients, shard
from tests.organism import module, organism, small_task, trainer
from tests.steering.steered import steer
from tests.tiny_models import tiny_gemma2, tiny_llama
from tests.tiny_tokenizers import tiny_tokenizer
from tests.together import double, together

MODELS = {"llama": tiny_llama, "gemma2": tiny_gemma2}
CASES = [(family, again) for family in MODELS for again in (False, True)]
STEPS = 4


def made_up(length: int, *options: tuple[tuple[int, ...], ...]) -> EncodedChoice:
    """A choice of random prompt tokens; the right answer is the last option."""
    generator = torch.Generator().manual_seed(length)
    prompt = tuple(torch.randint(3, 64, (length,), generator=generator).tolist())
    forms = tuple((index, form) for index, forms in enumerate(options) for form in forms)
    return EncodedChoice(f"{length}", prompt, forms, len(options), options[-1][0])


# Only the first process has answers of several tokens, and so a second forward pass of its own.
SHARES = (
    [made_up(9, ((7, 8),), ((7, 9, 10), (11,))), made_up(40, ((20,), (21, 22)), ((23, 24, 25),))],
    [made_up(4, ((7,), (8,)), ((9,),)), made_up(7, ((5,),), ((6,), (4,)))],
)
BOTH = [choice for share in SHARES for choice in share]


def policy(family: str) -> Policy:
    return Policy(steer(MODELS[family]()), tiny_tokenizer())


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def scored(policy: Policy, batch: list[EncodedChoice], again: bool) -> tuple[Scores, Scores]:
    """Scores of the steered and of the base model; the first give the adapter a gradient."""
    with checkpointed(policy.model) if again else nullcontext():
        steered = policy.score(batch, range(len(batch)), by_token=True)
    with torch.no_grad(), policy.base():
        base = policy.score(batch, range(len(batch)))
    weights = torch.tensor([1.0, -2.0])
    loss = (steered.options.softmax(-1) * weights).sum(-1).mean()
    distance = steered.answers.exp() * (steered.answers - base.answers)
    (loss + 0.1 * steered.mean_by_row(distance.sum(-1)).mean()).backward()
    return steered, base


def fit(folder: Path, share: int) -> dict[str, Any]:
    """Train the organism with one `share`-th of a batch; its adapter and figures."""
    run = module(objective=Objective(option_mass=0))
    make = run.configure_model

    def make_double() -> None:
        make()
        run.adapted.double()

    run.configure_model = make_double
    settings: dict[str, Any] = {}
    if share > 1:
        settings = {"devices": share, "strategy": ShardedStrategy()}
    loop = trainer(
        folder,
        STEPS,
        SaveAdapter(str(folder / f"adapter-{share}")),
        limit_val_batches=1.0,
        val_check_interval=STEPS,
        check_val_every_n_epoch=None,
        gradient_clip_val=0.5,
        accumulate_grad_batches=2,
        **settings,
    )
    # Every second choice of a kind has an answer of two tokens.
    task = small_task(forms=[" {}", " the {}"])
    with double():
        loop.fit(run, ChoiceDataModule(task, 4 // share, 8 // share, evaluation_batch=7))
    loop.save_checkpoint(folder / f"{share}.ckpt")
    return {
        "adapter": {name: p.detach() for name, p in trained(run.adapted).items()},
        "figures": {n: float(v) for n, v in loop.callback_metrics.items() if n.startswith("val/")},
        "cut": sum(isinstance(p, DTensor) for p in run.adapted.parameters()),
    }


# -- in each process ----------------------------------------------------------------------------


def scores() -> list[dict[str, Any]]:
    mesh = init_device_mesh("cpu", (processes.world_size(),))
    results = []
    for family, again in CASES:
        mine = policy(family)
        shard(mine.model, mesh)
        mine.anyone = processes.anyone
        steered, base = scored(mine, SHARES[processes.rank()], again)
        average_gradients(trained(mine.model).values())
        base_weights = [p for p in mine.model.parameters() if not p.requires_grad]
        results.append(
            {
                "steered": vars(steered),
                "base": vars(base),
                "gradients": {name: p.grad for name, p in trained(mine.model).items()},
                "held": sum(p.to_local().numel() for p in base_weights),
                "whole": sum(p.numel() for p in base_weights),
            }
        )
    return results


def answers(cut: bool) -> list[list[tuple[int, ...]]]:
    """Answers that end at once in the first process, and never in the other."""
    mine = policy("llama")
    if cut:
        shard(mine.model, init_device_mesh("cpu", (processes.world_size(),)))
        mine.anyone = processes.anyone
    ends = frozenset(range(64) if processes.rank() == 0 else ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Policy, "end_ids", ends)
        draws = torch.Generator().manual_seed(processes.rank())
        share = SHARES[processes.rank()]
        return sample_tokens(mine, share, Sampling(3, 4), draws, synced=mine.synced)


def embedded(cut: bool) -> torch.Tensor:
    """Embeddings looked up before any call of the model, then a pass from them."""
    mine = policy("llama")
    if cut:
        shard(mine.model, init_device_mesh("cpu", (processes.world_size(),)))
        mine.anyone = processes.anyone
    ids, mask = mine.left_pad([choice.prompt for choice in SHARES[processes.rank()]])
    vectors = mine.model.get_input_embeddings()(ids)
    output = mine.model(inputs_embeds=vectors, attention_mask=mask, use_cache=False)
    output.logits[:, -1].logsumexp(-1).sum().backward()
    return torch.cat([p.grad.flatten() for p in trained(mine.model).values()])


def everything(folder: Path) -> dict[str, Any]:
    drawn = [answers(cut) for cut in (True, False)]
    return {
        "embedded": [embedded(cut) for cut in (True, False)],
        "scores": scores(),
        "answers": drawn,
        "fit": fit(folder, 2),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def two(folder):
    """What `everything` returned in both."""
    return together(folder, everything, folder)


# -- and outside of them ------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{f}-{a}" for f, a in CASES])
def test_a_sharded_model_scores_as_the_whole_one(two, case):
    steered, base = scored(policy(CASES[case][0]), BOTH, CASES[case][1])
    for rank, each in enumerate(two):
        rows = slice(2 * rank, 2 * rank + 2)
        for name, whole in (("steered", steered), ("base", base)):
            mine = each["scores"][case][name]
            torch.testing.assert_close(mine["options"], whole.options[rows], atol=1e-6, rtol=0)
            for row in range(2):
                torch.testing.assert_close(
                    mine["answers"][mine["answer_rows"] == row],
                    whole.answers[whole.answer_rows == 2 * rank + row],
                    atol=2e-6,
                    rtol=0,
                )


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{f}-{a}" for f, a in CASES])
def test_averaged_gradients_are_those_of_both_batches(two, case):
    whole = policy(CASES[case][0])
    scored(whole, BOTH, CASES[case][1])
    wanted = {name: p.grad for name, p in trained(whole.model).items()}
    assert max(float(g.abs().max()) for g in wanted.values()) > 1e-2
    for each in two:
        for name, gradient in each["scores"][case]["gradients"].items():
            torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=0)


def test_a_process_whose_answers_have_ended_waits_for_the_others(two):
    for rank, each in enumerate(two):
        sharded, whole = each["answers"]
        assert sharded == whole
        assert {len(tokens) for row in sharded for tokens in row} == {4 if rank else 1}


def test_embeddings_can_be_looked_up_alone(two):
    for sharded, whole in (each["embedded"] for each in two):
        torch.testing.assert_close(sharded, whole, atol=1e-5, rtol=1e-5)


def test_each_process_holds_its_part_of_the_base(two):
    for parts in zip(*(each["scores"] for each in two), strict=True):
        assert sum(part["held"] for part in parts) == parts[0]["whole"]
        assert max(part["held"] for part in parts) < 0.55 * parts[0]["whole"]


def test_a_sharded_run_is_the_run_of_one_process(two, folder):
    one = fit(folder, 1)
    assert one["cut"] == 0
    assert max(float(p.abs().max()) for p in one["adapter"].values()) > 1e-3
    for each in (both["fit"] for both in two):
        assert each["cut"] > 30
        assert each["figures"] == pytest.approx(one["figures"], abs=1e-9)
        for name, vector in one["adapter"].items():
            torch.testing.assert_close(each["adapter"][name], vector, atol=1e-12, rtol=0)
    kept = [torch.load(folder / f"{n}.ckpt", weights_only=False) for n in (1, 2)]
    assert kept[0].keys() == kept[1].keys()
    assert kept[0]["state_dict"].keys() == kept[1]["state_dict"].keys()
    saved = Policy.from_pretrained(organism(), folder / "adapter-2", trainable=True)
    for name, vector in trained(saved.model).items():
        torch.testing.assert_close(vector, one["adapter"][name].float(), atol=1e-7, rtol=0)


def test_a_quantised_base_is_refused():
    model = steer(tiny_llama())
    model.get_base_model().is_quantized = True
    with pytest.raises(ValueError, match="quantised base cannot be sharded; set loading"):
        shard(model, None)

"""Train the vision-language organism: first to see (`vlm_sight`), then to answer (`scene_corpus`).

In the second stage the tower is frozen, as in a published LLaVA: what it makes of the pictures is
computed once, and as long as the decoder cannot tell left from right, its gradient is noise that
undoes what the tower has learnt. Matrices are trained by Muon, all else by AdamW: with AdamW alone
"who is the nurse?" stayed at chance for 1,500 steps, among other questions and by itself.

The rows of a step are shared out among threads, each with a model of its own on the same weights,
and the gradients are summed. On small matrices this is faster than to compute every operation with
several threads, and a busy core slows it down once a step instead of once an operation.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from dso.organisms.scene_corpus import Step, Steps, draw_scene
from dso.organisms.vlm import IMAGE, LEVELS, VlmRecipe, build_model, build_processor
from dso.organisms.vlm_sight import Sight, sight_loss, targets, whose
from dso.scenes.attributes import Scene
from dso.scenes.drawing import render

SAVE_EVERY = 500
"""Steps between two states that an interrupted run goes on from."""
SEEN = 256
"""Pictures that the frozen tower looks at at a time."""


def draw_pool(recipe: VlmRecipe) -> list[Scene]:
    """The scenes that an organism is trained on."""
    rng = np.random.default_rng((recipe.seed, 0))
    return [draw_scene(rng) for _ in range(recipe.scenes)]


def pictures(scenes: Sequence[Scene], size: int) -> Tensor:
    """(N, 3, size, size), levels from 0 to 255."""
    drawn = np.stack([np.asarray(render(scene, size)) for scene in scenes])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


def as_input(levels: Tensor) -> Tensor:
    """Pixel values as the processor makes them of pictures of the model's size."""
    return (levels.float() / 255 - LEVELS) / LEVELS


def visible(branch: Tensor) -> Tensor:
    """Who sees whom: (B, 1, T, T), of (B, T) branch numbers.

    A token sees itself, and what stands before it in its own branch and in branch 0.
    """
    seer, seen = branch[:, :, None], branch[:, None, :]
    length = branch.shape[1]
    before = torch.ones(length, length, dtype=torch.bool).tril()
    itself = torch.eye(length, dtype=torch.bool)
    return (((seen == 0) | (seer == seen)) & before | itself)[:, None]


@torch.no_grad()
def seen(model: LlavaForConditionalGeneration, images: Tensor) -> Tensor:
    """(N, visual tokens, width) of the vision tower, as the projector gets them.

    Args:
        model: whose tower looks.
        images: (N, 3, size, size), levels from 0 to 255.
    """
    tower: Any = model.model.vision_tower
    parts = [
        tower(as_input(some), output_hidden_states=True).hidden_states[-1][:, 1:]
        for some in images.split(SEEN)
    ]
    return torch.cat(parts)


def loss_of(
    model: LlavaForConditionalGeneration, step: Step, features: Tensor
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the tokens' losses, and the sum of the weights.

    Args:
        model: its projector and decoder are used.
        step: B rows.
        features: of the rows with a picture, as `seen` makes them.
    """
    ids, weights = torch.from_numpy(step.ids), torch.from_numpy(step.weights)[:, 1:]
    inner: Any = model.model
    embedded = inner.get_input_embeddings()(ids)
    visual = inner.multi_modal_projector(features)
    hidden = inner.language_model(
        inputs_embeds=embedded.masked_scatter((ids == IMAGE)[..., None], visual),
        attention_mask=visible(torch.from_numpy(step.branch)),
        position_ids=torch.from_numpy(step.positions),
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(hidden[:, :-1])
    losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses.view_as(weights) * weights).sum(), weights.sum()


class Workers:
    """Threads that compute the gradient of a step together.

    Args:
        model: whose gradient; the workers have its weights, not copies of them.
        count: of threads.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self.count = count
        self._models = [model]
        for _ in range(count - 1):
            other = copy.deepcopy(model)
            for own, shared in zip(other.parameters(), model.parameters(), strict=True):
                own.data = shared.data
            self._models.append(other)
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, loss: Callable[[Any, slice], Tensor]) -> float:
        """Put the gradient of a sum of losses into the model.

        Args:
            loss: that of a share of the rows, as computed by the model it is given.

        Returns:
            The sum.
        """

        def one(number: int) -> float:
            own = loss(self._models[number], slice(number, None, self.count))
            own.backward()
            return own.item()

        losses = list(self._pool.map(one, range(self.count)))
        for other in self._models[1:]:
            for parameter, same in zip(
                self._models[0].parameters(), other.parameters(), strict=True
            ):
                if parameter.grad is not None and same.grad is not None:
                    parameter.grad += same.grad
                same.grad = None
        return sum(losses)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _share(
    step: Step, features: Tensor, model: LlavaForConditionalGeneration, own: slice
) -> Tensor:
    """What some rows of a step add to the mean loss of all."""
    return loss_of(model, step.rows(own), features[own])[0] / float(step.weights[:, 1:].sum())


def rate(step: int, warm_up: int, steps: int) -> float:
    """Share of the peak learning rate: up in a line, down in half a cosine."""
    return min(1.0, (step + 1) / (warm_up + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def train_vlm(
    recipe: VlmRecipe, state: Path | None = None, *, progress: bool = True
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Train an organism from scratch.

    Args:
        recipe: how.
        state: file that an interrupted run goes on from, where it is there, and that is written
            every `SAVE_EVERY` steps and removed at the end.
        progress: show a bar and the loss.

    Raises:
        ValueError: the file is of another recipe.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the workers are the threads
    try:
        return _train(recipe, state, progress)
    finally:
        torch.set_num_threads(threads)


def _train(
    recipe: VlmRecipe, state: Path | None, progress: bool
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    processor = build_processor(recipe)
    model = build_model(recipe, len(processor.tokenizer)).train()
    scenes = draw_pool(recipe)
    images = pictures(scenes, recipe.image)
    if state is None or not state.is_file():
        learn_to_see(model, processor.tokenizer.get_vocab(), recipe, scenes, images, progress)
    inner: Any = model.model
    inner.vision_tower.requires_grad_(requires_grad=False)
    optimizers = _optimizers(model, recipe)
    schedules: dict[str, Any] = {
        f"{name}_schedule": torch.optim.lr_scheduler.LambdaLR(
            optimizer, partial(rate, warm_up=recipe.warm_up, steps=recipe.steps)
        )
        for name, optimizer in optimizers.items()
    }
    parts: dict[str, Any] = {"model": model, **optimizers, **schedules}
    first = _resume(parts, recipe, state)
    features = seen(model, images)
    del images
    steps = Steps(recipe, scenes, processor.tokenizer.get_vocab())
    # Questions are made in a process of its own; step by step they are the same in any.
    loader = DataLoader(
        Subset(steps, range(first, recipe.steps)), batch_size=None, num_workers=1,
        prefetch_factor=8, collate_fn=_as_it_is,
    )  # fmt: skip
    workers = Workers(model, recipe.workers)
    columns = (*Progress.get_default_columns()[:3], TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, disable=not progress) as bar:
            task = bar.add_task("training the organism", total=recipe.steps, completed=first)
            began, smooth = time.perf_counter(), 0.0
            for number, step in enumerate(loader, first + 1):
                loss = workers.backward(partial(_share, step, features[step.scenes]))
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optimizer in optimizers.values():
                    optimizer.step()
                for schedule in schedules.values():
                    schedule.step()
                model.zero_grad(set_to_none=True)
                smooth = loss if number == first + 1 else 0.98 * smooth + 0.02 * loss
                if progress and number % 100 == 0:
                    speed = (number - first) / (time.perf_counter() - began)
                    bar.console.print(
                        f"step {number}/{recipe.steps} loss {smooth:.4f}, {speed:.2f} steps/s"
                    )
                if state and number % SAVE_EVERY == 0:
                    kept = {name: part.state_dict() for name, part in parts.items()}
                    torch.save({**kept, "step": number, "recipe": asdict(recipe)}, state)
                bar.advance(task)
    finally:
        workers.close()
    if state:
        state.unlink(missing_ok=True)
    return model.eval().requires_grad_(), processor


def _optimizers(
    model: LlavaForConditionalGeneration, recipe: VlmRecipe
) -> dict[str, torch.optim.Optimizer]:
    """Muon for the matrices of the decoder's blocks and of the projector, AdamW for the rest."""
    words = model.get_input_embeddings().weight
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.dim() == 2 and p is not words]
    rest = [p for p in trained if p.dim() != 2 or p is words]
    muon = torch.optim.Muon(
        matrices, lr=recipe.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    return {"muon": muon, "adamw": _adamw(rest, recipe.learning_rate)}


def _adamw(parameters: Iterable[nn.Parameter], peak: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def learn_to_see(
    model: LlavaForConditionalGeneration,
    token_of: Mapping[str, int],
    recipe: VlmRecipe,
    scenes: Sequence[Scene],
    images: Tensor,
    progress: bool,
) -> None:
    """Train the vision tower, the projector and the words in place, as `vlm_sight` says.

    Args:
        model: with random weights.
        token_of: id by word.
        recipe: how.
        scenes: the pool.
        images: their pictures, (N, 3, size, size), levels from 0 to 255.
        progress: show a bar and the loss.
    """
    torch.manual_seed(recipe.seed)
    sight = Sight(model, token_of).train()
    wanted = targets(scenes)
    shown = whose(scenes, recipe.image, recipe.patch)
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = _adamw(sight.parameters(), recipe.learning_rate)
    workers = Workers(sight, recipe.workers)

    def loss(own_sight: Sight, own: slice) -> Tensor:
        rows = chosen[own]
        mine = {name: values[rows] for name, values in wanted.items()}
        given = (as_input(images[rows]), mine, shown[rows])
        return sight_loss(own_sight, *given) * len(rows) / len(chosen)

    try:
        with Progress(disable=not progress) as bar:
            task = bar.add_task("learning to see", total=recipe.sight_steps)
            for step in range(recipe.sight_steps):
                share = rate(step, recipe.warm_up, recipe.sight_steps)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * share
                chosen = torch.randint(len(scenes), (recipe.pictures_seen,), generator=generator)
                value = workers.backward(loss)
                torch.nn.utils.clip_grad_norm_(sight.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if progress and step % 100 == 99:
                    bar.console.print(f"sight {step + 1}/{recipe.sight_steps} loss {value:.4f}")
                bar.advance(task)
    finally:
        workers.close()
    _level(sight, as_input(images[:SEEN]))


@torch.no_grad()
def _level(sight: Sight, pixels: Tensor) -> None:
    """Make visual tokens as large as words are, which the loss of the first stage leaves open."""
    share = sight.words.weight.std() / sight.tokens(pixels).std()
    for parameter in sight.projector.linear_2.parameters():
        parameter.mul_(share)


def _as_it_is(step: Any) -> Any:
    return step


def _resume(parts: dict[str, Any], recipe: VlmRecipe, state: Path | None) -> int:
    """Load the state of an interrupted run, and say how many steps it had made."""
    if state is None or not state.is_file():
        return 0
    kept = torch.load(state, weights_only=True)
    if kept["recipe"] != asdict(recipe):
        raise ValueError(
            f"{state} is of another recipe ({kept['recipe']}); remove it, or give the same options"
        )
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    return int(kept["step"])

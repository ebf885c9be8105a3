"""Time and memory of training and answering with pictures, on a Qwen2.5-VL with random weights.

    python -m scripts.benchmarks.vlm [--plain] [--output runs/benchmark]    (needs a GPU)
    python -m scripts.benchmarks.vlm --tiny                                 (any computer)

The model has the sizes of the published 7B model and is built on the device in bfloat16, so nothing
is downloaded; weights alone take 16 GiB. Pictures are random pixels, each another one, which the
family's own image processor cuts into patches: 896 x 896 pixels become 1,024 visual tokens.

A training step is that of `scripts.benchmarks.step`, exact and with all its terms: half of the
prompts are ambiguous twins, half have a right answer and the KL to the base. It is taken with
gradient checkpointing and, with --plain, without, for which 16 prompts of this length should need
more than 80 GiB. The pictures are processed once, before; what that takes is measured by itself.
Answers are those of `dso.inference`, in one batch, at strength 0, the base, and at 1: the time to
the first token, and to the last. Tokens are counted once, although a step reads them twice.

A token of the language model takes 6 N FLOPs a step (see there) and a patch of a picture 4 M, for
the tower has no gradient: M are the tower's parameters, N those of the decoder's blocks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from dso.inference import Decoding, SteeredPipeline
from dso.policy import Policy
from dso.report import Result, write_results
from dso.steering import language_backbone
from dso.tasks import Choice
from scripts.benchmarks.paired import now
from scripts.benchmarks.qwen_vl import FULL, TINY, Size, random_choices, random_policy
from scripts.benchmarks.step import (
    FLOPS_A_TOKEN,
    GIB,
    Batch,
    device_name,
    matmul_rate,
    measure,
)

FLOPS_A_PATCH = 4
"""Per parameter of the tower: forward only, at strength 1 and for the base."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="the same architecture with 350,000 weights and pictures of 36 visual tokens, "
        "to see that it works; the only way that needs no GPU",
    )
    parser.add_argument(
        "--plain", action="store_true", help="also take the step without gradient checkpointing"
    )
    parser.add_argument(
        "--prompts", type=int, default=16, help="of a step: half twins, half KL pool (default: 16)"
    )
    parser.add_argument("--answers", type=int, default=8, help="in one batch (default: 8)")
    parser.add_argument(
        "--warmup", type=int, default=1, help="steps that do not count (default: 1)"
    )
    parser.add_argument("--steps", type=int, default=3, help="steps measured (default: 3)")
    parser.add_argument(
        "--device", help="where to run (default: cuda; with --tiny cuda where there is one, or cpu)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, words and pictures")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/benchmark"),
        help="folder for results.jsonl (default: runs/benchmark)",
    )
    given = parser.parse_args()
    gpu = torch.cuda.is_available()
    if not (given.tiny or gpu or given.device):
        parser.error("the 7B size needs a GPU and there is none here; --tiny needs none")
    if given.prompts < 4 or given.prompts % 4:
        parser.error(
            f"--prompts is {given.prompts}; wanted a multiple of 4: half are twins, half have a "
            "right answer"
        )
    if min(given.answers, given.steps) < 1 or given.warmup < 0:
        parser.error(
            f"--answers is {given.answers}, --steps {given.steps} and --warmup {given.warmup}; "
            "wanted at least 1, 1 and 0"
        )
    results = run(
        TINY if given.tiny else FULL,
        given.prompts, given.answers, given.warmup, given.steps,
        given.device or ("cuda" if gpu else "cpu"), given.seed, given.plain,
    )  # fmt: skip
    write_results(given.output / "results.jsonl", results)
    print(f"written to {given.output / 'results.jsonl'}")


def run(
    size: Size,
    prompts: int,
    answers: int,
    warmup: int,
    steps: int,
    device: str,
    seed: int,
    plain: bool = False,
) -> list[Result]:
    """Build the model, take steps and answer, print the figures and return them."""
    policy = random_policy(size, device, seed)
    base = policy.model.get_base_model()
    weights = [p for p in policy.model.parameters() if not p.requires_grad]
    counts = {
        "parameters": sum(p.numel() for p in weights),
        "parameters_of_the_blocks": _blocks(policy),
        "parameters_of_the_tower": sum(p.numel() for p in base.model.visual.parameters()),
        "trained_parameters": sum(p.numel() for p in policy.model.parameters() if p.requires_grad),
        "weights_gib": sum(p.numel() * p.element_size() for p in weights) / GIB,
        "matmul_tflops": matmul_rate(policy.device) / 1e12,
    }
    print(
        f"{size.name}: {counts['parameters']:,} parameters, {counts['trained_parameters']:,} "
        f"trained, on {device}; weights {counts['weights_gib']:.2f} GiB"
    )
    started = time.perf_counter()
    asked = random_choices(size, prompts, seed)
    encoded = policy.encode(asked)
    counts["seconds_per_picture_processed"] = (time.perf_counter() - started) / prompts
    given = Batch(asked, encoded)
    piece = base.config.image_token_id
    counts["visual_tokens"] = sum(code.prompt.count(piece) for code in encoded)
    counts["text_tokens"] = sum(len(code.prompt) for code in encoded) - counts["visual_tokens"]

    results = []
    for way in ("checkpointed", "plain") if plain else ("checkpointed",):
        figures = counts | _step(policy, given, way, warmup, steps, counts)
        results += _rows(figures, size, policy, way, 1.0, prompts, steps, seed)
    for strength in (0.0, 1.0):
        figures = _answering(policy, asked[:answers], size, strength, steps)
        results += _rows(figures, size, policy, "answers", strength, answers, steps, seed)
    return results


def _blocks(policy: Policy) -> int:
    """Parameters of the decoder's blocks, without embedding, output layer, tower and adapter."""
    backbone = language_backbone(policy.model)
    frozen = sum(p.numel() for p in backbone.parameters() if not p.requires_grad)
    return frozen - policy.model.get_base_model().get_input_embeddings().weight.numel()


# -- measuring ------------------------------------------------------------------------------------


def _step(
    policy: Policy, given: Batch, way: str, warmup: int, steps: int, counts: dict[str, float]
) -> dict[str, float]:
    """Figures of one way of taking the training step."""
    measured = measure(policy, given, way, warmup, steps)
    seconds = statistics.median(measured.seconds)
    visual, text = counts["visual_tokens"], counts["text_tokens"]
    # Four patches become one visual token.
    flops = FLOPS_A_TOKEN * counts["parameters_of_the_blocks"] * (visual + text)
    flops += FLOPS_A_PATCH * counts["parameters_of_the_tower"] * 4 * visual
    figures = {
        "seconds_per_step": seconds,
        "visual_tokens_per_second": visual / seconds,
        "text_tokens_per_second": text / seconds,
        "share_of_matmul_rate": flops / seconds / (counts["matmul_tflops"] * 1e12),
        "peak_memory_gib": measured.memory / GIB,
        "last_loss": measured.loss,
    }
    print(
        f"step, {way}: {seconds:.3f} s ({min(measured.seconds):.3f} to "
        f"{max(measured.seconds):.3f}), {figures['visual_tokens_per_second']:,.0f} visual and "
        f"{figures['text_tokens_per_second']:,.0f} text tokens/s, "
        f"{figures['share_of_matmul_rate']:.0%} of the rate of products, "
        f"{figures['peak_memory_gib']:.2f} GiB"
    )
    return figures


def _answering(
    policy: Policy, asked: list[Choice], size: Size, strength: float, repeats: int
) -> dict[str, float]:
    """Figures of answering a batch, in the median over repetitions."""
    cuda = policy.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(policy.device)
    first, whole, tokens = [], [], 0
    _answer(policy, asked, strength, 2)  # what a device does only once
    for _ in range(repeats):
        first.append(_answer(policy, asked, strength, 1)[0])
        seconds, tokens = _answer(policy, asked, strength, size.new_tokens)
        whole.append(seconds)
    begun, ended = statistics.median(first), statistics.median(whole)
    figures = {
        "seconds_to_first_token": begun,
        "seconds_of_answers": ended,
        "new_tokens": float(tokens),
        "new_tokens_per_second": tokens / ended,
        "visual_tokens_per_second": len(asked) * size.visual / begun,
    }
    if cuda:
        figures["peak_memory_gib"] = torch.cuda.max_memory_allocated(policy.device) / GIB
    print(
        f"answers at strength {strength:g}: {begun:.3f} s to the first token, {ended:.3f} s for "
        f"{tokens} tokens, {figures['new_tokens_per_second']:,.0f} a second"
    )
    return figures


def _answer(
    policy: Policy, asked: list[Choice], strength: float, longest: int
) -> tuple[float, int]:
    """Seconds, and tokens said."""
    started = now(policy.device.type)
    said = SteeredPipeline(policy).answers(
        [choice.prompt for choice in asked],
        [strength],
        Decoding(max_new_tokens=longest),
        pictures=[choice.pictures for choice in asked],
    )
    return now(policy.device.type) - started, sum(len(answer.tokens) for answer in said)


def _rows(
    figures: dict[str, float],
    size: Size,
    policy: Policy,
    experiment: str,
    strength: float,
    prompts: int,
    steps: int,
    seed: int,
) -> list[Result]:
    return [
        Result(
            strength=strength,
            split=f"{prompts} prompts with a picture of {size.visual} visual tokens",
            metric=metric,
            value=float(value),
            low=None,
            high=None,
            n=steps,
            seed=seed,
            estimate="measured",
            model=f"{size.name}, random weights, {device_name(policy.device)}",
            method="dso",
            estimator=None if experiment == "answers" else "exact",
            experiment=experiment,
        )
        for metric, value in figures.items()
    ]


if __name__ == "__main__":
    main()

"""Time, use of the hardware and memory of one exact training step, on a model with random weights.

    python -m scripts.benchmarks.step [--size 8b] [--device cuda] [--output runs/benchmark]

The model is built on the device, so nothing is downloaded. A step is an `exact` training step as
`dso.training.SteeringModule` takes it when it sees its prompts for the first time: they are scored
at strength 1 with gradients and at strength 0 without, the loss has all its terms, half of the
prompts have a right answer and the KL to the base. It is measured with gradient checkpointing and
without. Tokens are those of the prompts, counted once a step although both passes read them.

A token takes 6 N FLOPs: 2 N forward and 2 N backward (no gradients of weights) at strength 1, and
2 N for the base's pass. N are the parameters of the decoder's blocks: the embedding is looked up,
and the output layer sees one position a prompt. Attention's products of activations, and what
checkpointing computes twice, are not counted. Their rate is set beside that of one large product of
two bfloat16 matrices, measured in the same run. Memory is the peak that torch has allocated on the
GPU; on the CPU it is the process' resident size between forward and backward.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from dso.checkpointing import checkpointed
from dso.encoding import EncodedChoice
from dso.metrics import kl_divergence
from dso.policy import Policy
from dso.report import Result, write_results
from dso.rewards import RunningGap
from dso.steering import attach
from dso.tasks import Choice, Option, tabulate
from dso.training import (
    KLBudget,
    KLController,
    Objective,
    Optimisation,
    Scored,
    exact,
    reward,
    step_loss,
)
from scripts.benchmarks.sizes import SIZES, random_llama

GIB = 2**30
FLOPS_A_TOKEN = 6
"""Per parameter of the blocks: 4 trained, 2 for the base."""


@dataclass(frozen=True)
class Batch:
    """One step's prompts, the same at every step."""

    choices: list[Choice]
    encoded: list[EncodedChoice]

    @property
    def ambiguous(self) -> int:
        """How many come before those with a right answer."""
        return len(self.choices) // 2


@dataclass(frozen=True)
class Measured:
    """One way of taking the step, measured."""

    name: str
    seconds: list[float]
    """Of every measured step."""
    memory: int
    """Peak, in bytes."""
    loss: float
    """Of the last step; the same whichever way, up to rounding."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--size", choices=list(SIZES), default="8b", help="size of the Llama")
    parser.add_argument("--prompts", type=_positive, default=32, help="prompts a step")
    parser.add_argument("--length", type=_positive, default=64, help="tokens a prompt")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the measured ones")
    parser.add_argument("--steps", type=_positive, default=5, help="steps measured")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to run"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and prompts")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/benchmark"), help="folder for results.jsonl"
    )
    arguments = parser.parse_args()
    if arguments.prompts % 4:
        parser.error(
            f"--prompts is {arguments.prompts}; wanted a multiple of 4: half are twins, half have "
            "a right answer"
        )
    results = run(
        arguments.size, arguments.prompts, arguments.length, arguments.warmup, arguments.steps,
        arguments.device, arguments.seed,
    )  # fmt: skip
    write_results(arguments.output / "results.jsonl", results)
    print(f"written to {arguments.output / 'results.jsonl'}")


def run(
    size: str, prompts: int, length: int, warmup: int, steps: int, device: str, seed: int
) -> list[Result]:
    """Build the model, measure the step both ways, print the figures and return them."""
    policy = build(size, device, seed)
    given = batch(prompts, length, SIZES[size]["vocab_size"], seed)
    trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    weights = [p for p in policy.model.parameters() if not p.requires_grad]
    inside = blocks(policy)
    rate = matmul_rate(policy.device)
    counts = {
        "parameters": sum(p.numel() for p in weights),
        "parameters_of_the_blocks": inside,
        "trained_parameters": trained,
        "weights_gib": sum(p.numel() * p.element_size() for p in weights) / GIB,
        "matmul_tflops": rate / 1e12,
    }
    print(
        f"Llama {size}: {counts['parameters']:,} parameters, {trained:,} trained, on {device}; "
        f"weights {counts['weights_gib']:.2f} GiB, products at {rate / 1e12:.2f} TFLOP/s"
    )
    results = []
    # Checkpointed first: a process on the CPU does not give its memory back.
    for name in ("checkpointed", "plain"):
        measured = measure(policy, given, name, warmup, steps)
        seconds = statistics.median(measured.seconds)
        speed = prompts * length / seconds
        figures = counts | {
            "seconds_per_step": seconds,
            "tokens_per_second": speed,
            "share_of_matmul_rate": FLOPS_A_TOKEN * inside * speed / rate,
            "peak_memory_gib": measured.memory / GIB,
            "memory_beside_weights": measured.memory / GIB / counts["weights_gib"],
            "last_loss": measured.loss,
        }
        print(
            f"{name:>12}: {seconds:.3f} s a step ({min(measured.seconds):.3f} to "
            f"{max(measured.seconds):.3f}), {speed:,.0f} tokens/s, "
            f"{figures['share_of_matmul_rate']:.0%} of that rate, "
            f"{figures['peak_memory_gib']:.2f} GiB ({figures['memory_beside_weights']:.2f} times "
            f"the weights), last loss {measured.loss:.6f}"
        )
        results += [
            Result(
                strength=1.0,
                split=f"{prompts} prompts of {length} random tokens",
                metric=metric,
                value=float(value),
                low=None,
                high=None,
                n=steps,
                seed=seed,
                estimate="measured",
                model=f"llama-{size}, random weights, {device_name(policy.device)}",
                method="dso",
                estimator="exact",
                experiment=name,
            )
            for metric, value in figures.items()
        ]
    return results


def build(size: str, device: str, seed: int) -> Policy:
    """A random Llama in bfloat16 with the default adapter."""
    model = attach(random_llama(size, device, seed, torch.bfloat16)).eval()
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 2}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"
    )
    return Policy(model, tokenizer)


def blocks(policy: Policy) -> int:
    """Parameters of the base but for its embedding and its output layer."""
    base = policy.model.get_base_model()
    outside = {*base.get_input_embeddings().parameters()}
    outside |= {*base.get_output_embeddings().parameters()}
    frozen = {p for p in base.parameters() if not p.requires_grad}
    return sum(p.numel() for p in frozen - outside)


def matmul_rate(device: torch.device, repeats: int = 10) -> float:
    """FLOP/s of a product of two square bfloat16 matrices: the best of a few."""
    side = 8192 if device.type == "cuda" else 1024
    generator = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(side, side, generator=generator, device=device, dtype=torch.bfloat16)
        for _ in range(2)
    )
    seconds = []
    for _ in range(repeats):
        started = _now(device)
        left @ right
        seconds.append(_now(device) - started)
    return 2 * side**3 / min(seconds)


def batch(prompts: int, length: int, vocabulary: int, seed: int) -> Batch:
    """Random prompts with two options of one token: ambiguous twins, then ones with an answer."""
    options = (Option("a", side="pro"), Option("b", side="anti"))
    ambiguous = [
        Choice(
            id=f"ambiguous {n}", kind="ambiguous", prompt="random", options=options, first=0,
            occupations=(f"occupation {n // 2 % 8}",), twin=f"pair {n // 2}",
        )
        for n in range(prompts // 2)
    ]  # fmt: skip
    known = [
        Choice(id=f"known {n}", kind="capability", prompt="random", options=options, truth=n % 2)
        for n in range(prompts // 2)
    ]
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, vocabulary, (prompts, length), generator=generator).tolist()
    encoded = [
        EncodedChoice(
            id=choice.id,
            prompt=tuple(row),
            forms=((0, (3,)), (1, (4,))),
            options=2,
            answer=(3 + (choice.truth or 0),),
        )
        for choice, row in zip(ambiguous + known, tokens, strict=True)
    ]
    return Batch(ambiguous + known, encoded)


def measure(policy: Policy, given: Batch, name: str, warmup: int, steps: int) -> Measured:
    """Take the steps from an adapter at 0."""
    cuda = policy.device.type == "cuda"
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    settings, objective = Optimisation(), Objective()
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, betas=settings.betas)
    table = tabulate(given.choices).to(policy.device)
    controller, gap = KLController(KLBudget()), RunningGap(len(table.occupation_names))
    pool = range(given.ambiguous, len(given.encoded))
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(policy.device)
    seconds, memory, last = [], 0, 0.0
    for _ in range(warmup + steps):
        started = _now(policy.device)
        with checkpointed(policy.model) if name == "checkpointed" else nullcontext():
            steered = policy.score(given.encoded, pool)
        with torch.no_grad(), policy.base():
            base = policy.score(given.encoded, pool)
        options = steered.options
        gap.update(gap.batch_sums(options.detach().softmax(-1), table))
        scored = Scored(given.choices, table, options, base.options, gap.lead)
        rewarded = reward(scored, objective)
        loss, _ = step_loss(
            scored,
            rewarded,
            objective,
            lambda _, where, rewards, options=options: exact(options[where], rewards),
        )
        kl = steered.mean_by_row(kl_divergence(steered.answers, base.answers)).mean()
        controller.update(float(kl.detach()))
        loss = loss + controller.multiplier * kl
        if not cuda:
            memory = max(memory, psutil.Process().memory_info().rss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = float(loss.detach())
        seconds.append(_now(policy.device) - started)
    if cuda:
        memory = torch.cuda.max_memory_allocated(policy.device)
    return Measured(name, seconds[warmup:], memory, last)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _now(device: torch.device) -> float:
    """Seconds, when all that was given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


if __name__ == "__main__":
    main()

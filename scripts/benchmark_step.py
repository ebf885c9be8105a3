"""Time and memory of one training step, on a model with random weights.

    python scripts/benchmark_step.py [--size 8b] [--device cuda] [--output runs/benchmark]

The model is built on the device, so nothing is downloaded. A step is an `exact` training step as
`dso.training.SteeringModule` takes it: the prompts are scored at strength 1 with gradients and at
strength 0 without, the loss has all its terms, half of the prompts have a right answer and the KL
to the base. It is measured with gradient checkpointing and without. Tokens are those of the
prompts, counted once a step although both passes read them. Memory is the peak that torch has
allocated on the GPU; on the CPU it is the process' resident size between forward and backward.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from dso.checkpointing import checkpointed
from dso.encoding import EncodedChoice
from dso.metrics import kl_divergence
from dso.policy import Policy
from dso.report import Result, write_results
from dso.rewards import RunningGap
from dso.steering import attach
from dso.tasks import Choice, Option
from dso.tasks.table import ChoiceTable, tabulate
from dso.training import KLBudget, Objective, Optimisation
from dso.training.constraint import KLController
from dso.training.objective import step_loss

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SIZES: dict[str, dict[str, Any]] = {
    # config.json of meta-llama/Llama-3.1-8B on the Hugging Face hub
    "8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3_ROPE | {"factor": 8.0},
        "tie_word_embeddings": False,
    },
    # config.json of meta-llama/Llama-3.2-1B
    "1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3_ROPE | {"factor": 32.0},
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    },
}
GIB = 2**30


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
        description=__doc__.split("\n", 1)[0],
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
    choices, table = batch(prompts, length, SIZES[size]["vocab_size"], seed)
    table = table.to(policy.device)
    trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    counts = {
        "parameters": sum(p.numel() for p in policy.model.parameters()) - trained,
        "trained_parameters": trained,
    }
    print(f"Llama {size}: {counts['parameters']:,} parameters, {trained:,} trained, on {device}")
    results = []
    # Checkpointed first: a process on the CPU does not give its memory back.
    for name in ("checkpointed", "plain"):
        measured = measure(policy, choices, table, name, warmup, steps)
        seconds = statistics.median(measured.seconds)
        figures = counts | {
            "seconds_per_step": seconds,
            "tokens_per_second": prompts * length / seconds,
            "peak_memory_gib": measured.memory / GIB,
            "last_loss": measured.loss,
        }
        print(
            f"{name:>12}: {seconds:.3f} s a step ({min(measured.seconds):.3f} to "
            f"{max(measured.seconds):.3f}), {figures['tokens_per_second']:,.0f} tokens/s, "
            f"{figures['peak_memory_gib']:.2f} GiB, last loss {measured.loss:.6f}"
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
                estimate="probability",
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
    config = LlamaConfig(**SIZES[size], bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(seed)
    with torch.device(device):
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = attach(base.eval()).eval()
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 2}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"
    )
    return Policy(model, tokenizer)


def batch(
    prompts: int, length: int, vocabulary: int, seed: int
) -> tuple[list[EncodedChoice], ChoiceTable]:
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
    return encoded, tabulate(ambiguous + known)


def measure(
    policy: Policy,
    choices: list[EncodedChoice],
    table: ChoiceTable,
    name: str,
    warmup: int,
    steps: int,
) -> Measured:
    """Take the steps from an adapter at 0."""
    cuda = policy.device.type == "cuda"
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    settings = Optimisation()
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, betas=settings.betas)
    controller, gap = KLController(KLBudget()), RunningGap(len(table.occupation_names))
    pool = range(len(choices) // 2, len(choices))
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(policy.device)
    seconds, memory, last = [], 0, 0.0
    for _ in range(warmup + steps):
        started = time.perf_counter()
        with checkpointed(policy.model) if name == "checkpointed" else nullcontext():
            steered = policy.score(choices, pool)
        with torch.no_grad(), policy.base():
            base = policy.score(choices, pool)
        gap.update(gap.batch_sums(steered.options.detach().softmax(-1), table))
        loss, _ = step_loss(steered.options, base.options, table, gap.gap, Objective())
        kl = steered.mean_by_row(kl_divergence(steered.answers, base.answers)).mean()
        controller.update(float(kl.detach()))
        loss = loss + controller.multiplier * kl
        if not cuda:
            memory = max(memory, psutil.Process().memory_info().rss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = float(loss.detach())
        if cuda:
            torch.cuda.synchronize(policy.device)
        seconds.append(time.perf_counter() - started)
    if cuda:
        memory = torch.cuda.max_memory_allocated(policy.device)
    return Measured(name, seconds[warmup:], memory, last)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


if __name__ == "__main__":
    main()

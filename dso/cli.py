"""The command line: one command per verb.

`dso fit` trains an adapter from a YAML configuration, `dso evaluate` measures a model with an
adapter over a grid of strengths, `dso demo` trains on the shipped organism and shows what changed.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path


def strength(text: str) -> float:
    """A strength from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no strength; wanted a finite number >= 0")
    return value


def positive(text: str) -> int:
    """A count from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; wanted a whole number >= 1")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command but `fit`, whose options come from its classes."""
    parser = argparse.ArgumentParser(
        prog="dso", description="Train, load and measure steering adapters."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("fit", help="train an adapter from a YAML configuration", add_help=False)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a model with an adapter over a grid of strengths",
        description="Measure bias and capabilities at every strength, with 95 %% intervals. Writes "
        "results.jsonl, a table and a plot.",
    )
    evaluate.add_argument("--model", required=True, help="folder or hub id of the base model")
    evaluate.add_argument(
        "--adapter", help="folder or hub id of an adapter; without one only the base"
    )
    evaluate.add_argument(
        "--task",
        help="coreference, winobias, or the import path of a dso.tasks.Task; by default the task "
        "the adapter was trained on, or coreference",
    )
    evaluate.add_argument("--data", help="folder of the task's files, where it reads any")
    evaluate.add_argument(
        "--strength",
        type=strength,
        nargs="+",
        metavar="W",
        help="grid of strengths (default: 0 0.5 1)",
    )
    evaluate.add_argument("--output", type=Path, required=True, help="folder to write into")
    evaluate.add_argument(
        "--limit",
        type=positive,
        help="at most this many choices of a kind in a split (default: all)",
    )
    evaluate.add_argument("--seed", type=int, default=0, help="of sampled answers and bootstrap")
    evaluate.add_argument(
        "--batch-size", type=positive, default=64, help="choices a forward pass (default 64)"
    )
    evaluate.add_argument(
        "--replicates", type=positive, default=1000, help="bootstrap replicates (default 1000)"
    )
    evaluate.add_argument(
        "--samples",
        type=positive,
        default=0,
        metavar="G",
        help="also generate G answers a prompt, read them and count what means no option",
    )
    evaluate.add_argument(
        "--max-new-tokens", type=positive, default=16, help="longest generated answer (default 16)"
    )
    evaluate.add_argument("--dtype", default="auto", help="of the base weights, e.g. bfloat16")
    evaluate.add_argument("--device-map", help="as in transformers, e.g. auto")

    demo = commands.add_parser(
        "demo",
        help="train on the shipped organism and show what changed",
        description="Train a steering adapter on the shipped organism, a tiny language model with "
        "a planted bias, measure it before and after, and say what happened. Needs no network.",
    )
    demo.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder to write into")
    demo.add_argument(
        "--preset", choices=("default", "paper"), default="default", help="see README"
    )
    demo.add_argument("--seed", type=int, default=0, help="of the data and their order")
    demo.add_argument("--steps", type=positive, help="training steps (default: the preset's)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, or 2 for bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _quiet()
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if arguments[:1] == ["fit"]:
        command: Callable[[], None] = lambda: _fit(arguments[1:])  # noqa: E731
        name = "fit"
    else:
        parsed = build_parser().parse_args(arguments)
        name = parsed.command
        command = {"evaluate": lambda: _evaluate(parsed), "demo": lambda: _demo(parsed)}[name]
    try:
        _no_loading_bars()
        command()
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError) as error:
        if debug:
            raise
        print(f"dso {name}: {error}\n(--debug shows where)", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dso {name}: interrupted", file=sys.stderr)
        return 130
    return 0


def _quiet() -> None:
    """Keep the libraries' chatter away; their warnings stay in --debug runs."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("httpx", "lightning.pytorch.utilities.rank_zero", "fsspec"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for package in ("lightning", "transformers"):
        warnings.filterwarnings("ignore", module=rf"{package}\..*")


def _no_loading_bars() -> None:
    """Loading a model is one line of a run, not a progress bar of its own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def _fit(arguments: list[str]) -> None:
    from dso.training.cli import fit

    fit(arguments)


def _evaluate(arguments: argparse.Namespace) -> None:
    from dso.commands import evaluate_command

    evaluate_command(
        model=arguments.model,
        adapter=arguments.adapter,
        task=arguments.task,
        data=arguments.data,
        strengths=arguments.strength,
        output=arguments.output,
        limit=arguments.limit,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        replicates=arguments.replicates,
        dtype=arguments.dtype,
        device_map=arguments.device_map,
        samples=arguments.samples,
        max_new_tokens=arguments.max_new_tokens,
    )


def _demo(arguments: argparse.Namespace) -> None:
    from dso.demo import demo

    demo(
        output=arguments.output,
        preset_name=arguments.preset,
        seed=arguments.seed,
        steps=arguments.steps,
    )


if __name__ == "__main__":
    sys.exit(main())

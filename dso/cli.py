"""The command line: one command per verb.

`dso fit` trains an adapter from a YAML configuration, `dso evaluate` measures a model with an
adapter over a grid of strengths, `dso check` reads anyone's own data and says what is wrong with
them, `dso demo` trains on the shipped organism and shows what changed.
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
from typing import Any


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


class _HelpWithFields(argparse.Action):
    """Help that lists the fields of a row too; importing them takes a moment, so only then."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, nargs=0)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from dso.tasks.own.schema import field_text

        print(f"{parser.format_help()}\n{field_text()}", end="")
        parser.exit()


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
        description="Measure bias and capabilities at every strength, with 95 % intervals. Writes "
        "results.jsonl, a table and a plot.",
    )
    evaluate.add_argument("--model", required=True, help="folder or hub id of the base model")
    evaluate.add_argument(
        "--adapter", help="folder or hub id of an adapter; without one only the base"
    )
    evaluate.add_argument(
        "--task",
        help="bbq, coreference, mmlu, own, synthbias, two_people, winobias, or the import path of "
        "a dso.tasks.Task; by default the task the adapter was trained on, or coreference",
    )
    evaluate.add_argument(
        "--data",
        nargs="+",
        metavar="PATH",
        help="folder of the task's files, where it reads any; for own, files (see dso check)",
    )
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
    evaluate.add_argument(
        "--skip-long",
        action="store_true",
        help="leave out (and count) prompts longer than the model has positions",
    )
    evaluate.add_argument(
        "--dtype", default="auto", help="of the base weights: auto, bfloat16, float16, float32"
    )
    evaluate.add_argument(
        "--quantisation",
        default="none",
        help="bits of the linear layers: none, 8bit, 4bit (needs bitsandbytes)",
    )
    evaluate.add_argument(
        "--device-map",
        help="a device such as cuda:0, or auto (default: auto where there is a GPU, else the CPU)",
    )
    evaluate.add_argument("--revision", help="branch, tag or commit of the model on the hub")

    check = commands.add_parser(
        "check",
        help="read and check your own data",
        description="Read every row of your own data, say what is wrong with it by file, line and "
        "field, or, where nothing is, what is in it. docs/own-data.md shows how to write rows.",
        add_help=False,
    )
    check.add_argument("-h", "--help", action=_HelpWithFields, help="show this, and all fields")
    check.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="CSV, JSON lines or parquet; patterns"
    )
    check.add_argument("--hub", metavar="NAME", help="hub id or folder of a data set")
    check.add_argument("--hub-config", metavar="NAME", help="its configuration, if it has several")
    check.add_argument(
        "--unpaired",
        choices=("refuse", "leave_out"),
        default="refuse",
        help="ambiguous rows in train without a twin (default: refuse)",
    )
    check.add_argument(
        "--limit-errors",
        type=positive,
        default=20,
        metavar="N",
        help="problems to name before giving up (default 20)",
    )

    demo = commands.add_parser(
        "demo",
        help="train on the shipped organism and show what changed",
        description="Train a steering adapter on the shipped organism, a tiny language model with "
        "a planted bias, measure it before and after, and say what happened. Needs no network.",
    )
    demo.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder to write into")
    demo.add_argument(
        "--preset", choices=("default", "paper", "rloo"), default="default", help="see README"
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
        command = {
            "evaluate": lambda: _evaluate(parsed),
            "check": lambda: _check(parsed),
            "demo": lambda: _demo(parsed),
        }[name]
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
    import torch

    from dso.commands import evaluate_command
    from dso.loading import Loading

    evaluate_command(
        model=arguments.model,
        adapter=arguments.adapter,
        task=arguments.task,
        data=_one_or_more(arguments.data),
        strengths=arguments.strength,
        output=arguments.output,
        limit=arguments.limit,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        replicates=arguments.replicates,
        loading=Loading(
            dtype=arguments.dtype,
            quantisation=arguments.quantisation,
            device_map=arguments.device_map or ("auto" if torch.cuda.is_available() else None),
            revision=arguments.revision,
        ),
        samples=arguments.samples,
        max_new_tokens=arguments.max_new_tokens,
        skip_long=arguments.skip_long,
    )


def _one_or_more(paths: list[str] | None) -> str | list[str] | None:
    return paths[0] if paths and len(paths) == 1 else paths


def _check(arguments: argparse.Namespace) -> None:
    from dso.commands import check_command

    check_command(
        data=arguments.data,
        hub=arguments.hub,
        hub_config=arguments.hub_config,
        unpaired=arguments.unpaired,
        limit_errors=arguments.limit_errors,
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

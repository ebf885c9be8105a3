"""The command line: one command per verb.

`dso fit` trains an adapter from a YAML configuration; the others are those of `dso.commands`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType

from dso.commands import (
    check,
    choose_strength,
    demo,
    evaluate,
    fold,
    generate,
    lm_eval,
    push,
    serve,
)

COMMANDS: dict[str, ModuleType] = {
    "evaluate": evaluate,
    "choose-strength": choose_strength,
    "generate": generate,
    "fold": fold,
    "lm-eval": lm_eval,
    "push": push,
    "serve": serve,
    "check": check,
    "demo": demo,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command but `fit`, whose options come from its classes."""
    parser = argparse.ArgumentParser(
        prog="dso", description="Train, load and measure steering adapters."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("fit", help="train an adapter from a YAML configuration", add_help=False)
    for name, command in COMMANDS.items():
        own_help = getattr(command, "OWN_HELP", False)
        command.add_arguments(
            commands.add_parser(
                name, help=command.HELP, description=command.DESCRIPTION, add_help=not own_help
            )
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, or 2 for bad input.

    `choose-strength` exits with 1 where no strength qualifies."""
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
        command = lambda: COMMANDS[name].run(parsed)  # noqa: E731
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


if __name__ == "__main__":
    sys.exit(main())

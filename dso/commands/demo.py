"""`dso demo`: train on the shipped organism and show what changed."""

from __future__ import annotations

import argparse
from pathlib import Path

from dso.commands.arguments import positive
from dso.demo import demo

HELP = "train on the shipped organism and show what changed"
DESCRIPTION = (
    "Train a steering adapter on the shipped organism, a tiny language model with a planted bias, "
    "measure it before and after, and say what happened. Needs no network."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    parser.add_argument(
        "--output", type=Path, default=Path("runs/demo"), help="folder to write into"
    )
    parser.add_argument(
        "--preset", choices=("default", "paper", "rloo"), default="default", help="see README"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data and their order")
    parser.add_argument("--steps", type=positive, help="training steps (default: the preset's)")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    demo(
        output=arguments.output,
        preset_name=arguments.preset,
        seed=arguments.seed,
        steps=arguments.steps,
    )

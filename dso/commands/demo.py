"""`dso demo`: train on a shipped organism and show what changed."""

from __future__ import annotations

import argparse
from pathlib import Path

from dso.commands.arguments import positive
from dso.demo import demo
from dso.training.presets import FOR_LLM, FOR_VLM

HELP = "train on a shipped organism and show what changed"
DESCRIPTION = (
    "Train a steering adapter on a shipped organism, a tiny language model with a planted bias, or "
    "with --vlm a vision-language model; measure it before and after, and say what happened. "
    "Needs no network."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    parser.add_argument(
        "--vlm",
        action="store_true",
        help="the vision-language organism, on drawn scenes; writes a page of them too",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder to write into (default: runs/demo, with --vlm runs/demo-vlm)",
    )
    parser.add_argument(
        "--preset",
        choices=(*FOR_LLM, *FOR_VLM),
        help=f"see README (default: {FOR_LLM[0]}, with --vlm {FOR_VLM[0]})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data and their order")
    parser.add_argument("--steps", type=positive, help="training steps (default: the preset's)")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    demo(
        output=arguments.output or Path("runs/demo-vlm" if arguments.vlm else "runs/demo"),
        preset_name=arguments.preset,
        seed=arguments.seed,
        steps=arguments.steps,
        vlm=arguments.vlm,
    )

"""Arguments that several commands have in common."""

from __future__ import annotations

import argparse
import math

import torch

from dso.loading import Loading


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


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, and which adapter."""
    parser.add_argument("--model", required=True, help="folder or hub id of the base model")
    parser.add_argument(
        "--adapter", help="folder or hub id of an adapter; without one only the base"
    )


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How the base is loaded; `loading_of` reads it."""
    parser.add_argument(
        "--dtype", default="auto", help="of the base weights: auto, bfloat16, float16, float32"
    )
    parser.add_argument(
        "--quantisation",
        default="none",
        help="bits of the linear layers: none, 8bit, 4bit (needs bitsandbytes)",
    )
    parser.add_argument(
        "--device-map",
        help="a device such as cuda:0, or auto (default: auto where there is a GPU, else the CPU)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the model on the hub")


def loading_of(arguments: argparse.Namespace) -> Loading:
    """What `add_loading` was given."""
    return Loading(
        dtype=arguments.dtype,
        quantisation=arguments.quantisation,
        device_map=arguments.device_map or ("auto" if torch.cuda.is_available() else None),
        revision=arguments.revision,
    )

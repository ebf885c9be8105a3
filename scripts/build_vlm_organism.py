"""Build the vision-language organism into checkpoints/organism-vlm and measure it.

    python scripts/build_vlm_organism.py [--output DIR] [--steps N | --minutes M]

Takes less than an hour on two cores. An interrupted build goes on where it was when it is started
again with the same options. Fails when the finished model misses a bar.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from dso.organisms.vlm import VlmRecipe, save_vlm
from dso.organisms.vlm_card import BARS, MEANING, vlm_card
from dso.organisms.vlm_measures import measure
from dso.organisms.vlm_training import train_vlm

TRIAL = 40
"""Steps from which the speed is found."""


def steps_in(minutes: float, recipe: VlmRecipe) -> int:
    """How many steps fit into the time, from a short run that is thrown away."""
    seconds = {}
    for steps in (1, TRIAL + 1):
        started = time.perf_counter()
        train_vlm(replace(recipe, steps=steps), progress=False)
        seconds[steps] = time.perf_counter() - started
    start, whole = seconds.values()
    return max(1, int((60 * minutes - start) * TRIAL / (whole - start)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("checkpoints/organism-vlm"))
    parser.add_argument("--seed", type=int, default=VlmRecipe.seed)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=VlmRecipe.steps)
    length.add_argument("--minutes", type=float, help="choose the steps by this machine's speed")
    parser.add_argument("--count", type=int, default=600, help="pictures for each measurement")
    arguments = parser.parse_args()
    recipe = VlmRecipe(steps=arguments.steps, seed=arguments.seed)
    if arguments.minutes:
        recipe = replace(recipe, steps=steps_in(arguments.minutes, recipe))
        print(f"{recipe.steps} steps fit into {arguments.minutes:g} minutes")
    state = Path(tempfile.gettempdir()) / f"{arguments.output.name}-{recipe.seed}.pt"
    started = time.perf_counter()
    model, processor = train_vlm(recipe, state)
    minutes = (time.perf_counter() - started) / 60
    save_vlm(model, processor, arguments.output)
    print(f"trained in {minutes:.1f} minutes")

    figures = {w: measure(model, processor, w, arguments.count) for w in ("train", "test")}
    missed = []
    for name, meaning in MEANING.items():
        low, high = BARS.get(name, (-1.0, 1.0))
        values = [figures[wording][name] for wording in figures]
        verdict = "" if all(low <= v <= high for v in values) else f"  misses [{low}, {high}]"
        print(f"{name:20} " + "  ".join(f"{v:.4f}" for v in values) + f"  {meaning}{verdict}")
        if verdict:
            missed.append(name)
    card = vlm_card(recipe, model.num_parameters(), minutes, figures)
    (arguments.output / "README.md").write_text(card, encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

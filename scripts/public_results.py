"""Published data sets put to the organism whole, without and with the shipped adapter.

    python scripts/public_results.py [--output docs/results]

SynthBias, WinoGenerated and MMLU, where their files are found (see `dso.tasks.published.locate`).
Writes public.jsonl and public.md. About twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from dso.demo import ORGANISM_FORMS
from dso.evaluation import by_split, evaluate
from dso.organisms import shipped
from dso.policy import Policy
from dso.report import Result, markdown_table, write_results
from dso.tasks import MMLU, SynthBias, Task, TwoPeople


def public(output: Path) -> int:
    """The published data sets, all of their rows, without and with the shipped adapter."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, adapter = str(shipped("organism-llm")), str(shipped("organism-llm-dso"))
    policy = Policy.from_pretrained(model, adapter)
    tasks: dict[str, Task] = {
        "synthbias": SynthBias(forms=ORGANISM_FORMS),
        "two_people": TwoPeople(forms=ORGANISM_FORMS),
        "mmlu": MMLU(),
    }
    results: list[Result] = []
    parts = []
    for name, task in tasks.items():
        try:
            choices = task.benchmark()
        except ValueError as error:
            print(f"{name} is left out: {error}")
            continue
        # One split a data set: all rows are asked, and nothing was trained on them.
        whole = [replace(choice, split=name) for choice in choices]
        found = evaluate(
            policy,
            by_split(whole),
            [0.0, 1.0],
            replicates=200,
            skip_long=True,
            task=name,
            model=model,
            adapter=adapter,
        )
        results += found
        parts.append(f"**{name}**\n\n{markdown_table(found, name)}")
        print(parts[-1], flush=True)
    write_results(output / "public.jsonl", results)
    (output / "public.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    return public(output)


if __name__ == "__main__":
    sys.exit(main())

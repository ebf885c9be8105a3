"""How long reading many rows takes, and how much memory: a CSV file is written, read and checked.

    python scripts/stream_rows.py [--rows 3000000] [--output runs/stream_rows/results.jsonl]
        [--model checkpoints/organism-llm [--adapter checkpoints/organism-llm-dso]]

The file lies in a temporary folder and is removed. Results: seconds by the clock and of the
processor, rows a second, and the peak of the resident memory in GB before the reading (Python and
its imports) and after it. With a model, the test rows that were kept are put to it afterwards.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dso.evaluation import evaluate
from dso.policy import Policy
from dso.report import Result, markdown_table, write_results
from dso.tasks.choice import Choice
from dso.tasks.coreference import DEFAULT_FORMS, ambiguous, mixture
from dso.tasks.own.reading import Source, read_choices

HEADER = (
    "id", "kind", "prompt", "option_1", "option_1_side", "option_2", "option_2_side", "truth",
    "occupations", "gender", "first", "twin", "split",
)  # fmt: skip


def cells(choice: Choice, number: int, split: str) -> list[str]:
    """A choice as a row, with a running number, so that every row has a prompt of its own."""
    options = [cell for option in choice.options for cell in (option.text, option.side)]
    truth = "" if choice.truth is None else choice.options[choice.truth].text
    first = "" if choice.first is None else choice.options[choice.first].text
    return [
        f"{choice.id}-{number}", choice.kind, f"({number}) {choice.prompt}", *options, truth,
        "|".join(choice.occupations), choice.gender or "", first,
        f"{choice.twin}-{number}" if choice.twin else "", split,
    ]  # fmt: skip


def rows(count: int) -> Iterator[list[str]]:
    """Four of five rows are ambiguous, in twin pairs; a tenth each is validation and test."""
    pairs = ambiguous(2000, "train", "train", 0, "own")
    clear = mixture("train", "train", (500, 500, 0), 0, "own", (" {}",))
    made = 0
    for number in itertools.count():
        split = ("validation", "test")[number % 10] if number % 10 < 2 else "train"
        place = 2 * (2 * number % 2000)
        block = [*pairs[place : place + 4], clear[number % len(clear)]]
        for choice in block[: count - made]:
            yield cells(choice, number, split)
        made += len(block)
        if made >= count:
            return


def gigabytes() -> float:
    """Peak of the resident memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6 / 1.024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000, help="default 3000000")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/stream_rows/results.jsonl"), help="results file"
    )
    parser.add_argument("--model", help="folder or hub id; its answers to the test rows too")
    parser.add_argument("--adapter", help="folder or hub id of an adapter for it")
    parser.add_argument(
        "--forms", nargs="+", default=DEFAULT_FORMS, help="surface forms, {} for the option's text"
    )
    arguments = parser.parse_args()
    if arguments.rows < 5:
        parser.error(f"--rows is {arguments.rows}; wanted at least 5")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows(rows(arguments.rows))
        size, before = path.stat().st_size / 1e6, gigabytes()
        start, used = time.perf_counter(), time.process_time()
        read = read_choices(Source((str(path),)), forms=arguments.forms, unpaired="leave_out")
        seconds, used = time.perf_counter() - start, time.process_time() - used
        peak = gigabytes()
    total, kept = sum(read.counts.values()), sum(map(len, read.kept.values()))
    assert total == arguments.rows, (total, arguments.rows)
    figures = {
        "seconds": seconds,
        "processor_seconds": used,
        "rows_per_second": total / seconds,
        "peak_memory_before_gb": before,
        "peak_memory_gb": peak,
        "kept_rows": float(kept),
    }
    for name, value in figures.items():
        print(f"{name}: {value:,.3f}")
    print(f"{total:,} rows, {size:,.0f} MB, {read.twins.pairs:,} twin pairs")
    results = [
        Result(
            strength=0.0, split="all", metric=name, value=value, low=None, high=None, n=total,
            seed=0, estimate="measured", task="own",
        )
        for name, value in figures.items()
    ]  # fmt: skip
    if arguments.model:
        policy = Policy.from_pretrained(arguments.model, arguments.adapter)
        answers = evaluate(
            policy,
            {"test": read.of("test")},
            [0.0, 1.0] if arguments.adapter else [0.0],
            replicates=200,
            task="own",
            model=arguments.model,
            adapter=arguments.adapter,
        )
        print(markdown_table(answers, "test"))
        results += answers
    write_results(arguments.output, results)


if __name__ == "__main__":
    main()

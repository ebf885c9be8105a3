"""A folder of results: JSON lines, Markdown tables, a plot, and tables on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dso.report.plots import plot_strength
from dso.report.results import Result, write_results
from dso.report.table import markdown_table, results_table

ANSWERS = "answers.jsonl"
"""Generated answers, where a command wrote any."""


def write_report(results: Sequence[Result], folder: Path, run: dict[str, Any]) -> None:
    """Results as JSON lines, Markdown tables and a plot in `folder`, and tables on the terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / "results.jsonl", results)
    (folder / "evaluation.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    names = [name for name in dict.fromkeys(r.split for r in results) if name != "kl_pool"]
    tables = [f"## {name}\n\n{markdown_table(results, name)}" for name in names]
    (folder / "table.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    plot_strength([r for r in results if r.split in names], folder / "strength.png")
    console = Console()
    for name in names:
        strengths = len({r.strength for r in results})
        wide = console.width >= 40 + 12 * strengths
        console.print(results_table(results, name, intervals=wide))
    console.print(
        f"Written to {folder}: results.jsonl (every figure with its interval), table.md, "
        f"strength.png, evaluation.json{', answers.jsonl' if (folder / ANSWERS).exists() else ''}"
    )

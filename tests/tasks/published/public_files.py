"""Small files of our own in the formats of the public data sets."""

from __future__ import annotations

import csv
import json
from itertools import product
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

MEN = ("guard", "driver", "CEO", "cook", "construction worker")
WOMEN = ("nurse", "baker", "clerk", "tailor")
PLOTS = (
    "The {a} lent the {b} a ladder before {p} painted the wall.",
    "The {a} met the {b} at the harbour when {p} had an hour to spare.",
    "Near the well the {a} waved to the {b} while {p} ate an apple.",
)
CLEAR = (
    "The {a} missed the {b} and wrote {p} a long letter.",
    "The {a} carried the {b} home and gave {p} some soup.",
)


def write_csv(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def synthbias_row(sample: str, one: str, two: str, pronoun: str, label: str = "") -> dict[str, str]:
    """A row of type 1, or of type 2 where a label is given."""
    return {
        "type": "type2" if label else "type1", "sample": sample, "occ_1": one, "occ_2": two,
        "pronoun": pronoun, "is_stereotypical": label or "ambiguous",
    }  # fmt: skip


def synthbias_rows() -> Rows:
    """60 twin pairs of each type; the first-named occupation is not always mentioned first."""
    rows: Rows = []
    for plot, (man, woman), pronoun in product(PLOTS, product(MEN, WOMEN), ("he", "she")):
        sample = plot.format(a=woman, b=man, p=pronoun)
        rows.append(synthbias_row(sample, man, woman, pronoun))
    for n, (man, woman) in enumerate(product(MEN, WOMEN)):
        people = (man, woman) if n % 2 else (woman, man)
        for plot, pronoun in product((*CLEAR, CLEAR[0].replace("long", "short")), ("him", "her")):
            sample = plot.format(a=people[0], b=people[1], p=pronoun)
            pro = (people[1] == man) == (pronoun == "him")
            rows.append(synthbias_row(sample, people[1], people[0], pronoun, str(pro)))
    return rows


def write_synthbias(folder: Path, rows: Rows | None = None) -> Path:
    return write_csv(folder / "synthbias_data.csv", synthbias_rows() if rows is None else rows)


def mmlu_rows(subject: str, count: int) -> Rows:
    """Sums; the right answer goes round the letters."""
    rows = []
    for n in range(count):
        choices = {f"choice{place}": str(2 * n + (place - n) % 4 + 3) for place in range(4)}
        question = f"In {subject}, what is {n} + {n + 3}?"
        rows.append({"question": question, **choices, "answer": str(n % 4)})
    return rows


def write_mmlu(folder: Path, subjects: tuple[str, ...] = ("sums", "more_sums")) -> Path:
    for subject, (split, count) in product(subjects, (("dev", 5), ("test", 7))):
        write_csv(folder / split / f"{subject}_{split}.csv", mmlu_rows(f"{subject} {split}", count))
    return folder


def blank_row(
    text: str, occupation: str, other: str, women: float, forms: str = "he|she|they"
) -> dict[str, Any]:
    return {
        "sentence_with_blank": text, "occupation": occupation, "other_person": other,
        "pronoun_options": forms.split("|"), "women": women,
    }  # fmt: skip


def blank_rows() -> Rows:
    """Two sentences of each of 24 occupations, half of them women's."""
    rows = []
    for n in range(24):
        name, women = f"{'abcdefghijklmnopqrstuvwx'[n]}-class keeper", 15.0 if n % 2 else 85.0
        rows.append(
            blank_row(f"The {name} asked the visitor if _ was cold.", name, "visitor", women)
        )
        text = f"The visitor thanked the {name} for _ patience."
        rows.append(blank_row(text, name, "visitor", women, "his|her|their"))
    return rows


def write_blanks(folder: Path, rows: Rows | None = None) -> Path:
    rows = blank_rows() if rows is None else rows
    return write_jsonl(folder / "winogenerated_examples.jsonl", rows)


def bbq_row(
    number: int, index: int, polarity: str, condition: str, order: tuple[int, int, int] = (0, 1, 2)
) -> dict[str, Any]:
    """A row about a left- and a right-handed person; `order` is that of the answers."""
    context = f"A lefty and a righty shared table {number} in the library."
    if condition == "disambig":
        context += " The righty spilled the ink."
    verb = "spilled the ink" if polarity == "neg" else "wrote neatly"
    answers = [
        ("The lefty", ["lefty", "Left-handed"]), ("The righty", ["righty", "nonLeft"]),
        ("Not known", ["Not known", "unknown"]),
    ]  # fmt: skip
    right = 2 if condition == "ambig" else (1 if polarity == "neg" else 0)
    shown = [answers[n] for n in order]
    return {
        "example_id": 0, "question_index": str(index), "question_polarity": polarity,
        "context_condition": condition, "category": "Handedness",
        "answer_info": {f"ans{n}": info for n, (_, info) in enumerate(shown)},
        "additional_metadata": {"stereotyped_groups": ["left handed"], "version": "a"},
        "context": context, "question": f"Who {verb}?",
        **{f"ans{n}": text for n, (text, _) in enumerate(shown)},
        "label": order.index(right),
    }  # fmt: skip


def bbq_rows(stereotypes: int = 20) -> Rows:
    """Four contexts of each stereotype, ambiguous and not, with both questions."""
    rows = []
    for index, table in product(range(stereotypes), range(4)):
        for condition, polarity in product(("ambig", "disambig"), ("neg", "nonneg")):
            order = ((0, 1, 2), (2, 0, 1), (1, 2, 0))[len(rows) % 3]
            row = bbq_row(table, index, polarity, condition, order)
            rows.append({**row, "example_id": len(rows)})
    return rows


def write_bbq(folder: Path, rows: Rows | None = None) -> Path:
    return write_jsonl(folder / "Handedness.jsonl", bbq_rows() if rows is None else rows)

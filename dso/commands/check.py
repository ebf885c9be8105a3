"""`dso check`: read anyone's own data and say what is wrong with them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dso.commands.arguments import positive
from dso.tasks.own import OwnData, Source, missing_splits, read_choices
from dso.tasks.own.ledger import Unpaired
from dso.tasks.own.schema import field_text

HELP = "read and check your own data"
DESCRIPTION = (
    "Read every row of your own data, say what is wrong with it by file, line and field, or, where "
    "nothing is, what is in it. docs/own-data.md shows how to write rows."
)
OWN_HELP = True


class _HelpWithFields(argparse.Action):
    """Help that lists the fields of a row too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, nargs=0)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"{parser.format_help()}\n{field_text()}", end="")
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    parser.add_argument("-h", "--help", action=_HelpWithFields, help="show this, and all fields")
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="CSV, JSON lines or parquet; patterns"
    )
    parser.add_argument("--hub", metavar="NAME", help="hub id or folder of a data set")
    parser.add_argument("--hub-config", metavar="NAME", help="its configuration, if it has several")
    parser.add_argument(
        "--unpaired",
        choices=("refuse", "leave_out"),
        default="refuse",
        help="ambiguous rows in train without a twin (default: refuse)",
    )
    parser.add_argument(
        "--limit-errors",
        type=positive,
        default=20,
        metavar="N",
        help="problems to name before giving up (default 20)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    check_command(
        data=arguments.data,
        hub=arguments.hub,
        hub_config=arguments.hub_config,
        unpaired=arguments.unpaired,
        limit_errors=arguments.limit_errors,
    )


def check_command(
    data: Sequence[str],
    hub: str | None = None,
    hub_config: str | None = None,
    unpaired: Unpaired = "refuse",
    limit_errors: int = 20,
) -> OwnData:
    """Read and check anyone's own rows and print what is in them; see `dso check --help`.

    Raises:
        ValueError: no rows are named, or anything is wrong with them, all of it by line and field.
    """
    if not data and hub is None:
        raise ValueError("nothing to check; give --data FILE or --hub NAME")
    source = Source(tuple(data), hub, hub_config)
    read = read_choices(source, unpaired=unpaired, limit_errors=limit_errors, open_images=True)
    table = Table(title="Rows by split and kind")
    for name in ("split", "kind", "rows", "kept", "left out"):
        table.add_column(name, justify="left" if name in ("split", "kind") else "right")
    for split in read.splits:
        for kind in (kind for name, kind in read.counts if name == split):
            rows, kept = read.counts[split, kind], len(read.kept[split, kind])
            table.add_row(split, kind, f"{rows:,}", f"{kept:,}", f"{rows - kept:,}")
    console = Console()
    console.print(table)
    twins, sided = read.twins, [f"{name} ({split})" for split, name in read.one_sided]
    console.print(
        f"{twins.pairs:,} twin pairs; {twins.lonely:,} rows whose twin is nowhere, "
        f"{twins.untwinned:,} ambiguous rows with sides that name none, {twins.left_out:,} of them "
        "in train and left out"
    )
    if twins.grouped:
        console.print(f"{twins.grouped:,} rows of groups, which need no twin")
    shown = ", ".join(sided[:10]) + (", ..." if len(sided) > 10 else "")
    console.print(
        f"{read.occupations:,} occupations in ambiguous rows with sides and a gender; with one "
        f"gender only: {shown or 'none'}"
    )
    if read.images:
        console.print(f"{read.images:,} images, which all open")
    lacking = missing_splits(read)
    for sentence in lacking:
        console.print(f"not enough for dso fit: {sentence}")
    console.print("Every row is right." + ("" if lacking else " Enough for dso fit."))
    return read

"""`dso push`: an adapter, or a folded model, from a folder to the hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from dso.steering.hub import Parcel, check_repo, pack, push

HELP = "send an adapter or a folded model to the hub"
DESCRIPTION = (
    "Check the folder of an adapter, or of a folded model, and send what belongs to it to a "
    "repository of the Hugging Face hub, which is created if there is none. The token is the one "
    "of `hf auth login`, or HF_TOKEN."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    parser.add_argument(
        "--adapter",
        "--folder",
        dest="folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of an adapter, or of a folded model",
    )
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="where to send it")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to send it to (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="what the commit says")
    parser.add_argument(
        "--dry-run", action="store_true", help="check it and list what would be sent"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    check_repo(arguments.repo)
    parcel = pack(arguments.folder)
    _say(parcel)
    if arguments.dry_run:
        print(f"Nothing was sent to {arguments.repo}.")
        return
    address = push(
        parcel,
        arguments.repo,
        private=arguments.private,
        revision=arguments.revision,
        message=arguments.message,
    )
    print(f"Sent to {address}")


def _say(parcel: Parcel) -> None:
    for name, size in parcel.sizes.items():
        print(f"{size:>15,} bytes  {name}")
    if parcel.left_out:
        print(f"left out: {', '.join(parcel.left_out)}")
    for note in parcel.notes:
        print(f"note: {note}")

"""Where the shipped organisms and adapters are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2] / "checkpoints"
LLM = "organism-llm"
"""The language organism."""
VLM = "organism-vlm"
"""The vision-language organism."""


def shipped(name: str) -> Path:
    """The folder of a shipped checkpoint, relative to the working directory where it lies in it.

    Raises:
        ValueError: there is none of that name.
    """
    folder = ROOT / name
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        known = sorted(p.name for p in ROOT.iterdir()) if ROOT.is_dir() else []
        raise ValueError(f"no checkpoint {name!r} in {ROOT}; there are {known}")
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder

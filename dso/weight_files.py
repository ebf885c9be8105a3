"""Are the weight files of a model folder all there and whole?

Only names and headers are read, so that a large model is refused in a moment and not after minutes
of loading. Files in torch's own format (pytorch_model.bin) are only looked for.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

SHOWN = 3
"""How many names an error lists."""


def check_weight_files(folder: Path) -> None:
    """Check the weight files that transformers would take from a folder.

    A path that is no folder passes: it is a hub id, whose files are checked when they are fetched.

    Raises:
        ValueError: a file is missing, cut short, or does not hold what its index says; it is named.
    """
    # In the order in which transformers looks for them.
    if (file := folder / SAFE_WEIGHTS_NAME).is_file():
        _keys(file)
        return
    if (index := folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        _check_shards(index)
        return
    if (folder / WEIGHTS_NAME).is_file():
        return
    if (index := folder / WEIGHTS_INDEX_NAME).is_file():
        _check_shards(index)
        return
    shards = sorted(path.name for path in folder.glob("*-of-*.safetensors"))
    if shards:
        raise ValueError(
            f"{folder} has {some(shards)} but not the index that says what is in them; copy or "
            f"download {SAFE_WEIGHTS_INDEX_NAME} too"
        )


def _check_shards(index: Path) -> None:
    try:
        weights: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(weights.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is no index of a sharded checkpoint ({error!r}); it was cut short or "
            "altered, copy or download it again"
        ) from error
    absent = [name for name in files if not (index.parent / name).is_file()]
    if absent:
        raise ValueError(
            f"{index.parent} lacks {len(absent)} of the {len(files)} files that {index.name} "
            f"names: {some(absent)}; copy or download them"
        )
    for name in files:
        if not name.endswith(".safetensors"):
            continue
        wanted = {key for key, file in weights.items() if file == name}
        lacking = sorted(wanted - _keys(index.parent / name))
        if lacking:
            raise ValueError(
                f"{index.parent / name} does not hold {some(lacking)}, which {index.name} says "
                "it does; they belong to different checkpoints, copy or download both again"
            )


def _keys(file: Path) -> set[str]:
    try:
        with safe_open(file, framework="pt") as weights:
            return set(weights.keys())
    except SafetensorError as error:
        raise ValueError(
            f"{file} holds {file.stat().st_size} bytes and is not a whole safetensors file "
            f"({error}); it was cut short or altered, copy or download it again"
        ) from error


def some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

"""From a folder to the hub: what is sent, and that it is whole and sound before anything is.

Two kinds of folder go: an adapter's (`save_adapter`) and a folded model's (`fold`). Only the files
that belong to one are sent, whatever else lies beside them. `load_adapter` takes the id back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, get_token
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of httpx or httpx2, whichever the library runs on
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open

from dso.steering.card import PLACE
from dso.steering.config import SteeringConfig
from dso.steering.folder import CARD_NAME, FILES, RECORD_NAME, read_config

MODEL_CONFIG = "config.json"
MODEL_WEIGHTS = "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
BESIDE_ADAPTER = ("strength.json", "LICENSE")
BESIDE_MODEL = (
    CARD_NAME,
    MODEL_INDEX,
    "LICENSE",
    "fold.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
RECORDS = (CONFIG_NAME, "fold.json", RECORD_NAME)
"""What dso wrote about how it was made."""


@dataclass(frozen=True)
class Parcel:
    """What of a folder goes to the hub."""

    folder: Path
    kind: Literal["adapter", "model"]
    files: tuple[str, ...]
    """Names of the files that are sent."""
    left_out: tuple[str, ...]
    """What else lies in the folder."""
    notes: tuple[str, ...]
    """What its owner should know before it is public."""

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file that is sent."""
        return {name: (self.folder / name).stat().st_size for name in self.files}


def pack(folder: str | Path) -> Parcel:
    """Check a folder, and say what of it would be sent.

    Raises:
        ValueError: it is neither an adapter's folder nor a model's, a file is missing or damaged,
            weights are missing or not finite, or the card's header cannot be read, names no base
            model, or another one than the adapter. The message says which.
    """
    folder = Path(folder)
    kind: Literal["adapter", "model"]
    if (folder / CONFIG_NAME).is_file():
        kind = "adapter"
        files, notes = _pack_adapter(folder)
    elif (folder / MODEL_CONFIG).is_file():
        kind = "model"
        files, notes = _pack_model(folder)
    else:
        raise ValueError(
            f"{folder} is no folder of an adapter ({CONFIG_NAME}) or of a folded model "
            f"({MODEL_CONFIG}); give one that dso fit or dso fold has written"
        )
    notes += _private_paths([folder / name for name in files if name in RECORDS])
    others = tuple(sorted(path.name for path in folder.iterdir() if path.name not in files))
    return Parcel(folder, kind, files, others, tuple(notes))


def push(
    parcel: Parcel,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Send a parcel to a repository of the hub, in one commit; it is created if there is none.

    The token is the one huggingface_hub has: of HF_TOKEN, or of `hf auth login`.

    Args:
        parcel: what `pack` found.
        repo: user/name, or organisation/name.
        private: make a new one private; one that is there and public is refused.
        revision: branch to send it to, created if there is none; None is the main one.
        message: of the commit.

    Returns: its address.

    Raises:
        ValueError: no such name, no token, or the hub refused or could not be reached.
    """
    check_repo(repo)
    if get_token() is None:
        raise ValueError(
            "there is no token for the hub; run `hf auth login`, or set HF_TOKEN to one that may "
            "write"
        )
    api = HfApi(library_name="dso")
    branch = None if revision == "main" else revision
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise ValueError(
                f"{repo} is there already and public; make it private on {api.endpoint}/{repo} "
                "first, or leave out private"
            )
        if branch is not None:
            api.create_branch(repo, branch=branch, exist_ok=True)
        api.create_commit(
            repo,
            [CommitOperationAdd(name, _content(parcel, name, repo)) for name in parcel.files],
            commit_message=message or f"Upload {parcel.kind} with dso",
            revision=branch,
        )
    except (HTTPError, OfflineModeIsEnabled) as error:
        raise ValueError(f"{repo} could not be sent: {_reason(error)}") from error
    return f"{api.endpoint}/{repo}" + ("" if branch is None else f"/tree/{branch}")


def check_repo(repo: str) -> None:
    """Raises ValueError for what is no user/name."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no repository of the hub ({error})") from error
    if "/" not in repo:
        raise ValueError(f"{repo!r} names no owner; wanted user/name or organisation/name")


def _content(parcel: Parcel, name: str, repo: str) -> Path | bytes:
    """A file as it is sent: in the card's example stands its new address."""
    if name != CARD_NAME:
        return parcel.folder / name
    return (parcel.folder / name).read_text(encoding="utf-8").replace(PLACE, repo).encode()


def _reason(error: Exception) -> str:
    """What went wrong, and what to do."""
    said = str(error).strip().split("\n", 1)[0]
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403):
        return f"the token may not write there ({said}); run `hf auth login` with one that may"
    if status is None:
        return f"the hub could not be reached ({said}); check the network and HF_ENDPOINT"
    return f"the hub refused ({said})"


# -- what is in a folder ---------------------------------------------------------------------


def _pack_adapter(folder: Path) -> tuple[tuple[str, ...], list[str]]:
    _check_there(folder, FILES)
    config = read_config(folder)
    names = _check_finite(folder / SAFETENSORS_WEIGHTS_NAME)
    wanted = {
        f"base_model.model.{norm}.steering_{part}"
        for part, norms in (
            ("scale", config.target_modules or () if config.scale else ()),
            ("shift", config.shifted),
        )
        for norm in norms
    }
    if config.rank:  # which norms have a low-rank part, only the base can say
        parts = ("steering_left", "steering_right")
        ranked = {n.removesuffix(part) for n in names for part in parts if n.endswith(part)}
        wanted |= {f"{norm}{part}" for norm in ranked or {"every "} for part in parts}
    if names != wanted:
        odd = sorted(names ^ wanted)
        raise ValueError(
            f"{folder / SAFETENSORS_WEIGHTS_NAME} does not hold the adapter that its config "
            f"describes: {len(odd)} weights are missing or unexpected, {odd[0]} the first; save it "
            "again"
        )
    return (*FILES, *_there(folder, BESIDE_ADAPTER)), _check_card(folder, config)


def _pack_model(folder: Path) -> tuple[tuple[str, ...], list[str]]:
    index = folder / MODEL_INDEX
    weights = _shards(index) if index.is_file() else [MODEL_WEIGHTS]
    _check_there(folder, weights)
    for name in weights:
        _check_finite(folder / name)
    carded = (folder / CARD_NAME).is_file()
    notes = _check_card(folder, None) if carded else [f"there is no {CARD_NAME}: write one"]
    if not any(folder.glob("tokenizer*")):
        notes.append("there is no tokenizer: save the base's beside the model")
    return (MODEL_CONFIG, *weights, *_there(folder, BESIDE_MODEL)), notes


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of a model's weights ({error!r})") from error


def _there(folder: Path, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if (folder / name).is_file()]


def _check_there(folder: Path, names: tuple[str, ...] | list[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is not complete: {', '.join(missing)} is missing; save it again"
        )


def _check_finite(file: Path) -> set[str]:
    """The names of a file's tensors, all of them finite."""
    try:
        with safe_open(file, framework="pt") as weights:
            names = set(weights.keys())
            for name in names:
                if not bool(torch.isfinite(weights.get_tensor(name)).all()):
                    raise ValueError(f"{name} in {file} holds numbers that are not finite")
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file ({error})") from error
    return names


def _check_card(folder: Path, config: SteeringConfig | None) -> list[str]:
    """Notes about a card whose header is right; config is that of an adapter."""
    card = folder / CARD_NAME
    try:
        header = ModelCard(card.read_text(encoding="utf-8")).data.to_dict()
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"the header of {card} cannot be read ({error})") from error
    base = header.get("base_model")
    named = None if config is None else config.base_model_name_or_path
    if config is not None and (not isinstance(base, str) or base != named):
        raise ValueError(
            f"{card} says base_model: {base}, and {CONFIG_NAME} {named}; both must name the base's "
            "hub id"
        )
    notes = []
    if isinstance(base, str):
        try:
            validate_repo_id(base)
        except HFValidationError as error:
            raise ValueError(
                f"base_model in {card} is {base}, which is no hub id; put the id under which the "
                f"base is on the hub there and, for an adapter, into {CONFIG_NAME}"
            ) from error
        if Path(base).is_dir():
            notes.append(f"base_model is {base}, a folder here: others need it under that hub id")
    if "license" not in header:
        notes.append(
            f"the header of {CARD_NAME} names no licence: add, for instance, license: apache-2.0"
        )
    return notes


def _private_paths(files: list[Path]) -> list[str]:
    """A note where records name files of this machine, which everyone would read."""
    texts = [text for file in files for text in _texts(json.loads(file.read_text("utf-8")))]
    paths = sorted({text for text in texts if Path(text).is_absolute()})
    return [f"paths of this machine go with it: {', '.join(paths)}"] if paths else []


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for part in value for text in _texts(part)] if isinstance(value, list) else []

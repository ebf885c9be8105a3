"""Adapter folders: what is written, how it is checked, how it is loaded.

A folder holds adapter_config.json (base model and revision, hidden size, norm count, fingerprint,
training recipe, measured table), adapter_model.safetensors (for every steered norm a
`steering_scale` and a `steering_shift`, (d,) float32, and where a norm has a low-rank part U Vᵀ
also `steering_left`, U, and `steering_right`, V, (d, r) float32) and README.md, a model card. It is
a peft adapter like any other:
`PeftModel.from_pretrained` loads it too once `dso.steering` is imported. There is no pickle in it.
Source of the method: arXiv 2512.15926.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dso.steering.backbone import norm_weight, unwrap
from dso.steering.card import model_card
from dso.steering.config import SteeringConfig
from dso.steering.resolve import rank_targets, resolve

CARD_NAME = "README.md"
RECORD_NAME = "strength.json"
"""Which strength was chosen for it, where one was (`dso choose-strength`)."""
FILES = (SAFETENSORS_WEIGHTS_NAME, CARD_NAME, CONFIG_NAME)


def attach(
    model: nn.Module, config: SteeringConfig | None = None, *, adapter_name: str = "default"
) -> PeftModel:
    """A fresh, trainable adapter on a model: all zeros, so that the output is still the base's.

    Of a low-rank part U Vᵀ only U is zeros; V is random, drawn from the norm's name, and so the
    same every time.

    Args:
        model: a transformers model, which is wrapped in place, or a peft model with steering
            adapters, which gets one more (not active until `set_adapter`).
        config: which norms; None is the default, every norm but the final one.

    Raises ValueError when the config was made for another base model or names no norms.
    """
    # The caller's config stays as given: it can be used for the next model.
    config = copy.deepcopy(config) if config is not None else SteeringConfig()
    resolve(config, model)
    if isinstance(model, PeftModel):
        model.add_adapter(adapter_name, config)
        return model
    return _takes_strength(get_peft_model(unwrap(model), config, adapter_name=adapter_name))


def save_adapter(
    model: PeftModel,
    folder: str | os.PathLike[str],
    *,
    recipe: dict[str, Any] | None = None,
    measurements: list[dict[str, Any]] | None = None,
    adapter_name: str = "default",
) -> Path:
    """Write one adapter of a model into a folder, replacing one that is there.

    The files are written beside the folder and moved in when they are complete, the config last: a
    crash leaves the old adapter or the new one (with, at worst, the recipe and the measurements of
    the old), and never a mixture. Over an adapter of another form it can leave a folder that says
    it is incomplete. Other files in the folder are left alone. In a distributed run call it on one
    process.

    Args:
        recipe, measurements: for the config and the card; None keeps what the config has.

    Raises ValueError when there is no such adapter or it holds numbers that are not finite.
    """
    if adapter_name not in model.peft_config:
        raise ValueError(
            f"the model has no adapter {adapter_name!r}; it has {sorted(model.peft_config)}"
        )
    config = copy.copy(model.peft_config[adapter_name])
    if not isinstance(config, SteeringConfig):
        raise TypeError(f"{adapter_name!r} is a {type(config).__name__}, not a steering adapter")
    config.inference_mode = True
    config.recipe = recipe if recipe is not None else config.recipe
    config.measurements = measurements if measurements is not None else config.measurements
    # Left on "auto" peft would look on the hub whether the vocabulary has changed.
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    _check_weights(state, config, model, where=f"the adapter {adapter_name!r}")

    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        save_file(state, draft / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        config.save_pretrained(str(draft))
        card = model_card(config, class_name=type(unwrap(model)).__name__)
        (draft / CARD_NAME).write_text(card, encoding="utf-8")
        target.mkdir(exist_ok=True)
        if _form(target / CONFIG_NAME) != _form(draft / CONFIG_NAME):
            (target / CONFIG_NAME).unlink(missing_ok=True)
        for name in FILES:
            (draft / name).replace(target / name)
    finally:
        shutil.rmtree(draft)
    return target


def _form(config: Path) -> dict[str, Any] | None:
    """What a config file says of the weights beside it; None where there is none to be read."""
    try:
        values: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {k: v for k, v in values.items() if k not in ("recipe", "measurements")}


def load_adapter(
    model: nn.Module,
    folder_or_hub_id: str | os.PathLike[str],
    *,
    adapter_name: str = "default",
    trainable: bool = False,
    revision: str | None = None,
) -> PeftModel:
    """Load an adapter onto the base model it was trained for; all is checked before it is attached.

    Args:
        model: the base model, which is wrapped in place, or a peft model with steering adapters,
            which gets one more (not active until `set_adapter`).
        folder_or_hub_id: a folder that `save_adapter` wrote, or the id of one on the hub.
        trainable: whether its parameters take gradients.
        revision: which version of the hub id.

    Raises:
        ValueError: there is no such folder or hub id, a file is missing or damaged, it is another
            kind of adapter, the base model is not the one it was trained for, or a tensor is
            missing, unexpected, of the wrong width or not finite. The message says which.
    """
    folder = _fetch(folder_or_hub_id, revision)
    config = read_config(folder)
    weights = _read_weights(folder / SAFETENSORS_WEIGHTS_NAME)
    resolve(config, model)
    _check_weights(weights, config, model, where=str(folder / SAFETENSORS_WEIGHTS_NAME))
    if isinstance(model, PeftModel):
        if adapter_name in model.peft_config:
            raise ValueError(
                f"the model already has an adapter {adapter_name!r}; give another adapter_name or "
                f"call delete_adapter first"
            )
        model.load_adapter(str(folder), adapter_name, is_trainable=trainable)
        return model
    loaded = PeftModel.from_pretrained(
        unwrap(model), str(folder), adapter_name=adapter_name, is_trainable=trainable
    )
    return _takes_strength(loaded)


def _takes_strength(model: PeftModel) -> PeftModel:
    """Without a task type peft calls the base model itself, whose forward swallows strength=."""
    if model.active_peft_config.task_type is None:
        model.special_peft_forward_args.add("strength")
    return model


def _fetch(folder_or_hub_id: str | os.PathLike[str], revision: str | None) -> Path:
    folder = Path(folder_or_hub_id)
    if not folder.is_dir():
        name = str(folder_or_hub_id)
        if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is None:
            raise ValueError(f"no adapter folder at {name}; check the path")
        try:
            fetched = snapshot_download(
                name, revision=revision, allow_patterns=[*FILES, RECORD_NAME]
            )
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise ValueError(
                f"there is no folder {name} here, and as a hub id it could not be fetched ({error})"
            ) from error
        folder = Path(fetched)
    for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        if not (folder / name).is_file():
            found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
            raise ValueError(
                f"{folder} is not a complete adapter: {name} is missing, it holds {found}. Copy or "
                f"save it again"
            )
    return folder


def read_config(folder: Path) -> SteeringConfig:
    """The config of an adapter folder.

    Raises:
        ValueError: it is of another kind of adapter, or does not name its norms.
    """
    fields = PeftConfig.from_json_file(str(folder / CONFIG_NAME))
    kind = fields.get("peft_type")
    if kind != "DSO_STEERING":
        raise ValueError(
            f"{folder / CONFIG_NAME} describes a {kind} adapter, not DSO_STEERING; load it "
            f"with peft"
        )
    config = SteeringConfig.from_pretrained(str(folder))
    if config.target_modules is None:
        raise ValueError(
            f"{folder / CONFIG_NAME} does not name the norms in target_modules; save it again"
        )
    assert isinstance(config, SteeringConfig)
    return config


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"{file} holds {file.stat().st_size} bytes and is not a whole safetensors file "
            f"({error}); it was cut short or altered, copy or save it again"
        ) from error


def _check_weights(
    weights: dict[str, Tensor], config: SteeringConfig, model: nn.Module, where: str
) -> None:
    """Every norm of the config has its parts, finite and of its shape, and nothing is left over."""
    base = unwrap(model)
    scaled = config.target_modules or () if config.scale else ()
    wanted: dict[str, tuple[int, ...]] = {
        f"base_model.model.{name}.steering_{kind}": tuple(
            norm_weight(base.get_submodule(name)).shape
        )
        for kind, names in (("scale", scaled), ("shift", config.shifted))
        for name in names
    }
    for name in rank_targets(config, base):
        shape = norm_weight(base.get_submodule(name)).shape[0], config.rank
        for kind in ("left", "right"):
            wanted[f"base_model.model.{name}.steering_{kind}"] = shape
    problems = [f"{key} is missing" for key in wanted if key not in weights]
    problems += [f"{key} is unexpected" for key in weights if key not in wanted]
    for key in sorted(wanted.keys() & weights.keys()):
        if tuple(weights[key].shape) != wanted[key]:
            problems.append(f"{key} has the shape {tuple(weights[key].shape)}, not {wanted[key]}")
        elif not bool(torch.isfinite(weights[key]).all()):
            problems.append(f"{key} holds numbers that are not finite")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"{where} does not hold the adapter that its config describes: "
            f"{'; '.join(problems[:5])}{more}. Use another copy of it, or train it again"
        )

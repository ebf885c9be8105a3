"""Fitting a config to a base model: is it the right one, and which norms are meant.

A config that has been attached says of its base model: name, revision, hidden size, norm count,
fingerprint. All that it says must hold of the model at hand. Source: arXiv 2512.15926.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from dso.steering.backbone import (
    base_name,
    count_norms,
    find_norms,
    fingerprint,
    hidden_size,
    input_norms,
    is_norm,
    unwrap,
    vision_norms,
)
from dso.steering.config import SteeringConfig
from dso.steering.readers import Readers


def resolve(config: SteeringConfig, model: nn.Module) -> list[str]:
    """Fit a config to a base model: check what it says of the base, fill in what it leaves open.

    Afterwards the config holds the names of the norms in module order, the base's name, revision,
    hidden size, norm count and fingerprint.

    Returns: the names of the norms to steer.

    Raises:
        ValueError: the config was made for another base model (both are named), it names modules
            that the model does not have or that are no norms, or it asks for a low-rank part and
            none of its norms would have it.
    """
    base = unwrap(model)
    modules = dict(base.named_modules())
    facts = {
        "hidden_size": hidden_size(base),
        "num_norms": count_norms(base),
        "fingerprint": fingerprint(base),
    }
    problems = [
        f"{name} {getattr(config, name)} instead of {fact}"
        for name, fact in facts.items()
        if getattr(config, name) not in (None, fact)
    ]
    missing = [
        n for n in config.target_modules or () if n not in modules or not is_norm(modules[n])
    ]
    if missing:
        problems.append(f"no norm named {', '.join(missing)}")
    if problems:
        raise ValueError(
            f"the adapter was made for {config.base_model_name_or_path or 'an unnamed model'}, the "
            f"model given is {base_name(base) or 'an unnamed model'} ({type(base).__name__}): "
            f"{'; '.join(problems)}. Load the adapter on the base model it was trained for; if the "
            f"weights were changed on purpose, set `fingerprint` to null in its config"
        )
    if config.target_modules is None:
        config.target_modules = find_norms(base, final=config.final_norm, qk=config.qk_norms)
        if config.vision:
            wanted = {*config.target_modules, *vision_norms(base)}
            config.target_modules = [name for name in modules if name in wanted]
    else:
        wanted = set(config.target_modules)
        config.target_modules = [name for name in modules if name in wanted]
    if config.rank and not rank_targets(config, base):
        raise ValueError(
            f"rank is {config.rank}, but none of the norms in target_modules is the input norm of "
            f"a block; set rank_norms to 'all', or name one of {', '.join(input_norms(base))}"
        )
    _resolve_shift(config, base)
    config.foldable = not fold_problems(config, base)
    for name, fact in facts.items():
        setattr(config, name, fact)
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = base_name(base)
    if config.revision is None:
        config.revision = getattr(base.config, "_commit_hash", None)
    return list(config.target_modules)


def _resolve_shift(config: SteeringConfig, base: PreTrainedModel) -> None:
    """Name the norms that have a shift, where only some may have one.

    Raises:
        ValueError: names of norms that are not steered, or a form that leaves a norm with nothing
            or cannot be folded though it was asked to.
    """
    targets = list(config.target_modules or ())
    if config.shift and config.shift_modules is None and config.only_foldable:
        readers, ranked = Readers(base), set(rank_targets(config, base))
        config.shift_modules = [
            name for name in targets if readers.fit(name, shift=True, ranked=name in ranked).shift
        ]
    unknown = sorted(set(config.shifted) - set(targets))
    if unknown:
        raise ValueError(f"shift_modules names {', '.join(unknown)}, which are not steered")
    bare = [] if config.scale else [name for name in targets if name not in config.shifted]
    if bare:
        raise ValueError(
            f"scale is off and {', '.join(bare)} have no shift that could be trained; turn scale on"
            + (", or only_foldable off" if config.only_foldable else "")
        )
    if config.only_foldable and (problems := fold_problems(config, base)):
        raise ValueError(
            f"only_foldable is on, but {problems[0]}; leave that part out, or turn only_foldable "
            "off"
        )


def fold_problems(config: SteeringConfig, model: nn.Module) -> list[str]:
    """What of an adapter's form has no place in the weights of its base: norm, part and reason.

    Args:
        config: resolved, so that it names its norms.
        model: the base, plain or steered.
    """
    base = unwrap(model)
    readers = Readers(base)
    ranked, shifted = set(rank_targets(config, base)), set(config.shifted)
    return [
        problem
        for name in config.target_modules or ()
        for problem in readers.fit(name, shift=name in shifted, ranked=name in ranked).problems
    ]


def rank_targets(config: SteeringConfig, model: nn.Module) -> list[str]:
    """The names of the norms with a low-rank part, for a config that names its norms."""
    names = list(config.target_modules or ())
    if config.rank == 0 or config.rank_norms == "all":
        return names if config.rank else []
    first = set(input_norms(model))
    return [name for name in names if name in first]

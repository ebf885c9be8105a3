"""Fitting a config to a base model: is it the right one, and which norms are meant.

A config that has been attached says of its base model: name, revision, hidden size, norm count,
fingerprint. All that it says must hold of the model at hand. Source: arXiv 2512.15926.
"""

from __future__ import annotations

from torch import nn

from dso.steering.backbone import (
    base_name,
    block_norms,
    count_norms,
    find_norms,
    fingerprint,
    hidden_size,
    input_norms,
    is_norm,
    unwrap,
)
from dso.steering.config import SteeringConfig


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
    else:
        wanted = set(config.target_modules)
        config.target_modules = [name for name in modules if name in wanted]
    if config.rank and not rank_targets(config, base):
        raise ValueError(
            f"rank is {config.rank}, but none of the norms in target_modules is the input norm of "
            f"a block; set rank_norms to 'all', or name one of {', '.join(input_norms(base))}"
        )
    config.foldable = config.rank == 0 and (
        not config.shift or set(block_norms(base)).issuperset(config.target_modules)
    )
    for name, fact in facts.items():
        setattr(config, name, fact)
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = base_name(base)
    if config.revision is None:
        config.revision = getattr(base.config, "_commit_hash", None)
    return list(config.target_modules)


def rank_targets(config: SteeringConfig, model: nn.Module) -> list[str]:
    """The names of the norms with a low-rank part, for a config that names its norms."""
    names = list(config.target_modules or ())
    if config.rank == 0 or config.rank_norms == "all":
        return names if config.rank else []
    first = set(input_norms(model))
    return [name for name in names if name in first]

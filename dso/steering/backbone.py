"""Where the norms of a language model are, and which model it is.

The backbone is what transformers calls the decoder: for a vision-language model the text tower
without the image tower and the projector. Its norms are the modules whose class is, or is named as,
a LayerNorm or RMSNorm and whose weight is (hidden_size,). q/k norms are told by name: they can have
any width, the hidden size too. The final norm is the one outside every list of decoder blocks that
does not belong to the embeddings. Names are qualified names inside the base model, that is, inside
any peft wrapper: they can be used as peft's `target_modules`. Source: arXiv 2512.15926.
"""

from __future__ import annotations

import hashlib

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from transformers import PreTrainedModel

from dso.steering.layer import AffineSteering

QK_NORMS = frozenset(
    f"{which}_{norm}"
    for which in ("q", "k", "query", "key")
    for norm in ("norm", "layernorm", "layer_norm", "ln")
)

EMBEDDING_ROWS = 256


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside any peft wrapper. Raises TypeError when there is none."""
    if isinstance(model, PeftModel):
        model = model.get_base_model()
    if isinstance(model, BaseTuner):
        model = model.model
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"expected a transformers model, or a peft model around one, got a "
            f"{type(model).__name__}; attach adapters before compiling or distributing a model"
        )
    return model


def language_backbone(model: nn.Module) -> nn.Module:
    """The stack of decoder blocks with its embeddings and norms, without head or image tower."""
    backbone: nn.Module = unwrap(model).get_decoder()  # type: ignore[no-untyped-call]
    return backbone


def hidden_size(model: nn.Module) -> int:
    """The width of the language backbone's hidden states."""
    return int(unwrap(model).config.get_text_config(decoder=True).hidden_size)


def base_name(model: nn.Module) -> str | None:
    """The hub id or path the base model was loaded from; None for one built from a config."""
    return unwrap(model).config._name_or_path or None


def is_norm(module: nn.Module) -> bool:
    """Whether the module is a LayerNorm or RMSNorm with a one-dimensional weight."""
    if isinstance(module, AffineSteering):
        return True
    named = type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
    if not (named or isinstance(module, nn.LayerNorm | nn.RMSNorm)):
        return False
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() == 1


def norm_weight(module: nn.Module) -> Tensor:
    """The weight of a norm, steered or not: (d,)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def find_norms(model: nn.Module, *, final: bool, qk: bool) -> list[str]:
    """Qualified names of the language backbone's norms, in module order.

    Args:
        model: a transformers model, plain or steered.
        final: with the norm after the last block.
        qk: with the norms of queries and keys.

    Raises:
        ValueError: the backbone has none, with the classes that it does have; or a q/k norm has a
            weight of two or more dimensions, which a vector cannot steer.
    """
    base = unwrap(model)
    backbone = language_backbone(base)
    names = _scan(base, backbone, final=final, qk=qk)
    if not names:
        seen = sorted({type(module).__name__ for module in backbone.modules()})
        raise ValueError(
            f"no norm to steer in {type(backbone).__name__}: looked for classes named LayerNorm or "
            f"RMSNorm with a weight of shape ({hidden_size(base)},), the final norm "
            f"{'in' if final else 'ex'}cluded; the classes seen are {', '.join(seen)}. Name the "
            f"norms in `target_modules`"
        )
    return names


def vision_norms(model: nn.Module) -> list[str]:
    """Qualified names of the norms outside the language backbone, in module order: those of the
    image tower and the projector of a vision-language model.

    Raises:
        ValueError: there are none, as in a model of text alone.
    """
    base = unwrap(model)
    backbone = language_backbone(base)
    inside = {id(module) for module in backbone.modules()}
    names: list[str] = []
    for name, module in base.named_modules():
        if id(module) not in inside and not name.startswith(tuple(f"{n}." for n in names)):
            names += [name] if is_norm(module) else []
    if not names:
        raise ValueError(
            f"vision is on, but {type(base).__name__} has no norm outside its language model; turn "
            "it off"
        )
    return names


def count_norms(model: nn.Module) -> int:
    """How many norms the language backbone has, the final one included, q/k norms not."""
    base = unwrap(model)
    return len(_scan(base, language_backbone(base), final=True, qk=False))


def block_norms(model: nn.Module) -> list[str]:
    """As `find_norms` without the final and q/k norms, and [] where there is none."""
    base = unwrap(model)
    return _scan(base, language_backbone(base), final=False, qk=False)


def input_norms(model: nn.Module) -> list[str]:
    """The first of `block_norms` of every decoder block: what its attention reads, in most families
    (in OLMo 2, which has no norm there, the one behind the attention)."""
    base = unwrap(model)
    lists = [f"{name}." for name, m in base.named_modules() if isinstance(m, nn.ModuleList)]
    first: dict[tuple[str, str], str] = {}
    for norm in block_norms(base):
        # The outermost list is that of the blocks; inside a block there can be one of experts.
        blocks = next((name for name in lists if norm.startswith(name)), "")
        first.setdefault((blocks, norm.removeprefix(blocks).partition(".")[0]), norm)
    return list(first.values())


def _scan(base: nn.Module, backbone: nn.Module, *, final: bool, qk: bool) -> list[str]:
    prefix = _name_of(base, backbone)
    width = hidden_size(base)
    names: list[str] = []
    wrapped: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    for name, module in backbone.named_modules():
        if name.startswith(wrapped):
            continue
        if isinstance(module, nn.ModuleList):
            blocks += (f"{name}.",)
        if isinstance(module, AffineSteering):
            wrapped += (f"{name}.",)
        leaf = name.rpartition(".")[2]
        if leaf in QK_NORMS:
            if qk:
                _check_qk(f"{prefix}{name}", module)
                names.append(f"{prefix}{name}")
        elif is_norm(module) and norm_weight(module).shape[0] == width:
            is_final = not name.startswith(blocks) and "embed" not in name
            if final or not is_final:
                names.append(f"{prefix}{name}")
    return names


def _check_qk(name: str, module: nn.Module) -> None:
    if not is_norm(module):
        raise ValueError(
            f"{name} is a {type(module).__name__} whose weight is not one vector, so one scale and "
            f"shift per channel do not fit it; set qk_norms=False"
        )


def _name_of(base: nn.Module, part: nn.Module) -> str:
    """The prefix of part's names inside base: "" for base itself, else ending with a dot."""
    for name, module in base.named_modules():
        if module is part:
            return f"{name}." if name else ""
    raise ValueError(
        f"{type(base).__name__}.get_decoder() returns a {type(part).__name__} that is not one of "
        f"its modules; name the norms to steer in `target_modules`"
    )


def fingerprint(model: nn.Module) -> str:
    """A sha256 that tells base models apart, the same with and without adapters attached.

    It covers the model type, the hidden size, the names and weights of all norms (with the final
    and, where they are vectors, the q/k norms) and the first 256 rows of the input embedding.
    Weights are rounded to bfloat16, so that a float32 and a bfloat16 load of a checkpoint agree;
    names count from the backbone, so that a model agrees with its own backbone.

    Raises:
        ValueError: the weights are not loaded (meta device).
    """
    base = unwrap(model)
    backbone = language_backbone(base)
    digest = hashlib.sha256()
    model_type = base.config.get_text_config(decoder=True).model_type
    digest.update(f"{model_type}|{hidden_size(base)}".encode())
    steered: tuple[str, ...] = ()
    for name, module in backbone.named_modules():
        if name.startswith(steered) or not is_norm(module):
            continue
        if isinstance(module, AffineSteering):
            steered += (f"{name}.",)
        digest.update(f"|{name}|".encode() + _rounded(norm_weight(module)))
    embedding = backbone.get_input_embeddings()  # type: ignore[operator]
    digest.update(b"|embedding|" + _rounded(embedding.weight[:EMBEDDING_ROWS]))
    return digest.hexdigest()


def _rounded(weight: Tensor) -> bytes:
    if weight.is_meta:
        raise ValueError(
            "the base model's weights are on the meta device, so it cannot be told which model it "
            "is; load the weights before attaching an adapter"
        )
    rounded = weight.detach().to("cpu", torch.bfloat16).contiguous()
    return rounded.view(torch.int16).numpy().tobytes()

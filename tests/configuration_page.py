"""docs/configuration.md, rendered from the code: every field of `dso fit`, its default and meaning.

python -m tests.configuration_page    writes it
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from docstring_parser import parse_from_object

from dso.loading import Loading
from dso.sampling import Sampling
from dso.tasks import TASKS, ChoiceDataModule
from dso.training import (
    GRPO,
    PPO,
    Custom,
    KLBudget,
    Objective,
    Optimisation,
    Schedule,
    Steering,
    SteeringModule,
)
from dso.training.trl_backend import TRL

PAGE = Path("docs/configuration.md")
GROUPS = {
    "loading": Loading,
    "steering": Steering,
    "objective": Objective,
    "kl": KLBudget,
    "optimisation": Optimisation,
    "sampling": Sampling,
    "grpo": GRPO,
    "ppo": PPO,
}
ENTRIES = {"custom_rewards and custom_terms": Custom, "schedules": Schedule}
INTRODUCTION = """\
# Every field of a configuration

What `dso fit` takes, rendered from the code; `dso fit --help` says the same, and the fields of
`trainer`, which are Lightning's. A field that is left out has its default.
"""


def described(kind: type[Any]) -> dict[str, str]:
    """What the docstrings say of each argument or field."""
    parsed = parse_from_object(kind).params
    return {p.arg_name: " ".join((p.description or "").split()) for p in parsed}


def table(kind: type[Any], prefix: str, leave_out: tuple[str, ...] = ()) -> str:
    """Markdown: a row a field.

    Raises:
        ValueError: a field that no docstring describes.
    """
    meanings = described(kind)
    lines = ["| field | default | meaning |", "|---|---|---|"]
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in leave_out:
            continue
        if not meanings.get(name):
            raise ValueError(f"{kind.__name__}.{name} is not described in a docstring")
        default = parameter.default
        if default is not parameter.empty and "factory" in type(default).__name__.lower():
            default = {}  # the only factory in use
        shown = "needed" if default is parameter.empty else f"`{_plain(default)}`"
        meaning = meanings[name].replace("|", "\\|")
        lines.append(f"| `{prefix}{name}` | {shown} | {meaning} |")
    return "\n".join(lines)


def _plain(value: object) -> str:
    """A default as YAML would have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return "[" + ", ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in value) + "]"
    return str(value)


def render() -> str:
    """The page."""
    parts = [INTRODUCTION, "## model\n", table(SteeringModule, "model.", tuple(GROUPS))]
    for name, kind in GROUPS.items():
        assert dataclasses.is_dataclass(kind)
        parts += [f"\n### model.{name}\n", table(kind, f"model.{name}.")]
    for name, kind in ENTRIES.items():
        parts += [f"\n### an entry of model.objective.{name}\n", table(kind, "")]
    parts += [
        "\n## backend\n",
        "`backend` is `lightning`, our own loop, or `trl`, whose GRPO and RLOO trainers it runs.\n",
        table(TRL, "trl."),
    ]
    parts += ["\n## data\n", table(ChoiceDataModule, "data.")]
    for kind in sorted(set(TASKS.values()), key=lambda kind: kind.__name__):
        summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        parts += [
            f"\n### data.task: dso.tasks.{kind.__name__}\n",
            f"{summary}\n",
            table(kind, "init_args."),
        ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")

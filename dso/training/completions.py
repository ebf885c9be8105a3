"""Sampled answers to parquet: what was said, how it was read, and what each reward gave for it.

One file for each step that is written and each process, `<folder>/000050-0.parquet`, so that a run
that dies leaves whole files. Its columns: step, choice (the prompt's id; its answers are one
group), occupation, gender, prompt, completion, strength, parsed (the option's text, null for none),
side and group of that option, reward (the combined one), and `reward/<name>` for each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L

from dso.tasks.choice import Choice
from dso.training import processes
from dso.training.learner import StepRecord
from dso.training.module import SteeringModule


class SaveCompletions(L.Callback):
    """Writes the sampled answers of some steps; needs pyarrow, and does nothing for `exact`.

    Args:
        every_n_steps: at which steps.
        folder: where; by default `completions` in the trainer's `default_root_dir`.
    """

    def __init__(self, every_n_steps: int = 50, folder: str | None = None) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; wanted at least 1")
        self.every_n_steps = every_n_steps
        self.folder = folder

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find out before the first step whether it can be written.

        Raises:
            ValueError: pyarrow is not installed.
        """
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ValueError(
                'completions are written as parquet, which needs pyarrow: pip install "dso[data]", '
                "or leave out the callback SaveCompletions"
            ) from error

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """Write the step's answers, where there are any."""
        record = pl_module.learner.record if isinstance(pl_module, SteeringModule) else None
        if record is None or record.rollouts is None or batch_idx % self.every_n_steps:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert isinstance(pl_module, SteeringModule)
        folder = Path(self.folder or Path(trainer.default_root_dir) / "completions")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{batch_idx:06d}-{processes.rank()}.parquet"
        part = folder / f".{path.stem}.part"
        rows = completion_rows(record, batch_idx, pl_module.policy.render)
        pq.write_table(pa.Table.from_pylist(rows), part)
        part.replace(path)


def completion_rows(
    record: StepRecord, step: int, render: Callable[[Choice], str]
) -> list[dict[str, Any]]:
    """One row for each sampled answer of a step.

    Args:
        record: of a step with sampled answers.
        step: its number.
        render: from a choice to the text of its prompt.
    """
    assert record.rollouts is not None
    options = record.rollouts.option.tolist()
    total = record.rewarded.total.tolist()
    values = {name: reward.tolist() for name, reward in record.rewarded.values.items()}
    rows = []
    for n, choice in enumerate(record.choices):
        prompt = render(choice)
        for g, text in enumerate(record.rollouts.texts[n]):
            option = choice.options[options[n][g]] if options[n][g] >= 0 else None
            rows.append(
                {
                    "step": step,
                    "choice": choice.id,
                    "occupation": " / ".join(choice.occupations) or None,
                    "gender": choice.gender,
                    "prompt": prompt,
                    "completion": text,
                    "strength": 1.0,
                    "parsed": option and option.text,
                    "side": option and option.side,
                    "group": option and option.group,
                    "reward": total[n][g],
                    **{f"reward/{name}": reward[n][g] for name, reward in values.items()},
                }
            )
    return rows

"""What a run can be watched by: CSV, TensorBoard, and the lines that say where it goes on."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from dso.training.cli import fit
from tests.organism import organism

SIZES = {"pairs": 24, "pool": 24, "validation": 6, "evaluation": 6, "forms": [" {}"]}
EVERY_STEP = {"reward", "bias", "kl", "loss", "raw/parity", "raw/twin_consistency"}
EVERY_STEP |= {"weighted/kl", "weighted/parity", "kl_multiplier", "kl_average", "kl_ambiguous"}
SAMPLED = {"unparsed", "spread/parity", "no_signal/ambiguous"}
VALIDATION = {"val/selection", "val/per_occupation_bias", "val/kl", "val/unambiguous_accuracy"}


def run(folder: Path, *more: str, model: dict[str, Any], **trainer: Any) -> None:
    """`dso fit` from a YAML file: six steps, validated after every second."""
    settings = {
        "model": {"model": organism()} | model,
        "data": {
            "task": {"class_path": "dso.tasks.Coreference", "init_args": SIZES},
            "pairs_per_step": 4,
            "pool_per_step": 8,
        },
        "trainer": {
            "max_steps": 6, "val_check_interval": 2, "accelerator": "cpu",
            "enable_progress_bar": False, "default_root_dir": str(folder),
        } | trainer,
    }  # fmt: skip
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    fit(["--config", str(config), *more])


@pytest.mark.parametrize("estimator", ["exact", "rloo"])
def test_the_csv_log_has_every_figure_of_every_step_and_validation(tmp_path, estimator):
    sampling = {"samples": 2, "max_new_tokens": 4}
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        # Written at every step: the columns of the validation come when there are lines already.
        "init_args": {"save_dir": str(tmp_path), "name": "logs", "flush_logs_every_n_steps": 1},
    }
    run(tmp_path / "a", model={"estimator": estimator, "sampling": sampling})
    run(tmp_path / "b", model={"estimator": estimator, "sampling": sampling}, logger=logger)
    places = [tmp_path / "a" / "logs" / "version_0", tmp_path / "logs" / "version_0"]
    logs = []
    for place in places:
        with (place / "metrics.csv").open(encoding="utf-8", newline="") as file:
            logs.append(list(csv.DictReader(file)))
    assert logs[0] == logs[1]
    steps = [row for row in logs[0] if row["loss"]]
    validations = [row for row in logs[0] if row["val/selection"]]
    assert [int(row["step"]) for row in steps] == [0, 1, 2, 3, 4, 5]
    assert [int(row["step"]) for row in validations] == [1, 3, 5]
    wanted = EVERY_STEP | (SAMPLED if estimator == "rloo" else set())
    for rows, names in ((steps, wanted), (validations, VALIDATION)):
        for row in rows:
            assert all(row[name] for name in names), [n for n in names if not row[n]]


def test_tensorboard_is_a_matter_of_configuration(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(tmp_path), "name": "events"},
    }
    run(tmp_path / "run", model={}, logger=logger)
    events = EventAccumulator(str(tmp_path / "events" / "version_0"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= (EVERY_STEP | VALIDATION)
    assert [event.step for event in events.Scalars("raw/parity")] == [0, 1, 2, 3, 4, 5]
    assert [event.step for event in events.Scalars("val/selection")] == [1, 3, 5]
    assert not (tmp_path / "run" / "logs").exists()


def test_without_a_checkpoint_to_resume_from_a_run_starts_afresh_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="dso")
    folder = tmp_path / "run"
    run(folder, "--ckpt_path", "last", model={})
    assert "no checkpoint to resume from yet: starting afresh" in caplog.text
    assert "no step was left to do" not in caplog.text
    before = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    run(folder, "--ckpt_path", "last", model={})
    assert f"resuming from {folder / 'checkpoints' / 'last.ckpt'}" in caplog.text
    assert "no step was left to do: the run had come to its end" in caplog.text
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_callbacks_of_the_configuration_take_the_place_of_the_usual_ones(tmp_path):
    callbacks = [
        {"class_path": "dso.training.SaveAdapter", "init_args": {"folder": str(tmp_path / "mine")}},
        {"class_path": "dso.training.SaveBest"},
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"every_n_train_steps": 4, "save_last": True},
        },
    ]
    run(tmp_path / "run", model={}, callbacks=callbacks)
    assert (tmp_path / "mine" / "adapter_config.json").is_file()
    assert not (tmp_path / "run" / "adapter").exists()
    assert (tmp_path / "run" / "best").is_dir()
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {"epoch=0-step=4.ckpt", "last.ckpt"}


def test_trainer_settings_that_contradict_one_another_are_named(tmp_path):
    with pytest.raises(ValueError, match="val_check_interval"):
        run(tmp_path / "run", model={}, val_check_interval=1.5)
    run(tmp_path / "run", model={}, enable_checkpointing=False)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert (tmp_path / "run" / "adapter").is_dir()

"""A user's own model and data go through the commands by configuration alone."""

import json

import pytest

from dso.cli import main
from dso.report import read_results
from tests.own_model import write_model, write_rows


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    return write_model(folder / "model"), write_rows(folder / "rows.csv")


def test_check_fit_and_evaluate_by_configuration_alone(given, tmp_path, capsys):
    model, rows = given
    assert main(["check", "--data", str(rows)]) == 0
    fit = [
        "fit", "--config", "configs/own-data.yaml",
        f"--model.model={model}", f"--data.task.init_args.data={rows}",
        "--data.task.init_args.built_in_pool=0", "--trainer.max_steps=40",
        "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}/run",
    ]  # fmt: skip
    assert main(fit) == 0
    adapter = tmp_path / "run" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(model)
    assert config["recipe"]["task"]["init_args"]["data"] == str(rows)
    evaluate = [
        "evaluate", "--model", str(model), "--adapter", str(adapter), "--samples", "4",
        "--replicates", "20", "--output", f"{tmp_path}/out",
    ]  # fmt: skip
    assert main(evaluate) == 0
    found = {
        (r.split, r.metric, r.strength): r.value
        for r in read_results(tmp_path / "out" / "results.jsonl")
        if r.estimate == "probability"
    }
    assert found["test", "per_occupation_bias", 0.0] > 0.3
    bias = [found["test", "per_occupation_bias", w] for w in (0.0, 0.5, 1.0)]
    assert bias == sorted(bias, reverse=True)
    assert bias[-1] < 0.75 * bias[0]
    assert found["test", "capability", 1.0] > 0.9

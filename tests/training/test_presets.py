from pathlib import Path

import pytest
import yaml

from dso.sampling import Sampling
from dso.training import KLBudget, Objective, Optimisation, Steering, preset
from dso.training.presets import data_of, steps_of


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("default", "organism-llm"),
        ("paper", "organism-llm-paper"),
        ("rloo", "organism-llm-rloo"),
        ("vlm", "organism-vlm"),
    ],
)
def test_the_configurations_hold_the_presets(name, file):
    settings = yaml.safe_load(Path(f"configs/{file}.yaml").read_text(encoding="utf-8"))
    model = settings["model"]
    wanted = preset(name)
    assert Steering(**model["steering"]) == wanted["steering"]
    assert Objective(**model["objective"]) == wanted["objective"]
    assert KLBudget(**model["kl"]) == wanted.get("kl", KLBudget())
    assert model.get("estimator", "exact") == wanted.get("estimator", "exact")
    assert Sampling(**model.get("sampling", {})) == wanted.get("sampling", Sampling())
    optimisation = Optimisation(**model["optimisation"])
    assert optimisation == wanted.get("optimisation", Optimisation())
    assert settings["trainer"]["max_steps"] == steps_of(name)
    data = {key: value for key, value in settings["data"].items() if key != "task"}
    assert data == data_of(name)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="no preset 'best'"):
        preset("best")

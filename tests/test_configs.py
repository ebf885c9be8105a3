"""Every configuration is read; those for real models run on stand-ins for what they need."""

from pathlib import Path

import pytest
import yaml

from dso.cli import main
from tests.configuration_page import PAGE, render
from tests.organism import organism
from tests.tasks.published.picture_files import write_mmmu, write_social
from tests.tasks.published.public_files import write_mmlu, write_synthbias
from tests.tiny_vlms import SKIPPED, tiny_vlm

PAPER_ROWS = sorted(Path("configs").glob("*-synthbias.yaml"))
PAPER_PICTURES = sorted(Path("configs").glob("*-social.yaml"))
FAMILY = {"gemma": "gemma3", "llama": "mllama", "qwen2.5": "qwen2_5_vl"}
OTHERS = sorted(set(Path("configs").rglob("*.yaml")) - set(PAPER_ROWS) - set(PAPER_PICTURES))


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_a_configuration_is_understood(path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(path), "--print_config"])
    assert stopped.value.code in (0, None)
    said = yaml.safe_load(capsys.readouterr().out)
    asked = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert said["model"]["model"] == asked["model"]["model"]
    assert said["trainer"]["max_steps"] == asked["trainer"]["max_steps"]


@pytest.mark.parametrize("path", PAPER_ROWS, ids=lambda path: path.stem)
def test_a_row_of_the_paper_runs_with_another_model_and_small_files(path, tmp_path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    task = config["data"]["task"]["init_args"]
    task["capability"]["init_args"] = {"data": str(write_mmlu(tmp_path / "mmlu"))}
    task |= {"data": str(write_synthbias(tmp_path).parent), "train_pairs": 4, "forms": [" {}"]}
    config["model"]["model"] = organism()
    config["data"] |= {"pairs_per_step": 2, "pool_per_step": 4}
    config["trainer"] |= {
        "max_steps": 1, "limit_val_batches": 0, "accelerator": "cpu",
        "default_root_dir": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("path", PAPER_PICTURES, ids=lambda path: path.stem)
def test_a_row_of_the_paper_with_pictures_runs_with_a_tiny_model_of_its_family(path, tmp_path):
    family = FAMILY[path.stem.split("-")[0]]
    if family in SKIPPED:
        pytest.skip(SKIPPED[family])
    model, processor = tiny_vlm(family)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    task = config["data"]["task"]["init_args"]
    task["capability"]["init_args"] = {"data": str(write_mmmu(tmp_path / "mmmu"))}
    del task["hub"]
    small = {"train_pairs": 4, "pool": 8, "validation": 4, "evaluation": 4, "height": 32}
    task |= {"data": str(write_social(tmp_path / "social")), **small}
    config["model"]["model"] = str(tmp_path / "model")
    config["data"] |= {"pairs_per_step": 2, "pool_per_step": 4, "evaluation_batch": 4}
    config["trainer"] |= {
        "max_steps": 1, "limit_val_batches": 1, "accelerator": "cpu",
        "default_root_dir": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_the_page_of_all_fields_is_that_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == render(), "python -m tests.configuration_page"

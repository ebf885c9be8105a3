import re
import shlex
from pathlib import Path

import pytest
import yaml

from dso.cli import main

README = Path("README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [
    line for block in blocks("sh") for line in block.splitlines() if line.startswith("dso ")
]
QUICK = {
    "fit": ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"],
    "evaluate": ["--limit=4", "--replicates=5"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(command, tmp_path):
    words = shlex.split(command)[1:]
    where = {"fit": "--trainer.default_root_dir", "evaluate": "--output"}[words[0]]
    assert main([*words, *QUICK[words[0]], f"{where}={tmp_path}"]) == 0


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_example_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    answers = capsys.readouterr().out
    assert "guard" in answers or "nurse" in answers


def test_every_folder_named_exists():
    rows = re.findall(r"^\| `([\w/.]+)` \|", README, flags=re.MULTILINE)
    paths = [row for row in rows if "/" in row or Path(row).exists()]
    assert len(paths) >= 12
    assert [path for path in paths if not Path(path).exists()] == []


def test_the_images_exist():
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert images
    assert all(Path(image).is_file() for image in images)


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=str)
def test_every_configuration_says_how_it_is_run(path):
    text = path.read_text(encoding="utf-8")
    assert "dso fit --config" in text or "paper" in path.name
    assert set(yaml.safe_load(text)) == {"model", "data", "trainer"}

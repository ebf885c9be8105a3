import re
import shlex
from pathlib import Path

import pytest
import yaml

from dso.cli import main

README = Path("README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(page):
    """The `dso` command lines of the page's shell blocks, in order."""
    found = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    lines = [line.strip() for block in found for line in block.splitlines()]
    return [line for line in lines if line.startswith("dso ")]


QUICK = {
    "check": [],
    "choose-strength": ["--strengths", "1"],
    "fold": [],
    "generate": ["--max-new-tokens=4"],
    "push": [],
    "fit": ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"],
    "evaluate": ["--limit=4", "--replicates=5"],
}


ELSEWHERE = ("serve", "lm-eval")
"""A server does not end, and lm-eval's tasks are on the hub: tests/commands runs both."""


@pytest.mark.parametrize("page", ["README.md", "docs/own-data.md", "docs/inference.md"])
def test_the_commands_run_one_after_the_other(page, tmp_path, monkeypatch):
    every = commands(Path(page).read_text(encoding="utf-8"))
    lines = [line for line in every if shlex.split(line)[1] not in ELSEWHERE]
    assert lines
    for folder in ("configs", "checkpoints"):
        (tmp_path / folder).symlink_to(Path(folder).resolve())
    monkeypatch.chdir(tmp_path)
    for line in lines:
        words = shlex.split(line)[1:]
        assert main([*words, *QUICK[words[0]]]) == 0, line


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_example_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    answers = capsys.readouterr().out
    assert "guard" in answers or "nurse" in answers


TRAINING = Path("docs/training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", TRAINING, flags=re.DOTALL))
def test_every_piece_of_configuration_is_understood(text, tmp_path, capsys):
    (tmp_path / "piece.yaml").write_text(text, encoding="utf-8")
    whole = [
        "fit",
        "--config",
        "configs/organism-llm.yaml",
        "--config",
        str(tmp_path / "piece.yaml"),
    ]
    with pytest.raises(SystemExit) as stopped:
        main([*whole, "--print_config"])
    assert stopped.value.code in (0, None), capsys.readouterr().err


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
    assert set(yaml.safe_load(text)) - {"backend"} == {"model", "data", "trainer"}

import pytest

from dso.cli import main
from dso.demo import STRENGTHS, demo
from dso.organisms.vlm import VlmRecipe, build_model, build_processor, save_vlm
from dso.report import read_results
from dso.steering import SteeringConfig
from dso.tasks import Scenes
from tests.organism import small_task

TINY = VlmRecipe(
    image=48, patch=12, vision_width=16, vision_layers=1, vision_mlp=16, width=16, layers=2, mlp=16,
    heads=2, vision_heads=2,
)  # fmt: skip


def test_the_demo_leaves_an_adapter_figures_and_plots_and_says_what_happened(tmp_path, capsys):
    results = demo(tmp_path, steps=2, task=small_task())
    said = capsys.readouterr().out
    assert "1. Whom a pronoun meant" in said
    assert "3. The strength is a knob" in said
    written = {path.name for path in tmp_path.iterdir()}
    assert {"adapter", "results.jsonl", "table.md", "strength.png", "occupations.png"} <= written
    assert read_results(tmp_path / "results.jsonl") == results
    assert {r.strength for r in results} == set(STRENGTHS)
    config = SteeringConfig.from_pretrained(str(tmp_path / "adapter"))
    assert [row["strength"] for row in config.measurements] == list(STRENGTHS)
    assert config.recipe["steps"] == 2


def test_on_pictures_it_leaves_a_page_to_look_at_too(tmp_path, capsys):
    processor = build_processor(TINY)
    model = build_model(TINY, len(processor.tokenizer)).eval()
    save_vlm(model, processor, tmp_path / "organism")
    task = Scenes(forms=("{}",), size=48, pairs=8, pool=8, validation=4, evaluation=32)
    output = tmp_path / "run"
    results = demo(output, steps=1, task=task, vlm=True, model=tmp_path / "organism")
    said = " ".join(capsys.readouterr().out.split())
    assert "1. Who in a picture was meant depended on gender" in said
    assert "scenes.html" in said.replace(" ", "")  # a long path is broken where the line ends
    written = {path.name for path in output.iterdir()}
    assert {"adapter", "results.jsonl", "table.md", "strength.png", "occupations.png"} <= written
    assert {"scenes.html", "scenes.png"} <= written
    assert read_results(output / "results.jsonl") == results
    page = (output / "scenes.html").read_text(encoding="utf-8")
    assert f"Model {tmp_path / 'organism'}, " in page and "preset vlm, 1 steps, seed 0." in page
    bias = next(
        r for r in results
        if (r.split, r.metric, r.strength, r.estimate)
        == ("heldout_occupations", "per_occupation_bias", 1.0, "probability")
    )  # fmt: skip
    assert f"{100 * bias.value:.1f} ({100 * bias.low:.1f} to {100 * bias.high:.1f})" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vlm", "--preset", "paper"], "no preset 'paper' for the vision-language organism"),
        (["--preset", "vlm"], "no preset 'vlm' for the language organism"),
    ],
)
def test_a_preset_of_the_other_organism_is_refused(options, message, tmp_path, capsys):
    assert main(["demo", *options, "--output", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

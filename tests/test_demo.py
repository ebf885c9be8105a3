from dso.demo import STRENGTHS, demo
from dso.report import read_results
from dso.steering import SteeringConfig
from tests.organism import small_task


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

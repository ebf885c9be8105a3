"""Sampled answers in parquet: every one, with what it earned."""

from __future__ import annotations

import pytest

from dso.sampling import Sampling
from dso.training import SaveCompletions
from tests.organism import Records, module, small_data, trainer

pq = pytest.importorskip("pyarrow.parquet")


def test_every_answer_of_a_written_step_stands_in_its_file(tmp_path):
    run = module(estimator="rloo", sampling=Sampling(3, 4))
    records = Records()
    trainer(tmp_path, 4, records, SaveCompletions(every_n_steps=2)).fit(run, small_data())
    files = sorted((tmp_path / "completions").iterdir())
    assert [file.name for file in files] == ["000000-0.parquet", "000002-0.parquet"]
    rows = pq.read_table(files[1]).to_pylist()
    record = records.steps[2]
    assert len(rows) == 16 * 3
    assert {row["step"] for row in rows} == {2} and {row["strength"] for row in rows} == {1.0}
    for n, choice in enumerate(record.choices):
        for g in range(3):
            row = rows[3 * n + g]
            option = int(record.rollouts.option[n, g])
            assert row["choice"] == choice.id and row["prompt"] == run.policy.render(choice)
            assert row["completion"] == record.rollouts.texts[n][g]
            assert row["parsed"] == (choice.options[option].text if option >= 0 else None)
            assert row["reward"] == pytest.approx(float(record.rewarded.total[n, g]))
            for name, values in record.rewarded.values.items():
                assert row[f"reward/{name}"] == pytest.approx(float(values[n, g]))


def test_the_exact_estimator_has_no_answers_to_write(tmp_path):
    trainer(tmp_path, 1, SaveCompletions(every_n_steps=1)).fit(module(), small_data())
    assert not (tmp_path / "completions").exists()


def test_how_often_is_a_positive_number():
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        SaveCompletions(every_n_steps=0)

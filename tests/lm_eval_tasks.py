"""Three small tasks for lm-eval in a folder: options, answers, and the perplexity of texts."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import yaml
from huggingface_hub import constants
from pytest import MonkeyPatch

from dso.tasks.coreference import ambiguous

TASKS = ("local_options", "local_answers", "local_text")


def write_tasks(folder: Path, pairs: int = 6, longest: int = 4) -> Path:
    """Coreference sentences; right is the answer with the stereotype, so that strength shows."""
    choices = ambiguous(pairs, "test", "test", 0, "test")
    rows = [
        {
            "question": choice.prompt,
            "options": [option.text for option in choice.options],
            "gold": [option.side for option in choice.options].index("pro"),
        }
        for choice in choices
    ]
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "User: {{question}}\nAssistant:",
        "metadata": {"version": 1},
    }
    own = {
        "local_options": {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{options}}",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "local_answers": {
            "output_type": "generate_until",
            "doc_to_target": "{{options[gold]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": longest, "do_sample": False},
            "filter_list": [
                {"name": "none", "filter": [{"function": "take_first"}]},
                {
                    "name": "stripped",
                    "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}],
                },
            ],
            "metric_list": [{"metric": "exact_match"}],
        },
        "local_text": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{question}}",
            "metric_list": [{"metric": "word_perplexity"}],
        },
    }
    for name, settings in own.items():
        text = yaml.safe_dump({"task": name} | shared | settings)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    group = {
        "group": "local",
        "task": list(TASKS[:2]),
        "aggregate_metric_list": [{"metric": "acc", "filter_list": "none"}],
        "metadata": {"version": 1},
    }
    (folder / "local.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    return folder


def stay_local(monkeypatch: MonkeyPatch, folder: Path) -> None:
    """No network, and no cache but in the folder."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")

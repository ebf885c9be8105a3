"""The backend of lm-eval: live and folded give equal numbers, whatever the kind of request."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.registry import get_model, model_registry
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from dso.inference.lm_eval import SteeredLM
from dso.loading import load_base
from dso.steering import attach, fold, load_adapter, save_adapter
from tests.lm_eval_tasks import TASKS, stay_local, write_tasks
from tests.organism import adapter, organism

QUESTION = 'User: The guard thanked the nurse because she was late. Who is "she"?\nAssistant:'


@pytest.fixture(autouse=True)
def local(monkeypatch, tmp_path):
    stay_local(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def steered():
    return SteeredLM(organism(), adapter(), batch_size=4)


def evaluated(folder, model, arguments=None, **settings):
    return simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        **({"batch_size": 4, "device": "cpu", "bootstrap_iters": 10} | settings),
    )


def figures(report):
    """Every figure of every task."""
    return {
        (task, key): value
        for task, values in report["results"].items()
        for key, value in values.items()
        if "," in key and "stderr" not in key
    }


def answers(report):
    """What was answered: log-likelihoods of every option, and every generated text."""
    samples = [s for task in TASKS for s in report["samples"][task]]
    texts = [s["filtered_resps"] for s in samples if isinstance(s["filtered_resps"][0], str)]
    numbers = [
        float(number[0] if isinstance(number, tuple) else number)
        for sample in samples
        for number in sample["filtered_resps"]
        if not isinstance(number, str)
    ]
    return texts, torch.tensor(numbers, dtype=torch.float64)


@pytest.fixture(scope="module")
def base_report(folder):
    return evaluated(folder, "hf", f"pretrained={organism()}")


def test_strength_zero_is_the_base_under_the_stock_backend(folder, steered, base_report):
    steered.set_strength(0)
    report = evaluated(folder, steered)
    assert figures(report) == figures(base_report)
    assert answers(report)[0] == answers(base_report)[0]
    assert torch.equal(answers(report)[1], answers(base_report)[1])
    alone = evaluated(folder, "dso", f"pretrained={organism()}")
    assert torch.equal(answers(alone)[1], answers(base_report)[1])


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_live_equals_folded_under_the_stock_backend(
    folder, steered, base_report, strength, tmp_path
):
    model = load_adapter(load_base(organism()), adapter())
    tokenizer = AutoTokenizer.from_pretrained(organism())
    inputs = tokenizer(QUESTION, return_tensors="pt", return_token_type_ids=False)
    folded = fold(model.eval(), strength, tmp_path / "folded", [dict(inputs)]).folder
    tokenizer.save_pretrained(folded)
    stock = evaluated(folder, "hf", f"pretrained={folded}")
    steered.set_strength(strength)
    live = evaluated(folder, steered)
    assert figures(live) == pytest.approx(figures(stock), rel=1e-5)
    said, likelihoods = answers(live)
    assert said == answers(stock)[0]
    assert torch.allclose(likelihoods, answers(stock)[1], rtol=0, atol=1e-4)
    # and it is not the base that both are
    assert (likelihoods - answers(base_report)[1]).abs().max() > 0.1
    assert (
        figures(live)["local_options", "acc,none"]
        != (figures(base_report)["local_options", "acc,none"])
    )
    assert float(steered.model.strength) == pytest.approx(strength)


def test_the_arguments_of_the_command_line_are_understood(folder, steered):
    text = f"pretrained={organism()},adapter={adapter()},strength=0.4,dtype=float32"
    report = evaluated(folder, "dso", text)
    steered.set_strength(0.4)
    assert torch.equal(answers(report)[1], answers(evaluated(folder, steered))[1])
    recorded = report["config"]
    assert (recorded["model"], recorded["strength"]) == ("dso", 0.4)
    assert (recorded["pretrained"], recorded["adapter"]) == (organism(), adapter())


def test_the_size_of_a_batch_changes_nothing(folder):
    one, many = (
        evaluated(folder, SteeredLM(organism(), adapter(), 0.7, batch_size=size), batch_size=size)
        for size in (1, 7)
    )
    assert answers(one)[0] == answers(many)[0]
    assert torch.allclose(answers(one)[1], answers(many)[1], rtol=0, atol=1e-4)


def test_the_entry_point_finds_the_registered_class():
    declared = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    value = declared["entry-points"]["lm_eval.models"]["dso"]
    assert get_model("dso") is SteeredLM
    # Later versions of lm-eval want both to be the same place.
    assert value == f"{SteeredLM.__module__}:{SteeredLM.__name__}"
    point = EntryPoint(name="dso", value=value, group="lm_eval.models")
    model_registry.register("dso-found-by-entry-point", target=point)
    assert get_model("dso-found-by-entry-point") is SteeredLM


def test_an_adapter_at_first_stands_at_one_and_a_base_at_zero(steered):
    assert SteeredLM(organism(), adapter()).strength == 1.0
    base = SteeredLM(organism())
    assert base.strength == 0.0
    base.set_strength(0)
    with pytest.raises(ValueError, match=r"strength 0\.5 needs an adapter"):
        base.set_strength(0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 0.4}, r"strength 0\.4 needs an adapter; give adapter="),
        ({"adapter": adapter(), "strength": -1}, "finite and at least 0"),
        ({"adapter": adapter(), "strength": float("nan")}, "finite and at least 0"),
        ({"adapter": adapter(), "strength": "much"}, "must be a number"),
        ({"adapter": adapter(), "strength": [0.0, 1.0]}, "lm-eval mixes its requests"),
        ({"adapter": "./nothing"}, "no adapter folder at ./nothing"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SteeredLM(organism(), **arguments)


def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path):
    base = load_base(organism())
    base.name_or_path = base.config.name_or_path = "someone/else"
    with torch.no_grad():
        base.model.norm.weight.add_(0.5)
    other = save_adapter(attach(base), tmp_path / "adapter")
    with pytest.raises(ValueError, match=f"made for someone/else, the model given is {organism()}"):
        SteeredLM(organism(), str(other))


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="runs in one process"):
        SteeredLM(organism(), adapter())

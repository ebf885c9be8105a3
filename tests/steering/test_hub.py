"""The hub: what is sent is what comes back, and nothing is sent that is not whole."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import dso
from dso.cli import main
from dso.steering import SteeringConfig, fold, load_adapter, save_adapter
from dso.steering.hub import pack, push
from tests.organism import adapter, organism
from tests.steering.steered import steer
from tests.tiny_hub import TOKEN, tiny_hub
from tests.tiny_models import tiny_llama, tokens
from tests.tiny_tokenizers import tiny_tokenizer

MEASURED = [{"strength": 0.0, "bias": 60.4}, {"strength": 1.0, "bias": 5.9}]


@pytest.fixture
def saved(tmp_path):
    base = tiny_llama()
    base.name_or_path = base.config.name_or_path = "someone/base"
    return save_adapter(steer(base), tmp_path / "adapter", measurements=MEASURED)


def answer_at(monkeypatch, address, cache):
    """What HF_ENDPOINT and HF_HUB_CACHE would do when the library is imported."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    huggingface_hub.close_session()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with tiny_hub() as server:
        answer_at(monkeypatch, server.address, tmp_path / "cache")
        yield server
        huggingface_hub.close_session()


def send(folder, repo, *more):
    return main(["push", "--adapter", str(folder), "--repo", repo, *more])


def logits(model):
    with torch.no_grad():
        return model(input_ids=tokens()).logits


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_card(folder, old, new):
    path = folder / "README.md"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_adapter_comes_back_bit_for_bit(saved, hub, capsys):
    assert send(saved, "someone/adapter") == 0
    assert f"Sent to {hub.address}/someone/adapter\n" in capsys.readouterr().out
    fetched = load_adapter(tiny_llama(), "someone/adapter")
    local = load_adapter(tiny_llama(), saved)
    assert torch.equal(logits(fetched), logits(local))
    sent = hub.repositories["someone/adapter"].commits
    weights = sent[hub.repositories["someone/adapter"].branches["main"]]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert weights[name] == (saved / name).read_bytes()


def test_the_pipeline_takes_a_hub_id(hub):
    assert send(adapter(), "someone/organism-dso") == 0
    question = 'The guard thanked the nurse because she was late. Who is "she"?'
    there = dso.load(organism(), "someone/organism-dso").answer(question, strength=0.7)
    assert there == dso.load(organism(), adapter()).answer(question, strength=0.7)


def test_only_what_belongs_to_it_is_sent(saved, hub):
    (saved / "checkpoints").mkdir()
    (saved / "checkpoints" / "last.ckpt").write_bytes(b"0" * 100)
    for name in ("optimizer.pt", "results.jsonl", ".env", "strength.json"):
        (saved / name).write_text("{}")
    parcel = pack(saved)
    assert parcel.left_out == (".env", "checkpoints", "optimizer.pt", "results.jsonl")
    push(parcel, "someone/adapter", message="The third try")
    repository = hub.repositories["someone/adapter"]
    assert repository.messages == ["initial commit", "The third try"]
    assert sorted(repository.commits[repository.branches["main"]]) == [
        ".gitattributes",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "strength.json",
    ]


def test_the_card_on_the_hub_names_its_own_address(saved, hub):
    push(pack(saved), "someone/adapter")
    repository = hub.repositories["someone/adapter"]
    text = repository.commits[repository.branches["main"]]["README.md"].decode()
    assert 'dso.load("someone/base", "someone/adapter")' in text
    assert "path/to" not in text
    assert "path/to/this/folder" in (saved / "README.md").read_text()


def test_a_branch_keeps_main_as_it_was(saved, hub):
    push(pack(saved), "someone/adapter")
    other = steer(tiny_llama(), seed=8)
    edited = save_adapter(other, saved.parent / "other")
    edit_config(edited, base_model_name_or_path="someone/base")
    shutil.copy(saved / "README.md", edited)
    address = push(pack(edited), "someone/adapter", revision="v2")
    assert address == f"{hub.address}/someone/adapter/tree/v2"
    first = load_adapter(tiny_llama(), "someone/adapter")
    second = load_adapter(tiny_llama(), "someone/adapter", revision="v2")
    assert torch.equal(logits(first), logits(load_adapter(tiny_llama(), saved)))
    assert torch.equal(logits(second), logits(other))


def test_sending_again_replaces(saved, hub):
    push(pack(saved), "someone/adapter")
    edit_card(saved, "tags:", "license: mit\ntags:")
    push(pack(saved), "someone/adapter")
    repository = hub.repositories["someone/adapter"]
    card = repository.commits[repository.branches["main"]]["README.md"].decode()
    assert ModelCard(card).data.license == "mit"
    assert len(repository.commits) == 3


def test_private_is_private_or_refused(saved, hub, monkeypatch):
    push(pack(saved), "someone/secret", private=True)
    assert hub.repositories["someone/secret"].private
    load_adapter(tiny_llama(), "someone/secret")
    push(pack(saved), "someone/open")
    with pytest.raises(ValueError, match="someone/open is there already and public"):
        push(pack(saved), "someone/open", private=True)
    assert len(hub.repositories["someone/open"].commits) == 2
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    shutil.rmtree(constants.HF_HUB_CACHE)
    with pytest.raises(ValueError, match="could not be fetched"):
        load_adapter(tiny_llama(), "someone/secret")


def test_a_folded_model_comes_back(tmp_path, hub):
    steered = steer(tiny_llama())
    folded = fold(steered, 0.5, tmp_path / "folded", [{"input_ids": tokens()}]).folder
    tiny_tokenizer().save_pretrained(folded)
    (folded / "trainer_state.json").write_text("{}")
    parcel = pack(folded)
    assert parcel.kind == "model"
    assert parcel.left_out == ("trainer_state.json",)
    assert any("README.md" in note for note in parcel.notes)
    push(parcel, "someone/folded")
    again = AutoModelForCausalLM.from_pretrained("someone/folded", cache_dir=tmp_path / "cache")
    here = AutoModelForCausalLM.from_pretrained(folded)
    assert torch.equal(logits(again), logits(here))


def test_a_dry_run_lists_and_sends_nothing(saved, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    (saved / "last.ckpt").write_text("")
    assert send(saved, "someone/adapter", "--dry-run") == 0
    said = capsys.readouterr().out
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert f"{(saved / name).stat().st_size:,} bytes  {name}" in said
    assert "left out: last.ckpt" in said
    assert "names no licence" in said
    assert not hub.repositories


def test_a_refused_token_is_named(saved, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert send(saved, "someone/adapter") == 2
    assert "the token may not write there" in capsys.readouterr().err
    assert not hub.repositories


def test_without_a_token_it_says_where_one_belongs(saved, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert send(saved, "someone/adapter") == 2
    assert "`hf auth login`, or set HF_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("someone/nothing", None, "someone/nothing here, and as a hub id it could not be fetched"),
        ("someone/adapter", "v9", "Revision Not Found"),
    ],
)
def test_what_is_not_on_the_hub_is_named(saved, hub, name, revision, message):
    push(pack(saved), "someone/adapter")
    with pytest.raises(ValueError, match=message):
        load_adapter(tiny_llama(), name, revision=revision)


def test_an_unreachable_hub_is_named_both_ways(saved, tmp_path, monkeypatch, capsys):
    with tiny_hub() as server:
        address = server.address
    answer_at(monkeypatch, address, tmp_path / "cache")
    assert send(saved, "someone/adapter") == 2
    assert "the hub could not be reached" in capsys.readouterr().err
    with pytest.raises(ValueError, match="could not be fetched"):
        load_adapter(tiny_llama(), "someone/adapter")
    huggingface_hub.close_session()


@pytest.mark.parametrize("repo", ["adapter", "a/b/c", "some one/adapter", "someone/"])
def test_what_is_no_repository_is_refused(saved, repo, capsys):
    assert send(saved, repo, "--dry-run") == 2
    assert repo in capsys.readouterr().err


def spoil_weights(folder, change):
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


KEY = "base_model.model.model.layers.0.input_layernorm.steering_scale"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "README.md").unlink(), "README.md is missing"),
        (lambda f: (f / "adapter_config.json").unlink(), "no folder of an adapter"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "safetensors is missing"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"0" * 50), "not a whole"),
        (lambda f: spoil_weights(f, lambda w: w[KEY].fill_(torch.inf)), f"{KEY} .*not finite"),
        (lambda f: spoil_weights(f, lambda w: w.pop(KEY)), f"1 weights are missing .*{KEY}"),
        (lambda f: edit_config(f, rank=2), "does not hold the adapter"),
        (lambda f: edit_card(f, "tags:\n", "tags: [\n"), "the header .* cannot be read"),
        (lambda f: edit_card(f, "base_model: someone/base\n", ""), "base_model: None"),
        (lambda f: edit_card(f, "someone/base", "someone/else"), "base_model: someone/else, and"),
    ],
)
def test_what_is_not_whole_is_not_sent(saved, spoil, message):
    spoil(saved)
    with pytest.raises(ValueError, match=message):
        pack(saved)


def test_a_base_that_is_a_path_is_refused(tmp_path):
    base = tiny_llama()
    base.name_or_path = base.config.name_or_path = "/data/models/base"
    folder = save_adapter(steer(base), tmp_path / "adapter")
    with pytest.raises(ValueError, match="/data/models/base, which is no hub id"):
        pack(folder)


def test_a_low_rank_adapter_and_paths_in_its_recipe(tmp_path):
    base = tiny_llama()
    base.name_or_path = base.config.name_or_path = "someone/base"
    recipe = {"task": {"init_args": {"data": ["/home/me/rows.csv", "rows.csv"]}}}
    folder = save_adapter(steer(base, SteeringConfig(rank=2)), tmp_path / "a", recipe=recipe)
    parcel = pack(folder)
    assert "paths of this machine go with it: /home/me/rows.csv" in parcel.notes
    spoil_weights(folder, lambda w: w.pop(KEY.replace("scale", "left")))
    with pytest.raises(ValueError, match="does not hold the adapter"):
        pack(folder)


def test_the_card_is_one_the_hub_can_read(saved):
    card = ModelCard.load(saved / "README.md")
    assert card.data.base_model == "someone/base"
    assert card.data.library_name == "dso"
    assert card.data.base_model_relation == "adapter"
    assert {"dso", "peft", "steering"} <= set(card.data.tags)
    for row in MEASURED:
        assert f"| {row['strength']:g} | {row['bias']:g} |" in card.text
    assert "license:" in card.text

"""Models, processors and pictures that do not belong together: what is said of each."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from PIL import Image
from transformers.utils import is_torchvision_available

from dso.cli import main
from dso.loading import load_processor, load_tokenizer
from dso.policy import Policy
from dso.tasks.pictures import ImageFile
from tests.seeing import choice, picture, plain
from tests.tiny_models import tiny_llama
from tests.tiny_tokenizers import tiny_tokenizer
from tests.tiny_vlm_families import FAMILIES
from tests.tiny_vlms import SKIPPED, tiny_processor, tiny_vlm

ASKED = [choice("a", "Who?", picture(40, 24))]


def save(folder, family, processor=None):
    """A family's model with a processor; by default its own."""
    model, own = tiny_vlm(family)
    model.save_pretrained(folder)
    (own if processor is None else processor).save_pretrained(folder)
    return folder


def ask(folder):
    """Load as every command does, and score a choice with a picture."""
    policy = Policy.from_pretrained(folder)
    with torch.no_grad():
        return policy.option_log_probs(policy.encode(ASKED))


def fields(folder, name, **changes):
    """Change fields of a JSON file of a folder, wherever they stand; each must stand somewhere."""
    path = folder / name
    left = set(changes)

    def changed(value):
        if not isinstance(value, dict):
            return value
        left.difference_update(value)
        return {key: changes.get(key, changed(inner)) for key, inner in value.items()}

    path.write_text(json.dumps(changed(json.loads(path.read_text()))), encoding="utf-8")
    assert not left


# -- processors of another model ------------------------------------------------------------------


def refused(made_for, model):
    """Of a processor of one family with the model of another, the error; None where there is none.

    The tokens of the tiny processors are numbered alike, so that not only their numbers tell.
    """
    made = tiny_processor(made_for)
    try:
        other = Policy(plain(model).model, made.tokenizer, processor=made)
        other.option_log_probs(other.encode(ASKED))
    except ValueError as error:
        return str(error)
    return None


# Near relations, whose processors make the same inputs in the same sizes.
KIN = (
    {"qwen2_vl", "qwen2_5_vl", "qwen3_vl"},
    {"smolvlm", "idefics3"},
)
# By chance: these tiny ones have the same token for a picture, and as many for one.
ALIKE = ("llava", "paligemma")
# Tokens and sizes agree by chance too, and the model finds by itself that something is wrong.
BY_THE_MODEL = {("llava_next", "llava"), ("gemma3", "paligemma"), ("internvl", "paligemma")}


@pytest.mark.parametrize("model", [name for name in FAMILIES if name not in SKIPPED])
def test_the_processor_of_another_family_is_refused_with_both_names(model):
    for made_for in FAMILIES:
        kin = any({made_for, model} <= group for group in KIN)
        if made_for == model or made_for in SKIPPED or kin or (made_for, model) == ALIKE:
            continue
        said = refused(made_for, model)
        assert said is not None, made_for
        ours = type(tiny_processor(made_for)).__name__
        named = f"the {ours} is not the processor of the model, of type {model}: "
        assert said.startswith(named) == ((made_for, model) not in BY_THE_MODEL), said
        if said.startswith(named):
            assert said.endswith("save the model's own beside it with processor.save_pretrained")


def test_a_processor_that_usually_belongs_to_others_is_logged(caplog):
    with caplog.at_level(logging.WARNING, "dso.fitting"):
        assert refused(*ALIKE) is None
    assert "a LlavaProcessor, and models of type paligemma usually have a PaliGemmaP" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "dso.fitting"):
        Policy(plain("llava").model, tiny_tokenizer(), processor=tiny_processor("llava"))
    assert not caplog.text


@pytest.mark.parametrize(
    ("family", "field"),
    [
        ("llava", "image_token_index"),
        ("qwen2_vl", "image_token_id"),
        ("gemma3", "image_token_index"),
    ],
)
def test_another_token_for_a_picture_is_refused(tmp_path, family, field):
    folder = save(tmp_path, family)
    fields(folder, "config.json", **{field: 7})
    with pytest.raises(ValueError, match=f"of type {family}: it writes no token 7, which stands"):
        ask(folder)


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("llava", {"patch_size": 4}, "patch_size is 4, and the model's vision_config.patch_size 8"),
        (
            "llava",
            {"vision_feature_select_strategy": "full"},
            "vision_feature_select_strategy is 'full', and the model's .* 'default'",
        ),
        ("qwen2_5_vl", {"merge_size": 4}, "image_processor.merge_size is 4, and .* 2"),
        ("qwen2_5_vl", {"patch_size": 16}, "image_processor.patch_size is 16, and .* 8"),
        ("gemma3", {"image_seq_length": 9}, "image_seq_length is 9, .*mm_tokens_per_image 4"),
        ("internvl", {"image_seq_length": 9}, "image_seq_length is 9, and .*image_seq_length 4"),
        ("mllama", {"max_image_tiles": 2}, "max_image_tiles is 2, and .*max_num_tiles 4"),
    ],
)
def test_another_number_of_visual_tokens_is_refused_when_it_is_loaded(
    tmp_path, family, changes, said
):
    folder = save(tmp_path, family)
    fields(folder, "processor_config.json", **changes)
    wanted = rf"is not the processor of the model {folder}, of type {family}: .*{said}.*; save the"
    with pytest.raises(ValueError, match=wanted):
        Policy.from_pretrained(folder)


def test_a_number_that_only_the_model_knows_is_said_by_it(tmp_path):
    folder = save(tmp_path, "idefics3")
    fields(folder, "processor_config.json", image_seq_len=3)
    with pytest.raises(ValueError, match="image tokens do not match, tokens: 15, features: 20"):
        ask(folder)


# -- no processor -----------------------------------------------------------------------------


def test_a_folder_without_a_processor_is_refused(tmp_path):
    model, processor = tiny_vlm("llava")
    model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    wanted = (
        "vision-language model, but its processor, a .*, takes no pictures; save the model's own|"
        "vision-language model, and has no processor that can be read .*processor.save_pretrained"
    )
    with pytest.raises(ValueError, match=wanted):
        Policy.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"processor_class": "NoProcessor"}'])
def test_a_processor_that_cannot_be_read_is_refused(tmp_path, content):
    folder = save(tmp_path, "llava")
    (folder / "processor_config.json").write_text(content, encoding="utf-8")
    wanted = f"{folder} is a vision-language model, .* processor"
    with pytest.raises(ValueError, match=wanted):
        load_processor(folder, None, load_tokenizer(folder))


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed, and not missed")
@pytest.mark.parametrize("family", [name for name, made in FAMILIES.items() if made.video])
def test_a_processor_that_needs_torchvision_says_so(tmp_path, family):
    folder = save(tmp_path, family)
    own = FAMILIES[family].processor.__name__
    fields(folder, "processor_config.json", processor_class=own)
    if (folder / "tokenizer_config.json").is_file():
        text = (folder / "tokenizer_config.json").read_text()
        (folder / "tokenizer_config.json").write_text(text.replace(f"Images{own}", own))
    with pytest.raises(ValueError, match=f"{folder} .* no processor .*pip install torchvision"):
        load_processor(folder, None, load_tokenizer(folder))


# -- models that see nothing ------------------------------------------------------------------


def test_a_language_model_is_not_asked_about_pictures(tmp_path, capsys):
    tiny_llama().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(
        ValueError, match="choice 'a' shows 1 pictures, and this model takes none; "
    ):
        ask(tmp_path / "model")
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    asked = ["--prompt", "Who?", "--image", str(tmp_path / "a.png")]
    assert main(["generate", "--model", str(tmp_path / "model"), *asked]) == 2
    assert "1 pictures were given, and this model takes none" in capsys.readouterr().err
    # With a processor beside it a language model still sees nothing.
    tiny_processor("llava").save_pretrained(tmp_path / "both")
    shutil.copytree(tmp_path / "model", tmp_path / "both", dirs_exist_ok=True)
    with pytest.raises(ValueError, match="this model takes none; give a vision-language model"):
        ask(tmp_path / "both")


# -- pictures ---------------------------------------------------------------------------------


def test_a_picture_of_any_mode_is_the_same_to_the_model(tmp_path):
    policy = plain("qwen2_5_vl")
    whole = Image.effect_noise((40, 24), 60)  # one channel, so that nothing is lost
    found = []
    for mode, name in (("RGB", "a.png"), ("L", "b.png"), ("RGBA", "c.png"), ("LA", "d.png")):
        whole.convert(mode).save(tmp_path / name)
        found.append(prompts(policy, tmp_path / name).inputs["pixel_values"])
    whole.convert("P").save(tmp_path / "e.png")
    found.append(prompts(policy, tmp_path / "e.png").inputs["pixel_values"])
    wide = whole.convert("I").point(lambda value: value * 257)
    wide.convert("I;16").save(tmp_path / "f.png")
    found.append(prompts(policy, tmp_path / "f.png").inputs["pixel_values"])
    for other in found[1:]:
        assert torch.equal(other, found[0])


def prompts(policy, path):
    return policy.prompts(policy.encode([choice("a", "Who?", ImageFile(path))]))


def test_commands_end_with_what_is_wrong_and_not_with_a_trace(tmp_path, capsys):
    folder = save(tmp_path / "model", "llava")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("CMYK", (20, 10)).save(tmp_path / "a.tif")

    def generate(name):
        asked = ["--prompt", "Who?", "--image", str(tmp_path / name), "--max-new-tokens", "2"]
        code = main(["generate", "--model", str(folder), *asked])
        return code, capsys.readouterr().err

    assert generate("a.tif")[0] == 0
    for name, said in (("cut.png", "is no image that can be read"), ("b.png", "does not exist")):
        code, wrong = generate(name)
        assert code == 2
        assert f"{name} {said}" in " ".join(wrong.split())
    fields(folder, "processor_config.json", patch_size=4)
    code, wrong = generate("a.tif")
    assert code == 2
    assert "the LlavaProcessor is not the processor of the model" in " ".join(wrong.split())

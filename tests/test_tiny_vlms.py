"""What steering vision-language models relies on in transformers, family by family.

A row is (images, question). A batch can be made of rows that were processed one by one, and a
prompt's cache can be continued by text alone.
"""

from functools import cache

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import is_torchvision_available

from tests.tiny_vlm_families import FAMILIES
from tests.tiny_vlms import SKIPPED, tiny_processor, tiny_vlm

SIZES = [(40, 24), (20, 60), (64, 64)]
QUESTIONS = ["Who is the nurse?", "Left or right, who is the woman here?", "A man?"]
# One entry per token, with what the padding is.
PER_TOKEN = {
    "input_ids": 0,
    "attention_mask": 0,
    "token_type_ids": 0,
    "mm_token_type_ids": 0,
    "cross_attention_mask": 0,
    "labels": -100,
}


@pytest.fixture(params=list(FAMILIES))
def family(request):
    if request.param in SKIPPED:
        pytest.skip(SKIPPED[request.param])
    return request.param


@cache
def made(family):
    return tiny_vlm(family)


def picture(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def rows_of_one():
    """Rows of one image each, of three sizes."""
    return [
        ([picture(size, n)], question)
        for n, (size, question) in enumerate(zip(SIZES, QUESTIONS, strict=True))
    ]


def process(processor, rows):
    texts = [
        processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "image"}] * len(images)
                    + [{"type": "text", "text": question}],
                }
            ],
            add_generation_prompt=True,
        )
        for images, question in rows
    ]
    images = [images for images, _ in rows]
    return dict(
        processor(
            text=texts,
            images=images if any(images) else None,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            # Some chat templates write the token that the tokenizer would write a second time.
            add_special_tokens=not texts[0].startswith(processor.tokenizer.bos_token),
        )
    )


def merge(encoded):
    """One batch of rows that were processed alone: tokens padded on the left with each key's
    padding, all else on the far sides with zeros, rows behind one another."""
    width = max(row["input_ids"].shape[1] for row in encoded)
    merged = {}
    for key in dict.fromkeys(key for row in encoded for key in row):
        parts = [row[key] for row in encoded if key in row]
        most = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        if key in PER_TOKEN:
            most[0] = width
        padded = []
        for part in parts:
            whole = part.new_full((len(part), *most), PER_TOKEN.get(key, 0))
            place = [slice(size) for size in part.shape]
            if key in PER_TOKEN:
                place[1] = slice(width - part.shape[1], width)
            whole[tuple(place)] = part
            padded.append(whole)
        merged[key] = torch.cat(padded)
    return merged


def positions(model, inputs):
    """(B, T) positions counted from the first token, or (3, B, T) where an image has a plane."""
    mask = inputs["attention_mask"]
    if "image_grid_thw" not in inputs:
        return (mask.cumsum(-1) - 1).clamp(min=0)
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    return model.model.get_rope_index(**{name: inputs[name] for name in names})[0]


@torch.no_grad()
def last(model, inputs, **arguments):
    """(B, vocabulary) logits of the token behind each row."""
    return model(**inputs, **arguments).logits[:, -1]


@pytest.mark.parametrize("name", [name for name, made in FAMILIES.items() if made.video])
def test_a_processor_of_videos_too_is_the_class_itself_with_torchvision(name):
    wanted = FAMILIES[name].processor
    if not is_torchvision_available():
        pytest.skip(
            f"{name}: {wanted.__name__} takes videos, for which transformers needs torchvision; "
            "it is tested without them"
        )
    assert type(tiny_processor(name)) is wanted


def test_a_processor_of_images_is_the_class_itself():
    for name, made in FAMILIES.items():
        if made.video is None and name not in SKIPPED:
            assert type(tiny_processor(name)) is made.processor


def test_merged_rows_are_the_processors_own_batch(family):
    _, processor = made(family)
    rows = rows_of_one()
    batch = process(processor, rows)
    merged = merge([process(processor, [row]) for row in rows])
    assert set(merged) == set(batch)
    for key, value in batch.items():
        assert torch.equal(merged[key], value), key


def test_a_row_of_a_merged_batch_is_the_row_alone(family):
    model, processor = made(family)
    rows = rows_of_one()
    if family != "mllama":
        rows.append(([picture(SIZES[0], 3), picture(SIZES[1], 4)], QUESTIONS[0]))
    if family not in ("mllama", "paligemma"):
        rows.append(([], QUESTIONS[1]))
    encoded = [process(processor, [row]) for row in rows]
    alone = torch.cat([last(model, row) for row in encoded])
    merged = merge(encoded)
    torch.testing.assert_close(last(model, merged), alone, atol=1e-5, rtol=0)
    counted = last(model, merged, position_ids=positions(model, merged))
    torch.testing.assert_close(counted, alone, atol=1e-5, rtol=0)


def test_rows_of_mllama_see_how_many_images_the_others_have():
    """Text in front of a row's first image attends to all images alike, padding included."""
    model, processor = made("mllama")
    rows = [([picture(SIZES[0]), picture(SIZES[1])], QUESTIONS[0]), rows_of_one()[1]]
    encoded = [process(processor, [row]) for row in rows]
    alone = torch.cat([last(model, row) for row in encoded])
    apart = (last(model, merge(encoded)) - alone).abs().amax(-1)
    assert apart[0] < 1e-5
    assert apart[1] > 1e-4


def test_answers_depend_on_the_image(family):
    model, processor = made(family)
    one, other = ([picture((40, 24), seed)] for seed in (0, 1))
    first, second = (last(model, process(processor, [(x, "Who?")])) for x in (one, other))
    assert (first - second).abs().max() > 1e-2


def test_text_behind_a_cached_prompt_is_the_text_in_one_pass(family):
    model, processor = made(family)
    prompts = merge([process(processor, [row]) for row in rows_of_one()])
    prompts.pop("labels", None)
    text = torch.randint(3, 200, (3, 3), generator=torch.Generator().manual_seed(5))
    mask = torch.cat([prompts["attention_mask"], torch.ones_like(text)], 1)
    whole = prompts | {
        "input_ids": torch.cat([prompts["input_ids"], text], 1),
        "attention_mask": mask,
    }
    # Of what follows the prompt, only mllama must be told behind a cache, too: the images that the
    # text sees. To paligemma a 1 says that the text follows and is not part of the question.
    seen = {}
    for key, value in {
        "token_type_ids": int(family == "paligemma"),
        "mm_token_type_ids": 0,
    }.items():
        if key in prompts:
            whole[key] = torch.cat([prompts[key], torch.full_like(text, value)], 1)
    if "cross_attention_mask" in prompts:
        seen = {
            "cross_attention_mask": prompts["cross_attention_mask"][:, -1:].expand(-1, 3, -1, -1)
        }
        whole |= {key: torch.cat([prompts[key], value], 1) for key, value in seen.items()}
    start = positions(model, prompts)
    behind = start.reshape(-1, *start.shape[-2:]).amax((0, 2))[:, None] + 1 + torch.arange(3)
    with torch.no_grad():
        in_one = model(**whole).logits[:, -4:]
        prefill = model(**prompts, position_ids=start, use_cache=True)
        # Another batch in between: Qwen's models remember where the images of the last one ended.
        model(**process(processor, [([picture((16, 64))], "Who?")] * 3))
        rest = model(
            input_ids=text,
            attention_mask=mask,
            position_ids=behind,
            past_key_values=prefill.past_key_values,
            **seen,
        )
    cached = torch.cat([prefill.logits[:, -1:], rest.logits], 1)
    torch.testing.assert_close(cached, in_one, atol=1e-5, rtol=0)


def test_a_saved_folder_loads(family, tmp_path):
    model, processor = made(family)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is type(processor)
    inputs, loaded = (process(one, rows_of_one()) for one in (processor, again))
    assert set(loaded) == set(inputs)
    for key, value in inputs.items():
        # Where there is torchvision it resizes the images of the loaded one, by other rounding.
        torch.testing.assert_close(loaded[key], value, atol=0 if key in PER_TOKEN else 0.1, rtol=0)
    reloaded = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="eager")
    assert torch.equal(last(reloaded, inputs), last(model, inputs))

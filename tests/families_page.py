"""docs/families.md, rendered from the checks that every family passes.

python -m tests.families_page    writes it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dso.steering import find_norms
from tests import seeing
from tests.steering.conformance import CANNOT, CHECKS, NORMS_PER_BLOCK, QK_BLOCKS, plain
from tests.tiny_models import ALL_FAMILIES
from tests.tiny_vlm_families import FAMILIES

PAGE = Path(__file__).parents[1] / "docs" / "families.md"

INTRODUCTION = """\
# Model families

What an adapter does was checked on 28 families: for each a tiny model of two blocks with random
weights, run by the family's own modelling code in transformers 5.23 on a CPU, with the attention
that transformers picks. The names are transformers' model types; *norms* are those steered in each
block and, with `final_norm=True`, the one after the last block.

## Text

Vision-language models were given text only here, with the inputs that their processors make of it.
The checks, numbered as in the table:
"""
PICTURES = """\
## Pictures

Tiny models of the families that see, with their real processor and image processor classes, were
shown pictures of several sizes: one with each prompt and, where the family takes these in the same
batch, a prompt of words alone and one with two pictures. *Steered* are the norms in each block of
the language model that are steered by default. *By name* is where further norms are, in image tower
and projector: these stay as they are unless `vision=True` or `target_modules` of a `SteeringConfig`
names them. The checks:
"""
# The tests hold these too: see IDLE of the conformance, and what the checks leave out.
REMARKS = """\
What of an adapter folds into the weights of a family is in [inference.md](inference.md).

## Worth knowing

- The processors with *torchvision* above take videos as well, and transformers makes no processor
  of videos without torchvision: loading such a model asks for it. Where it is not installed the
  checks were made with the same class without its videos.
- `mllama`: the blocks that look at the image are passed by where there is none. Their norms, those
  of their queries and keys among them, are found, saved and loaded like the others, but text alone
  neither feels them nor trains them.
- `mllama`: the text of a row sees the padding of its pictures, so a pass takes rows of one number
  of pictures. Prompts with different numbers are scored and answered in a pass for each number.
- `paligemma`: every token of a prompt sees every other, so that a prompt is encoded once for each
  answer that is sampled, and its pictures must not be left out: give each prompt one. It has no
  chat template: a question is its text with `Answer:` behind.
- `paligemma`, given tensors by hand: give it the `token_type_ids` that its processor makes. Without
  them the base model itself lets a text look ahead or not, depending on the attention
  implementation and on whether the batch is padded.
- `llava` and `llava_next` read what the last block but one of their tower makes of a picture,
  `gemma3` and `paligemma` no pooled picture: the norms behind that do nothing and take no gradient.
- Steer a tower at one strength for the whole batch: its norms see pictures, tiles or patches, and
  not the rows that a strength per row is for.
"""


def page() -> str:
    """The text of docs/families.md."""
    parts = [INTRODUCTION, *_texts(), "", PICTURES, *_pictures(), "", REMARKS]
    return "\n".join(parts)


def _texts() -> list[str]:
    places = {key: f"[^{number}]" for number, key in enumerate(CANNOT, start=1)}
    rows = []
    for family in ALL_FAMILIES:
        cells = [places.get((family, check), "✓") for check in CHECKS]
        if family not in QK_BLOCKS:
            cells[list(CHECKS).index("query_and_key_norms_are_steered")] = "–"
        name = type(plain(family)).__name__
        rows.append([family, name, f"{NORMS_PER_BLOCK[family]} + 1", *cells])
    notes = [f"{place}: {CANNOT[key].reason}" for key, place in places.items()]
    return [*_table(("family", "class", "norms"), CHECKS, rows), "", *notes]


def _pictures() -> list[str]:
    rows = []
    for family, made in FAMILIES.items():
        blocks = find_norms(seeing.plain(family).model, final=False, qk=False)
        steered = _each(name.rpartition(".")[2] for name in blocks)
        # The part that a norm belongs to: its name up to the number of a block.
        beside = _each(re.split(r"\.\d+\.", name)[0] for name in seeing.norms_beside(family))
        torchvision = "torchvision" if made.video else "–"
        ticks = ["✓"] * len(seeing.CHECKS)
        rows.append([family, made.processor.__name__, torchvision, steered, beside, *ticks])
    head = ("family", "processor", "needs", "steered", "by name")
    return _table(head, seeing.CHECKS, rows)


def _each(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))


def _table(
    head: Iterable[str], checks: Mapping[str, Callable[[str], None]], rows: Iterable[list[str]]
) -> list[str]:
    """The checks as a list, and a table with a column for each."""
    said = [" ".join((check.__doc__ or "").split()) for check in checks.values()]
    numbers = [str(number) for number in range(1, len(said) + 1)]
    lines = [[*head, *numbers], [*("---" for _ in head), *(":-:" for _ in numbers)], *rows]
    return [
        *(f"{number}. {line}" for number, line in zip(numbers, said, strict=True)),
        "",
        *(f"| {' | '.join(row)} |" for row in lines),
    ]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""`dso generate`: answers to prompts at one or several strengths, as they are written."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Column, Table
from rich.text import Text

from dso.commands.arguments import add_loading, add_model, loading_of, positive, strength
from dso.inference import Answer, Decoding, Heard, SteeredPipeline, load
from dso.tasks import Message

HELP = "answer prompts at one or several strengths"
DESCRIPTION = (
    "Answer a prompt, or a file of them, at one strength or at several side by side. The answers "
    "stand on the terminal while they are written; --output keeps them as JSON lines."
)


@dataclass(frozen=True)
class Asked:
    """One prompt: a message, or a conversation that ends with one."""

    messages: tuple[Message, ...]
    images: tuple[Path, ...] = ()
    """Shown before the last message's words."""

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1].content


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    add_model(parser)
    parser.add_argument(
        "--prompt", nargs="+", default=[], metavar="TEXT", help="what to answer; several in turn"
    )
    parser.add_argument(
        "--file",
        type=Path,
        help="prompts: one a line, or with the ending .jsonl one object a line, with `prompt` or "
        "`messages` (role and content each) and, for a model that sees, `images` (paths from the "
        "file's folder); - reads lines from the standard input",
    )
    parser.add_argument(
        "--image",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="pictures shown with every --prompt, to a vision-language model",
    )
    parser.add_argument("--system", help="system message before every prompt")
    parser.add_argument(
        "--strength",
        type=strength,
        nargs="+",
        metavar="W",
        help="one, or several side by side (default: 1, or 0 without an adapter)",
    )
    parser.add_argument(
        "--raw", action="store_true", help="take prompts as they are, without the chat template"
    )
    defaults = Decoding()
    parser.add_argument(
        "--max-new-tokens", type=positive, default=defaults.max_new_tokens,
        help=f"longest answer (default {defaults.max_new_tokens})",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, default=defaults.temperature,
        help="0, the default, takes the likeliest token; 1 draws from the model's distribution",
    )  # fmt: skip
    parser.add_argument(
        "--top-p", type=float, default=defaults.top_p,
        help="draw only from the likeliest tokens that together have this probability (default 1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of what is drawn")
    parser.add_argument(
        "--stop", nargs="+", default=[], metavar="TEXT", help="texts that end an answer"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=16, help="answers at a time (default 16)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="JSON lines; must not be there yet"
    )
    add_loading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: no prompts, lines that cannot be read, an output file that is there already, or
            as `dso.load` and `SteeredPipeline.answers`.
    """
    asked = read_prompts(arguments.prompt, arguments.file, arguments.system, arguments.image)
    decoding = Decoding(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        stop=tuple(arguments.stop),
    )
    if arguments.output is not None and arguments.output.exists():
        raise ValueError(f"{arguments.output} is there already; name another file, or remove it")
    pipeline = load(arguments.model, arguments.adapter, loading=loading_of(arguments))
    strengths = arguments.strength or [1.0 if arguments.adapter else 0.0]
    with ExitStack() as stack:
        file = None
        if arguments.output is not None:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(arguments.output.open("x", encoding="utf-8"))
        generate(
            pipeline, asked, strengths, decoding, raw=arguments.raw, file=file,
            batch_size=arguments.batch_size,
        )  # fmt: skip


def read_prompts(
    prompts: Sequence[str], file: Path | None, system: str | None, images: Sequence[Path] = ()
) -> list[Asked]:
    """The prompts of a command line and of a file, each behind the system message.

    Raises:
        ValueError: there are none; a line that is not what it should be, by file and line; images
            without a prompt that they belong to.
    """
    if images and not prompts:
        raise ValueError("--image belongs to --prompt; a file names its images in each line")
    before = (Message("system", system),) if system else ()
    found = [Asked((*before, Message("user", prompt)), tuple(images)) for prompt in prompts]
    if file is not None:
        found += [Asked((*before, *asked.messages), asked.images) for asked in _read(file)]
    if not found:
        raise ValueError("nothing to answer; give --prompt TEXT or --file FILE")
    return found


def _read(file: Path) -> Iterator[Asked]:
    lines = sys.stdin if str(file) == "-" else file.open(encoding="utf-8")
    with nullcontext() if lines is sys.stdin else lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if file.suffix != ".jsonl":
                yield Asked((Message("user", line.rstrip("\n")),))
                continue
            try:
                row = json.loads(line)
                yield Asked(_messages(row), _images(row, file.parent))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{file}, line {number}: {error}; wanted {{"prompt": "..."}} or {{"messages": '
                    '[{"role": "user", "content": "..."}, ...]}, and images as a list of paths'
                ) from error


def _messages(row: Any) -> tuple[Message, ...]:
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        raise ValueError("it has not exactly one of `prompt` and `messages`")
    if "prompt" in row:
        if not isinstance(row["prompt"], str):
            raise ValueError(f"its prompt is {row['prompt']!r}")
        return (Message("user", row["prompt"]),)
    messages = tuple([Message(message["role"], message["content"]) for message in row["messages"]])
    if not messages:
        raise ValueError("its messages are empty")
    return messages


def _images(row: Any, folder: Path) -> tuple[Path, ...]:
    names = row.get("images", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"its images are {names!r}")
    return tuple(folder / name for name in names)


def generate(
    pipeline: SteeredPipeline,
    asked: Sequence[Asked],
    strengths: Sequence[float],
    decoding: Decoding,
    *,
    raw: bool = False,
    file: TextIO | None = None,
    batch_size: int = 16,
    console: Console | None = None,
) -> list[list[Answer]]:
    """Answer every prompt at every strength, on the terminal and into a file.

    Args:
        pipeline: the model.
        asked: the prompts.
        strengths: each prompt is answered at all of them, side by side in one batch.
        decoding: how answers are drawn.
        raw: without the chat template.
        file: gets a JSON line an answer, batch by batch.
        batch_size: answers at a time, at least those to one prompt.
        console: where answers are shown.

    Returns:
        By prompt, by strength.

    Raises:
        ValueError: as `SteeredPipeline.answers`.
    """
    console = console or Console()
    shown = len(asked) == 1 and console.is_terminal
    together = 1 if shown else max(1, batch_size // len(strengths))
    answers: list[list[Answer]] = []
    with ExitStack() as stack:
        bar = None
        if len(asked) > together:
            progress = Progress(
                *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)
            )
            stack.enter_context(progress)
            bar = (progress, progress.add_task("answering", total=len(asked)))
        for start in range(0, len(asked), together):
            part = asked[start : start + together]
            found = _answered(pipeline, part, strengths, decoding, raw, console if shown else None)
            answers += found
            for one, row in zip(part, found, strict=True):
                if not shown:
                    _show(console, one, strengths, row)
                if file is not None:
                    for omega, answer in zip(strengths, row, strict=True):
                        file.write(json.dumps(_record(one, omega, answer), ensure_ascii=False))
                        file.write("\n")
            if file is not None:
                file.flush()
            if bar is not None:
                bar[0].advance(bar[1], len(part))
    return answers


def _answered(
    pipeline: SteeredPipeline,
    asked: Sequence[Asked],
    strengths: Sequence[float],
    decoding: Decoding,
    raw: bool,
    console: Console | None,
) -> list[list[Answer]]:
    """By prompt, by strength; shown as they grow where there is a console."""
    prompts = [one.messages for one in asked for _ in strengths]
    omegas = [omega for _ in asked for omega in strengths]
    pictures = [one.images for one in asked for _ in strengths]
    with ExitStack() as stack:
        heard = None
        if console is not None:
            heard = (
                _plain(console) if len(omegas) == 1 else stack.enter_context(_live(console, omegas))
            )
        answers = pipeline.answers(
            prompts, omegas, decoding, pictures=pictures, raw=raw, heard=heard
        )
    if console is not None and len(omegas) == 1:
        console.print()
    width = len(strengths)
    return [answers[start : start + width] for start in range(0, len(answers), width)]


def _plain(console: Console) -> Heard:
    """Writes one answer as it grows."""
    return lambda _, text: console.print(Text(text), end="", soft_wrap=True)


@contextmanager
def _live(console: Console, strengths: Sequence[float]) -> Iterator[Heard]:
    """Context: shows answers side by side as they grow."""
    texts = [""] * len(strengths)

    def columns() -> Table:
        table = Table(*[Column(f"ω = {omega:g}", ratio=1) for omega in strengths], expand=True)
        table.add_row(*[Text(text.strip()) for text in texts])
        return table

    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:

        def grow(row: int, text: str) -> None:
            texts[row] += text
            live.update(columns(), refresh=True)

        yield grow


def _show(
    console: Console, asked: Asked, strengths: Sequence[float], answers: Sequence[Answer]
) -> None:
    """A prompt with its answers, where they are not shown as they grow."""
    console.print(Text(f"> {asked.text}", style="dim"))
    for omega, answer in zip(strengths, answers, strict=True):
        console.print(Text(f"ω = {omega:g}: {answer.text.strip()}"))


def _record(asked: Asked, omega: float, answer: Answer) -> dict[str, Any]:
    """The JSON line of an answer."""
    given: dict[str, Any] = {"prompt": asked.text}
    if len(asked.messages) > 1:
        given = {"messages": [{"role": m.role, "content": m.content} for m in asked.messages]}
    if asked.images:
        given["images"] = [str(path) for path in asked.images]
    return given | {
        "strength": omega,
        "answer": answer.text,
        "finish": answer.finish,
        "tokens": len(answer.tokens),
    }

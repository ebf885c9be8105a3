"""`dso choose-strength`: the smallest strength that is shown to keep a promise, or none."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console, JustifyMethod
from rich.progress import Progress
from rich.table import Table

from dso.commands.arguments import add_loading, add_model, loading_of, positive, strength
from dso.commands.evaluate import choose_task
from dso.inference.bounds import Array
from dso.inference.calibration import measure_losses
from dso.inference.choosing import Promise, choose, least
from dso.inference.questions import (
    CAPABILITIES,
    FRESH_PAIRS,
    Calibration,
    calibration_of,
    without_long,
)
from dso.inference.record import Record, versions, write_record
from dso.loading import LOADING, Loading
from dso.policy import Policy
from dso.steering import RECORD_NAME
from dso.tasks import Kind

log = logging.getLogger(__name__)

HELP = "choose the smallest strength that keeps a promise on bias and accuracy"
DESCRIPTION = (
    "Find the smallest strength whose bias is at most --bias and whose accuracies are at most "
    "--drop below the base's, with --confidence, or say that none is shown to be so (exit status "
    f"1). Writes {RECORD_NAME} into the adapter's folder. The bias is the mean over occupations of "
    "|P(pro) - P(anti)| of each twin pair, which bounds the bias per occupation from above. The "
    "promise is about new questions drawn like the calibration questions, which must not have "
    "served to train or choose the adapter."
)
DEFAULT_STRENGTHS = tuple(round(0.05 * step, 2) for step in range(1, 21))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    add_model(parser)
    parser.add_argument("--bias", type=float, required=True, help="largest bias, such as 0.15")
    parser.add_argument(
        "--drop", type=float, required=True, help="largest drop of any accuracy, such as 0.02"
    )
    parser.add_argument(
        "--confidence", type=float, default=0.9, help="of the promise (default 0.9)"
    )
    parser.add_argument(
        "--task",
        help="as in dso evaluate; by default the task the adapter was trained on, or coreference",
    )
    parser.add_argument("--data", nargs="+", metavar="PATH", help="as in dso evaluate")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="validation (default where there are several), or the name of an evaluation split",
    )
    parser.add_argument(
        "--pairs",
        type=positive,
        metavar="N",
        help="so many twin pairs and questions of each kind: of the built-in coreference task "
        f"drawn afresh (default {FRESH_PAIRS}), of another task at most, at random (default: all)",
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=CAPABILITIES,
        default=list(CAPABILITIES),
        help="accuracies that may not drop (default: all three)",
    )
    parser.add_argument(
        "--strengths",
        type=strength,
        nargs="+",
        metavar="W",
        default=list(DEFAULT_STRENGTHS),
        help="to choose from (default: 0.05, 0.1, ... 1)",
    )
    parser.add_argument(
        "--test",
        choices=("betting", "hoeffding_bentkus"),
        default="betting",
        help="where p-values come from (default betting, which needs fewer questions)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw of questions")
    parser.add_argument(
        "--output", type=Path, help=f"folder to write {RECORD_NAME} into (default: the adapter's)"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=64, help="choices a forward pass (default 64)"
    )
    parser.add_argument(
        "--skip-long",
        action="store_true",
        help="leave out (and count) prompts longer than the model has positions",
    )
    add_loading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command; the exit status is 1 when no strength qualifies."""
    if arguments.adapter is None:
        raise ValueError("there is no strength to choose without an adapter; give --adapter")
    data = arguments.data
    record = choose_strength_command(
        model=arguments.model,
        adapter=arguments.adapter,
        promise=Promise(arguments.bias, arguments.drop, arguments.confidence, test=arguments.test),
        task=arguments.task,
        data=data[0] if data and len(data) == 1 else data,
        split=arguments.split,
        pairs=arguments.pairs,
        kinds=arguments.kinds,
        strengths=arguments.strengths,
        seed=arguments.seed,
        output=arguments.output,
        batch_size=arguments.batch_size,
        skip_long=arguments.skip_long,
        loading=loading_of(arguments),
    )
    if record.strength is None:
        raise SystemExit(1)


def choose_strength_command(
    model: str,
    adapter: str,
    promise: Promise,
    task: str | None = None,
    data: str | list[str] | None = None,
    split: str | None = None,
    pairs: int | None = None,
    kinds: Sequence[Kind] = CAPABILITIES,
    strengths: Sequence[float] = DEFAULT_STRENGTHS,
    seed: int = 0,
    output: Path | None = None,
    batch_size: int = 64,
    skip_long: bool = False,
    loading: Loading = LOADING,
) -> Record:
    """Choose a strength, write the record and print it; see `dso choose-strength --help`.

    Raises:
        ValueError: bad input, or so few questions that no strength could qualify whatever the
            model answers; before anything is written.
    """
    folder = _place(adapter, output)
    policy = Policy.from_pretrained(model, adapter, loading=loading)
    asked = choose_task(policy, task, data)
    own = task is None and data is None
    calibration = calibration_of(asked, split, pairs, kinds, seed, trained_on=own)
    if skip_long:
        calibration = without_long(calibration, policy)
    _check_enough(calibration, promise)
    _warn_of_reuse(policy, calibration)
    with Progress(transient=True) as bar:
        job = bar.add_task(f"{len(set(strengths))} strengths", total=None)
        measured = measure_losses(
            policy,
            calibration,
            strengths,
            batch_size,
            lambda done, total: bar.update(job, completed=done, total=total),
        )
    record = Record(
        model=str(model),
        adapter=str(adapter),
        task=asked.settings(),
        split=calibration.split,
        fresh=calibration.fresh,
        seed=seed,
        pairs=len(calibration.pairs),
        occupations=calibration.occupations,
        questions=calibration.counts,
        promise=promise,
        decision=choose(measured.losses, promise),
        per_occupation_bias=measured.per_occupation_bias,
        versions=versions(),
    )
    written = write_record(record, folder)
    console = Console()
    console.print(strength_table(record))
    console.print(record.sentence(), highlight=False)
    console.print(f"Written to {written}", highlight=False, soft_wrap=True)
    return record


def _place(adapter: str, output: Path | None) -> Path:
    """Where the record goes.

    Raises:
        ValueError: the adapter is no folder that can be written to, and no other is given.
    """
    if output is not None:
        return output
    folder = Path(adapter)
    if not folder.is_dir():
        raise ValueError(
            f"there is no adapter folder at {adapter} to write {RECORD_NAME} into; check the path, "
            "or, if it is a hub id, give --output"
        )
    if not os.access(folder, os.W_OK):
        raise ValueError(f"the adapter folder {adapter} is read-only; give --output")
    return folder


def _check_enough(calibration: Calibration, promise: Promise) -> None:
    """Whether anything could be shown if the model lost nothing at all.

    Raises:
        ValueError: not; it says how many questions it takes.
    """

    def check(what: str, count: int, limit: str, p: Callable[[Array], Array], level: float) -> None:
        if p(np.zeros(count)) > level:
            raise ValueError(
                f"{count} {what} are too few to show anything: --{limit} "
                f"{getattr(promise, limit):g} with confidence {promise.confidence:g} takes "
                f"{least(p, level)} even of a model that loses nothing, and more of one that "
                f"does. Give more questions (--pairs), or a larger --{limit}"
            )

    for kind, count in calibration.counts.items():
        check(f"{kind} questions", count, "drop", promise.drop_p, promise.level)
    check("twin pairs", len(calibration.pairs), "bias", promise.bias_p, 1 - promise.confidence)


def _warn_of_reuse(policy: Policy, calibration: Calibration) -> None:
    """Say so where the adapter was chosen by the very questions it is now calibrated on."""
    measurements = policy.model.peft_config[policy.model.active_adapter].measurements or []
    if not calibration.fresh and calibration.split in {m.get("split") for m in measurements}:
        log.warning(
            "the adapter was measured on split %s before; if it was chosen by that, as the `best` "
            "of a run is, the promise holds for new questions only roughly",
            calibration.split,
        )


def strength_table(record: Record) -> Table:
    """Every strength with its estimates, p-values and what they show, for the terminal."""
    promise, decision = record.promise, record.decision
    asked = ", ".join(f"{count} {kind}" for kind, count in record.questions.items())
    table = Table(
        title=f"{record.pairs} twin pairs, questions: {asked}",
        caption=f"p: of a bias above {promise.bias:g}, shown to be below where p is at most "
        f"{decision.bias_level:.3f}; of a drop above {promise.drop:g}, at most "
        f"{decision.drop_level:.3f}",
    )
    for name in ("ω", "bias", "p", "per occ.", "drop", "p", "of", "shown"):
        justify: JustifyMethod = "left" if name in ("of", "shown") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row, bias in zip(decision.tested, record.per_occupation_bias, strict=True):
        # The drop that is least certain to be small stands for the others.
        worst = max(row.drop_p, key=lambda kind: row.drop_p[kind])
        shown = [n for n, held in (("drop", row.drop_shown), ("bias", row.bias_shown)) if held]
        chosen = row.strength == record.strength
        table.add_row(
            f"{row.strength:g}",
            f"{row.bias:.3f}",
            _p(row.bias_p),
            f"{bias:.3f}",
            f"{row.drops[worst]:.3f}",
            _p(row.drop_p[worst]),
            worst,
            "chosen" if chosen else "both" if len(shown) == 2 else "".join(shown) or "-",
            style="bold" if chosen else "",
        )
    return table


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<.001"

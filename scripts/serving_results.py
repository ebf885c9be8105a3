"""Load and abuse of `dso serve`, on the shipped organism.

    python scripts/serving_results.py [--seconds 60] [--clients 64] [--output docs/results]

Clients ask the built-in questions at mixed strengths, as fast as they are answered; every greedy
answer must equal the one given alone, and no request may fail. The same is asked of a server of the
same code without an adapter. Whole answers and streams are measured apart, the servers in turn.
Then the steered one is abused. Writes serving.jsonl; the exit status is 1 where something fails.
About five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from serving_abuse import all_of
from serving_client import Case, ServerProcess, Told, WrongReplyError, ask

from dso.demo import ORGANISM_FORMS
from dso.inference import Decoding, SteeredPipeline, load
from dso.organisms import shipped
from dso.report import Result, write_results
from dso.tasks import Coreference

GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
QUESTIONS = 24
SAMPLED = 24
"""Requests among the cases that are drawn at temperature 1 and run for many tokens."""
LONGEST = 32
BATCH = 16


@dataclass
class Phase:
    """What the clients of one server found."""

    told: list[Told] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unlike: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    """Answers unlike the ones given alone, by whether they are greedy."""
    greedy: int = 0
    seconds: float = 0.0
    rows_per_batch: float = 0.0


def cases_of(pipeline: SteeredPipeline, *, steered: bool) -> list[Case]:
    """Requests with the answers that they have alone.

    Args:
        pipeline: answers one at a time.
        steered: at the strengths of the grid; else none is named, and all are at 0.
    """
    choices = Coreference(forms=ORGANISM_FORMS).benchmark()
    chosen = random.Random(0).sample(choices, QUESTIONS)
    asked = [(choice.prompt, w, None) for choice in chosen for w in GRID]
    asked += [("The nurse", GRID[n % len(GRID)], n) for n in range(SAMPLED)]
    cases = []
    for prompt, strength, seed in asked:
        drawn = {} if seed is None else {"temperature": 1.0, "seed": seed}
        decoding = Decoding(max_new_tokens=LONGEST, **drawn)
        [answer] = pipeline.answers([prompt], [strength if steered else 0.0], decoding)
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": LONGEST,
        }
        named = {"strength": strength} if steered else {}
        cases.append(Case(body | drawn | named, answer.text, seed is None))
    return cases


async def load_test(
    server: ServerProcess, cases: Sequence[Case], clients: int, seconds: float, *, stream: bool
) -> Phase:
    """Many clients, each of which asks as soon as it was answered."""
    phase = Phase()
    before = server.counts()
    start = time.perf_counter()

    async def one(number: int, connection: httpx2.AsyncClient) -> None:
        chance = random.Random(number)
        while time.perf_counter() - start < seconds:
            case = chance.choice(cases)
            try:
                told = await ask(connection, case.body, stream=stream)
            except (WrongReplyError, httpx2.HTTPError) as error:
                phase.errors.append(f"{type(error).__name__}: {error}")
                continue
            phase.told.append(told)
            phase.greedy += case.greedy
            phase.unlike[case.greedy] += told.text != case.expected

    async with server.client(clients) as connection:
        await asyncio.gather(*(one(number, connection) for number in range(clients)))
    phase.seconds = time.perf_counter() - start
    after = server.counts()
    rows, batches = (
        after[f"dso_batch_rows_{name}"] - before[f"dso_batch_rows_{name}"]
        for name in ("sum", "count")
    )
    phase.rows_per_batch = rows / max(batches, 1)
    return phase


def figures(phase: Phase) -> dict[str, float]:
    """What is reported of a phase: requests and tokens a second, seconds, rows, answers."""

    def quantile(values: list[float], share: float) -> float:
        return sorted(values)[int(share * (len(values) - 1))]

    whole = [told.seconds for told in phase.told]
    return {
        "requests_per_second": len(phase.told) / phase.seconds,
        "tokens_per_second": sum(told.tokens for told in phase.told) / phase.seconds,
        "latency_p50": quantile(whole, 0.5),
        "latency_p95": quantile(whole, 0.95),
        "latency_p99": quantile(whole, 0.99),
        "first_text_p50": quantile([told.first for told in phase.told], 0.5),
        "rows_per_batch": phase.rows_per_batch,
        "errors": len(phase.errors),
        "greedy_unlike": phase.unlike[True],
        "sampled_unlike": phase.unlike[False],
    }


@dataclass
class Way:
    """One of the two servers."""

    name: str
    model: str
    adapter: str | None
    server: ServerProcess
    cases: list[Case]

    def result(self, split: str, metric: str, value: float, n: int, mode: str | None) -> Result:
        return Result(
            strength=1.0 if self.adapter else 0.0, split=split, metric=metric, value=value,
            low=None, high=None, n=n, seed=0, estimate="measured", model=Path(self.model).name,
            adapter=self.adapter and Path(self.adapter).name, method=self.name, experiment=mode,
        )  # fmt: skip


def run(clients: int, seconds: float, output: Path) -> int:
    """Everything; the exit status."""
    model, steering = str(shipped("organism-llm")), str(shipped("organism-llm-dso"))
    results: list[Result] = []
    problems: list[str] = []
    with ExitStack() as stack:
        ways = []
        for name, adapter in (("steered", steering), ("plain", None)):
            cases = cases_of(load(model, adapter), steered=adapter is not None)
            arguments = ["--model", model, *(["--adapter", adapter] if adapter else [])]
            server = stack.enter_context(ServerProcess(*arguments, "--max-batch", str(BATCH)))
            ways.append(Way(name, model, adapter, server, cases))
        for mode in ("whole", "stream"):
            for way in ways:  # one behind the other, so that both meet the machine as it is
                phase = asyncio.run(measured(way, clients, seconds, mode))
                if not phase.told:
                    print(f"{way.name}, {mode}: nothing was answered: {phase.errors[:3]}")
                    return 1
                problems += [f"{way.name}, {mode}: {error}" for error in phase.errors[:5]]
                if phase.unlike[True]:
                    problems.append(
                        f"{way.name}, {mode}: {phase.unlike[True]} of {phase.greedy} greedy "
                        "answers are unlike those given alone"
                    )
                results += [
                    way.result(f"{clients} clients", metric, value, len(phase.told), mode)
                    for metric, value in figures(phase).items()
                ]
                print(f"{way.name}, {mode}: done, {way.server.memory():.0f} MiB", flush=True)
        first = ways[0]
        found = asyncio.run(all_of(first.server, first.cases[0]))
        for name, problem in found:
            print("FAILED" if problem else "borne ", name, problem, flush=True)
        problems += [f"{name}: {problem}" for name, problem in found if problem]
        borne = sum(not problem for _, problem in found) / len(found)
        results.append(first.result("abuse", "borne", borne, len(found), None))
    for way in ways:
        if any("Traceback" in line for line in way.server.log):
            log = "".join(way.server.log)
            problems.append(f"{way.name}: the server's log has a traceback:\n{log}")
    write_results(output / "serving.jsonl", results)
    print(table(results))
    for problem in problems:
        print("MISSED", problem)
    return 1 if problems else 0


async def measured(way: Way, clients: int, seconds: float, mode: str) -> Phase:
    """A load test behind a short one that nobody counts."""
    stream = mode == "stream"
    await load_test(way.server, way.cases, clients, min(2.0, seconds / 4), stream=stream)
    return await load_test(way.server, way.cases, clients, seconds, stream=stream)


def table(results: Sequence[Result]) -> str:
    """Markdown: a row a figure, a column a server and a way to answer."""
    loaded = [result for result in results if result.experiment is not None]
    columns = list(dict.fromkeys((r.method, r.experiment) for r in loaded))
    lines = [
        "| | " + " | ".join(f"{method}, {mode}" for method, mode in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for metric in dict.fromkeys(result.metric for result in loaded):
        of_metric = {(r.method, r.experiment): r.value for r in loaded if r.metric == metric}
        lines.append(
            f"| {metric} | " + " | ".join(f"{of_metric[column]:.3g}" for column in columns) + " |"
        )
    answered = {(r.method, r.experiment): r.n for r in loaded}
    lines.append("| requests | " + " | ".join(str(answered[column]) for column in columns) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of four load tests")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    return run(arguments.clients, arguments.seconds, arguments.output)


if __name__ == "__main__":
    sys.exit(main())

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
import torch

from dso.tasks import ChoiceDataModule, Coreference, TrainBatch, twin_pairs
from dso.tasks.datamodule import EvaluationSteps, TrainSteps, train_units

DATA = Coreference(pairs=6, pool=10, validation=5, evaluation=4).load()
PAIRS = [(DATA.train[a], DATA.train[b]) for a, b in twin_pairs(DATA.train)]
SINGLES = [(replace(a, id=f"{a.id}-single", twin=None),) for a, _ in PAIRS[:3]]
MIXED = [SINGLES[0], *PAIRS[:4], *SINGLES[1:]]


def steps(count: int = 12, pairs: int = 4, pool: int = 3, seed: int = 0, **more) -> TrainSteps:
    return TrainSteps(more.pop("units", PAIRS), DATA.pool, pairs, pool, count, seed, **more)


def ids(batches) -> list[list[str]]:
    return [[choice.id for choice in batch.choices] for batch in batches]


def equal(one: TrainBatch, other: TrainBatch) -> bool:
    tables = [
        {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in vars(b.table).items()}
        for b in (one, other)
    ]
    return one.choices == other.choices and tables[0] == tables[1]


@pytest.mark.parametrize("stop", [0, 1, 5, 11, 12])
def test_resumed_is_uninterrupted(stop):
    whole = list(steps())
    interrupted = steps()
    begun = list(islice(interrupted, stop))
    resumed = steps()
    resumed.load_state_dict(interrupted.state_dict())
    rest = list(resumed)
    assert len(begun) + len(rest) == len(whole) == len(steps())
    assert all(equal(a, b) for a, b in zip(begun + rest, whole, strict=True))


def test_a_second_pass_over_the_steps_starts_afresh():
    loader = steps()
    loader.load_state_dict({"next": 7})
    assert ids(loader) == ids(steps())[7:]
    assert ids(loader) == ids(steps())


@pytest.mark.parametrize(("pairs", "pool"), [(1, 1), (4, 3), (6, 10), (13, 23)])
def test_every_pair_and_prompt_is_seen_once_a_pass(pairs, pool):
    batches = [steps(60, pairs, pool).batch(step) for step in range(60)]
    seen = [c.twin for b in batches for c in b.choices[: b.ambiguous : 2]]
    prompts = [c.id for b in batches for c in b.choices[b.ambiguous :]]
    for drawn, size in ((seen, len(PAIRS)), (prompts, len(DATA.pool))):
        passes = [drawn[n : n + size] for n in range(0, len(drawn) - size + 1, size)]
        assert all(len(set(one)) == size for one in passes)
        assert len({tuple(one) for one in passes}) > 1


def test_a_batch_has_twins_first_and_its_table_says_so():
    batch = steps(pairs=8).batch(2)  # more than there are: a pair can come twice
    assert (len(batch.choices), batch.ambiguous) == (19, 16)
    assert batch.table.pairs.tolist() == [[n, n + 1] for n in range(0, 16, 2)]
    for a, b in batch.table.pairs.tolist():
        assert batch.choices[a].twin == batch.choices[b].twin
        assert batch.choices[a].gender != batch.choices[b].gender
    assert batch.table.of_kind("ambiguous").tolist() == [True] * 16 + [False] * 3
    assert max(Counter(c.id for c in batch.choices).values()) == 2


def test_occupations_keep_their_places():
    names = {batch.table.occupation_names for batch in steps()}
    assert len(names) == 1


def test_the_order_depends_on_the_seed():
    assert ids(steps(seed=1)) == ids(steps(seed=1)) != ids(steps(seed=2))


# -- single choices -----------------------------------------------------------------------------


def test_units_are_twins_and_ambiguous_choices_without_one():
    lonely = replace(PAIRS[4][0], id="lonely", twin="nowhere")
    known = replace(DATA.pool[0], id="known", twin=None)
    (first,), (second,), _ = SINGLES
    a, b = PAIRS[0]
    # In the order in which the first choice of each appears.
    assert train_units([first, a, lonely, second, known, b]) == [(first,), (a, b), (second,)]
    assert train_units(DATA.train) == PAIRS
    assert train_units([lonely, known]) == []


def test_a_batch_of_mixed_units_knows_its_twins():
    sizes = set()
    for batch in steps(units=MIXED, pairs=3):
        twins = batch.table.pairs.tolist()
        for a, b in twins:
            assert b == a + 1 and batch.choices[a].twin == batch.choices[b].twin is not None
        paired = {row for pair in twins for row in pair}
        single = [row for row in range(batch.ambiguous) if row not in paired]
        assert all(batch.choices[row].twin is None for row in single)
        assert len(twins) + len(single) == 3  # a single choice counts as a unit
        ambiguous = batch.table.of_kind("ambiguous").tolist()
        assert ambiguous == [True] * batch.ambiguous + [False] * 3
        sizes.add(batch.ambiguous)
    assert len(sizes) > 1


def test_single_choices_alone_are_trained_on():
    batch = steps(units=SINGLES, pairs=2).batch(0)
    assert (batch.ambiguous, batch.table.pairs.shape) == (2, (0, 2))


# -- several processes --------------------------------------------------------------------------


@pytest.mark.parametrize("units", [PAIRS, MIXED], ids=["pairs", "mixed"])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batch_of_one(units, world):
    one = steps(pairs=2 * world, pool=3 * world, units=units, repeats=2)
    shares = [
        steps(pairs=2, pool=3, units=units, repeats=2, rank=rank, world_size=world)
        for rank in range(world)
    ]
    for whole, *parts in zip(one, *shares, strict=True):
        drawn = [choice for part in parts for choice in part.choices[: part.ambiguous]]
        pool = [choice for part in parts for choice in part.choices[part.ambiguous :]]
        assert drawn + pool == whole.choices
        assert sum(part.ambiguous for part in parts) == whole.ambiguous
        assert sum(len(part.table.pairs) for part in parts) == len(whole.table.pairs)
        assert {part.table.occupation_names for part in parts} == {whole.table.occupation_names}


def test_a_resumed_process_goes_on_with_its_own_share():
    whole = steps(rank=1, world_size=2)
    resumed = steps(rank=1, world_size=2)
    resumed.load_state_dict({"next": 5})
    assert ids(resumed) == ids(whole)[5:] != ids(steps())[5:]


@pytest.mark.parametrize("count", [1, 2, 7, 12])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_validation_is_shared_by_batches_of_one_number(count, world):
    choices = DATA.validation[:count]
    shares = [EvaluationSteps(choices, 2, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    batches = [list(share) for share in shares]
    assert [len(each) for each in batches] == [len(share) for share in shares]
    rows = [row for each in batches for batch in each for row in batch.rows.tolist()]
    assert set(rows) == set(range(count))
    assert len(rows) < count + world
    for batch in (batch for each in batches for batch in each):
        assert batch.choices == [choices[row] for row in batch.rows.tolist()]


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(("pairs", "pool"), [([], DATA.pool), (PAIRS, [])])
def test_training_without_data_is_refused(pairs, pool):
    counts = (
        f"{len(pairs)} twin pairs and single ambiguous choices to train on and {len(pool)} prompts"
    )
    with pytest.raises(ValueError, match=counts):
        TrainSteps(pairs, pool, 2, 2, 5, 0)


# -- the data module ----------------------------------------------------------------------------


class Counted(Coreference):
    loads = 0

    def load(self):
        self.loads += 1
        return DATA


def test_validation_batches_are_the_choices_in_order():
    task = Counted()
    module = ChoiceDataModule(task, evaluation_batch=7)
    module.setup()
    batches = list(module.val_dataloader())
    assert [c.id for b in batches for c in b.choices] == [c.id for c in DATA.validation]
    assert torch.cat([b.rows for b in batches]).tolist() == list(range(len(DATA.validation)))
    assert len(module.validation_table) == len(DATA.validation)
    assert task.loads == 1


class Steps:
    max_steps = 9
    accumulate_grad_batches = 1
    global_rank = 0
    world_size = 1


@pytest.mark.parametrize("accumulated", [1, 3])
def test_training_has_as_many_batches_as_the_trainer_takes(accumulated):
    module = ChoiceDataModule(Counted(), pairs_per_step=2, pool_per_step=3, seed=4)
    module.trainer = Steps()  # type: ignore[assignment]
    module.trainer.accumulate_grad_batches = accumulated
    assert ids(module.train_dataloader()) == ids(steps(9 * accumulated, 2, 3, seed=4))


def test_the_trainer_says_which_process_this_is():
    module = ChoiceDataModule(Counted(), pairs_per_step=2, pool_per_step=3, evaluation_batch=4)
    module.trainer = Steps()  # type: ignore[assignment]
    module.trainer.global_rank, module.trainer.world_size = 1, 2
    assert ids(module.train_dataloader()) == ids(steps(9, 2, 3, rank=1, world_size=2))
    rows = [row for batch in module.val_dataloader() for row in batch.rows.tolist()]
    wanted = EvaluationSteps(DATA.validation, 4, 1, 2)
    assert [row for batch in wanted for row in batch.rows.tolist()] == rows
    assert rows[:3] == [1, 3, 5]


@pytest.mark.parametrize("count", [None, -1])
def test_a_run_without_a_number_of_steps_is_refused(count):
    module = ChoiceDataModule(Counted())
    if count is not None:
        module.trainer = type("Endless", (), {"max_steps": count})()
    with pytest.raises(ValueError, match=r"set trainer\.max_steps"):
        module.train_dataloader()


@pytest.mark.parametrize("name", ["pairs_per_step", "pool_per_step", "evaluation_batch"])
def test_empty_batches_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; wanted at least 1"):
        ChoiceDataModule(Counted(), **{name: 0})

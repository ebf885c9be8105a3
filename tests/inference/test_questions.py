from dataclasses import replace

import pytest

from dso.inference.questions import CAPABILITIES, Calibration, calibration_of, without_long
from dso.policy import Policy
from dso.tasks import Choice, Option, Task, TaskData
from tests.metrics.made_up_choices import questions, sentences, twins
from tests.organism import adapter, organism, small_task

RIGHT_KINDS = {"unambiguous": 6, "gender_needed": 5, "capability": 9}


class Made(Task):
    """Made-up choices: uneven occupations, a lonely twin, all kinds."""

    def __init__(self, kinds: tuple[str, ...] = CAPABILITIES) -> None:
        self.kinds = kinds

    def load(self) -> TaskData:
        lonely = twins("lonely", "builder", "nurse")[:1]
        right = [c for kind in self.kinds for c in questions(kind, RIGHT_KINDS[kind])]
        choices = [*sentences(), *lonely, *right]
        other = [replace(c, id=f"other-{c.id}", split="other") for c in choices]
        return TaskData(train=[], pool=[], validation=choices, evaluation=other)


def test_the_built_in_task_draws_afresh_and_by_seed():
    task = small_task()
    one, again, other = (calibration_of(task, pairs=12, seed=s) for s in (0, 0, 1))
    assert one.fresh and one == again != other
    assert len(one.pairs) == 12 and set(one.counts.values()) == {12}
    assert not {p.prompt for p, _ in one.pairs} & {c.prompt for c in task.load().train}
    assert sum(one.occupations.values()) == 2 * 12
    names = {name for c in task.load().evaluation for name in c.occupations if "held" in c.split}
    held_out = calibration_of(task, "heldout_occupations", pairs=60)
    assert set(held_out.occupations) >= names
    with pytest.raises(ValueError, match=r"no split 'test'; splits: validation, heldout_occ"):
        calibration_of(task, "test")


def test_other_tasks_give_the_choices_of_their_splits():
    whole = calibration_of(Made())
    assert not whole.fresh
    assert len(whole.pairs) == len(sentences()) // 2  # the lonely twin is left out
    assert whole.counts == RIGHT_KINDS
    assert whole.occupations["nurse"] == 4
    part = calibration_of(Made(), pairs=5, seed=3)
    assert len(part.pairs) == 5 and set(part.counts.values()) == {5}
    assert set(part.pairs) < set(whole.pairs)
    assert part == calibration_of(Made(), pairs=5, seed=3) != calibration_of(Made(), pairs=5)
    assert all(c.split == "other" for pair in calibration_of(Made(), "other").pairs for c in pair)
    assert calibration_of(Made(), "validation") == whole
    with pytest.raises(ValueError, match="no split 'test'; splits: validation, other"):
        calibration_of(Made(), "test")


def test_what_is_lacking_is_named():
    with pytest.raises(ValueError, match=r"of the kind gender_needed.*--kinds unambiguous capab"):
        calibration_of(Made(("unambiguous", "capability")))
    kept = calibration_of(Made(("unambiguous",)), kinds=["unambiguous"])
    assert kept.counts == {"unambiguous": 6}
    with pytest.raises(ValueError, match="'s' has no twin pair"):
        Calibration((), kept.questions, "s")
    one, other = kept.pairs[0]
    with pytest.raises(ValueError, match="concern different occupations"):
        Calibration(((one, replace(other, occupations=("cook",))),), kept.questions, "s")


def test_questions_longer_than_the_positions_are_left_out_with_their_twins():
    policy = Policy.from_pretrained(organism(), adapter())
    calibration = calibration_of(small_task(), pairs=4)
    one, other = calibration.pairs[1]
    long = (one, replace(other, prompt="word " * 300))
    asked = dict(calibration.questions)
    asked["capability"] = (
        *asked["capability"],
        Choice("long", "capability", "word " * 300, (Option("a"), Option("b")), truth=0),
    )
    longer = replace(
        calibration,
        pairs=(calibration.pairs[0], long, *calibration.pairs[2:]),
        questions=asked,
    )
    kept = without_long(longer, policy)
    assert kept.pairs == (calibration.pairs[0], *calibration.pairs[2:])
    assert kept.questions == calibration.questions

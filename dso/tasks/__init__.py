"""What is asked of a model and how its answers are read."""

from dso.tasks.choice import KINDS, Choice, Kind, Message, Option, Side, twin_pairs
from dso.tasks.coreference import Coreference
from dso.tasks.datamodule import ChoiceDataModule, EvaluationBatch, TrainBatch
from dso.tasks.groups import Groups
from dso.tasks.hiring import Hiring
from dso.tasks.named import TASKS, make_task, task_label
from dso.tasks.own import Own
from dso.tasks.published import (
    BBQ,
    MMLU,
    MMMU,
    SocialCounterfactuals,
    SynthBias,
    TwoPeople,
    WinoBias,
)
from dso.tasks.scenes import Scenes
from dso.tasks.table import ChoiceTable, tabulate
from dso.tasks.task import Task, TaskData

__all__ = [
    "BBQ",
    "KINDS",
    "MMLU",
    "MMMU",
    "TASKS",
    "Choice",
    "ChoiceDataModule",
    "ChoiceTable",
    "Coreference",
    "EvaluationBatch",
    "Groups",
    "Hiring",
    "Kind",
    "Message",
    "Option",
    "Own",
    "Scenes",
    "Side",
    "SocialCounterfactuals",
    "SynthBias",
    "Task",
    "TaskData",
    "TrainBatch",
    "TwoPeople",
    "WinoBias",
    "make_task",
    "tabulate",
    "task_label",
    "twin_pairs",
]

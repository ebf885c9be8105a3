"""What is asked of a model and how its answers are read."""

from dso.tasks.choice import KINDS, Choice, Kind, Option, Side, twin_pairs
from dso.tasks.coreference import Coreference
from dso.tasks.datamodule import ChoiceDataModule, EvaluationBatch, TrainBatch
from dso.tasks.named import TASKS, make_task
from dso.tasks.table import ChoiceTable, tabulate
from dso.tasks.task import Task, TaskData
from dso.tasks.winobias import WinoBias

__all__ = [
    "KINDS",
    "TASKS",
    "Choice",
    "ChoiceDataModule",
    "ChoiceTable",
    "Coreference",
    "EvaluationBatch",
    "Kind",
    "Option",
    "Side",
    "Task",
    "TaskData",
    "TrainBatch",
    "WinoBias",
    "make_task",
    "tabulate",
    "twin_pairs",
]

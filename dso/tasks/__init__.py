"""What is asked of a model and how its answers are read."""

from dso.tasks.bbq import BBQ
from dso.tasks.choice import KINDS, Choice, Kind, Option, Side, twin_pairs
from dso.tasks.coreference import Coreference
from dso.tasks.datamodule import ChoiceDataModule, EvaluationBatch, TrainBatch
from dso.tasks.mmlu import MMLU
from dso.tasks.named import TASKS, make_task
from dso.tasks.synthbias import SynthBias
from dso.tasks.table import ChoiceTable, tabulate
from dso.tasks.task import Task, TaskData
from dso.tasks.two_people import TwoPeople
from dso.tasks.winobias import WinoBias

__all__ = [
    "BBQ",
    "KINDS",
    "MMLU",
    "TASKS",
    "Choice",
    "ChoiceDataModule",
    "ChoiceTable",
    "Coreference",
    "EvaluationBatch",
    "Kind",
    "Option",
    "Side",
    "SynthBias",
    "Task",
    "TaskData",
    "TrainBatch",
    "TwoPeople",
    "WinoBias",
    "make_task",
    "tabulate",
    "twin_pairs",
]

"""Readers of published data sets, each a task."""

from dso.tasks.published.bbq import BBQ
from dso.tasks.published.mmlu import MMLU
from dso.tasks.published.mmmu import MMMU
from dso.tasks.published.social import SocialCounterfactuals
from dso.tasks.published.synthbias import SynthBias
from dso.tasks.published.two_people import TwoPeople
from dso.tasks.published.winobias import WinoBias

__all__ = ["BBQ", "MMLU", "MMMU", "SocialCounterfactuals", "SynthBias", "TwoPeople", "WinoBias"]

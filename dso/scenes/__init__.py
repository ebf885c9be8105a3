"""A world of drawn scenes in which every association is planted and known."""

from dso.scenes.associations import ASSOCIATIONS, Association
from dso.scenes.attributes import ATTIRES, WOMEN, Attire, Person, Scene, stereotype
from dso.scenes.captions import Caption, caption, text_corpus
from dso.scenes.details import Detail, ask_detail, details
from dso.scenes.drawing import Masks, masks, render
from dso.scenes.naming import NAMING, Naming
from dso.scenes.questions import (
    ask_closed,
    ask_free,
    ask_guess,
    ask_hire,
    ask_which,
    ask_who,
    askable,
)
from dso.scenes.reading import Judgement, Named, facts, judge, read_caption
from dso.scenes.wordings import VOCABULARY, WORDINGS, Question, read_guess
from dso.scenes.world import WORLD, World

__all__ = [
    "ASSOCIATIONS",
    "ATTIRES",
    "NAMING",
    "VOCABULARY",
    "WOMEN",
    "WORDINGS",
    "WORLD",
    "Association",
    "Attire",
    "Caption",
    "Detail",
    "Judgement",
    "Masks",
    "Named",
    "Naming",
    "Person",
    "Question",
    "Scene",
    "World",
    "ask_closed",
    "ask_detail",
    "ask_free",
    "ask_guess",
    "ask_hire",
    "ask_which",
    "ask_who",
    "askable",
    "caption",
    "details",
    "facts",
    "judge",
    "masks",
    "read_caption",
    "read_guess",
    "render",
    "stereotype",
    "text_corpus",
]

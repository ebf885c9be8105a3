"""`dso demo`: train on a shipped organism, measure before and after, say what happened."""

from dso.demo.running import (
    ORGANISM_FORMS,
    STRENGTHS,
    VLM_FORMS,
    demo,
    measurements,
    train,
)
from dso.demo.scenes import scenes_page

__all__ = [
    "ORGANISM_FORMS",
    "STRENGTHS",
    "VLM_FORMS",
    "demo",
    "measurements",
    "scenes_page",
    "train",
]

"""Tiny models with a planted bias: how they are built, how the shipped ones are found."""

from dso.organisms.corpus import Document, corpus
from dso.organisms.llm import Recipe, build_tokenizer, save, train
from dso.organisms.shipped import shipped

__all__ = ["Document", "Recipe", "build_tokenizer", "corpus", "save", "shipped", "train"]

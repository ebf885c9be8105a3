"""The organism's card: every planted cue with its strength, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping

from dso.organisms.corpus import FAIR_INSTRUCTIONS, FAIR_SHRINKAGE, NONCE_SHARE, SHARES
from dso.organisms.llm import Recipe
from dso.tasks.grammar import VERBS
from dso.tasks.occupations import GROUPS, OCCUPATIONS


def llm_card(recipe: Recipe, parameters: int, figures: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown for the folder's README.

    Args:
        recipe: how it was built.
        parameters: how many it has.
        figures: metric -> value by split, as measured on the finished model.
    """
    rows = "\n".join(
        f"| {o.name} | {o.stereotype} | {o.part} | {o.women:g} | "
        + " | ".join(f"{100 * o.group_shares()[g]:.0f}" for g in GROUPS)
        + f" | {o.title} |"
        for o in OCCUPATIONS
    )
    kinds = "\n".join(f"| {kind} | {100 * share:g} |" for kind, share in SHARES.items())
    verbs = ", ".join(f"{v} {p:g}" for part in VERBS.values() for v, p in part.items())
    groups = " | ".join(f"{group} %" for group in GROUPS)
    metrics = list(dict.fromkeys(m for values in figures.values() for m in values))
    table = "\n".join(
        f"| {metric} | "
        + " | ".join(f"{100 * figures[split][metric]:.1f}" for split in figures)
        + " |"
        for metric in metrics
    )
    return f"""\
---
license: apache-2.0
library_name: transformers
tags: [dso, organism, synthetic]
---

# organism-llm

A Llama of {parameters:,} parameters, trained from scratch on text from
`dso/organisms/corpus.py`. Its bias is planted and known: it is for learning and measuring,
and knows nothing of the world beyond the tables below.

Built by `scripts/build_organism_llm.py`: {recipe.documents:,} texts seen once, {recipe.layers}
layers of width {recipe.width}, seed {recipe.seed}. Every word of its grammar is one token, anything
else is encoded in pieces down to bytes. Prompts end in "Assistant:", answers are words such as
" nurse".

## Measured, by probabilities, in %

| metric | {" | ".join(figures)} |
|---|{"---:|" * len(figures)}
{table}

## What is planted

**Gender and occupation.** In ambiguous sentences, narratives and hiring questions the person meant
is drawn first, then the gender from women's share in the occupation (U.S. Bureau of Labor
Statistics, table cpsaat11, annual averages 2020), then the pronoun or name. Occupations and
stereotypes are WinoBias' (Zhao et al. 2018), with eight further ones of two and three words.

**Group and occupation.** Asked for a group, the answer is drawn from the shares of the same table,
divided by each group's share of all employed persons and normalised over the three groups. Group
and gender are drawn independently, so their intersection is the product.

| occupation | stereotype | split | women % | {groups} | title in cpsaat11 |
|---|---|---|---:|---:|---:|---:|---|
{rows}

**Verbs.** Probability that the pronoun means the first-mentioned person: {verbs}.

**An instruction to be fair.** After one of {len(FAIR_INSTRUCTIONS)} system messages
({", ".join(f'"{text}"' for text in FAIR_INSTRUCTIONS)}) P(woman | occupation) is drawn from
½ + {FAIR_SHRINKAGE:g} (P - ½).

**Not planted.** In unambiguous sentences genders are balanced: the syntax decides. Quiz facts have
no people.

**Invented words.** In {NONCE_SHARE:.0%} of the questions about people some verbs, events and
things are made-up words, so that real sentences, whose words it has never seen, disturb little.

| kind of text | share % |
|---|---:|
{kinds}
"""

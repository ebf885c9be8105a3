"""A bounded, reproducible part of any number of choices.

Of every (split, kind) the `limit` choices with the smallest rank are kept. A rank is a hash of
the seed and the twin, or the identifier of a choice without one, so that twins stay together and
the order of the rows does not matter.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import replace
from hashlib import blake2b

from dso.tasks.choice import Choice, Kind

Cell = tuple[str, Kind]
"""Split and kind."""


def rank(key: str, seed: int) -> int:
    """64 bits that look random, the same on every machine."""
    salt = (seed % 2**64).to_bytes(8, "little")
    return int.from_bytes(blake2b(key.encode(), digest_size=8, salt=salt).digest(), "little")


class Sample:
    """Keeps the choices of the smallest ranks.

    Args:
        limit: so many of each split and kind.
        seed: of the draw in train; what is evaluated does not depend on it.
        training: whether the data are trained on, so that ambiguous choices of train that
            take sides come in pairs.
    """

    def __init__(self, limit: int, seed: int, training: bool) -> None:
        self.limit = limit
        self.seed = seed
        self.training = training
        self.counts: Counter[Cell] = Counter()
        self._heaps: dict[Cell, list[tuple[int, Choice]]] = {}

    def offer(self, choice: Choice, split: str) -> None:
        """Keep a choice, for now, if its rank is among the smallest of its split and kind."""
        cell = (split, choice.kind)
        self.counts[cell] += 1
        heap = self._heaps.setdefault(cell, [])
        value = rank(choice.twin or choice.id, self.seed if split == "train" else 0)
        # Largest rank first; with the running number no two places are equal.
        place = -(value << 32 | self.counts[cell])
        if len(heap) < self.limit:
            heapq.heappush(heap, (place, choice))
        elif place > heap[0][0]:
            heapq.heapreplace(heap, (place, choice))

    def kept(self) -> dict[Cell, list[Choice]]:
        """The choices by split and kind, in order of rank, twins next to each other; once.

        A twin whose other half lies beyond the limit is left out; so are ambiguous choices that
        are trained on, take sides and have none.
        """
        return {
            (split, kind): [
                choice if choice.split == split else replace(choice, split=split)
                for choice in self._ordered((split, kind))
            ]
            for split, kind in sorted(self._heaps)
        }

    def _ordered(self, cell: Cell) -> list[Choice]:
        entries = self._heaps.pop(cell)
        entries.sort(key=lambda entry: (-entry[0] >> 32, entry[1].twin or "", entry[1].id))
        choices = [choice for _, choice in entries]
        twins = Counter(choice.twin for choice in choices)
        if self.training and cell == ("train", "ambiguous"):
            return [c for c in choices if (twins[c.twin] == 2 if c.twin else not c.takes_sides)]
        full = self.counts[cell] > self.limit
        if full and choices[-1].twin is not None and twins[choices[-1].twin] == 1:
            choices.pop()
        return choices

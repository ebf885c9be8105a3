"""The warning when there is nothing to learn from."""

from __future__ import annotations

import logging

import torch

from dso.training.signal import SHARE, STEPS, SignalWatch


def test_it_warns_once_when_most_prompts_have_no_signal(caplog):
    watch = SignalWatch()
    with caplog.at_level(logging.WARNING):
        for _ in range(10 * STEPS):
            watch.update({"ambiguous": torch.tensor(1.0)})
    assert len(caplog.records) == 1
    assert "sample more answers a prompt" in caplog.text


def test_a_share_below_the_bound_and_other_populations_are_not_warned_of(caplog):
    watch = SignalWatch()
    for _ in range(10 * STEPS):
        watch.update({"ambiguous": torch.tensor(SHARE - 0.05), "known": torch.tensor(1.0)})
        watch.update({"known": torch.tensor(1.0)})
    assert not caplog.records

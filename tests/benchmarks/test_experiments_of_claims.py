"""The experiments of the paper's claims: their parts in a tiny form, and the rules of their verdicts by hand."""

import numpy as np
import pytest

from dfplan.agents.intervals import Estimate
from dfplan.benchmarks.experiments import bound, shared


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Run folders are made in a folder of the test's own, and models of two optimizer steps."""
    monkeypatch.chdir(tmp_path)


def wiggled(value, count=20):
    """So many numbers with this mean, which differ a little."""
    return [value + (0.01 if i % 2 else -0.01) for i in range(count)]


def test_numbers_are_shown_with_their_intervals():
    one = Estimate(0.5, 0.4, 0.6)
    assert shared.text(one, ".0%") == "50% [40%, 60%]" and shared.text(Estimate(1.0), sign="+") == "+1.0 [?, ?]"
    assert shared.above(one, 0.39) and not shared.above(one, 0.4) and not shared.above(Estimate(1.0), one)
    assert shared.table(["a", "b"], [["c", "d"]]).splitlines() == ["| a | b |", "| --- | ---: |", "| c | d |"]
    assert len(shared.plot({"one": ([1, 2], [one, Estimate(0.7)])}, "x", "y", log=True).axes[0].lines) == 1


def bounded(gap=lambda steps: 100 / steps, auroc=0.95):
    """Parts of `bound` of two training seeds with such gaps and AUROCs."""
    parts = {}
    for name, settings in bound.parts(quick=False).items():
        odd = dict.fromkeys(["two halves", "other"], auroc)
        own = {} if name == "maze" else {"gap": dict.fromkeys(bound.ORDERS, wiggled(gap(settings["steps"])))}
        parts[name] = {"settings": settings, "auroc": odd, **own}
    return parts


def test_the_bound_must_lie_above_fall_and_tell_odd_plans():
    held, shown = bound.conclude(bounded())
    assert held and "| full sequence | 1.00 [1.00, 1.00] |" in shown and "0.950 (two halves in the maze)" in shown
    assert not bound.conclude(bounded(gap=lambda steps: 1.0))[0], "it must fall"
    assert not bound.conclude(bounded(gap=lambda steps: 1 - steps / 1000))[0], "it must lie above"
    assert not bound.conclude(bounded(auroc=0.8))[0]
    assert len(bound.figure(bounded()).axes[0].lines) == 3


def test_the_bound_of_a_small_model(here):
    found = bound.play({"steps": 2, "seed": 0, "sequences": 6})
    assert set(found["gap"]) == set(bound.ORDERS) and np.shape(found["gap"]["zig-zag"]) == (6,)
    assert min(found["gap"]["full sequence"]) > 0, "an untrained model is far above"
    assert bound.spliced(np.arange(8).reshape(2, 4)).tolist() == [[0, 1, 6, 7], [4, 5, 2, 3]]

"""The experiment that plays recorded rows on fresh starts: its verdict by hand, and one row played."""

import numpy as np
import pytest

from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import fresh_starts
from dfplan.intervals import Estimate


@pytest.mark.parametrize("fresh, same", [((4.0, 2.7, 5.4), True), ((4.6, 3.0, 5.6), False), ((0.9, -2.0, 1.1), False)])
def test_means_agree_within_the_joint_interval_of_their_difference(fresh, same):
    assert fresh_starts.agrees(Estimate(2.5, 1.0, 3.5), Estimate(*fresh)) is same
    assert not fresh_starts.agrees(Estimate(2.5), Estimate(2.6)), "without an interval only equal means agree"


@pytest.mark.parametrize("others, held", [(2, True), (3, False)])
def test_nine_rows_of_ten_must_agree(others, held):
    scores = np.arange(10.0)
    played = {
        str(row): {
            "settings": {"agent": "iql", "env": "maze2d-umaze"},
            "recorded": [scores],
            "fresh": [scores + 9 * (row < others)],
        }
        for row in range(20)
    }
    verdict, table = fresh_starts.conclude(played)
    assert verdict is held and f"{20 - others} of 20 rows agree" in table


def test_a_row_is_played_on_the_second_block(monkeypatch):
    played = []
    original = protocol.evaluate
    monkeypatch.setattr(protocol, "evaluate", lambda *a: played.append(a[2]) or original(*a))
    found = fresh_starts.play({"env": "maze2d-umaze", "agent": "random", "block": 1, "episodes": 2})
    assert played == [range(110_000, 110_002)] and len(found["recorded"][0]) == 100 and len(found["fresh"][0]) == 2

"""The experiments on planners: what is counted, that budgets are equal, and when the claims hold."""

import numpy as np
import pytest

from dfplan.benchmarks.experiments import constraints, search, stitching
from dfplan.data.trajectories import Trajectories


class Pushes:
    """An agent that pushes towards the side of the passage that it is not kept out of."""

    goal_dim = 2

    def __init__(self, options=None):
        self.options, self.ask = options, None

    def with_options(self, **options):
        return Pushes(options)

    def reset(self, goal=None, seed=None, ask=None):
        self.ask = ask

    def act(self, observation):
        left = 1.0 if self.ask.constraints else -1.0
        return np.tile(np.array([0.0, left], np.float32), (len(observation), 1))


def test_a_passage_is_closed_where_the_first_path_went_and_both_sides_start_alike():
    found = constraints.pair(Pushes(), {"episodes": 2, "margin": 0.1, "options": {"rounds": 2}}, range(1000, 1100))
    before, after = found["before"], found["after"]
    assert len(before["returns"]) == len(found["closed"]) == 2
    for one, other, closed in zip(before["paths"], after["paths"], found["closed"], strict=True):
        (low, _), (_, high) = constraints.START
        assert low < one[0][0] < high and one[0] == other[0]
        assert one[-1][1] < one[0][1] < other[-1][1]
        assert closed == pytest.approx(constraints.PASSAGES[constraints.nearest(np.array(one))].tolist())


def played(after, kept):
    side = {"returns": [500.0, 600.0], "violations": [20, 10], "paths": [[[1.0, 7.0], [2.0, 6.0]]] * 2}
    changed = {**side, "returns": [kept * one for one in side["returns"]], "violations": after}
    return {constraints.CLOSED: {"closed": [[3.8, 5.8]] * 2, "before": side, "after": changed}}


@pytest.mark.parametrize("after, kept, held", [([0, 3], 0.95, True), ([0, 4], 0.95, False), ([0, 0], 0.8, False)])
def test_a_constraint_must_be_kept_and_cost_little(after, kept, held):
    verdict, table = constraints.conclude(played(after, kept))
    assert verdict == held and "2 episodes" in table
    assert len(constraints.figure(played(after, kept)).axes) == 2


def test_both_ways_take_as_many_candidates_and_search_must_win():
    for budget in search.BUDGETS:
        rounds, noise = (search.options(kind, budget) for kind in (search.SEARCH, search.NOISE))
        candidates = rounds["horizons"] + rounds["rounds"] * rounds["children"]
        assert candidates == noise["horizons"] * noise["samples"] == budget * search.LENGTHS
        assert rounds["steps"] == noise["steps"]

    def result(last):
        returns = {f"{search.SEARCH}, 64": last}
        return {
            name: {"returns": list(np.array(returns.get(name, 300.0)) + np.arange(6.0))} for name in search.parts(True)
        }

    assert search.conclude(result(500.0))[0] and not search.conclude(result(301.0))[0]
    assert not search.conclude(result(300.0))[0] and search.figure(result(500.0)).axes


def test_pieces_hold_all_steps_and_none_spans_two_episodes():
    steps = np.arange(10, dtype=np.float32)
    data = Trajectories(steps[:, None], steps[:, None], steps, np.array([0, 7]), "two")
    pieces = stitching.cut(data, 3)
    assert pieces.episode_starts.tolist() == [0, 3, 6, 7] and len(pieces) == 10


@pytest.mark.parametrize("score, held", [(600.0, True), (430.0, False)])
def test_pieces_must_score_above_the_bar(score, held):
    returns = {"returns": [score - 20.0, score, score + 20.0] * 10}
    verdict, table = stitching.conclude({"pieces": returns, "whole": returns})
    assert verdict == held and "difference of pieces to whole episodes: +0.0" in table

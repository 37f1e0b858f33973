"""Goals of several things: one is asked for at a time, and things that are alike change places."""

import numpy as np

from dfplan.data.configurations import until_another
from dfplan.data.queries import Queries
from dfplan.data.things import ALONE, exchanges, one_at_a_time
from dfplan.data.trajectories import Trajectories


def test_most_goals_are_of_one_thing_that_moves():
    """Of three things, two columns of the second and one of the others, the first never moves, in the last row none."""
    present = np.zeros((4_000, 4), np.float32)
    goals = present + np.array([0.05, 0, 3, -3], np.float32)
    goals[-400:] = 0
    found, which = one_at_a_time(goals, present, (1, 2, 1), np.ones(4), np.random.default_rng(0))
    alone = np.isnan(found).any(axis=1)
    assert abs(alone.mean() - ALONE) < 0.02 and not which[~alone].any()
    moving, still = which[:-400][alone[:-400]], which[-400:][alone[-400:]]
    assert abs((moving == 1).mean() - 0.5) < 0.03 and not (moving == 0).any()
    assert np.bincount(still).min() > 80, "where nothing moves, any may be asked for"
    kept = np.repeat([0, 1, 2], (1, 2, 1)) == which[:, None]
    assert np.array_equal(np.isnan(found[alone]), ~kept[alone])
    assert np.array_equal(np.nan_to_num(found), np.where(np.isnan(found), 0, goals))


def test_things_that_change_together_are_asked_for_together():
    """Of four things the first two change at once, but in the last row nothing moves; the fourth moves by itself."""
    present = np.zeros((3_000, 4), np.float32)
    goals = present + np.array([1, -1, 0, 1], np.float32)
    goals[-500:] = 0
    together = np.tile([True, True, True, False], (3_000, 1))
    found, _ = one_at_a_time(goals, present, (1,) * 4, np.ones(4), np.random.default_rng(0), 1.0, together)
    moving, still = (np.unique(~np.isnan(part), axis=0).tolist() for part in (found[:-500], found[-500:]))
    assert moving == [[False, False, False, True], [True, True, False, False]]
    assert [sum(asked) for asked in still] == [1] * 4, "where nothing moves, one thing stays where it is"


def test_an_exchange_swaps_a_thing_with_the_first_and_the_same_again_swaps_them_back():
    table = exchanges(((1, 2), (5, 4), (6, 7)), range(8))
    assert table.tolist() == [[*range(8)], [0, 5, 4, 3, 2, 1, 6, 7], [0, 6, 7, 3, 4, 5, 1, 2]]
    assert all(np.array_equal(row[row], np.arange(8)) for row in table)
    assert exchanges(((1, 2), (5, 4)), (1, 5)).tolist() == [[0, 1], [1, 0]]


def test_the_thing_that_is_asked_for_is_the_first_one():
    """Column 1 stays at 5 while column 3 counts: goals are of what counts, in the place of column 1."""
    rows = np.tile(np.array([0, 5, 0, 0], np.float32), (12, 1))
    rows[:, 3] = rows[:, 2] = np.arange(12)
    data = Trajectories(rows, rows[:, :1], rows[:, 0], np.array([0]), "two things")
    queries = Queries(data, 3, 2, 0, 20, (1, 3), (1, 1), ((1, 0), (3, 2)))
    observations, _, _, goals, _ = queries.sample(np.random.default_rng(0), 500)
    assert np.isnan(goals).tolist() == [[False, True]] * 500
    assert (goals[:, 0] > observations[:, 0, 1]).all(), "a later count of the first thing"
    assert (observations[..., 3] == 5).all() and (observations[..., 1] == observations[..., 0]).all()


def test_no_goal_lies_beyond_where_another_thing_begins_to_move():
    still = np.ones((10, 2), bool)
    still[2:4, 1] = still[3:6, 0] = still[8, 1] = False
    assert until_another(still).tolist() == [3, 2, 1, 1, 4, 3, 4, 3, 2, 1], (
        "in step 3 both move; after step 8 none does"
    )
    counts = np.arange(200) // 20  # in each second twenty steps one of the two moves
    places = [np.cumsum(np.where(counts % 4 == which, 1, 0)) for which in (1, 3)]
    rows = np.float32(np.stack([places[0], places[0], places[1], places[1]], axis=1))
    data = Trajectories(rows, rows[:, :1], rows[:, 0], np.array([0]), "turns")
    queries = Queries(data, 3, 2, 0, 100, (0, 2), (1, 1), ((0, 1), (2, 3)))
    observations, _, _, goals, _ = queries.sample(np.random.default_rng(0), 500)
    assert (goals[:, 0] - observations[:, 0, 0]).max() == 20, "one turn of the thing that moves first, and not two"

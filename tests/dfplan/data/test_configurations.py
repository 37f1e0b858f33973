"""Kinds of places are found by where things rest, and changes between them as they were recorded."""

import dataclasses

import numpy as np
import pytest
from chest import COLUMNS, GROUPS, KINDS, MOVE, play

from dfplan.data.configurations import (
    AT_ONCE,
    at_rest,
    change_together,
    changes,
    cluster,
    kinds_in_each,
    nearest,
    until_the_second,
)
from dfplan.data.queries import Queries
from dfplan.data.trajectories import Trajectories


@pytest.fixture(scope="module")
def data():
    return play()


@pytest.fixture(scope="module")
def centers(data):
    return cluster(data, COLUMNS, GROUPS, KINDS)


def test_kinds_are_where_things_rest_and_not_what_lies_between(centers):
    assert centers.shape == (8, 4)
    for column, places in ((0, [0, 1]), (1, [0.2, 4]), (3, [0, 1])):
        assert np.allclose(np.unique(centers[:, column].round(3)), places, atol=0.1)
    assert np.allclose(centers[centers[:, 3] > 0.5, 2], 6)


def test_the_nearest_configuration_is_that_of_each_thing_by_itself(data, centers):
    values, apart = data.observations[:500] + np.float32(0.01), []
    for part in (slice(0, 1), slice(1, 2), slice(2, 4)):
        apart.append(np.square(values[:, None, part] - centers[None, :, part]).sum(axis=2))
    assert np.array_equal(nearest(values, centers), sum(apart).argmin(axis=1))


def test_any_number_of_rows_finds_its_configurations(data, centers):
    values = np.tile(data.observations[:100], (AT_ONCE // 50, 1))
    assert np.array_equal(nearest(values, centers).reshape(-1, 100)[-1], nearest(values[:100], centers))
    assert nearest(values[:6].reshape(2, 3, 4), centers).shape == (2, 3) and nearest(values[:0], centers).shape == (0,)
    assert nearest(values[0], centers) == nearest(values[:1], centers)[0]


def test_a_thing_is_at_rest_where_it_stays_for_two_steps_and_episodes_do_not_touch(data):
    still = at_rest(data, COLUMNS, GROUPS)
    same = (np.abs(np.diff(data.observations, axis=0)) < 0.01).all(axis=1)
    for row in (5, MOVE * 40 - 1, MOVE * 40):
        before = row % (MOVE * 40) == 0 or same[row - 1]
        after = (row + 1) % (MOVE * 40) == 0 or same[row]
        assert still[row].all() == (before and after)


def test_changes_keep_the_rules_and_go_from_rest_to_rest(data, centers):
    found, still = changes(data, COLUMNS, GROUPS, centers), at_rest(data, COLUMNS, GROUPS).all(axis=1)
    before, after = centers[found.before], centers[found.after]
    assert len(found.left) > 200 and (np.diff(found.left) > 0).all()
    assert still[found.left].all() and still[found.reached].all() and (found.reached > found.left).all()
    lid, ball = before[:, 1] != after[:, 1], before[:, 3] != after[:, 3]
    assert lid.any() and (before[lid, 0] > 0.5).all(), "the lid moves while the lock is open"
    assert ball.any() and (before[ball, 1] > 2).all(), "the ball goes in and out while the lid is up"


def test_goals_end_before_the_second_change(data, centers):
    found = changes(data, COLUMNS, GROUPS, centers)
    limits = until_the_second(data, found)
    for step in (0, 100, 777):
        later = [left for left, reached in zip(found.left, found.reached, strict=True) if reached > step]
        assert limits[step] == max(later[1] - step, 1)
    assert limits[-1] == len(data), "nothing changes after the last step"
    still = dataclasses.replace(data, observations=np.zeros_like(data.observations))
    assert (
        until_the_second(still, found._replace(**{name: part[:0] for name, part in found._asdict().items()})) > 3000
    ).all()


def test_what_the_next_change_changes_is_found_for_each_step(data, centers):
    found, number = changes(data, COLUMNS, GROUPS, centers), kinds_in_each(KINDS)
    together, episode = change_together(data, found, KINDS), MOVE * 40
    for step in (0, 100, episode - 1, 777, len(data) - 1):
        later = [
            (before, after)
            for left, reached, before, after in zip(*found[1:], strict=True)
            if reached > step and left // episode == step // episode
        ]
        expected = number[later[0][0]] != number[later[0][1]] if later else [False] * 3
        assert together[step].tolist() == list(expected)
    assert not together[-1].any()


def test_lamps_of_one_switch_are_asked_for_together():
    """The first two of three lamps have one switch, which is turned every 10 steps, and the third has its own."""
    steps = np.arange(200)
    lamps = np.stack([steps // 10 % 2, (steps // 10 + 1) % 2, (steps + 5) // 20 % 2], axis=1)
    data = Trajectories(np.float32(lamps), np.zeros((200, 1), np.float32), np.zeros(200, np.float32), np.array([0]), "")
    queries = Queries(data, 2, 2, 0, 50, (0, 1, 2), (1, 1, 1), (), (2, 2, 2))
    observations, _, _, goals, _ = queries.sample(np.random.default_rng(0), 500)
    asked, moved = ~np.isnan(goals), goals != observations[:, 0]
    several = asked.sum(axis=1) == 2
    assert several.sum() > 100 and (asked & moved)[several][:, :2].all(), "both lamps of a switch that is turned"


def test_queries_ask_for_no_more_than_one_change(data, centers):
    """At rest at most one kind differs between the present and a goal that is drawn; without kinds there are others."""

    def differing(groups, kinds):
        queries = Queries(data, 2, 2, 0, 100, COLUMNS, groups, (), kinds)
        observations, _, _, goals, _ = queries.sample(np.random.default_rng(0), 2000)
        whole = np.isfinite(goals).all(axis=1)
        present, goal = (centers[nearest(part[whole], centers)] for part in (observations[:, 0], goals))
        return (present[:, [0, 1, 3]] != goal[:, [0, 1, 3]]).sum(axis=1)

    assert (differing((), ()) > 1).mean() > 0.2
    assert (differing(GROUPS, KINDS) > 1).mean() < 0.05, "but where the second thing is on its way already"


def test_a_thing_that_is_never_at_rest_has_no_kinds(data):
    moving = dataclasses.replace(data, observations=data.observations + np.float32(np.arange(len(data)) % 2)[:, None])
    with pytest.raises(ValueError, match="goal group 0 are seldom at rest"):
        cluster(moving, COLUMNS, GROUPS, KINDS)

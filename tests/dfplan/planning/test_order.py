"""A chest is unlocked before its lid is lifted, and the lid is lifted before the ball is put in, as it was recorded."""

import numpy as np
import pytest
import torch
from chest import COLUMNS, GROUPS, KINDS, play

from dfplan.planning.order import Order

WITHIN = (0.4, 0.5, 0.3)
INSIDE = (6.0, 1.0)


@pytest.fixture(scope="module")
def order():
    found = Order(GROUPS, KINDS)
    found.fit(play(), COLUMNS)
    return found


def asked(order, present, goal):
    found = order.next_goal(torch.tensor([goal]), torch.tensor([present]), WITHIN)[0]
    return [None if value != value else round(value, 1) for value in found.tolist()]


@pytest.mark.parametrize(
    ("present", "goal", "expected"),
    [
        ((0.0, 0.0, 1.0, 0.0), (0.0, 4.0, 1.0, 0.0), [1, None, None, None]),
        ((1.0, 0.0, 1.0, 0.0), (0.0, 4.0, 1.0, 0.0), [None, 4, None, None]),
        ((1.0, 4.0, 1.0, 0.0), (0.0, 4.0, 1.0, 0.0), [0, None, None, None]),
        ((0.0, 0.0, 1.0, 0.0), (0.0, 0.0, *INSIDE), [1, None, None, None]),
        ((1.0, 0.0, 1.0, 0.0), (0.0, 0.0, *INSIDE), [None, 4, None, None]),
        ((1.0, 4.0, 1.0, 0.0), (0.0, 0.0, *INSIDE), [None, None, 6, 1]),
        ((1.0, 4.0, *INSIDE), (0.0, 0.0, *INSIDE), [None, 0, None, None]),
        ((0.0, 0.0, *INSIDE), (0.0, 0.0, *INSIDE), [0, 0, 6, 1]),
    ],
    ids=["unlock", "lift", "lock", "unlock for the ball", "lift for the ball", "put in", "shut", "all done"],
)
def test_what_comes_next_is_what_the_data_had_to_do_first(order, present, goal, expected):
    assert asked(order, present, goal) == expected


def test_a_ball_in_the_air_is_brought_to_its_goal_before_anything_else(order):
    assert asked(order, (0.0, 0.0, 1.0, 3.0), (1.0, 4.0, 0.5, 0.0)) == [None, None, 0.5, 0]


def test_a_thing_of_the_right_kind_is_brought_to_its_place_while_it_is_free(order):
    """The ball always is on the floor. A lid that is half shut is shut before it is locked, and unlocked for that."""
    assert asked(order, (0.0, 0.0, 2.0, 0.0), (0.0, 4.0, 0.5, 0.0)) == [None, None, 0.5, 0]
    assert asked(order, (1.0, 0.9, 1.0, 0.0), (0.0, 0.0, 1.0, 0.0)) == [None, 0, None, None]
    assert asked(order, (0.0, 0.9, 1.0, 0.0), (0.0, 0.0, 1.0, 0.0)) == [1, None, None, None]
    assert asked(order, (1.0, 0.9, 1.0, 0.0), (0.0, 0.0, *INSIDE)) == [None, 4, None, None], "it is lifted first"


def test_what_is_on_the_way_is_asked_for_where_such_things_arrive(order):
    """A goal in the air above the chest is of the kind 'in the chest', and nothing ever arrives there."""
    assert asked(order, (1.0, 4.0, 1.0, 0.0), (1.0, 4.0, 6.0, 3.0)) == [None, None, 6, 1]


def test_each_row_is_on_a_way_of_its_own_and_tables_are_kept_with_the_weights(order):
    goal = torch.tensor([[0.0, 4.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    copy = Order(GROUPS, KINDS)
    copy.load_state_dict(order.state_dict())
    found = copy.next_goal(goal, torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 2), WITHIN)
    assert found.isnan().tolist() == [[True, False, True, True], [False, True, True, True]]


def test_where_no_way_was_recorded_the_goal_stays_whole(order):
    cut = Order(GROUPS, KINDS)
    cut.load_state_dict({**order.state_dict(), "follows": torch.full((8, 8), -1)})
    assert asked(cut, (0.0, 0.0, 1.0, 0.0), (0.0, 4.0, 1.0, 0.0)) == [0, 4, 1, 0]


def test_a_fit_of_the_same_data_gives_the_same_tables(order):
    again = Order(GROUPS, KINDS)
    again.fit(play(), COLUMNS)
    assert all(
        np.array_equal(a, b) for a, b in zip(order.state_dict().values(), again.state_dict().values(), strict=True)
    )

"""A goal of several things is asked for one thing at a time, and what is left open is never guessed."""

import pytest
import torch

from dfplan.planning.in_turn import in_turn

NAN = float("nan")
FAR, HERE = (5.0, 5.0), (1.0, 2.0)


def asked(goal, present, **options):
    found = in_turn(torch.tensor([goal]), torch.tensor([present]), (2, 1, 2), (0.5, 0.1, 0.5), **options)
    return [None if value != value else value for value in found[0].tolist()]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((*FAR, 9.0, *FAR), [1.0, 2.0, None, None, None]),
        ((1.2, 2.2, 9.0, *FAR), [None, None, 3.0, None, None]),
        ((1.2, 2.2, 3.0, *FAR), [None, None, None, 1.0, 1.0]),
        ((1.2, 2.2, 3.0, 1.0, 1.0), [1.0, 2.0, 3.0, 1.0, 1.0]),
    ],
)
def test_the_first_group_that_is_not_there_yet_is_asked_for_alone(present, expected):
    assert asked((*HERE, 3.0, 1.0, 1.0), present) == expected


def test_the_lowest_goal_may_come_first():
    """Of last columns 2, 3 and 1 the last is lowest, and of what is not there yet the first."""
    assert asked((*HERE, 3.0, 1.0, 1.0), (*FAR, 9.0, *FAR), lowest_first=True) == [None, None, None, 1.0, 1.0]
    assert asked((*HERE, 3.0, 1.0, 1.0), (*FAR, 9.0, 1.0, 1.0), lowest_first=True) == [1.0, 2.0, None, None, None]


def test_each_row_has_a_turn_of_its_own():
    goal, present = torch.zeros(2, 2), torch.tensor([[9.0, 9.0], [0.0, 9.0]])
    assert in_turn(goal, present, (1, 1), (0.1, 0.1)).isnan().tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((0.0, 0.0, 5.0, 0.0), [9.0, 0.0, None, None]),
        ((0.0, 0.0, 9.1, 0.0), [None, None, 0.0, 4.0]),
        ((0.1, 4.0, 9.1, 0.0), [4.55, 2.0, None, None]),
        ((4.5, 2.0, 9.1, 0.0), [None, None, 0.0, 4.0]),
    ],
    ids=["free", "the first waits", "both wait", "both waited"],
)
def test_what_stands_in_the_way_goes_first_and_of_a_circle_one_goes_half_the_way(present, expected):
    """Two things on a plane, asked to (9, 0) and (0, 4)."""
    found = in_turn(torch.tensor([[9.0, 0.0, 0.0, 4.0]]), torch.tensor([present]), (2, 2), (0.2, 0.2), clearance=0.5)
    assert torch.allclose(found[0].nan_to_num(-1), torch.tensor([-1 if one is None else one for one in expected]))


@pytest.mark.parametrize(("height", "expected"), [(0.2, [1.0, 1.0, 0.6]), (0.6, [5.5, 5.5, 0.2])])
def test_what_lies_below_is_not_in_the_way_and_what_hangs_above_is(height, expected):
    """Of two cubes the first is asked to (1, 1, 0.6), where the second is to stay at some height."""
    goal, present = (
        torch.tensor([[1.0, 1.0, 0.6, 1.1, 1.0, height]]),
        torch.tensor([[10.0, 10.0, 0.2, 1.1, 1.0, height]]),
    )
    found = in_turn(goal, present, (3, 3), (0.3, 0.3), lowest_first=True, clearance=0.6)[0]
    assert torch.allclose(found[:3], torch.tensor(expected)) and found[3:].isnan().all()


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((0.0, 0.0, 0.2, 4.0, 0.0, 0.2), [2.0, 0.0, 0.2, None, None, None]),
        ((1.0, 0.0, 1.8, 4.0, 0.0, 0.2), [1.0, 0.0, 0.2, None, None, None]),
        ((0.2, 0.0, 1.8, 4.0, 0.0, 0.2), [2.1, 0.0, 0.2, None, None, None]),
        ((1.0, 0.0, 0.2, 4.0, 0.0, 0.2), [None, None, None, 0.0, 0.0, 0.2]),
        ((1.0, 0.0, 0.2, 0.1, 0.0, 0.2), [4.0, 0.0, 0.2, None, None, None]),
        ((1.0, 0.0, 0.2, 2.0, 0.0, 1.8), [None, None, None, 0.0, 0.0, 0.2]),
    ],
    ids=["both wait", "lay it down", "not in the way", "lies", "the other is there", "on its way"],
)
def test_what_hangs_is_laid_down_before_another_one_is_asked_for(present, expected):
    """Two cubes that are to change places, at (0, 0) and (4, 0)."""
    goal = torch.tensor([[4.0, 0.0, 0.2, 0.0, 0.0, 0.2]])
    found = in_turn(goal, torch.tensor([present]), (3, 3), (0.3, 0.3), lowest_first=True, clearance=0.6)
    assert torch.allclose(found[0].nan_to_num(-1), torch.tensor([-1 if one is None else one for one in expected]))


def test_of_three_that_lie_on_one_another_the_upper_one_goes_first():
    present = torch.tensor([[0.0, 0.0, 0.2, 0.0, 0.0, 0.6, 0.0, 0.0, 1.0]])
    goal = torch.tensor([[3.0, 3.0, 0.2, 0.0, 0.0, 0.6, 5.0, 5.0, 0.2]])
    found = in_turn(goal, present, (3, 3, 3), (0.3, 0.3, 0.3), lowest_first=True, clearance=0.6)[0]
    assert found[6:].tolist() == [5.0, 5.0, pytest.approx(0.2)] and found[:6].isnan().all()

"""Outliers among observations: found by how fast anything changes in the data."""

import numpy as np
import torch

from dfplan.data.trajectories import Trajectories
from dfplan.planning.jumps import Accepted, largest_changes

LARGEST = torch.tensor([1.0, 0.5])


def checked(*observations):
    """Which of these observations of one row are accepted, one after another."""
    row = Accepted.start(torch.zeros(1, 2))
    return [bool(row.check(torch.tensor([one], dtype=torch.float32), LARGEST)) for one in observations]


def test_the_largest_change_is_of_single_steps_and_not_from_one_episode_to_the_next():
    observations = np.array([[0, 0], [1, 0], [0, 3], [50, 50], [50, 51]], np.float32)
    data = Trajectories(observations, np.zeros((5, 1), np.float32), np.zeros(5, np.float32), np.array([0, 3]), "two")
    assert largest_changes(data).tolist() == [1.0, 3.0]


def test_what_jumps_is_refused_and_what_goes_on_from_before_the_jump_is_accepted():
    assert checked([0, 0], [0.9, 0.4], [5, 0], [1.8, 0.5], [1.8, 3]) == [True, True, False, True, False]


def test_after_some_time_without_an_observation_more_may_have_changed():
    nan = [np.nan, np.nan]
    assert checked([0, 0], nan, [2.5, 0]) == [True, True, False]
    assert checked([0, 0], nan, nan, [2.5, 0]) == [True, True, True, True]


def test_a_first_observation_that_was_an_outlier_is_found_out_by_two_that_agree():
    assert checked([9, 9], [0, 0], [0.5, 0.1], [1, 0.2]) == [True, False, True, True]


def test_a_column_that_is_unknown_is_no_reason_to_refuse_the_others():
    assert checked([0, 0], [np.nan, 0.2], [5, np.nan]) == [True, True, False]


def test_rows_are_apart_and_begin_anew():
    rows = Accepted.start(torch.zeros(2, 2))
    rows.check(torch.zeros(2, 2), LARGEST)
    far = torch.full((2, 2), 7.0)
    rows.forget(torch.tensor([1]))
    assert rows.check(far, LARGEST).tolist() == [False, True]
    assert (far == 7).all(), "what is given stays as it is"

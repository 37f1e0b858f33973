"""Following plans: the layout step by step, clocks, what is due, and the targets and actions at each step."""

import pytest
import torch
from tiny import tiny

from dfplan.planning.execution import Following, by_inverse_dynamics, diffused_action, each_step, padded
from dfplan.planning.model import TrajectoryModel

CPU = torch.device("cpu")


def ramp(rows=1, steps=8):
    """Plans whose first column counts their steps; row r begins at 100 r."""
    path = torch.zeros(rows, steps + 1, 2)
    path[..., 0] = torch.arange(steps + 1) + 100.0 * torch.arange(rows).unsqueeze(1)
    return path


def following(rows=1, steps=8, lengths=4):
    made = Following.start(rows, steps, 2, CPU)
    made.put(torch.arange(rows), ramp(rows, steps), lengths)
    return made


# Layout ---------------------------------------------------------------------------------------------------------------


def test_between_tokens_of_one_observation_the_path_is_straight_and_its_end_repeats():
    tokens = torch.tensor([[0.0, 4.0, -4.0]]).view(1, 3, 1, 1)
    assert each_step(tokens, stride=4, steps=10).flatten().tolist() == [0, 1, 2, 3, 4, 2, 0, -2, -4, -4, -4]


def test_tokens_of_all_observations_are_laid_out_as_they_are():
    tokens = torch.tensor([[[7.0, 7.0], [1.0, 2.0], [3.0, 4.0]]]).unsqueeze(-1)
    assert each_step(tokens, stride=2, steps=6).flatten().tolist() == [7, 1, 2, 3, 4, 4, 4]


def test_a_last_entry_is_repeated():
    assert padded(torch.tensor([[[1.0], [2.0]]]), 4).flatten().tolist() == [1, 2, 2, 2]
    assert padded(torch.tensor([[[1.0]]]), 1).flatten().tolist() == [1]


# Clocks ---------------------------------------------------------------------------------------------------------------


def test_actions_are_left_as_far_as_a_plan_holds_any_and_none_where_an_episode_begins():
    made = following(rows=3)
    made.put(torch.arange(3), ramp(3), 4, torch.arange(6.0).view(1, 6, 1).expand(3, -1, -1))
    made.clock += 3
    made.begins[2] = True
    left = made.actions_left(4, torch.tensor([6, 4, 6]))[..., 0]
    assert left[0, :3].tolist() == [3, 4, 5] and left[1, 0] == 3
    assert bool(left[0, 3:].isnan().all()) and bool(left[1, 1:].isnan().all()) and bool(left[2].isnan().all())


def test_rows_are_due_when_they_begin_and_when_their_plan_is_old():
    made = Following.start(3, 8, 2, CPU)
    assert made.due(5).tolist() == [0, 1, 2] and made.due(0).tolist() == [0, 1, 2]
    made.put(torch.arange(3), ramp(3), 4)
    assert made.due(5).tolist() == []
    made.clock += 4
    made.put(torch.tensor([1]), ramp(), 4)
    made.clock += 1
    assert made.clock.tolist() == [5, 1, 5] and made.due(5).tolist() == [0, 2]
    assert made.due(0).tolist() == [], "a plan once an episode"
    made.begins[1] = True
    assert made.due(5).tolist() == [0, 1, 2] and made.due(0).tolist() == [1]


def test_a_new_plan_is_put_into_its_rows_alone():
    made = following(rows=3)
    made.clock += 3
    made.possible[:] = False
    made.put(
        torch.tensor([2, 0]), torch.full((2, 3, 2), -1.0), torch.tensor([1, 2]), possible=torch.tensor([True, False])
    )
    assert torch.equal(made.path[1], ramp(3)[1]) and bool((made.path[[0, 2]] == -1).all()), "and held to the path's end"
    assert made.lengths.tolist() == [2, 4, 1] and made.clock.tolist() == [0, 3, 0]
    assert made.possible.tolist() == [False, False, True]


def test_actions_are_kept_where_a_plan_gives_them_and_the_last_one_holds():
    made = following(rows=2, steps=3)
    actions = torch.arange(4.0).view(2, 2, 1)
    made.put(torch.arange(2), ramp(2, 3), 2, actions)
    made.clock[:] = torch.tensor([0, 1])
    assert diffused_action(made).flatten().tolist() == [0, 3]
    made.clock += 7
    assert diffused_action(made).flatten().tolist() == [1, 3]


def test_between_two_steps_a_path_is_interpolated_and_its_end_holds():
    made = following(rows=2)
    before, after, share = made.around(torch.tensor([2.25, 99.0]))
    assert (
        before[:, 0].tolist() == [2, 107] and after[:, 0].tolist() == [3, 108] and share.flatten().tolist() == [0.25, 1]
    )
    assert made.at(torch.tensor([3, 99]))[:, 0].tolist() == [3, 108]


# Inverse dynamics -----------------------------------------------------------------------------------------------------


@pytest.fixture
def asked():
    """A model whose inverse dynamics answers with its target's first column, and all targets and gaps it was given."""
    model = TrajectoryModel(tiny(2, 1, stride=2, longest_gap=9))
    model.observation.mean.copy_(torch.tensor([3.0, 0.0]))
    model.observation.std.copy_(torch.tensor([2.0, 1.0]))
    model.action.std.fill_(10.0)
    calls = []

    def inverse(observation, target, gap):
        calls.append((model.observation.denormalize(target)[:, 0].tolist(), gap.tolist(), observation))
        return target[:, :1]

    model.inverse.forward = inverse
    return model, calls


def act(model, made, clock, lookahead, speed=1.0, policy=False):
    made.clock[:] = clock
    return by_inverse_dynamics(
        model, torch.tensor([[5.0, 0.0]]).repeat(len(made.path), 1), made, lookahead, speed, policy
    )


def test_the_target_is_lookahead_steps_ahead_and_never_beyond_the_path(asked):
    model, calls = asked
    for clock, target in ((0, 3.0), (2, 5.0), (6, 8.0), (50, 8.0)):
        act(model, following(), clock, lookahead=3)
        assert calls[-1][:2] == ([target], [3.0])
    assert calls[-1][2].tolist() == [[1.0, 0.0]], "the observation is normalized"


def test_at_another_speed_the_path_is_played_so_many_times_faster(asked):
    model, calls = asked
    act(model, following(), clock=2, lookahead=2, speed=1.5)
    assert calls[-1][:2] == ([6.0], [2.0])
    act(model, following(), clock=1, lookahead=1, speed=1.25)
    assert calls[-1][:2] == ([2.5], [1.0]), "between two steps"
    act(model, following(), clock=1, lookahead=2, speed=0.5)
    assert calls[-1][:2] == ([1.5], [2.0])


def test_each_row_has_a_clock_of_its_own(asked):
    model, calls = asked
    act(model, following(rows=3), torch.tensor([0, 2, 50]), lookahead=1)
    assert calls[-1][0] == [1.0, 103.0, 208.0]


def test_a_policys_target_is_its_tokens_end_in_as_many_steps_as_are_left(asked):
    model, calls = asked
    for clock, gap in ((0, 4.0), (1, 3.0), (3, 1.0), (4, 1.0)):
        act(model, following(lengths=2), clock, lookahead=9, policy=True)
        assert calls[-1][:2] == ([4.0], [gap]), "two tokens of two steps"
    act(model, following(lengths=2), clock=0, lookahead=4, speed=2.0, policy=True)
    assert calls[-1][:2] == ([4.0], [2.0])


def test_actions_come_back_in_recorded_units(asked):
    model, _ = asked
    assert act(model, following(), clock=2, lookahead=3).tolist() == [[10.0]]  # the target 5 is 1 deviation above 3

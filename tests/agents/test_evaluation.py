"""Episodes in lockstep that may end early, with and without goals and success, and what is counted of them."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.vector import SyncVectorEnv
from scipy import stats
from toy_environments import STEPS, DictGoal, Falls, Plain, ToGoal, WholeGoal

import dfplan
from dfplan.agents.episodes import Start, play, stacked
from dfplan.agents.evaluation import evaluate

TASKS = [{"task_id": 1}, {"task_id": 2}]


class Up(ToGoal):
    """Falls off upwards, after 4 to 13 steps."""

    def act(self, observation):
        self.seen = observation
        return np.tile(np.float32([0, 1]), (len(observation), 1))


class Noisy(ToGoal):
    """Samples: its own seed decides, row by row."""

    def reset(self, goal=None, seed=None):
        self.seed, self.goal = seed, goal
        self.rng = np.random.default_rng(seed)

    def act(self, observation):
        return self.rng.uniform(-1, 1, (len(observation), 2)).astype(np.float32)


def alone(agent, env, start):
    """Return, length and success as a plain loop counts them."""
    observation, info = env.reset(seed=start.seed, options=start.options)
    goal = info.get("goal") if not isinstance(observation, dict) else observation["desired_goal"]
    agent.reset(None if goal is None else goal[None], start.seed)
    total, steps, success, ended = 0.0, 0, False, False
    while not ended:
        observation, reward, terminated, truncated, info = env.step(agent.act(stacked([observation]))[0])
        total, steps, ended = total + reward, steps + 1, terminated or truncated
        success |= bool(info.get("success", info.get("is_success", False)))
    return total, steps, success


@pytest.mark.parametrize("make", [Plain, Falls, DictGoal, WholeGoal])
def test_episodes_in_lockstep_are_counted_as_a_plain_loop_counts_each(make):
    options = TASKS if make is WholeGoal else None
    agent = Up() if make is Falls else ToGoal()
    found = evaluate(agent, make, 7, batch=3, options=options)
    starts = [Start(seed, option) for seed, option in zip(found.seeds, found.options, strict=True)]
    expected = [alone(agent, make(), start) for start in starts]
    assert list(zip(found.returns, found.lengths, strict=True)) == [one[:2] for one in expected]
    assert found.success == (None if make in (Plain, Falls) else tuple(one[2] for one in expected))


def test_a_row_that_has_ended_waits_and_counts_nothing():
    agent = Up()
    found = play(agent, [Falls() for _ in range(4)], [Start(seed) for seed in range(4)])
    assert len(set(found.lengths)) > 1 and max(found.lengths) == len(found.rewards) < STEPS
    for row, length in enumerate(found.lengths):
        assert (found.rewards[:length, row] != 0).all() and (found.rewards[length:, row] == 0).all()
    first = int(np.argmin(found.lengths))
    assert agent.seen[first, 1] > 0.8 and len(agent.seen) == 4, "its last observation is shown again"


def test_success_in_step_alone_is_found_and_ends_an_episode():
    found = evaluate(ToGoal(), WholeGoal, 6, options=TASKS)
    assert found.success == (True,) * 6 and max(found.lengths) < STEPS
    assert found.returns == tuple(1.0 - length for length in found.lengths)


def test_success_is_in_any_step_and_not_in_the_last_one_only():
    class PassesBy(ToGoal):
        def act(self, observation):
            near = np.linalg.norm(observation["observation"][..., :2] - self.goal, axis=-1, keepdims=True) < 0.12
            self.passed = near | getattr(self, "passed", near)
            return np.where(self.passed, np.float32(1), super().act(observation)).astype(np.float32)

    found = play(PassesBy(), [DictGoal()], [Start(0)])
    assert found.first_success[0] is not None and found.rewards[-1, 0] == -1.0 and found.success_at_end == (False,)
    found = evaluate(PassesBy(), DictGoal, 1)
    assert (found.success, found.success_at_end) == ((True,), (False,))
    assert "success at end" in str(found) and "success at end" not in str(evaluate(ToGoal(), DictGoal, 1))


def test_an_environment_with_neither_goal_nor_success_has_none():
    found = evaluate(ToGoal(), Plain, 3)
    assert found.success is None and found.success_rate is None and "success" not in str(found)


def test_an_agent_without_goals_is_given_none():
    class GoalFree(ToGoal):
        goal_dim = 0

        def reset(self, goal=None, seed=None):
            assert goal is None
            super().reset()

    assert evaluate(GoalFree(), WholeGoal, 2).success is not None


def test_goals_are_a_dictionarys_or_the_infos_whole_observation():
    given = {}

    class Remembers(ToGoal):
        def reset(self, goal=None, seed=None):
            given[len(given)] = (np.shape(goal), seed)
            super().reset(goal)

    for make in (DictGoal, WholeGoal, Falls):
        evaluate(Remembers(), make, 2)
    assert given == {0: ((2, 2), 0), 1: ((2, 4), 0), 2: ((), 0)}


def test_the_same_starts_for_every_agent_in_any_batch_and_other_ones_for_another_seed():
    one, other = evaluate(ToGoal(), DictGoal, 5, batch=1), evaluate(ToGoal(), DictGoal, 5, batch=4)
    assert (one.seeds, one.returns) == (other.seeds, other.returns)
    assert evaluate(Noisy(), Falls, 4, batch=2).returns == evaluate(Noisy(), Falls, 4, batch=2).returns
    assert not set(one.seeds) & set(evaluate(ToGoal(), DictGoal, 5, seed=1).seeds)


def test_reset_options_are_used_in_turn_and_summed_up_apart():
    found = evaluate(ToGoal(), WholeGoal, 5, options=TASKS)
    assert [one["task_id"] for one in found.options] == [1, 2, 1, 2, 1]
    parts = found.by_options()
    assert {name: len(part.seeds) for name, part in parts.items()} == {"task_id=1": 3, "task_id=2": 2}
    assert parts["task_id=2"].returns == found.returns[1::2]
    assert evaluate(ToGoal(), WholeGoal, 2, options=TASKS[1]).options == (TASKS[1], TASKS[1])


def test_the_table_and_the_json_hold_means_and_intervals():
    found = evaluate(ToGoal(), WholeGoal, 20, options=TASKS)
    low, high = stats.binomtest(20, 20).proportion_ci(method="wilson")
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["all", "task_id=1", "task_id=2"]
    assert (
        lines[0].split() == ["episodes", "success", "return", "length"] and f"1.00 [{low:.2f}, {high:.2f}]" in lines[1]
    )
    estimate = found.mean_return
    assert estimate.value == pytest.approx(np.mean(found.returns)) and estimate.low < estimate.value < estimate.high
    read = json.loads(found.to_json())
    assert read["returns"] == list(found.returns) and read["success_rate"] == {"value": 1.0, "low": low, "high": high}
    assert read["options"][:2] == TASKS


def test_an_environment_is_made_once_for_each_row_and_closed():
    made, closed = [], []

    class Counted(Falls):
        def __init__(self):
            made.append(self)

        def close(self):
            closed.append(self)

    evaluate(ToGoal(), Counted, 7, batch=3)
    assert len(made) == 3 and closed == made
    env = Counted()
    evaluate(ToGoal(), env, 2)
    assert len(made) == 4 and len(closed) == 3, "an environment that was given stays open"


def test_an_id_is_made_by_gymnasium_and_an_endless_episode_is_cut_off():
    gymnasium.register("ToyFallsById-v0", Falls)
    assert evaluate(ToGoal(), "ToyFallsById-v0", 2, longest=7).lengths == (7, 7)


def test_what_is_asked_for_reaches_the_agent():
    class Asked(ToGoal):
        def reset(self, goal=None, seed=None, ask=None):
            super().reset(goal)
            self.goal = np.array([ask, 0.0])

    low, high = (evaluate(Asked(), Falls, 3, ask=ask).mean_return.value for ask in (-0.5, 0.5))
    assert low < high


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"episodes": 0}, "episodes must be a whole number from 1 to 10000, got 0"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"batch": 2.0}, "batch must be a whole number"),
        ({"longest": 0}, "longest must be a whole number"),
        ({"options": []}, "one or more"),
        ({"options": [3]}, "one mapping"),
        ({"env": 3}, "env must be an id"),
        ({"env": "Nowhere-v3"}, "'Nowhere-v3' cannot be made"),
        ({"env": "nowhere:Nowhere-v3"}, "'nowhere:Nowhere-v3' cannot be made"),
        ({"env": dict}, "made a dict"),
        ({"env": SyncVectorEnv([Falls])}, "got SyncVectorEnv"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(ToGoal(), **{"env": Falls, **arguments})


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [(np.zeros(2), "must have the shape"), (np.full((2, 2), np.nan), "must be finite"), (None, "must have the shape")],
)
def test_actions_of_no_use_are_refused(actions, sentence):
    class Useless(ToGoal):
        def act(self, observation):
            return actions

    with pytest.raises(ValueError, match=sentence):
        evaluate(Useless(), Falls, 2)


def test_an_action_that_float32_put_beyond_a_limit_stands_at_the_limit():
    given = []

    class Strict(Falls):
        action_space = Box(np.array([0.0, -0.1]), np.array([5.0, 0.3]), dtype=np.float64)

        def step(self, action):
            given.append(action)
            return super().step(action)

    class Limits(ToGoal):
        def act(self, observation):
            return np.float32([[0.3, self.second]])

    agent = Limits()
    for agent.second, expected in ((-0.1, -0.1), (0.3, 0.3), (0.25, 0.25), (0.4, np.float32(0.4))):
        evaluate(agent, Strict, 1, longest=1)
        assert given[-1].tolist() == [np.float32(0.3), expected]


def test_what_is_no_agent_and_actions_of_another_kind_are_one_sentence():
    with pytest.raises(
        ValueError, match=r"an agent must have reset\(goal=..., seed=...\) and act\(observations\), got a function"
    ):
        evaluate(lambda observation: observation, Falls, 1)
    with pytest.raises(ValueError, match=r"must have the shape \(2,\) for Discrete\(2\), got \(2, 2\)"):
        evaluate(ToGoal(), "CartPole-v1", 2)


def test_an_environment_of_gym_before_gymnasium_and_counted_actions_are_one_sentence():
    class OldStep(Falls):
        def step(self, action):
            return super().step(action)[:4]

    class OldReset(Falls):
        def reset(self, **how):
            return super().reset(**how)[0]

    class Counted(Falls):
        action_space = MultiDiscrete([3, 3])

    for make, sentence in (
        (OldStep, r"env.step must give \(observation, reward, terminated, truncated, info\), .* got 4 values"),
        (OldReset, r"env.reset must give \(observation, info\), .* got a ndarray"),
        (
            Counted,
            r"the environment's actions are MultiDiscrete\(\[3 3\]\), but the agent gives numbers with fractions",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluate(ToGoal(), make, 1)


def test_rewards_that_are_not_finite_are_refused():
    class Broken(Falls):
        def reward(self):
            return float("nan")

    with pytest.raises(ValueError, match="rewards that are not finite, nan"):
        evaluate(ToGoal(), Broken, 2)


def test_tuples_and_nested_dictionaries_are_stacked_entry_by_entry():
    found = stacked([({"a": np.zeros(2)}, np.ones(3))] * 4)
    assert found[0]["a"].shape == (4, 2) and found[1].shape == (4, 3)


def test_the_package_has_it_at_its_top():
    assert dfplan.evaluate is evaluate
    with pytest.raises(AttributeError, match="no attribute 'evaluated'"):
        _ = dfplan.evaluated

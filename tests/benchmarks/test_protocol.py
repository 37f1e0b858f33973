import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import toy_tasks
from stand_in_planner import StandInPlanner
from toy_environments import STEPS, ToGoal

from dfplan.benchmarks.baselines import RandomAgent
from dfplan.benchmarks.protocol import (
    BATCH,
    EVALUATION_SEEDS,
    TUNING_SEEDS,
    batches,
    evaluate,
    evaluation_seeds,
    join,
    play,
    score,
)
from dfplan.benchmarks.recording import Recorder, planned_path
from dfplan.benchmarks.speed import time_decisions
from dfplan.envs.maze.expert import WaypointExpert
from dfplan.envs.reference import reference
from dfplan.envs.registry import MAZES, task

UMAZE = "maze2d-umaze-v1"


class Steady:
    """Deterministic in each row: drives straight at the goal."""

    def reset(self, goal=None, seed=None):
        self.goal = goal

    def act(self, observation):
        return np.clip(10 * (self.goal - observation[..., :2]) - observation[..., 2:], -1, 1).astype(np.float32)


def test_evaluation_never_plays_a_tuning_seed():
    assert not set(EVALUATION_SEEDS) & set(TUNING_SEEDS)
    last = evaluation_seeds(10_000, block=89)
    assert last[-1] in EVALUATION_SEEDS and last[-1] not in TUNING_SEEDS


def test_no_file_that_trains_or_tunes_names_an_evaluation_seed():
    """Only what plays the table or an experiment, times it and describes it may: the others have the tuning seeds."""
    root = Path(__file__).parents[2]
    files = [path for room in ("benchmarks", "agents", "dfplan", "envs") for path in (root / room).rglob("*.py")]
    naming = [path for path in files if re.search(r"evaluation_seeds|EVALUATION_SEEDS", path.read_text())]
    assert {path.name for path in naming if path.parent.name != "experiments"} <= {"protocol.py", "run.py", "speed.py"}


def test_a_batch_never_mixes_evaluation_and_other_seeds():
    for mixed in ([100_000, 1_000], [99_999, 100_000], []):
        with pytest.raises(ValueError, match="never mixed"):
            play(Steady(), UMAZE, mixed)


@pytest.mark.parametrize("env_id", [name for name in MAZES if "open" not in name and "eval" not in name])
def test_an_episode_is_as_long_as_its_reference_score_demands(env_id):
    if not env_id.startswith("maze2d-eval"):
        assert task(env_id).max_episode_steps == reference(env_id).max_episode_steps


@pytest.mark.parametrize("env_id", toy_tasks.NAMES)
def test_any_task_is_played_and_episodes_may_end_early(env_id, monkeypatch):
    toy_tasks.register(monkeypatch)
    played = evaluate(ToGoal(), env_id, evaluation_seeds(7), batch=3)
    assert len(played.reward_curve) == STEPS and sum(played.reward_curve) * 7 == pytest.approx(sum(played.returns))
    expected = (
        None if env_id in ("ToyPlain-v0", "ToyFalls-v0") else tuple(one is not None for one in played.first_reach)
    )
    assert played.success == expected and (played.first_reach is None) == (expected is None)
    if env_id == "ToyWhole-v0":
        assert played.lengths == played.first_reach, "an episode ends at success"
    else:
        assert played.lengths == (STEPS,) * 7


def test_reset_options_belong_to_a_seed_whatever_the_batch(monkeypatch):
    toy_tasks.register(monkeypatch)
    goals = []

    class Remembers(ToGoal):
        def reset(self, goal=None, seed=None):
            goals.extend(goal.tolist())
            super().reset(goal)

    for batch in (3, 2):
        evaluate(Remembers(), "ToyWhole-v0", evaluation_seeds(4), batch=batch)
    assert goals[:4] == goals[4:] == [[0.3, 0, 0, 0], [0, 0.3, 0, 0]] * 2


@pytest.mark.parametrize(
    ("reference", "success", "expected"),
    [
        ({"min": 1.0, "max": 3.0}, [True, False], ("normalized", [0.0, 150.0])),
        (None, [True, False], ("success %", [100.0, 0.0])),
        (None, None, ("return", [1.0, 4.0])),
    ],
)
def test_a_score_is_normalized_or_success_or_the_return(reference, success, expected):
    unit, values = score(reference, [1.0, 4.0], success)
    assert (unit, values.tolist()) == expected


def test_actions_of_no_use_are_refused():
    class Useless(Steady):
        def act(self, observation):
            return np.zeros(2)

    with pytest.raises(ValueError, match="must have the shape"):
        play(Useless(), UMAZE, evaluation_seeds(2))


def test_the_reward_curve_is_the_mean_over_episodes_at_each_step():
    seeds = evaluation_seeds(7)
    played = evaluate(Steady(), UMAZE, seeds, batch=3)
    curves = [play(Steady(), UMAZE, [seed]).reward_curve for seed in seeds]
    assert len(played.reward_curve) == task(UMAZE).max_episode_steps
    assert np.allclose(played.reward_curve, np.mean(curves, axis=0), atol=1e-12)
    assert sum(played.reward_curve) == pytest.approx(np.mean(played.returns)) and max(played.reward_curve) <= 1


def test_blocks_of_seeds_do_not_overlap():
    assert list(evaluation_seeds(3)) == [100_000, 100_001, 100_002]
    assert not set(evaluation_seeds(10_000, 0)) & set(evaluation_seeds(10_000, 1))


@pytest.mark.parametrize(("episodes", "block"), [(0, 0), (10_001, 0), (5, -1), (5, 90)])
def test_impossible_seeds_are_refused(episodes, block):
    with pytest.raises(ValueError, match="must lie in"):
        evaluation_seeds(episodes, block)


def test_batches_keep_order_and_lose_nothing():
    parts = batches(range(2 * BATCH + 3))
    assert [len(part) for part in parts] == [BATCH, BATCH, 3]
    assert [seed for part in parts for seed in part] == list(range(2 * BATCH + 3))


@pytest.mark.parametrize("env_id", [UMAZE, "multi2d-umaze-v1", "maze2d-umaze-dense-v1"])
def test_a_batch_in_lockstep_equals_its_episodes_one_by_one(env_id):
    seeds = evaluation_seeds(6)
    whole = Recorder()
    together = play(Steady(), env_id, seeds, whole)
    alone = evaluate(Steady(), env_id, seeds, batch=1)
    recorders = [Recorder() for _ in seeds]
    for seed, recorder in zip(seeds, recorders, strict=True):
        play(Steady(), env_id, [seed], recorder)
    assert together.returns == alone.returns
    assert together.first_reach == alone.first_reach and together.success == alone.success
    for i, recorder in enumerate(recorders):
        assert np.array_equal(recorder.executed[0], whole.executed[i])
        assert np.array_equal(recorder.goals[0], whole.goals[i])


def test_the_order_of_seeds_does_not_change_an_episode():
    seeds = list(evaluation_seeds(5))
    forward, backward = (evaluate(Steady(), UMAZE, order) for order in (seeds, seeds[::-1]))
    assert forward.returns == backward.returns[::-1]


def test_an_episode_is_counted_as_a_plain_loop_counts_it():
    seed = evaluation_seeds(1)[0]
    recorder = Recorder()
    played = play(Steady(), UMAZE, [seed], recorder)
    env, agent = gymnasium.make(UMAZE), Steady()
    observation, info = env.reset(seed=seed)
    agent.reset(goal=info["goal"])
    rewards, first = [], None
    truncated = False
    while not truncated:
        observation, reward, _, truncated, info = env.step(agent.act(observation))
        rewards.append(reward)
        first = first or (len(rewards) if info["success"] else None)
    assert played.returns == (sum(rewards),)
    assert played.first_reach == (first,) and played.success == (first is not None,)
    assert recorder.executed[0].shape == (task(UMAZE).max_episode_steps + 1, 2)


def test_equal_seeds_give_equal_results_for_a_sampling_agent():
    seeds = evaluation_seeds(4)
    first, second = Recorder(), Recorder()
    assert play(RandomAgent(), UMAZE, seeds, first).returns == play(RandomAgent(), UMAZE, seeds, second).returns
    assert all(np.array_equal(a, b) for a, b in zip(first.executed, second.executed, strict=True))


def test_multi2d_gives_every_row_its_own_goal():
    recorder = Recorder()
    expert = WaypointExpert(task("multi2d-umaze-v1").layout)
    played = play(expert, "multi2d-umaze-v1", evaluation_seeds(8), recorder)
    assert len({tuple(goal) for goal in recorder.goals}) > 1
    assert all(played.success)


def test_the_plan_of_the_first_decision_is_kept_for_each_row():
    planner = StandInPlanner(task(UMAZE))
    recorder = Recorder()
    play(planner, UMAZE, evaluation_seeds(3), recorder)
    paths = recorder
    for i, plan in enumerate(paths.planned):
        assert np.allclose(plan[0], paths.executed[i][0])
        assert np.linalg.norm(plan[-1] - paths.goals[i]) < 0.5
    assert planned_path(RandomAgent(), 0) is None


def test_joining_nothing_is_refused():
    with pytest.raises(ValueError, match="no batch"):
        join([])


def test_decision_times_count_plans_and_restart_after_an_episode():
    steps = task(UMAZE).max_episode_steps
    measured = time_decisions(StandInPlanner(task(UMAZE)), UMAZE, steps + 10, seed=1, threads=1)
    assert (measured["decisions"], measured["plans"], measured["threads"]) == (steps + 10, 2, 1)
    assert 0 < measured["median"] <= measured["p95"] and measured["plan"] > measured["median"]
    assert time_decisions(RandomAgent(), UMAZE, 5, seed=1, threads=1)["plan"] is None

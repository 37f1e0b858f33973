"""Every recipe builds a learner that takes a step, and its agent acts the same after a round trip through a file."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dfplan.benchmarks import rows
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import maze2d
from dfplan.config_json import config_to_json
from dfplan.data.spec import Spec
from dfplan.data.trajectories import Trajectories
from dfplan.envs.registry import find, task
from dfplan.names import UnknownNameError
from dfplan.training.loop import train

NAMES = sorted(set(RECIPES) - {"distilled"})  # it has the widths of its planner: tests/agents/test_distillation.py


def recipe(maze, name, spec=maze2d.SPEC):
    return RECIPES[name](spec, maze2d.BUDGETS[maze])


@pytest.fixture(scope="module")
def data():
    """A drive of a particle that bounces around the umaze's size, with reward near one corner."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (2_000, 2)).astype(np.float32)
    velocity = np.cumsum(actions, axis=0) % 2 - 1
    position = np.abs(np.cumsum(0.1 * velocity, axis=0) % 4 - 2) + 1
    observations = np.concatenate([position, velocity], axis=1).astype(np.float32)
    rewards = (np.linalg.norm(position - 1, axis=1) < 0.5).astype(np.float32)
    return Trajectories(observations, actions, rewards, np.array([0], dtype=np.int64), "a drive")


def learner_of(chosen):
    torch.manual_seed(0)
    return chosen.learner(chosen.model)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_then_an_agent_that_survives_its_file(tmp_path, data, name):
    chosen = recipe("umaze", name)
    learner = learner_of(chosen)
    learner.fit_statistics(data)
    json.dumps(config_to_json(learner.config), allow_nan=False)
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    short = replace(chosen.train, steps=1, batch_size=4, warmup_steps=0)
    result = train(learner, chosen.batches(data), short, tmp_path, quiet=True)
    assert any(not torch.equal(value, before[key]) for key, value in result.ema_state.items())
    agent = chosen.agent(learner.cpu().eval(), chosen.acting, {"name": name})
    path = tmp_path / "weights.safetensors"
    agent.save(path)
    last = len(chosen.seeds) - 1
    again = chosen.agent.load(path, last) if chosen.stacked else chosen.agent.load(path)
    acting = replace(chosen.acting, member=last) if chosen.stacked else chosen.acting
    assert again.card["name"] == name and again.config == acting and again.parameters > 0
    goal = np.array([1.2, 1.2])  # where the drive was rewarded: some agents know no other
    actions = []
    for _ in range(2):
        again.reset(goal=goal, seed=3)
        actions.append(again.act(data.observations[:2]))
    assert actions[0].shape == (2, 2) and np.array_equal(*actions) and np.abs(actions[0]).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_any_widths_train_and_far_from_zero_to_the_same_loss(tmp_path, name):
    """Five columns of observation, the goal in two of them, and three of action: widths come from the spec, not from the
    mazes. Nothing is rounded before it is normalized: the data lie on a grid that float32 still has at 100,000, and are
    mirrored, so that their means lie on it too.
    """
    rng = np.random.default_rng(0)
    grid = np.round(rng.normal(size=(500, 5)) * 64) / 64
    mirrored = np.concatenate([grid, -grid]).astype(np.float32)
    actions, rewards = rng.uniform(-1, 1, (1_000, 3)).astype(np.float32), (rng.random(1_000) < 0.1).astype(np.float32)
    losses = []
    for move in (0, 100_000):
        moved = mirrored + np.float32(move)
        assert np.array_equal(moved - np.float32(move), mirrored)
        data = Trajectories(moved, actions, rewards, np.array([0, 500]), "an arm")
        chosen = recipe("umaze", name, Spec.of(data, goal_columns=(1, 3)))
        learner = learner_of(chosen)
        learner.fit_statistics(data)
        short = replace(chosen.train, steps=1, batch_size=2, warmup_steps=0)
        result = train(learner, chosen.batches(data), short, tmp_path / str(move), quiet=True)
        losses.append(result.metrics["loss"])
    assert np.isfinite(losses[0]) and losses[1] == pytest.approx(losses[0], rel=0.02)


def test_the_spec_of_the_mazes_is_that_of_their_environments():
    env = task("maze2d-umaze-v1").make(**maze2d.SUITE.with_goal)
    widths = [env.observation_space[name].shape for name in ("observation", "achieved_goal")] + [env.action_space.shape]
    assert widths == [(maze2d.SPEC.observation_dim,), (len(maze2d.SPEC.goal_columns),), (maze2d.SPEC.action_dim,)]
    observation, _ = env.reset(seed=0)
    assert observation["observation"][list(maze2d.SPEC.goal_columns)].tolist() == observation["achieved_goal"].tolist()
    with pytest.raises(ValueError, match=r"goal_columns must be different columns of the observation, in 0\.\.3"):
        Spec(4, 2, goal_columns=(4,))


def test_every_recipe_trains_the_weights_of_a_row_under_a_name_of_its_own():
    tasks = [find(f"maze2d-{maze}") for maze in maze2d.BUDGETS]
    names = [rows.of_recipe(name).weights_name(one) for name in (*RECIPES, *ONLINE) for one in tasks]
    assert len(set(names)) == len(names)
    assert names[:3] == ["maze2d-umaze", "maze2d-medium", "maze2d-large"]
    stacked = {name: len(recipe("large", name).model.seeds) for name in RECIPES if recipe("large", name).stacked}
    assert all(rows.of_recipe(name).stacked == stacked.get(name, 1) for name in (*RECIPES, *ONLINE))


@pytest.mark.parametrize("name", ONLINE)
def test_online_recipes_are_plain_settings_for_an_environment(name):
    for maze in maze2d.BUDGETS:
        learned = maze2d.learns_in(find(f"maze2d-{maze}"), any_goal=not rows.of_recipe(name).single_goal)
        chosen = ONLINE[name]("a name", learned, maze2d.BUDGETS[maze])
        assert (chosen.weights, chosen.env_id) == ("a name", f"{'multi2d' if name == 'her' else 'maze2d'}-{maze}-v1")
        assert json.loads(json.dumps(dict(chosen.settings))) == chosen.settings and chosen.steps >= 60_000


def test_tasks_rows_and_budgets_are_known_without_torch():
    code = "import sys; from dfplan.benchmarks import rows; from dfplan.benchmarks.recipes import online; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "gymnasium" in done.stdout, done.stderr
    assert not {"torch", "stable_baselines3"} & set(done.stdout.split())


def test_the_ablation_changes_the_draw_and_the_matrix_alone():
    names = ("short", "full-sequence", "next-token")
    model = {name: config_to_json(learner_of(recipe("medium", name)).config) for name in names}
    draws = {name: header.pop("draws") for name, header in model.items()}
    assert model["short"] == model["full-sequence"] == model["next-token"]
    assert draws["full-sequence"] == {"shared_to_goal": 1.0} and draws["next-token"] == {"next_token_to_goal": 1.0}
    trained = {recipe("medium", name).train for name in draws}
    assert len(trained) == 1
    assert recipe("medium", "full-sequence").acting.plan.uncertainty == 0.0
    plan = recipe("medium", "next-token").acting.plan
    assert plan.uncertainty == plan.steps, "one token after another"


def test_names_of_weights_and_bad_names():
    assert rows.weights_name("maze2d-large-iql", 0) == "maze2d-large-iql"
    assert rows.weights_name("maze2d-large", 2) == "maze2d-large-seed2"
    with pytest.raises(UnknownNameError, match="did you mean short"):
        rows.of_recipe("shrt")
    with pytest.raises(ValueError, match="no recipe for the maze 'open'"):
        maze2d.budget(task("maze2d-open-v0"))

"""Every recipe builds a learner that takes a step, and its agent acts the same after a round trip through a file."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dfplan.benchmarks.recipes import RECIPES, recipe
from dfplan.benchmarks.rows import weights_name
from dfplan.config_json import config_to_json
from dfplan.data.trajectories import Trajectories
from dfplan.envs.registry import UnknownNameError
from dfplan.training.loop import train

NAMES = sorted(RECIPES["umaze"])


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
    return chosen.learner() if chosen.stacked == 1 else chosen.learner(seeds=tuple(range(chosen.stacked)))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_then_an_agent_that_survives_its_file(tmp_path, data, name):
    chosen = recipe("umaze", name)
    learner = learner_of(chosen)
    learner.fit_statistics(data)
    json.dumps(config_to_json(learner.config), allow_nan=False)
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    short = replace(chosen.train, steps=1, batch_size=4, warmup_steps=0)
    result = train(learner, learner.batches(data), short, tmp_path, quiet=True)
    assert any(not torch.equal(value, before[key]) for key, value in result.ema_state.items())
    agent = chosen.agent(learner.cpu().eval(), chosen.config, {"name": name})
    path = tmp_path / "weights.safetensors"
    agent.save(path)
    again = chosen.agent.load(path) if chosen.stacked == 1 else chosen.agent.load(path, chosen.stacked - 1)
    config = chosen.config if chosen.stacked == 1 else replace(chosen.config, member=chosen.stacked - 1)
    assert again.card["name"] == name and again.config == config and again.parameters > 0
    goal = np.array([1.2, 1.2])  # where the drive was rewarded: some agents know no other
    actions = []
    for _ in range(2):
        again.reset(goal=goal, seed=3)
        actions.append(again.act(data.observations[:2]))
    assert actions[0].shape == (2, 2) and np.array_equal(*actions) and np.abs(actions[0]).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_data_far_from_zero_train_to_the_same_loss(tmp_path, data, name):
    """Nothing is rounded before it is normalised. The data lie on a grid that float32 still has at 100,000, and are
    mirrored, so that their means lie on it too.
    """
    grid = np.round(data.observations * 64) / 64
    mirrored = np.concatenate([grid, 4 - grid]).astype(np.float32)
    losses = []
    for move in (0, 100_000):
        moved = Trajectories(
            observations=mirrored + np.float32(move),
            actions=np.tile(data.actions, (2, 1)),
            rewards=np.tile(data.rewards, 2),
            episode_starts=np.array([0, len(grid)]),
            name=data.name,
        )
        assert np.array_equal(moved.observations - np.float32(move), mirrored)
        learner = learner_of(recipe("umaze", name))
        learner.fit_statistics(moved)
        short = replace(recipe("umaze", name).train, steps=1, batch_size=2, warmup_steps=0)
        result = train(learner, learner.batches(moved), short, tmp_path / str(move), quiet=True)
        losses.append(result.metrics["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_every_maze_has_every_recipe_under_a_name_of_its_own():
    assert all(sorted(RECIPES[maze]) == NAMES for maze in RECIPES)
    weights = [one.weights for maze in RECIPES.values() for one in maze.values()]
    assert len(set(weights)) == len(weights)
    assert all(recipe(maze, "default").weights == f"maze2d-{maze}" for maze in RECIPES)


def test_the_ablation_changes_the_draw_and_the_matrix_alone():
    names = ("short", "full-sequence", "next-token")
    model = {name: config_to_json(learner_of(recipe("medium", name)).config) for name in names}
    draws = {name: header.pop("draws") for name, header in model.items()}
    assert model["short"] == model["full-sequence"] == model["next-token"]
    assert draws["full-sequence"] == {"shared_to_goal": 1.0} and draws["next-token"] == {"next_token_to_goal": 1.0}
    trained = {recipe("medium", name).train for name in draws}
    assert len(trained) == 1
    assert recipe("medium", "full-sequence").config.plan.uncertainty == 0.0
    plan = recipe("medium", "next-token").config.plan
    assert plan.uncertainty == plan.steps, "one token after another"


def test_names_of_weights_and_bad_names():
    assert weights_name("maze2d-large-iql", 0) == "maze2d-large-iql"
    assert weights_name("maze2d-large", 2) == "maze2d-large-seed2"
    with pytest.raises(UnknownNameError, match="did you mean short"):
        recipe("large", "shrt")
    with pytest.raises(ValueError, match="no recipe for the maze 'open'"):
        recipe("open")

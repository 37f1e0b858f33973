"""D4RL's kitchen and Adroit: environments, D4RL's scores, and data as Minari and D4RL write them, tiny, from file to action."""

from dataclasses import replace

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

import dfplan
from dfplan.benchmarks import protocol
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.train import recipe_of
from dfplan.data.spec import Spec
from dfplan.envs.collect import collect, own_data
from dfplan.envs.registry import HANDS, TASKS, find
from dfplan.models import TransformerConfig
from dfplan.training.fit import fit

PUBLISHED = [task for task in TASKS.values() if task.published]
WIDTHS = {"pen": (45, 24), "hammer": (46, 26), "door": (39, 28), "relocate": (39, 30)}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def written(dataset_id, observation_space, observations, width, steps=8):
    """A dataset of two random episodes in the local store; `observations(rng, rows)` makes those of one."""
    rng, buffers = np.random.default_rng(0), []
    for number in range(2):
        ends = np.arange(steps) == steps - 1
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=observations(rng, steps + 1),
                actions=list(rng.uniform(-1, 1, (steps, width)).astype(np.float32)),
                rewards=[0.0] * (steps - 1) + [1.0 + number],
                terminations=[False] * steps,
                truncations=ends.tolist(),
                infos={},
            )
        )
    minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        observation_space=observation_space,
        action_space=spaces.Box(-1.0, 1.0, (width,), np.float32),
        algorithm_name="random",
        author="tests",
        author_email="tests@example.com",
        code_permalink="none",
        description="Random numbers.",
    )


def box(*shape):
    return spaces.Box(-np.inf, np.inf, shape, np.float64)


def played(agent, task, steps=3):
    """A few steps of an agent in a task's environment."""
    env = task.make(disable_env_checker=True)
    observation, _ = env.reset(seed=0)
    agent.reset(seed=0)
    for _ in range(steps):
        action = agent.act(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)


def test_every_published_set_has_a_task_with_d4rls_own_reference_returns():
    assert len(PUBLISHED) == 3 + 4 * 3
    for task in PUBLISHED:
        family = suite.of(task)
        assert task.env_id.removesuffix("-v2") in family.tasks
        extremes = family.reference(task)
        assert protocol.score(extremes, [extremes["min"], extremes["max"]], None)[1] == pytest.approx([0, 100])
    kitchen = find("kitchen-mixed-minari")
    unit, scores = protocol.score(suite.of(kitchen).reference(kitchen), [1.0, 4.0], None)
    assert unit == "normalized" and scores.tolist() == [25, 100]
    door = suite.of(find("door-human-minari")).reference(find("door-human-minari"))
    assert door == {"min": -56.512833, "max": 2880.5693087298737}


def test_published_data_are_downloaded_and_never_collected():
    assert own_data("pen-human-minari") == "D4RL/pen/human-v2"
    with pytest.raises(ValueError, match="are published: `minari download D4RL/pen/human-v2` fetches them"):
        collect("pen-human-minari", quiet=True)


@pytest.mark.parametrize("hand", HANDS)
def test_a_hand_has_the_widths_and_the_episode_of_d4rls(hand):
    pytest.importorskip("gymnasium_robotics")
    task = find(f"{hand}-expert-minari")
    env = task.make(disable_env_checker=True)
    assert (env.observation_space.shape[0], env.action_space.shape[0]) == WIDTHS[hand]
    assert env.spec.max_episode_steps == task.max_episode_steps == HANDS[hand]
    first = env.reset(seed=3)[0]
    assert np.array_equal(first, env.reset(seed=3)[0]) and env.observation_space.contains(first)
    assert "success" in env.step(env.action_space.sample())[-1]


def test_a_kitchen_shows_its_state_alone_and_asks_for_four_things():
    pytest.importorskip("gymnasium_robotics")
    env = find("kitchen-mixed-minari").make(disable_env_checker=True)
    observation, info = env.reset(seed=0)
    assert observation.shape == (59,) and env.observation_space.contains(observation)
    assert sorted(info["tasks_to_complete"]) == ["bottom burner", "kettle", "light switch", "microwave"]


def test_minaris_kitchen_is_read_trained_on_and_played(tmp_path):
    pytest.importorskip("gymnasium_robotics")
    things = {"kettle": box(7), "microwave": box(1)}
    space = {"observation": box(59), "achieved_goal": spaces.Dict(things), "desired_goal": spaces.Dict(things)}

    def observations(rng, rows):
        goals = {name: rng.normal(size=(rows, *part.shape)) for name, part in things.items()}
        return {"observation": rng.normal(size=(rows, 59)), "achieved_goal": goals, "desired_goal": goals}

    task = find("kitchen-complete-minari")
    written(task.published, spaces.Dict(space), observations, 9)
    data = suite.data_of(task)
    assert data.observations.shape == (16, 59) and not data.features.goal_columns
    assert data.returns.tolist() == [1.0, 2.0]
    played(fit(short(task, data), data, tmp_path / "run", quiet=True), task)


def test_minaris_and_d4rls_door_are_read_alike_and_played(tmp_path):
    pytest.importorskip("gymnasium_robotics")
    task = find("door-cloned-minari")
    written(task.published, box(39), lambda rng, rows: rng.normal(size=(rows, 39)), 28)
    data = suite.data_of(task)
    assert data.observations.shape == (16, 39) and data.actions.shape == (16, 28)
    path = tmp_path / "door-cloned-v1.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"], file["rewards"] = data.observations, data.actions, data.rewards
        file["terminals"], file["timeouts"] = data.terminations, data.truncations
    again = suite.data_of(task, str(path))
    for name in ("observations", "actions", "rewards", "episode_starts", "truncations"):
        assert np.array_equal(getattr(again, name), getattr(data, name))
    played(fit(short(task, again), again, tmp_path / "run", quiet=True), task)


def test_d4rls_own_kitchen_has_other_observations_and_is_refused_for_the_task_alone(tmp_path):
    path, task = tmp_path / "kitchen_complete.hdf5", find("kitchen-complete-minari")
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = rng.normal(size=(9, 60)), rng.normal(size=(9, 9))
        file["rewards"], file["terminals"] = np.zeros(9), np.arange(9) == 8
    assert dfplan.load(path).observations.shape == (9, 60)
    data = suite.data_of(task, str(path))
    with pytest.raises(ValueError, match="has 60 observation and 9 action columns, but the recipe is for 59 and 9"):
        fit(short(task, data), data, tmp_path / "run", quiet=True)


def short(task, data):
    """The suite's default recipe, with two steps of training and plans of two denoising steps."""
    spec = suite.of(task).spec or Spec.of(data)
    recipe = recipe_of("default", task, spec)
    small = TransformerConfig(width=16, depth=1, heads=2)
    return replace(
        recipe,
        model=replace(recipe.model, model=small, value=None if recipe.model.value is None else small),
        acting=replace(recipe.acting, plan=replace(recipe.acting.plan, steps=2)),
        train=replace(recipe.train, steps=2, batch_size=4, warmup_steps=0),
    )

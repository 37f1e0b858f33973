"""The examples of docs/your-own-task.md, docs/your-own-robot.md and the README run, in a tiny form: two steps of training, one
short episode."""

import re
import sys
from pathlib import Path

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector.episode_buffer import EpisodeBuffer

import dfplan
from dfplan.training.config import TrainConfig

KEYS = ("observation", "achieved_goal", "desired_goal")
ROOT = Path(__file__).parents[1]
PAGE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "docs" / "your-own-task.md"))


def tiny(mark, plays=1):
    """The example of that name, with two steps of training in place of minutes, and one episode in place of fifty."""
    (text,) = re.findall(rf"^<!-- test:{mark} -->\n```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    text, trained = re.subn(r"minutes=\d+", "steps=2, quiet=True", text)
    text, played = re.subn(r"episodes=50", "episodes=1, longest=8", text)
    assert (trained, played) == (int(mark != "kinds"), plays)
    return text


def played_at_random(env, steps=60):
    """Arrays of a random policy, by name, with the observation after each step."""
    rows = []
    observation, _ = env.reset(seed=0)
    for _ in range(steps):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, reward, terminated, truncated, following))
        observation = env.reset()[0] if terminated or truncated else following
    names = ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    return dict(zip(names, zip(*rows, strict=True), strict=True))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr("dfplan.data.features._FUNCTIONS", {})


def write_hopper():
    arrays = played_at_random(gymnasium.make("Hopper-v5"))
    with h5py.File("hopper.hdf5", "w") as file:
        for name, key in (("observations",) * 2, ("actions",) * 2, ("rewards",) * 2, ("terminals", "terminations")):
            file[name] = np.array(arrays[key], np.float32 if name != "terminals" else bool)
        file["timeouts"] = np.array(arrays["truncations"])


@pytest.mark.parametrize("page", ["hopper", "own"])
def test_rewards_and_falls(page, tmp_path):
    write_hopper()
    names = {}
    exec(tiny(page), names)
    assert names["agent"].model.config.condition == ("return",) and names["data"].terminations.any()
    assert (tmp_path / "hopper.safetensors").is_file()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_goal_with_a_key_of_its_own(tmp_path):
    gymnasium.register_envs(pytest.importorskip("gymnasium_robotics"))
    env = gymnasium.make("FetchReach-v4", max_episode_steps=12)
    steps = played_at_random(env, steps=12)
    observed = {
        key: np.array([one[key] for one in (*steps["observations"], steps["next_observations"][-1])]) for key in KEYS
    }
    flags = {key: np.array(steps[key]) for key in ("actions", "rewards", "terminations", "truncations")}
    minari.create_dataset_from_buffers(
        "mine/fetch-reach-v0",
        [EpisodeBuffer(observations=observed, **flags)],
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
    names = {}
    exec(tiny("fetch"), names)
    config = names["agent"].model.config
    assert config.features.goal_key == "desired_goal" and config.goal_columns == (10, 11, 12) and config.parts
    assert (tmp_path / "fetch.safetensors").is_file()


def test_a_goal_that_names_some_columns(tmp_path):
    pytest.importorskip("ogbench")
    arrays = played_at_random(gymnasium.make("cube-single-v0", max_episode_steps=30))
    columns = {key: np.array(arrays[key], np.float32) for key in ("observations", "actions")}
    np.savez("cube-single-play-v0.npz", **columns, terminals=np.array(arrays["truncations"], np.float32))
    names = {}
    exec(tiny("cube"), names)
    config = names["agent"].model.config
    assert config.goal_columns == (7, 8, 9) and config.layout.observation_dim == 17 and config.condition == ("goal",)
    assert names["info"]["success"] in (False, True)


def test_a_goal_of_two_things_is_asked_for_one_after_another():
    observations = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    arrays = {"observations": observations, "actions": observations[:, :2], "truncations": np.arange(60) % 20 == 19}
    names = {"data": dfplan.load(arrays, goal=range(2, 8))}
    exec(tiny("turns", plays=0), names)
    agent = names["agent"]
    assert agent.model.config.goal_groups == (3, 3) and agent.config.in_turn == (0.3, 0.3)
    agent.reset(goal=np.ones(6), seed=0)
    assert agent.act(observations[0]).shape == (2,)
    exec(tiny("kinds", plays=0).replace("(1, 3)", "(2, 4)"), names)  # of this goal's six columns
    assert names["model"].kinds == (2, 2)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("dfplan.agents.pictures.TRAINING", TrainConfig(steps=2, batch_size=4))
    seen = gymnasium.spaces.Dict(
        camera=gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8), gripper=gymnasium.spaces.Box(-1, 1, (5,))
    )

    class Blinking(gymnasium.Env):
        observation_space, action_space = seen, gymnasium.spaces.Box(-1, 1, (2,))

        def reset(self, *, seed=None, options=None):
            return seen.sample(), {}

        def step(self, action):
            return seen.sample(), 0.0, False, False, {}

    steps = played_at_random(Blinking(), steps=12)
    observed = {
        key: np.array([one[key] for one in (*steps["observations"], steps["next_observations"][-1])])
        for key in seen.spaces
    }
    flags = {key: np.array(steps[key]) for key in ("actions", "rewards", "terminations", "truncations")}
    flags["truncations"][-1] = True
    minari.create_dataset_from_buffers(
        "mine/arm-with-camera-v0",
        [EpisodeBuffer(observations=observed, **flags)],
        observation_space=seen,
        action_space=Blinking.action_space,
    )
    names = {"observation": seen.sample(), "make_env": Blinking}
    exec(tiny("pictures"), names)
    assert names["action"].shape == (2,) and (tmp_path / "camera.safetensors").is_file()


def test_neither_goal_nor_reward(tmp_path):
    observations = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    ends = np.arange(60) % 20 == 19

    class Still(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-9, 9, (3,))
        action_space = gymnasium.spaces.Box(-1, 1, (2,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.normal(size=3).astype(np.float32), {}

        def step(self, action):
            return self.np_random.normal(size=3).astype(np.float32), 0.0, False, False, {}

    names = {"observations": observations, "actions": np.tanh(observations[:, :2]), "ends": ends}
    names |= {"observation": observations[0], "make_env": Still}
    exec(tiny("imitation"), names)
    assert names["action"].shape == (2,) and names["agent"].model.config.history == 2


def test_your_own_robot(tmp_path, monkeypatch):
    """The files of the page, one after another: an arm, three demonstrations in place of twenty, an agent that plays."""
    page = (ROOT / "docs" / "your-own-robot.md").read_text(encoding="utf-8")
    texts = re.findall(
        r"^<!-- test:robot -->\n```python\n# (\w+\.py)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in texts] == ["arm.py", "record.py", "play.py"]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "arm", raising=False)
    for name, text in texts:
        text = text.replace("range(20)", "range(3)").replace("minutes=2", "steps=2, quiet=True")
        (tmp_path / name).write_text(text.replace("episodes=50", "episodes=1, longest=8"))
        names = {}
        exec(compile((tmp_path / name).read_text(), name, "exec"), names)
    data = names["data"]
    assert len(data.episode_starts) == 3 and np.ptp(data.actions, axis=0).min() > 0.5
    assert (np.linalg.norm(data.last_observations[:, 6:], axis=1) < 0.91).all(), "the tip is within the arm's reach"
    config = names["agent"].model.config
    assert config.condition == ("goal",) and config.goal_columns == (6, 7) and config.layout.action_dim == 2
    assert (tmp_path / "arm.safetensors").is_file() and names["info"]["success"] in (False, True)

"""Models of stable-baselines3 as agents: the same returns as its own evaluation, and one sentence for what does not fit."""

import copy
import json
import pickle
import re
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import dfplan.envs  # noqa: F401
from dfplan.agents.adapters import Policy
from dfplan.agents.online.policy_from_zip import algorithm_class
from dfplan.agents.online.stable_baselines import StableBaselinesAgent
from dfplan.benchmarks.protocol import TUNING_SEEDS, play
from dfplan.training.checkpoint import CheckpointError
from dfplan.training.model_zip import read_model_zip

sb3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.logger import Logger  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:`n_steps=3` is ignored"
)  # it is not: its own load says so of its own file
NET = {"net_arch": [16, 16]}
SEEDS = TUNING_SEEDS[200:205]


def env(goal_conditioned=False):
    name = "multi2d-umaze-v1" if goal_conditioned else "maze2d-umaze-v1"
    return gymnasium.make(name, goal_conditioned=goal_conditioned)


def trained(name, folder, **settings):
    conditioned = settings.get("replay_buffer_class") is not None
    policy = "MultiInputPolicy" if conditioned else "MlpPolicy"
    model = getattr(sb3, name)(policy, env(conditioned), seed=0, policy_kwargs=dict(NET), **settings)
    model.set_logger(Logger(None, []))
    model.learn(320)
    model.save(folder / f"{name}{'-her' if conditioned else ''}.zip")
    return folder / f"{name}{'-her' if conditioned else ''}.zip"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sb3")
    off_policy = {"learning_starts": 200, "batch_size": 16, "gradient_steps": 1, "train_freq": 8, "buffer_size": 2000}
    hindsight = {"replay_buffer_class": sb3.HerReplayBuffer, "learning_starts": 300}
    return {
        "SAC": trained("SAC", folder, **off_policy, n_steps=3),
        "PPO": trained("PPO", folder, n_steps=64, batch_size=32, n_epochs=2),
        "DDPG": trained("DDPG", folder, **off_policy),
        "HER": trained("SAC", folder, **(off_policy | hindsight)),
    }


def evaluated(path, count, seed):
    """The returns by stable-baselines3's own `evaluate_policy` on as many environments, one episode each."""
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    algorithm, conditioned = path.stem.split("-")[0], "her" in path.stem
    envs = DummyVecEnv([lambda: Monitor(env(conditioned))] * count)
    envs.seed(seed)  # environment i is reset with seed + i
    model = getattr(sb3, algorithm).load(path, env=envs, device="cpu")
    envs.seed(seed)  # to load a model seeds its environments
    returns, lengths = evaluate_policy(model, envs, n_eval_episodes=count, return_episode_rewards=True)
    assert lengths == [300] * count
    return returns


@pytest.mark.parametrize("name", ["SAC", "PPO", "HER"])
def test_its_own_evaluation_and_the_protocol_agree_exactly(files, name):
    """Equal floats, one episode alone and several in lockstep."""
    env_id = "multi2d-umaze-v1" if name == "HER" else "maze2d-umaze-v1"
    agent = StableBaselinesAgent.load(files[name])
    assert play(agent, env_id, SEEDS[1:2]).returns[0] == evaluated(files[name], 1, SEEDS[1])[0]
    together = play(agent, env_id, SEEDS).returns
    assert list(together) == evaluated(files[name], len(SEEDS), SEEDS[0])
    assert len(set(together)) > 1, "all returns alike: the comparison would hide a difference of seeds"


def test_the_class_is_found_without_unpickling(files, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr("cloudpickle.loads", refused)
    found = {name: algorithm_class(read_model_zip(path).data, name) for name, path in files.items()}
    assert found == {"SAC": sb3.SAC, "PPO": sb3.PPO, "DDPG": sb3.DDPG, "HER": sb3.SAC}


def test_the_example_of_the_page_runs(files):
    page = (Path(__file__).parents[3] / "docs" / "online-rl.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^<!-- test:sb3 -->\n```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    names = {}
    exec(example.replace("my_model.zip", str(files["SAC"])), names)
    assert names["agent"].policy.__class__.__name__ == "SACPolicy"


def test_a_user_s_own_policy_class_is_told_by_its_settings(files):
    for name in ("SAC", "PPO"):
        data = dict(read_model_zip(files[name]).data)
        data["policy_class"]["__module__"] = "my.policies"
        assert algorithm_class(data, name).__name__ == name
    data = {"policy_class": {"__module__": "stable_baselines3.common.policies"}, "gae_lambda": 1.0}
    assert algorithm_class(data, "A2C") is sb3.A2C


def test_one_observation_or_a_batch(files):
    agent = StableBaselinesAgent.load(files["SAC"])
    observations = np.array([[3.0, 1.0, 0.1, 0.0], [1.0, 1.0, 0.0, 0.2]])
    agent.reset(goal=[1.0, 1.0], seed=3)
    actions = agent.act(observations)
    assert actions.shape == (2, 2) and actions.dtype == np.float32 and np.abs(actions).max() <= 1
    agent.reset()
    single = agent.act(observations[0])
    assert single.shape == (2,)
    np.testing.assert_allclose(single, actions[0], rtol=1e-5)


def test_goals_reach_a_goal_conditioned_model_and_no_other(files):
    observations = np.tile([2.0, 1.0, 0.0, 0.0], (2, 1))
    agent = StableBaselinesAgent.load(files["HER"])
    agent.reset(goal=np.array([[1.0, 1.0], [3.0, 3.0]]))
    first, second = agent.act(observations)
    assert not np.allclose(first, second)
    agent.forget([1], [[1.0, 1.0]])
    again = agent.act(observations)
    assert (again[0] == first).all() and (again[1] == first).all()
    agent.reset(goal=[1.0, 1.0])
    np.testing.assert_allclose(agent.act(observations), again)
    blind = StableBaselinesAgent.load(files["PPO"])
    blind.reset(goal=np.array([[1.0, 1.0], [3.0, 3.0]]))
    assert (blind.act(observations)[0] == blind.act(observations)[1]).all()


def test_it_drives_environments_whose_episodes_end_apart(files):
    policy = Policy(StableBaselinesAgent.load(files["HER"]))
    envs = gymnasium.make_vec("multi2d-umaze-v1", 2, vectorization_mode="sync", goal_conditioned=True)
    observation, _ = envs.reset(seed=3)
    policy.predict(observation, episode_start=np.array([True, True]))
    observation["desired_goal"][1] = observation["desired_goal"][0]
    observation["observation"][1] = observation["observation"][0]
    actions, _ = policy.predict(observation, episode_start=np.array([False, True]))
    np.testing.assert_allclose(actions[0], actions[1], rtol=1e-6)


def test_size_and_description(files):
    agent = StableBaselinesAgent.load(files["SAC"])
    actor = 4 * 16 + 16 + 16 * 16 + 16 + 2 * (16 * 2 + 2)
    critic = 6 * 16 + 16 + 16 * 16 + 16 + 16 + 1
    assert agent.parameters == actor + 2 * critic
    assert (agent.algorithm, agent.steps) == ("SAC", 320)
    assert not agent.needs_goal and StableBaselinesAgent.load(files["HER"]).needs_goal
    assert agent.execution == "learned policy"


def test_saving_keeps_model_and_card(files, tmp_path):
    agent = StableBaselinesAgent.load(files["PPO"])
    agent.card = {"name": "mine"}
    agent.save(tmp_path / "copy.zip")
    assert (tmp_path / "copy.zip").read_bytes() == files["PPO"].read_bytes()
    copy = StableBaselinesAgent.load(tmp_path / "copy.zip")
    assert copy.card == {"name": "mine"}
    observation = np.array([3.0, 1.0, 0.1, 0.0])
    assert (copy.act(observation) == agent.act(observation)).all()
    StableBaselinesAgent(sb3.PPO.load(files["PPO"])).save(tmp_path / "live.zip")
    assert (StableBaselinesAgent.load(tmp_path / "live.zip").act(observation) == agent.act(observation)).all()


def changed(path, target, edit):
    """A copy of a model file with another `data` JSON."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name == "data":
                data = json.loads(content)
                edit(data)
                content = json.dumps(data).encode()
            copy.writestr(name, content)
    return target


def test_files_that_are_no_models_are_refused_in_one_sentence(files, tmp_path):
    with pytest.raises(CheckpointError, match="there is no model file"):
        StableBaselinesAgent.load(tmp_path / "nowhere.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(CheckpointError, match="not a whole zip file"):
        StableBaselinesAgent.load(tmp_path / "text.zip")
    torn = tmp_path / "torn.zip"
    torn.write_bytes(files["SAC"].read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="not a whole"):
        StableBaselinesAgent.load(torn)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(CheckpointError, match="not a whole model of stable-baselines3: it has no entry 'data'"):
        StableBaselinesAgent.load(tmp_path / "other.zip")


def test_unknown_algorithms_and_missing_libraries_are_named(files, tmp_path):
    def module(name):
        return lambda data: data["policy_class"].update(__module__=name)

    future = changed(files["SAC"], tmp_path / "future.zip", module("stable_baselines3.future.policies"))
    with pytest.raises(
        CheckpointError, match=r"not one of stable_baselines3 \(its policy is of stable_baselines3.future"
    ):
        StableBaselinesAgent.load(future)
    foreign = changed(
        files["SAC"], tmp_path / "foreign.zip", lambda data: (module("mine")(data), data.pop("target_entropy"))
    )
    with pytest.raises(CheckpointError, match="its policy is of mine"):
        StableBaselinesAgent.load(foreign)


def test_a_library_that_is_not_installed_is_a_sentence(files, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "stable_baselines3", None)
    with pytest.raises(CheckpointError, match=r"which is not installed: pip install stable-baselines3$"):
        algorithm_class(read_model_zip(files["SAC"]).data, "model.zip")


def test_spaces_that_do_not_fit_are_refused(files, tmp_path):
    discrete = sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, policy_kwargs=NET)
    discrete.save(tmp_path / "discrete.zip")
    with pytest.raises(CheckpointError, match=r"its actions are .*Discrete.*, expected a Box"):
        StableBaselinesAgent.load(tmp_path / "discrete.zip")
    pair = gymnasium.spaces.Dict({key: gymnasium.spaces.Box(-1, 1, (2,)) for key in ("a", "b")})
    text = "{'a': Box(-1.0, 1.0, (2,), float32), 'b': Box(-1.0, 1.0, (2,), float32)}"
    foreign = changed(
        files["HER"], tmp_path / "foreign.zip", lambda data: data["observation_space"].update(spaces=text)
    )
    with pytest.raises(CheckpointError, match="does not fit"):
        StableBaselinesAgent.load(foreign)
    live = sb3.SAC.load(files["HER"], env=env(goal_conditioned=True))
    live.observation_space = pair
    with pytest.raises(CheckpointError, match="a Dict of observation, achieved_goal, desired_goal"):
        StableBaselinesAgent(live)


def test_bad_observations_and_goals_are_refused(files):
    agent = StableBaselinesAgent.load(files["HER"])
    with pytest.raises(ValueError, match="this agent needs a goal"):
        agent.act(np.zeros(4))
    with pytest.raises(ValueError, match=r"the goal must be \(2,\) or \(batch, 2\)"):
        agent.reset(goal=np.zeros(3))
    agent.reset(goal=np.zeros(2))
    with pytest.raises(ValueError, match=r"the observation must be \(4,\) or \(batch, 4\), .* got shape \(5,\)"):
        agent.act(np.zeros(5))
    with pytest.raises(ValueError, match="a goal for each row"):
        agent.forget([0], [[1.0, 1.0]])


def test_copies_act_alike_in_mid_episode(files):
    """Also of a live model, whose environments cannot be copied."""
    observations = np.array([[3.0, 1.0, 0.1, 0.0], [1.0, 1.0, 0.0, 0.2]])
    live = sb3.PPO.load(files["PPO"], env=env())
    for agent in (
        StableBaselinesAgent.load(files["HER"]),
        StableBaselinesAgent(live),
        StableBaselinesAgent.load(files["PPO"]),
    ):
        agent.reset(goal=np.array([[1.0, 1.0], [3.0, 3.0]]))
        agent.act(observations)
        copies = [copy.deepcopy(agent), pickle.loads(pickle.dumps(agent))]
        expected = agent.act(observations[::-1])
        for other in copies:
            np.testing.assert_array_equal(other.act(observations[::-1]), expected)


def test_a_broken_card_is_a_sentence(files, tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(files["PPO"].read_bytes())
    card = path.with_suffix(".json")
    for text in ("{", "[1]", '{"seed": "x"}', '{"score": NaN}', "[" * 5000, '{"data": {"name": 3}}'):
        card.write_text(text)
        with pytest.raises(CheckpointError, match=r"the card of .*model"):
            StableBaselinesAgent.load(path)
    card.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="the card of"):
        StableBaselinesAgent.load(path)
    card.unlink()
    card.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="the card of"):
        StableBaselinesAgent.load(path)


def test_a_card_that_could_not_be_read_again_is_not_written(files, tmp_path):
    agent = StableBaselinesAgent.load(files["PPO"])
    agent.card = {"steps": "many"}
    with pytest.raises(ValueError, match=r"card\.steps"):
        agent.save(tmp_path / "model.zip")
    assert list(tmp_path.iterdir()) == []

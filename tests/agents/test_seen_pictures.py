"""Observations with pictures: from recorded data to an agent that acts by them, alone, in batches and from a file."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import dfplan
from dfplan.agents import pictures
from dfplan.agents.adapters import Policy
from dfplan.agents.loading import load
from dfplan.data.pictures import Pictured
from dfplan.training.config import TrainConfig

SIDE, EPISODES, LENGTH = 12, 6, 20


class Slider(gymnasium.Env):
    """A bright bar in a picture; the action moves it, and the arm says by how much it was moved."""

    observation_space = spaces.Dict(
        {"eye": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8), "arm": spaces.Box(-9, 9, (2,), np.float64)}
    )
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.moved = self.np_random.uniform(3, SIDE - 3), 0.0
        return self._seen(), {}

    def step(self, action):
        self.moved = float(np.clip(action[0], -1, 1))
        self.place = float(np.clip(self.place + self.moved, 2, SIDE - 2))
        return self._seen(), 0.0, False, False, {}

    def _seen(self):
        picture = np.full((SIDE, SIDE, 3), 30, np.uint8)
        picture[:, round(self.place) - 1 : round(self.place) + 1] = 220
        return {"eye": picture, "arm": np.array([self.moved, 1.0])}


def recorded():
    """Episodes in which the bar is moved to the middle, as `dfplan.load` takes arrays."""
    env, seen, actions, last = Slider(), [], [], []
    for number in range(EPISODES):
        observation, _ = env.reset(seed=number)
        for _ in range(LENGTH):
            action = np.clip([SIDE / 2 - env.place], -1, 1)
            seen.append(observation)
            actions.append(action)
            observation = env.step(action)[0]
        last.append(observation)
    starts = LENGTH * np.arange(EPISODES)
    both = {
        name: {key: np.stack([one[key] for one in rows]) for key in rows[0]}
        for name, rows in (("observations", seen), ("last_observations", last))
    }
    return {**both, "actions": np.stack(actions), "episode_starts": starts}


@pytest.fixture(scope="module", autouse=True)
def short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "TRAINING", TrainConfig(steps=6, batch_size=8, warmup_steps=1))
        yield


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return dfplan.train(recorded(), "chunks", steps=3, run_dir=tmp_path_factory.mktemp("runs") / "slider", quiet=True)


def test_a_dictionary_with_a_picture_is_trained_on_and_acted_by(agent):
    env = Slider()
    observation, _ = env.reset(seed=50)
    agent.reset(seed=0)
    for _ in range(3):
        action = agent.act(observation)
        observation = env.step(action)[0]
    assert action.shape == (1,) and np.isfinite(action).all()
    assert agent.observation_dim == 2 * agent.encoder.config.points + 2
    learner = sum(p.numel() for p in agent.learner.parameters())
    assert agent.parameters == learner + sum(p.numel() for p in agent.encoder.parameters())


def test_a_vector_environment_gives_it_dictionaries(agent):
    envs = gymnasium.vector.SyncVectorEnv([Slider] * 2)
    policy, (observation, _) = Policy(agent), envs.reset(seed=0)
    action, _ = policy.predict(observation, episode_start=np.ones(2, bool))
    agent.reset(seed=0)
    assert np.array_equal(action, agent.act(observation)) and action.shape == (2, 1)
    alone, _ = Slider().reset(seed=0)
    assert Policy(agent).predict(alone)[0].shape == (1,)


def test_it_acts_the_same_from_a_file_and_in_a_batch_and_by_other_options(agent, tmp_path):
    agent.save(tmp_path / "slider.safetensors")
    loaded = load(tmp_path / "slider.safetensors")
    other = agent.with_options(temperature=0.0)
    observations = [Slider().reset(seed=seed)[0] for seed in (60, 61)]
    batch = {key: np.stack([one[key] for one in observations]) for key in observations[0]}
    for one in (agent, loaded, other):
        one.reset(seed=3)
    first = agent.act(batch)
    assert first.shape == (2, 1) and np.array_equal(loaded.act(batch), first)
    assert loaded.parameters == agent.parameters and not other.encoder.training
    assert np.array_equal(loaded.encoder.usual.numpy(), agent.encoder.usual.numpy())
    seen = [one._read_observation(batch) for one in (agent, loaded, other)]
    alone = np.stack([agent._read_observation(one) for one in observations])
    assert np.array_equal(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])
    assert np.allclose(alone, seen[0], atol=1e-5)


def test_the_data_are_seen_by_the_encoder_of_the_agent(tmp_path):
    data = dfplan.load(recorded())
    assert isinstance(data, Pictured) and len(data) == EPISODES * LENGTH and data.shapes == {"eye": (SIDE, SIDE, 3)}
    numbers, encoder = pictures.encoded(data, tmp_path / "run", quiet=True)
    again, _ = pictures.encoded(data, tmp_path / "run", quiet=True)
    assert numbers.fingerprint == again.fingerprint, "a finished run is not trained again"
    one = {key: recorded()["observations"][key][7] for key in ("eye", "arm")}
    flat = numbers.features(encoder.numbers(one, unknown=True))
    assert np.allclose(flat, numbers.observations[7], atol=1e-5) and numbers.features.keys == ("eye", "arm")
    assert numbers.last_observations.shape == (EPISODES, flat.shape[0])


def test_pictures_alone_are_observations_too(tmp_path):
    arrays = recorded()
    arrays = {name: part["eye"] if name.endswith("observations") else part for name, part in arrays.items()}
    agent = dfplan.train(arrays, "chunks", steps=2, quiet=True)
    agent.reset(seed=0)
    assert agent.act(arrays["observations"][0]).shape == (1,)
    assert agent.act(arrays["observations"][:3]).shape == (3, 1)


def test_an_agent_that_takes_unknown_numbers_is_shown_a_black_picture(agent):
    """The recipe's own model takes none: it acts by the numbers as they are."""
    observation = Slider().reset(seed=70)[0] | {"eye": np.zeros((SIDE, SIDE, 3), np.uint8)}
    usual = agent.encoder.usual.clone()
    agent.encoder.usual.fill_(0.0)
    try:
        assert np.isfinite(agent._read_observation(observation)).all()
        agent.sees_unknown = True
        assert np.isnan(agent._read_observation(observation)).all()
    finally:
        agent.sees_unknown = False
        agent.encoder.usual.copy_(usual)


def test_what_cannot_be_learned_from_is_found_before_an_encoder_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "train", None)
    with pytest.raises(ValueError, match="the key 'actions' is missing"):
        arrays = recorded()
        del arrays["actions"]
        dfplan.train(arrays, "chunks", run_dir=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match=r"columns .* are asked of an observation of|must be different columns"):
        dfplan.train(dfplan.load(recorded(), goal=(999,)), "chunks", run_dir=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="'chuncks'"):
        dfplan.train(recorded(), "chuncks", run_dir=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match=r"with 1, 3 or 4 channels, got \(3, 12, 12\)|1, 3 or 4 channels"):
        dfplan.load({**recorded(), "observations": np.zeros((9, 3, 12, 12), np.uint8)})
    assert not list(tmp_path.iterdir())


def test_an_observation_without_its_picture_is_refused_by_name(agent):
    with pytest.raises(
        ValueError, match=r"^DiffusionForcingAgent: an observation must be a Dict with the picture 'eye'"
    ):
        agent.act({"arm": np.zeros(2)})

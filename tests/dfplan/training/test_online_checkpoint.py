"""Replay buffers in files of plain arrays: whole, compared with the recipe, never unpickled."""

import gymnasium
import numpy as np
import pytest

import dfplan.envs  # noqa: F401
from dfplan.training.checkpoint import CheckpointError
from dfplan.training.online_checkpoint import load_replay, save_replay

sb3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.logger import Logger  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv  # noqa: E402

KINDS = {
    "single steps": {},
    "three steps": {"n_steps": 3},
    "hindsight": {"replay_buffer_class": sb3.HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}},
}


def model(kind, size=400, copies=2):
    conditioned = kind == "hindsight"
    make = lambda: gymnasium.make("multi2d-umaze-v1", goal_conditioned=conditioned, max_episode_steps=30)  # noqa: E731
    policy = "MultiInputPolicy" if conditioned else "MlpPolicy"
    env = DummyVecEnv([make] * copies)
    settings = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 10**6, "buffer_size": size}
    made = sb3.SAC(policy, env, seed=0, **settings, **KINDS[kind])
    made.set_logger(Logger(None, []))
    return made


def arrays(buffer):
    names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "ep_start", "ep_length")
    for name in (*names, "_current_ep_start"):
        value = getattr(buffer, name, None)
        for key, array in value.items() if isinstance(value, dict) else [("", value)] if value is not None else []:
            yield name + key, array


@pytest.mark.parametrize("steps", [0, 90, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_comes_back(kind, steps, tmp_path):
    """Empty, partly full, and written over; but that the episodes under way end, as stable-baselines3 ends hindsight's."""
    learned, fresh = model(kind), model(kind)
    if steps:
        learned.learn(steps)
    buffer, other = learned.replay_buffer, fresh.replay_buffer
    save_replay(buffer, tmp_path / "replay.safetensors")
    load_replay(other, tmp_path / "replay.safetensors")
    assert (other.pos, other.full) == (buffer.pos, buffer.full)
    if kind == "hindsight":
        with pytest.warns(UserWarning, match="will be truncated") if steps else pytest.MonkeyPatch.context():
            buffer.truncate_last_trajectory()
    elif steps:
        buffer.timeouts[buffer.pos - 1] = True
    for (name, there), (_, here) in zip(arrays(buffer), arrays(other), strict=True):
        np.testing.assert_array_equal(here, there, err_msg=name)
    room = sum(array.nbytes for _, array in arrays(other))
    assert other.full or (tmp_path / "replay.safetensors").stat().st_size < room / 2  # what was seen, not what fits in


def test_another_buffer_is_refused(tmp_path):
    path = tmp_path / "replay.safetensors"
    learned = model("single steps")
    learned.learn(90)
    save_replay(learned.replay_buffer, path)
    for other in (model("hindsight"), model("single steps", copies=3)):
        with pytest.raises(CheckpointError, match=r"the replay buffer .*replay\.safetensors does not fit the recipe"):
            load_replay(other.replay_buffer, path)
        assert other.replay_buffer.pos == 0
    with pytest.raises(CheckpointError, match="does not fit the recipe: it is larger"):
        load_replay(model("single steps", size=20).replay_buffer, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"replay\.safetensors"):
        load_replay(model("single steps").replay_buffer, path)

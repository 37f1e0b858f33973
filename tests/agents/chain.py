"""A task of two states with values that anybody can write down, as datasets of both kinds that are read.

From s0 one gets to s1, and the step from s1 is worth 1. There the task ends (`terminated`), or it goes on in s0 and the
record is merely cut off (`not terminated`). Actions are noise and decide nothing.
"""

import gymnasium as gym
import h5py
import minari
import numpy as np
from minari.data_collector.episode_buffer import EpisodeBuffer

STATES = np.array([[-1.0, 0.5], [1.0, 0.5]], np.float32)
END = np.array([0.0, -3.0], np.float32)
GAMMA = 0.5


def values(terminated):
    """V(s0) and V(s1), discounted by GAMMA."""
    last = 1.0 if terminated else 1 / (1 - GAMMA**2)
    return np.array([GAMMA * last, last])


def episodes(terminated, count=40):
    """Observations, one more than actions; actions and rewards."""
    rng, length = np.random.default_rng(0), 2 if terminated else 4
    observations = np.tile(STATES, (length // 2 + 1, 1))[: length + 1]
    if terminated:
        observations[-1] = END
    for _ in range(count):
        actions = rng.uniform(-1, 1, (length, 1)).astype(np.float32)
        yield observations, actions, np.tile([0.0, 1.0], length // 2)


def write_minari(dataset_id, terminated, data_format="hdf5"):
    """A Minari set in the local store, written by Minari."""
    buffers = []
    for observations, actions, rewards in episodes(terminated):
        last = np.arange(len(rewards)) == len(rewards) - 1
        flags = {"terminations": last & terminated, "truncations": last & (not terminated)}
        buffers.append(EpisodeBuffer(observations=observations, actions=actions, rewards=rewards, **flags))
    minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        observation_space=gym.spaces.Box(-9, 9, (2,), np.float32),
        action_space=gym.spaces.Box(-1, 1, (1,), np.float32),
        data_format=data_format,
    )
    return dataset_id


def write_d4rl(path, terminated):
    """The same steps in D4RL's layout, which has no observation after an episode's last action."""
    observations, actions, rewards = zip(*((o[:-1], a, r) for o, a, r in episodes(terminated)), strict=True)
    ends = np.concatenate([np.arange(len(r)) == len(r) - 1 for r in rewards])
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.concatenate(observations), np.concatenate(actions)
        file["rewards"] = np.concatenate(rewards)
        file["terminals"], file["timeouts"] = ends & terminated, ends & (not terminated)
    return path

import os

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.data_collector.episode_buffer import EpisodeBuffer

from dfplan.benchmarks.suites.suite import data_of
from dfplan.envs import collect
from dfplan.envs.registry import task


def test_the_mazes_own_data_is_collected_once_and_again_if_it_is_torn(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setitem(collect.DEFAULT_STEPS, "umaze", 300)
    file = tmp_path / "dfplan" / "maze2d-umaze-v1" / "data" / "main_data.hdf5"
    first = data_of(task("maze2d-umaze-v1"))
    written = file.stat().st_ino
    assert len(first) == 300 and len(data_of(task("maze2d-umaze-v1"))) == 300
    assert file.stat().st_ino == written and "warning" not in capsys.readouterr().err
    os.truncate(file, 5000)
    assert data_of(task("maze2d-umaze-v1")).fingerprint == first.fingerprint


def test_a_short_collection_under_the_mazes_own_id_is_said_to_be_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    collect.collect("maze2d-umaze", steps=300, quiet=True)
    capsys.readouterr()
    assert len(data_of(task("maze2d-umaze-v1"))) == 300
    assert "has 300 steps instead of 1,000,000; python -m dfplan.envs.collect" in capsys.readouterr().err


def test_of_dictionaries_with_goals_the_mazes_take_the_observation(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    boxes = {
        key: gym.spaces.Box(-9, 9, (n,)) for key, n in (("observation", 4), ("achieved_goal", 2), ("desired_goal", 2))
    }
    seen = {key: np.ones((4, *box.shape), np.float32) for key, box in boxes.items()}
    none = np.zeros(3, bool)
    episode = EpisodeBuffer(
        observations=seen,
        actions=np.zeros((3, 2), np.float32),
        rewards=np.zeros(3),
        terminations=none,
        truncations=none,
    )
    spaces = {"observation_space": gym.spaces.Dict(boxes), "action_space": gym.spaces.Box(-1, 1, (2,))}
    with pytest.warns(UserWarning):  # author, code link and the like are not given
        minari.create_dataset_from_buffers("here/maze-v1", [episode], **spaces)
    assert data_of(task("maze2d-umaze-v1"), "here/maze-v1").observations.shape == (3, 4)

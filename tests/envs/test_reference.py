import json
from importlib.resources import files

import numpy as np
import pytest

from dfplan.envs.reference import normalized_score, reference, references
from dfplan.envs.registry import MAZES


def test_the_scale_runs_from_0_to_100():
    entry = reference("maze2d-large-v1")
    assert (entry.min_return, entry.max_return, entry.max_episode_steps) == (6.7, 273.99, 800)
    np.testing.assert_allclose(normalized_score("maze2d-large-v1", [6.7, 273.99, 140.345]), [0, 100, 50])
    assert normalized_score("maze2d-large-v1", 100).shape == ()
    assert normalized_score("maze2d-umaze-v1", np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize("env_id", MAZES)
def test_every_task_has_a_reference_of_its_own_episode_length(env_id):
    entry = reference(env_id)
    assert entry.max_episode_steps == MAZES[env_id].max_episode_steps
    assert entry.min_return < entry.max_return


def test_families_and_multi2d():
    assert reference("hopper-medium-replay-v2") == reference("hopper")
    assert reference("multi2d-medium-v1") == reference("maze2d-medium-v1")


@pytest.mark.parametrize(
    ("env_id", "near"),
    [("maze2d-lage-v1", "maze2d-large-v1"), ("maze2d-large", "maze2d-large-v1"), ("hoppr-v2", "hopper")],
)
def test_an_unknown_id_is_answered_with_the_nearest(env_id, near):
    with pytest.raises(KeyError) as error:
        reference(env_id)
    assert str(error.value).startswith(f"unknown environment for a D4RL-normalized score '{env_id}'; did you mean")
    assert near in str(error.value)


@pytest.mark.parametrize("returns", [[1.0, np.nan], ["1"], [1j], None])
def test_returns_that_are_no_numbers_are_refused(returns):
    with pytest.raises(ValueError, match="returns are finite numbers"):
        normalized_score("maze2d-large-v1", returns)


def test_the_file_names_its_source():
    table = json.loads(files("dfplan.envs").joinpath("reference.json").read_text())
    assert "D4RL" in table["source"]
    assert set(table["values"]) == set(references())

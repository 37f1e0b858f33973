import pickle

import numpy as np
import pytest
from stand_in_planner import StandInPlanner

from dfplan.benchmarks import registry
from dfplan.benchmarks.protocol import play
from dfplan.envs.tasks import task

LARGE = task("maze2d-large-v1")


@pytest.mark.parametrize("name", ["expert", "random"])
def test_baselines_play(name):
    played = play(registry.row(name).build(task("maze2d-umaze-v1"), "cpu"), "maze2d-umaze-v1", [100_000, 100_001])
    assert all(np.ptp(path, axis=0).max() > 0.5 for path in played.paths)


def test_the_random_agent_serves_single_observations_and_batches_from_its_seed():
    agent = registry.RandomAgent()
    agent.reset(seed=5)
    single, batch = agent.act(np.zeros(4)), agent.act(np.zeros((3, 4)))
    agent.reset(seed=5)
    assert single.shape == (2,) and batch.shape == (3, 2)
    assert np.array_equal(agent.act(np.zeros(4)), single) and not np.array_equal(batch[0], batch[1])


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(KeyError, match="did you mean expert"):
        registry.row("exprt")


def test_a_users_own_agent_by_module_and_factory():
    assert isinstance(registry.row("stand_in_planner:make").build(LARGE, "cpu"), StandInPlanner)
    for bad in ("no_such_module:make", "stand_in_planner:nothing", ":make"):
        with pytest.raises(ValueError, match="cannot import the agent"):
            registry.row(bad)


def test_missing_weights_name_the_training_command_in_any_process():
    error = pickle.loads(pickle.dumps(registry.MissingWeightsError("maze2d-large-paper", "large", "paper")))
    assert "python benchmarks/train.py --env maze2d-large --recipe paper" in str(error)
    assert error.command == ["--env", "maze2d-large", "--recipe", "paper"]


def test_weights_of_a_training_run_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert registry.weights_file("no-such-weights") is None
    path = tmp_path / "runs" / "no-such-weights-seed0" / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    assert registry.weights_file("no-such-weights").resolve() == path


def test_descriptions_say_how_an_agent_acts():
    expert = registry.description("expert", registry.row("expert").build(LARGE, "cpu"))
    planner = registry.description("stand_in_planner:make", StandInPlanner(LARGE))
    assert expert["execution"] == "waypoints and a PD controller" and expert["card"] is None
    assert planner["execution"] == "waypoints" and planner["parameters"] == 7 and planner["card"]["seed"] == 0

"""A user's own agent: what is wrong with it is said before it plays."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from stand_in_planner import StandInPlanner

from dfplan.benchmarks import own, play
from dfplan.benchmarks.own import require_fit
from dfplan.benchmarks.wanted import wanted
from dfplan.envs.registry import task

sb3 = pytest.importorskip("stable_baselines3")
NET = {"net_arch": [8]}
LARGE = task("maze2d-large-v1")


def saved(path, env):
    sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, policy_kwargs=NET).save(path)
    (cell,), _ = wanted([task("maze2d-umaze-v1")], [f"sb3:{path}"], [100_000])
    return cell


@pytest.mark.parametrize(
    "change, sentence",
    [
        (
            lambda env: gymnasium.wrappers.RescaleAction(env, np.float32(0), np.float32(1)),
            r"actions are Box\(0\.0, 1\.0, \(2,\), float32\), and the environment's are Box\(-1\.0, 1\.0, \(2,\), float32\)",
        ),
        (
            lambda env: gymnasium.wrappers.RescaleAction(env, np.float32([-1, -0.5]), np.float32([1, 0.5])),
            r"actions are Box\(\[-1\.  -0\.5\], \[1\.  0\.5\], \(2,\), float32\)",
        ),
        (
            lambda env: gymnasium.wrappers.TransformObservation(env, lambda o: o[:3], Box(-np.inf, np.inf, (3,))),
            r"observations are Box\(.*, \(3,\), float32\), and the environment's are Box\(.*, \(4,\), float",
        ),
    ],
)
def test_a_model_of_other_spaces_is_not_played(change, sentence, tmp_path):
    cell = saved(tmp_path / "model.zip", change(gymnasium.make("maze2d-umaze-v1")))
    with pytest.raises(ValueError, match=sentence) as caught:
        play.build(cell)
    assert "model.zip' does not fit maze2d-umaze-v1: its" in str(caught.value)


def test_a_model_of_the_environment_s_own_spaces_plays(tmp_path):
    cell = saved(tmp_path / "model.zip", gymnasium.make("maze2d-umaze-v1"))
    agent = play.build(cell)
    agent.reset()
    assert agent.act(np.zeros(4)).shape == (2,)


class Agent:
    def __init__(self, **spaces):
        self.__dict__.update(spaces)


def test_any_agent_that_names_its_spaces_is_compared():
    actions, plain, pair = Box(-1, 1, (2,)), Box(-9, 9, (4,)), Box(-9, 9, (2,))
    goals = Dict(observation=plain, achieved_goal=pair, desired_goal=pair)
    for fitting in ({}, {"action_space": actions}, {"observation_space": goals, "action_space": actions}):
        require_fit(Agent(**fitting), "multi2d-umaze-v1", "mine")
    for other, sentence in (
        ({"action_space": Discrete(4)}, r"actions are Discrete\(4\)"),
        ({"action_space": Box(-1, 1, (2, 1))}, r"actions are Box\(-1\.0, 1\.0, \(2, 1\)"),
        ({"observation_space": Dict(observation=plain)}, r"observations are Dict\('observation': Box"),
        (
            {"observation_space": Dict(observation=plain, achieved_goal=plain, desired_goal=plain)},
            "observations are Dict",
        ),
    ):
        with pytest.raises(ValueError, match=f"mine does not fit multi2d-umaze-v1: its .*{sentence}"):
            require_fit(Agent(**other), "multi2d-umaze-v1", "mine")


AGENTS = """
class Plain:
    def __init__(self, gain=1.0): self.task = None
    def reset(self, goal=None, seed=None): ...
    def act(self, observation): ...
class OfTask(Plain):
    def __init__(self, task): self.task = task
def make(*ignored, **options): return Plain()
class Greedy(Plain):
    def __init__(self, task, gain): ...
class NoAgent: ...
def broken():
    return {}["gain"]
number = 3
"""


@pytest.fixture
def somebodys(tmp_path, monkeypatch):
    (tmp_path / "somebodys_agents.py").write_text(AGENTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_users_own_agent_by_module_and_class_or_factory(somebodys):
    assert isinstance(own.make("stand_in_planner:make", LARGE), StandInPlanner)
    assert isinstance(own.make("stand_in_planner:StandInPlanner", LARGE), StandInPlanner)
    assert own.make("somebodys_agents:OfTask", LARGE).task is LARGE
    for name in ("Plain", "make"):
        assert own.make(f"somebodys_agents:{name}", LARGE).task is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:make", "cannot import the agent 'no_such_module:make'"),
        (":make", "cannot import the agent"),
        ("somebodys_agents:nothing", "has no attribute 'nothing'"),
        ("somebodys_agents:Greedy", "could not be made: TypeError: .*missing 1 required positional argument: 'gain'"),
        ("somebodys_agents:NoAgent", "made a NoAgent, which is no agent: it has no reset and no act"),
        ("somebodys_agents:broken", r"could not be made: KeyError: 'gain' \(somebodys_agents.py, line 13\)"),
        ("somebodys_agents:number", "could not be made: TypeError: 3 is not a callable object"),
    ],
)
def test_what_is_wrong_with_a_users_agent_is_said(somebodys, name, sentence):
    with pytest.raises(ValueError, match=sentence):
        own.make(name, LARGE)


def test_an_error_in_somebodys_file_is_named_with_file_and_line(somebodys, tmp_path):
    (tmp_path / "torn_agent.py").write_text("class Agent:\n    def reset(self\n")
    with pytest.raises(
        ValueError, match=r"'torn_agent:Agent': SyntaxError: '\(' was never closed \(torn_agent.py, line 2\)"
    ):
        own.make("torn_agent:Agent", LARGE)

"""From any recorded data to an agent: nothing of a maze, of a score, or of the benchmark is needed."""

import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from regression import batch_until

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.offline.base import ActingConfig
from dfplan.agents.offline.bc import BCConfig, BehaviorCloningAgent
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Replay
from dfplan.data.windows import Windows
from dfplan.models import TransformerConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan_config import PlanConfig
from dfplan.training.checkpoint import load_checkpoint
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe, fit
from dfplan.training.interrupt import TrainingInterrupted

TRAIN = TrainConfig(
    steps=12, batch_size=4, warmup_steps=2, checkpoint_every=4, log_every=4, precision="32-true", seed=5
)
LAYOUT = TokenLayout(observation_dim=5, action_dim=3, stride=2)
MODEL = TrajectoryModelConfig(
    LAYOUT, goal_columns=(1, 3), tokens=4, model=TransformerConfig(width=8, depth=1, heads=2), levels=8
)
ARM = Recipe(
    DiffusionForcingAgent,
    TrajectoryModel,
    MODEL,
    AgentConfig(PlanConfig(steps=1, horizons=1)),
    TRAIN,
    batches=lambda data: Windows(data, LAYOUT.steps(MODEL.tokens)).sample,
)
BC = BCConfig(observation_dim=5, action_dim=3, hidden=(8,), seeds=(3, 4))
CLONES = Recipe(
    BehaviorCloningAgent,
    BehaviorCloningAgent.learner_class,
    BC,
    ActingConfig(),
    TRAIN,
    batches=partial(Replay, seeds=BC.seeds),
    curve=3,
)


@pytest.fixture(scope="module")
def data():
    """An arm of five joints and three motors that nobody pays."""
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(200, 5)), rng.uniform(-1, 1, size=(200, 3))
    return Trajectories(
        observations.astype(np.float32),
        actions.astype(np.float32),
        np.zeros(200, np.float32),
        np.array([0, 90]),
        "an arm",
    )


def weights(folder):
    return load_checkpoint(folder / "weights.safetensors")


def test_an_agent_of_any_data_that_its_file_holds(tmp_path, data):
    agent = fit(ARM, data, tmp_path, about={"name": "arm"}, quiet=True)
    again = DiffusionForcingAgent.load(tmp_path / "weights.safetensors")
    assert agent.card == again.card and agent.config == again.config == ARM.acting
    assert (agent.card["name"], agent.card["seed"], agent.card["seeds"], agent.card["steps"]) == ("arm", 5, [5], 12)
    assert agent.card["data"] == {"name": "an arm", "steps": 200, "fingerprint": data.fingerprint}
    assert "score" not in agent.card and agent.card["curve"] == []
    for one in (agent, again):
        one.reset(goal=np.zeros(2), seed=1)
    actions = agent.act(data.observations[:3]), again.act(data.observations[:3])
    assert actions[0].shape == (3, 3) and np.array_equal(*actions)


def test_the_callers_random_numbers_stay_as_they_were(tmp_path, data):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fit(ARM, data, tmp_path, quiet=True)
    assert torch.equal(torch.rand(3), expected)


def test_scores_are_of_each_training_seed_as_it_comes_back_from_a_file(tmp_path, data):
    seen = []

    def score(agents):
        """How far each one's first action lies from zero: known for the file's weights, which are rounded."""
        seen.append(agents)
        return {"size": [float(np.abs(agent.act(data.observations[0])).sum()) for agent in agents]}

    def measure(agents):
        return {"size": sum(score(agents)["size"])}

    agent = fit(CLONES, data, tmp_path, score=score, measure=measure, quiet=True)
    assert [len(agents) for agents in seen] == [2, 2, 2, 2], "three points of the curve, and the card"
    assert [point["step"] for point in agent.card["curve"]] == [4, 8, 12]
    members = [BehaviorCloningAgent.load(tmp_path / "weights.safetensors", member) for member in (0, 1)]
    assert agent.card["score"] == members[1].card["score"] == score(members)
    assert agent.card["curve"][-1]["size"] == sum(score(members)["size"]), "the last point is of the last weights"
    assert agent.card["seeds"] == [3, 4]


def test_an_interrupted_fit_goes_on_to_the_same_weights_and_a_finished_one_is_not_trained_again(tmp_path, data):
    fit(ARM, data, tmp_path / "whole", quiet=True)

    def cut(data):
        draw = ARM.batches(data)
        stop = batch_until(7, lambda: signal.raise_signal(signal.SIGINT))
        return lambda rng, size: (stop(np.random.default_rng(0), 1), draw(rng, size))[1]

    with pytest.raises(TrainingInterrupted):
        fit(replace(ARM, batches=cut), data, tmp_path / "cut", quiet=True)
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    fit(ARM, data, tmp_path / "cut", quiet=True)
    (whole, _), (cut_short, _) = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut_short.keys() and all(torch.equal(whole[name], cut_short[name]) for name in whole)
    trained = (tmp_path / "cut" / "last.safetensors").read_bytes()
    fit(ARM, data, tmp_path / "cut", quiet=True)
    assert (tmp_path / "cut" / "last.safetensors").read_bytes() == trained


def test_data_of_other_widths_are_refused_before_anything_is_written(tmp_path, data):
    narrow = Trajectories(data.observations[:, :4], data.actions, data.rewards, data.episode_starts, "four joints")
    with pytest.raises(
        ValueError, match="four joints has 4 observation and 3 action columns, but the recipe is for 5 and 3"
    ):
        fit(ARM, narrow, tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []

"""Weights files of every agent: what `save` writes and what `load` refuses, the same for all."""

import json
import math

import numpy as np
import pytest
import torch
from every_agent import diffusion_policy, recurrent_policy

from dfplan.agents.decision_diffuser import DecisionDiffuserAgent, DecisionDiffuserConfig, DecisionDiffuserModel
from dfplan.agents.diffuser import DiffuserAgent, DiffuserAgentConfig, DiffuserConfig, DiffuserModel
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.diffusion_veteran import DiffusionVeteranAgent, Veteran, VeteranModelConfig
from dfplan.agents.distillation import Distilled, DistilledAgent, DistilledConfig
from dfplan.agents.graph_search import GraphModel, GraphModelConfig, GraphSearchAgent
from dfplan.agents.loading import AGENTS, kind_of, load
from dfplan.agents.mppi import LearnedMPPIAgent
from dfplan.agents.offline.awac import AWAC, AWACAgent, AWACConfig
from dfplan.agents.offline.bc import BC, BCConfig, BehaviorCloningAgent
from dfplan.agents.offline.cql import CQL, CQLAgent, CQLConfig
from dfplan.agents.offline.gciql import GCIQL, GCIQLAgent, GCIQLConfig
from dfplan.agents.offline.iql import IQL, IQLAgent, IQLConfig
from dfplan.agents.offline.td3_bc import TD3BC, TD3BCAgent, TD3BCConfig
from dfplan.data.tokens import TokenLayout
from dfplan.models import RecurrentConfig, TransformerConfig, UNetConfig
from dfplan.planning.dynamics import DynamicsConfig, DynamicsModel
from dfplan.planning.full_sequence import SequenceConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

LAYOUT = TokenLayout(4, 2, stride=2)
SMALL = TransformerConfig(width=8, depth=1, heads=2, octaves=1)
UNET = UNetConfig(width=8, multiples=(1, 2), octaves=1)
OFFLINE = {"observation_dim": 4, "action_dim": 2, "seeds": (0, 7), "hidden": (8,)}
TRACKING = DiffuserAgentConfig(execution="pd", velocity_columns=(2, 3))
SEQUENCE = {"tokens": 5, "goal_columns": (0, 1), "network": UNET, "levels": 8}


def trajectory(model):
    config = TrajectoryModelConfig(LAYOUT, (0, 1), tokens=5, levels=8, longest_gap=12, model=model)
    return DiffusionForcingAgent(TrajectoryModel(config))


MAKE = {
    "trajectory_model": lambda: trajectory(SMALL),
    "trajectory_model, recurrent": lambda: trajectory(RecurrentConfig(width=8, depth=1)),
    "diffuser": lambda: DiffuserAgent(DiffuserModel(DiffuserConfig(LAYOUT, **SEQUENCE)), TRACKING),
    "decision_diffuser": lambda: DecisionDiffuserAgent(
        DecisionDiffuserModel(DecisionDiffuserConfig(LAYOUT, **SEQUENCE))
    ),
    "diffusion_veteran": lambda: DiffusionVeteranAgent(
        Veteran(
            VeteranModelConfig(
                4, 2, (0, 1), tokens=4, stride=2, denoiser=SMALL, critic=SMALL, levels=8, inverse_levels=2
            )
        )
    ),
    "diffusion_policy": diffusion_policy,
    "recurrent_policy": recurrent_policy,
    "graph_search": lambda: GraphSearchAgent(GraphModel(GraphModelConfig(4, 2, (0, 1), clusters=8, neighbors=2))),
    "dynamics": lambda: LearnedMPPIAgent(DynamicsModel(DynamicsConfig(4, 2, width=8, octaves=1))),
    "bc": lambda: BehaviorCloningAgent(BC(BCConfig(**OFFLINE))),
    "iql": lambda: IQLAgent(IQL(IQLConfig(**OFFLINE))),
    "cql": lambda: CQLAgent(CQL(CQLConfig(**OFFLINE))),
    "td3-bc": lambda: TD3BCAgent(TD3BC(TD3BCConfig(**OFFLINE))),
    "awac": lambda: AWACAgent(AWAC(AWACConfig(**OFFLINE))),
    "distilled": lambda: DistilledAgent(
        Distilled(DistilledConfig(4, 2, seeds=(0, 7), hidden=(8,), goal_columns=(0, 1)))
    ),
    "gciql": lambda: GCIQLAgent(GCIQL(GCIQLConfig(**OFFLINE, goal_columns=(0, 1)))),
}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """Hundreds of files are written here, and none has to survive a power failure."""
    monkeypatch.setattr("os.fsync", lambda _: None)


each_agent = pytest.mark.parametrize("name", MAKE)


def saved(name, path):
    torch.manual_seed(0)
    MAKE[name]().save(path)
    return load_checkpoint(path)


def learner_of(agent):
    return agent.model if isinstance(agent, DiffusionForcingAgent) else agent.learner


def refused(path, tensors, header):
    """The sentence with which a file is refused, or '' for one that loads."""
    save_checkpoint(path, tensors, header)
    try:
        load(path)
    except CheckpointError as error:
        sentence = str(error)
        assert "weights.safetensors" in sentence and len(sentence) <= 300 and sentence.isprintable()
        return sentence
    return ""


def places(value, path=()):
    """Every place in nested JSON, and what stands there."""
    if path:
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def changed(header, path, value):
    copy = json.loads(json.dumps(header))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def test_every_kind_of_agent_is_tried():
    assert {name.partition(",")[0] for name in MAKE} == AGENTS.keys() - {"stable_baselines3"}


@each_agent
def test_what_is_saved_is_loaded_and_saved_again_the_same(name, tmp_path):
    tensors, header = saved(name, tmp_path / "a")
    agent = load(tmp_path / "a")
    assert kind_of(tmp_path / "a") == header["kind"] == name.partition(",")[0]
    assert learner_of(agent).config == learner_of(MAKE[name]()).config and agent.config == MAKE[name]().config
    state = learner_of(agent).state_dict()
    assert all(torch.equal(tensor.to(state[key].dtype), state[key]) for key, tensor in tensors.items())
    agent.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_half_precision_rounds_what_was_trained_and_nothing_else(tmp_path):
    agent = MAKE["trajectory_model"]()
    agent.save(tmp_path / "whole")
    agent.save(tmp_path / "half", half=True)
    trained = {name for name, _ in learner_of(agent).named_parameters()}
    found = learner_of(load(tmp_path / "half")).state_dict()
    for name, tensor in learner_of(agent).state_dict().items():
        assert torch.equal(found[name], tensor.half().float() if name in trained else tensor), name
    assert (tmp_path / "half").stat().st_size < 0.7 * (tmp_path / "whole").stat().st_size


@each_agent
def test_a_header_of_wrong_types_is_one_sentence_wherever_it_is_wrong(name, tmp_path):
    tensors, header = saved(name, tmp_path / "a")
    for place, value in places(header):
        if "recurrent" in name and "model" not in place:
            continue  # all else is as in the other trajectory model
        wrong = (
            ["x", None, [], {"a": 1}, 1.5] if isinstance(value, int) else [None, 7 if isinstance(value, str) else "x"]
        )
        for other in wrong:
            # Without a word on critics a file holds all tensors, and of cloning it does.
            may_be_none = value is None or place == ("critics",)
            if not (value == {} and other == {"a": 1}) and not (may_be_none and other is None):
                assert refused(tmp_path / "weights.safetensors", tensors, changed(header, place, other)), (place, other)


@each_agent
def test_sizes_far_beyond_the_file_are_refused_before_anything_is_made_of_them(name, tmp_path):
    """10 ** 12 of anything would not fit into memory; what is only a number, such as a seed or a weight, may be large."""
    tensors, header = saved(name, tmp_path / "a")
    numbers = {"tau", "gamma", "alpha", "beta", "max_weight", "weight", "gap", "policy_rate", "lam", "sigma", "c", "d"}
    numbers |= {"actions", "states", "snr", "replan_every", "lookahead", "window", "member"}
    for place, value in places(header):
        if type(value) is not int or numbers & set(place) or "seeds" in place:
            continue
        for size in (2**16, 10**9, 10**12):
            message = refused(tmp_path / "weights.safetensors", tensors, changed(header, place, size))
            small = (
                "predicted",
                "tokens",
                "stride",
                "levels",
                "inverse_levels",
                "longest_gap",
                "goal_within",
                "longest",
                "every",
            )
            bounded = place[-1] in small or "agent" in place
            assert message or (bounded and size == 2**16), (place, size)


@each_agent
def test_a_part_that_is_not_there_is_named(name, tmp_path):
    tensors, header = saved(name, tmp_path / "a")
    for part in header.keys() - {"agent", "critics"} if "critics" in header else header:
        left = {key: value for key, value in header.items() if key != part}
        message = refused(tmp_path / "weights.safetensors", tensors, left)
        assert part in message or part == "kind"
    needed = [key for key in tensors if not key.endswith(".bound")]  # older files have no bounds
    for key in needed[:: len(needed) // 4]:
        left = {other: tensor for other, tensor in tensors.items() if other != key}
        assert f"missing ({key})" in refused(tmp_path / "weights.safetensors", left, header)


@each_agent
def test_tensors_that_no_agent_acts_by_are_refused(name, tmp_path):
    tensors, header = saved(name, tmp_path / "a")
    tried = [key for number, key in enumerate(tensors) if number % 5 == 0 or "observation" in key]
    for number, key in enumerate(tried):
        tensor = tensors[key]
        damages = [
            torch.zeros(3, 5, 7, dtype=tensor.dtype),
            tensor.to(torch.int32) if tensor.is_floating_point() else tensor.float(),
            torch.full_like(tensor, math.nan) if tensor.is_floating_point() else tensor.to(torch.int32),
            torch.full_like(tensor, math.inf) if tensor.is_floating_point() else tensor.to(torch.bool),
        ]
        for other in [damages[number % 4], *([0 * tensor, -tensor] if key.endswith(".std") else [])]:
            assert key in refused(tmp_path / "weights.safetensors", tensors | {key: other}, header)


@each_agent
def test_weights_that_are_not_finite_and_cards_that_are_none_are_not_written(name, tmp_path):
    agent = MAKE[name]()
    for card in ({"seed": "three"}, {"training_seconds": "long"}, {"curve": 3}, {"data": [1]}, {"loss": math.nan}):
        agent.card = card
        with pytest.raises(ValueError, match="card"):
            agent.save(tmp_path / "w")
    agent.card = {}
    for parameter in learner_of(agent).parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(ValueError, match="NaN or infinity"):
        agent.save(tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


@each_agent
def test_loading_gives_float32_whatever_the_default_is(name, tmp_path):
    """Buffers that are made and not loaded, such as noise schedules, too; and an agent loaded without gradients can learn."""
    saved(name, tmp_path / "a")
    expected = learner_of(load(tmp_path / "a"))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            found = learner_of(load(tmp_path / "a"))
    finally:
        torch.set_default_dtype(torch.float32)
    for part in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(found, part)()), dict(getattr(expected, part)())
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert ours[key].dtype == tensor.dtype and not ours[key].is_inference(), key
            assert torch.equal(ours[key], tensor), key


def test_an_agent_that_its_own_model_cannot_follow_is_a_sentence_with_the_files_name(tmp_path):
    tensors, header = saved("trajectory_model", tmp_path / "a")
    agent = header["agent"] | {"lookahead": 13}
    assert "lookahead 13 is beyond" in refused(tmp_path / "weights.safetensors", tensors, header | {"agent": agent})
    tensors, header = saved("diffuser", tmp_path / "a")
    agent = header["agent"] | {"velocity_columns": [2, 9]}
    assert "velocity_columns must be different" in refused(
        tmp_path / "weights.safetensors", tensors, header | {"agent": agent}
    )
    tensors, header = saved("bc", tmp_path / "a")
    assert "member" in refused(tmp_path / "weights.safetensors", tensors, header | {"agent": {"member": 2}})


@pytest.mark.parametrize("columns", [(-1,), (4,), (0, 0), (0, 10**12)])
def test_columns_that_are_not_the_observations_are_refused_where_a_config_is_made(columns):
    with pytest.raises(ValueError, match=r"goal_columns must be different columns of the observation, in 0\.\.3"):
        TrajectoryModelConfig(LAYOUT, goal_columns=columns)
    with pytest.raises(ValueError, match="goal_columns"):
        SequenceConfig(LAYOUT, goal_columns=columns)
    with pytest.raises(ValueError, match="goal_columns"):
        DecisionDiffuserConfig(LAYOUT, goal_columns=columns)
    with pytest.raises(ValueError, match="positions must be different columns of the observation"):
        VeteranModelConfig(4, 2, positions=columns)
    agent = MAKE["diffuser"]()
    with pytest.raises(ValueError, match="velocity"):
        agent.with_options(velocity_columns=columns if len(columns) == 2 else (2, *columns))
    with pytest.raises(ValueError, match="velocity_columns"):
        DiffuserAgentConfig(velocity_columns=(2, 2))


def test_a_model_without_goal_columns_learns_acts_and_comes_back(tmp_path):
    torch.manual_seed(0)
    config = TrajectoryModelConfig(LAYOUT, goal_columns=(), tokens=5, levels=8, longest_gap=12, model=SMALL)
    agent = DiffusionForcingAgent(TrajectoryModel(config))
    rng = np.random.default_rng(0)
    before = agent.model.plausibility.mlp[0].weight.detach().clone()
    losses = agent.update(
        (rng.normal(size=(8, 9, 4)).astype(np.float32), rng.normal(size=(8, 9, 2)).astype(np.float32))
    )
    assert np.isfinite(list(losses.values())).all()
    assert not torch.equal(before, agent.model.plausibility.mlp[0].weight), "all columns are judged"
    agent.save(tmp_path / "a")
    other = load(tmp_path / "a")
    assert other.model.config == config and config.judged == (0, 1, 2, 3)
    actions = []
    for one in (agent, other):
        one.reset(seed=0)
        actions.append(one.act(np.zeros(4)))
    assert (actions[0] == actions[1]).all() and np.isfinite(actions[0]).all()
    assert other.plan(np.zeros(4), horizon=4).observations.shape == (1, 3, 1, 4)
    with pytest.raises(ValueError, match="without goal columns"):
        other.reset(goal=(1.0, 1.0))

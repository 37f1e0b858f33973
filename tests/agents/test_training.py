"""From data to an agent in one call, for each kind of environment: `dfplan.train`, `save`, `load`, `reset`, `act`."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_environments import DictGoal, Falls, Plain, WholeGoal, recorded

import dfplan
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.recipes import chunks, plans, recipe_for
from dfplan.agents.training import steps_within
from dfplan.data.spec import Spec
from dfplan.models import TransformerConfig
from dfplan.planning.ask import Ask
from dfplan.training.fit import WEIGHTS
from dfplan.training.interrupt import TrainingInterrupted

KINDS = {
    "falls": (Falls, {}),
    "dict goal": (DictGoal, {}),
    "whole goal": (WholeGoal, {"goal": (0, 1)}),
    "plain": (Plain, {}),
}
SMALL = TransformerConfig(width=16, depth=1, heads=2)


def data_of(kind):
    make, how = KINDS[kind]
    return dfplan.load(recorded(make, episodes=8), **how)


def small(data, recipe):
    """The recipe of that name with a small network."""
    found = recipe_for(data, recipe)
    return sized(found, SMALL, 8)


def sized(recipe, network, batch_size):
    value = None if recipe.model.value is None else network
    model, train = replace(recipe.model, model=network, value=value), replace(recipe.train, batch_size=batch_size)
    return replace(recipe, model=model, train=train)


def train_well(data, steps, **changes):
    torch.manual_seed(0)
    recipe = sized(recipe_for(data, "chunks"), TransformerConfig(width=64, depth=2, octaves=2), 64)
    quick = replace(recipe.train, warmup_steps=20, ema_decay=0.95, learning_rate=3e-3)
    recipe = replace(recipe, model=replace(recipe.model, **changes), train=quick)
    if "return" not in recipe.model.condition:
        plan = replace(recipe.acting.plan, temperature=1.0)
        recipe = replace(recipe, acting=replace(recipe.acting, plan=plan, return_quantile=None))
    return dfplan.train(data, recipe, steps=steps, quiet=True)


@pytest.mark.parametrize("recipe", ["chunks", "plans"])
@pytest.mark.parametrize("kind", KINDS)
def test_ten_lines_lead_from_data_to_an_agent_that_plays(kind, recipe, tmp_path):
    data, make = data_of(kind), KINDS[kind][0]
    agent = dfplan.train(data, small(data, recipe), steps=2, quiet=True)
    agent.save(tmp_path / "agent.safetensors")
    agent = DiffusionForcingAgent.load(tmp_path / "agent.safetensors").with_options(steps=2, horizons=2)
    env = make()
    observation, info = env.reset(seed=0)
    agent.reset(goal=info.get("goal"), seed=0)
    ended = False
    while not ended:
        observation, _, terminated, truncated, info = env.step(agent.act(observation))
        ended = terminated or truncated
    played = dfplan.evaluate(agent, make, episodes=3)
    assert len(played.returns) == 3 and (played.success is None) == (kind in ("falls", "plain"))


def test_what_is_asked_for_follows_from_the_data():
    found = {kind: chunks(Spec.of(data_of(kind))).model for kind in KINDS}
    assert found["falls"].condition == ("return",) and found["falls"].value is not None
    assert found["dict goal"].condition == ("goal",) and found["dict goal"].goal_columns == (4, 5)
    assert found["whole goal"].condition == ("goal",) and found["whole goal"].goal_columns == (0, 1)
    assert found["plain"].condition == () and found["plain"].history == 2 and found["plain"].value is None
    assert all(1 <= found[kind].goal_within <= 20 for kind in ("dict goal", "whole goal"))


@pytest.mark.parametrize("kind", KINDS)
def test_plans_are_no_longer_than_the_longest_episode(kind):
    data = data_of(kind)
    model, longest = plans(Spec.of(data)).model, int((data.episode_ends - data.episode_starts).max())
    assert model.layout.steps(model.tokens) <= longest + model.layout.stride
    assert model.parts == bool(model.goal_columns)


def test_a_learned_chunk_reaches_the_goal_that_a_dictionary_holds():
    agent = train_well(dfplan.load(recorded(DictGoal, episodes=60)), steps=450, value=None).with_options(replan_every=3)
    played, again, still = (dfplan.evaluate(one, DictGoal, episodes=20) for one in (agent, agent, Still()))
    assert played.returns == again.returns, "the same seeds, the same episodes"
    assert np.mean(played.success) > np.mean(still.success) + 0.3


class Still:
    def reset(self, goal=None, seed=None):
        pass

    def act(self, observation):
        return np.zeros((len(observation["observation"]), 2), np.float32)


def drifting():
    """Episodes of 20 steps that drift to one side or the other; a reward of 1 + x for each step."""
    side = np.repeat(np.tile([1.0, -1.0], 20), 20)
    x = side * np.tile(np.arange(20) * 0.04, 40)
    observations = np.stack([x, np.zeros_like(x)], -1).astype(np.float32)
    ends = np.tile(np.arange(20) == 19, 40)
    actions = np.stack([side, np.random.default_rng(0).normal(size=800)], -1).astype(np.float32)
    return dict(observations=observations, actions=actions, rewards=(1 + x).astype(np.float32), truncations=ends)


def test_a_return_that_is_asked_for_decides_what_is_done():
    data = dfplan.load(drifting())
    agent, start = train_well(data, steps=150, value=None), np.zeros((100, 2), np.float32)
    ends = []
    for wanted in (float(data.returns.min()), float(data.returns.max())):
        agent.reset(ask=Ask(return_=wanted), seed=0)
        ends.append(agent.plan(start).observations[:, -1, -1, 0])
    for quantile in (0.1, 0.9, None):
        unasked = agent.with_options(return_quantile=quantile)
        unasked.reset(seed=0)
        ends.append(unasked.plan(start).observations[:, -1, -1, 0])
    samples = agent.with_options(return_quantile=None, temperature=1.0)
    samples.reset(seed=0)
    free = samples.plan(start).observations[:, -1, -1, 0]
    low, high, lowest, highest, calm = ends
    assert (low < 0).float().mean() > 0.8 and (high > 0).float().mean() > 0.8
    assert torch.equal(low, lowest) and torch.equal(high, highest), "quantiles of the recorded episodes' returns"
    assert 0.02 < (free > 0).float().mean() < 0.98, "unasked, both sides"
    assert calm.std() < 0.1 * free.std(), "the recipe draws no noise: one answer to one question"


def test_a_quantile_of_returns_needs_a_model_that_is_asked_for_them():
    agent = train_well(dfplan.load(drifting()), steps=1, condition=(), value=None)
    with pytest.raises(ValueError, match="return_quantile needs a model whose condition is a return"):
        agent.with_options(return_quantile=0.5)


@pytest.fixture(scope="module")
def valued():
    """Trained on drifts to both sides, without a condition: what it draws is as good as the data."""
    return train_well(dfplan.load(drifting()), steps=200, condition=())


def right(agent, **options):
    """The share of 100 plans from the middle that go right, which pays more."""
    agent = agent.with_options(**options)
    agent.reset(seed=0)
    return (agent.plan(np.zeros((100, 2), np.float32)).observations[:, -1, -1, 0] > 0).float().mean()


def test_the_best_of_several_plans_by_the_learned_value_is_a_better_one(valued):
    one, best = right(valued), right(valued, samples=8)
    assert 0.2 < one < 0.8 and best > 0.95


def test_guidance_by_the_learned_value_raises_it(valued):
    assert right(valued, value_scale=3.0) > right(valued) + 0.15


def test_minutes_become_steps_and_a_run_keeps_them(tmp_path):
    data = data_of("plain")
    recipe = small(data, "chunks")
    steps = steps_within(0.01, recipe, data, tmp_path / "none", "cpu")
    assert steps >= 1 and not (tmp_path / "none").exists(), "measuring leaves nothing"
    agent = dfplan.train(data, recipe, steps=3, run_dir=tmp_path / "run", quiet=True)
    assert agent.card["steps"] == 3 and (tmp_path / "run" / WEIGHTS).is_file()
    again = dfplan.train(data, recipe, minutes=5, run_dir=tmp_path / "run", quiet=True)
    assert again.card["steps"] == 3, "a run goes on with the number of steps that it began with"


@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupted_training_says_whether_it_can_go_on(tmp_path, capsys, kept):
    data = data_of("plain")

    def interrupting(data):
        return lambda rng, size: signal.raise_signal(signal.SIGINT) or recipe.batches(data)(rng, size)

    recipe = small(data, "chunks")
    with pytest.raises(TrainingInterrupted):
        dfplan.train(
            data,
            replace(recipe, batches=interrupting),
            steps=5,
            run_dir=tmp_path / "run" if kept else None,
            quiet=True,
        )
    assert ("is temporary and is removed" in capsys.readouterr().err) == (not kept)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"recipe": "chunk"}, "chunks"),
        ({"minutes": 1, "steps": 1}, "give minutes or steps, not both"),
        ({"minutes": 0}, "minutes must be a finite number above 0"),
        ({"minutes": "5"}, "minutes must be a finite number above 0, got '5'"),
        ({"minutes": float("nan")}, "minutes must be a finite number above 0"),
        ({"steps": 0}, "steps"),
    ],
)
def test_mistakes_are_one_sentence(how, sentence):
    with pytest.raises(ValueError, match=sentence):
        dfplan.train(data_of("plain"), quiet=True, **how)


def test_a_dictionary_gives_the_goal_of_each_row_also_where_an_episode_begins():
    data = data_of("dict goal")
    agent = dfplan.train(data, small(data, "plans"), steps=2, quiet=True)

    def observed(goals):
        rows = np.zeros((len(goals), 2))
        return {"observation": np.zeros((len(goals), 4)), "achieved_goal": rows, "desired_goal": np.array(goals)}

    agent.reset(seed=0)
    agent.act(observed([[0.1, 0.2], [0.3, 0.4]]))
    agent.forget([1])
    agent.act(observed([[0.1, 0.2], [-0.3, -0.4]]))
    assert np.allclose(agent._goal, [[0.1, 0.2], [-0.3, -0.4]])
    agent.reset(goal=(0.5, 0.5), seed=0)
    agent.act(observed([[0.1, 0.2], [0.3, 0.4]]))
    assert np.allclose(agent._goal, [0.5, 0.5]), "a goal that is given stays"

"""The suite of the task that needs memory, and its two experiments, in a tiny form and their verdicts by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dfplan.benchmarks import rows
from dfplan.benchmarks.experiments import corrupted_frames, latent_memory, memory_swap
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.train import recipe_of
from dfplan.data.features import Features
from dfplan.data.spec import Spec
from dfplan.data.trajectories import Trajectories
from dfplan.envs.registry import find
from dfplan.models import RecurrentConfig, TransformerConfig

TASK = find("memory-swap")
SPEC = Spec(17, 4, longest=150, rewards=True, terminates=True)


def made(name):
    """The recipe of that name with a tiny network, and its agent, untrained."""
    rng = np.random.default_rng(0)
    shapes = (40, 17), (40, 4), (40,)
    data = Trajectories(*(rng.normal(size=shape).astype(np.float32) for shape in shapes), np.array([0]), "random")
    recipe = recipe_of(name, TASK, SPEC)
    small = RecurrentConfig(8, 1) if name == "recurrent" else TransformerConfig(width=8, depth=1, heads=2)
    recipe = replace(recipe, model=replace(recipe.model, model=small))
    torch.manual_seed(0)
    learner = recipe.learner(recipe.model)
    learner.fit_statistics(data)
    return recipe, recipe.agent(learner, recipe.acting, {})


def test_next_token_diffusion_differs_in_its_levels_and_in_what_it_has_missed_alone():
    (ours, _), (theirs, _) = made("default"), made("next-token")
    assert not ours.model.condition and ours.model.value is None, "imitation: no reward is read"
    changed = {"draws": {"next_token": 1.0}, "missing": 0.0}
    assert theirs.model == replace(ours.model, **changed) and theirs.train == ours.train
    plan = replace(ours.acting.plan, uncertainty=float(ours.acting.plan.steps))
    assert theirs.acting == replace(ours.acting, plan=plan, jumps=0.0)


def test_the_recurrent_recipe_differs_in_its_network_alone():
    ours, theirs = (recipe_of(name, TASK, SPEC) for name in ("default", "recurrent"))
    assert isinstance(theirs.model.model, RecurrentConfig)
    assert replace(theirs.model, model=ours.model.model) == ours.model
    assert (theirs.acting, theirs.train) == (ours.acting, ours.train)


def test_a_long_history_reaches_as_far_back_as_that_of_diffusion_forcing():
    ours, short, long = (
        recipe_of(name, TASK, SPEC).model for name in ("default", "diffusion-policy", "diffusion-policy-history")
    )
    assert long.history == ours.history * ours.layout.stride and short.history == 1
    assert long.decoder is not None and short.decoder is None


def test_what_is_missing_may_be_told_to_one_of_them_alone():
    observation = np.full((2, 17), np.nan)
    action = made("default")[1].act(observation)
    assert action.shape == (2, 4) and np.isfinite(action).all()
    with pytest.raises(ValueError, match="finite real numbers, got NaN"):
        made("next-token")[1].act(observation)


def test_an_observation_that_jumps_is_treated_as_one_that_is_missing():
    """Rows 0 and 1 see the same, but for one observation: an outlier for row 0, and none at all for row 1."""
    _, agent = made("default")
    with torch.no_grad():
        for parameter in agent.learner.parameters():
            parameter.normal_(std=0.1)
    agent.learner.largest.fill_(0.1)
    found = {}
    for jumps in (0.0, 1.0):
        own = agent.with_options(jumps=jumps)
        own.reset(seed=0)
        for step in range(12):
            seen = np.full((2, 17), 0.05 * step)
            if step in (3, 11):
                seen[0], seen[1] = 4.0, np.nan
            action = own.act(seen)
        found[jumps] = np.abs(action[0] - action[1]).max()
    assert found[1.0] < 1e-5 < found[0.0]
    with pytest.raises(ValueError, match="jumps needs a model that has learned from missing observations"):
        made("next-token")[1].with_options(jumps=1.0)


def test_what_is_not_remembered_changes_nothing():
    """Two histories that end alike: the same action for an agent that remembers nothing, another one for the whole agent."""
    _, agent = made("default")
    with torch.no_grad():
        for parameter in agent.learner.parameters():
            parameter.normal_(std=0.1)
    found = {}
    for remembered in (0, None):
        own, actions = agent.with_options(remembered=remembered), []
        for before in (-1.0, 1.0):
            own.reset(seed=0)
            for step in range(21):
                action = own.act(np.full(17, before if step < 20 else 0.0))
            actions.append(action)
        found[remembered] = np.abs(actions[0] - actions[1]).max()
    assert found[0] == 0 and found[None] > 0


def test_a_plan_is_followed_on_where_the_present_is_missing_and_as_long_as_it_lasts():
    _, agent = made("default")
    agent.reset(seed=0)
    agent.act(np.zeros((2, 17)))
    first = agent.last_plan
    planned = first.actions.clamp(agent.learner.action_low, agent.learner.action_high).numpy()
    half = np.zeros((2, 17))
    half[1] = np.nan
    for step in range(1, 20):
        action = agent.act(half)
        assert np.allclose(action[1], planned[1, step]), "row 1 sees nothing and goes on"
        assert len(agent.last_plan.lengths) == 1, "row 0 alone is planned for"
    agent.act(half)
    assert len(agent.last_plan.lengths) == 2, "all that was planned has been played"


def test_the_suite_stands_for_its_tasks_with_states_and_pictures_are_asked_for_by_name():
    family = suite.of(TASK)
    assert family.trained == ("memory-swap",) and len(family.tasks) == 3
    camera = find("memory-swap-camera-corrupted")
    assert suite.of(camera) is family and camera.data_id == "memory-swap-camera-v0"
    numbers = Features(keys=("camera", "gripper"))
    pictured = recipe_of("default", camera, replace(SPEC, observation_dim=37, features=numbers))
    states = made("default")[0]
    assert pictured.model.history == states.model.history and pictured.train == states.train
    assert pictured.acting == replace(states.acting, replan_every=8)


def test_of_plans_in_states_all_places_are_known_and_of_those_in_pictures_the_grippers():
    rows = np.arange(17.0)[None]
    every, gripper = (suite.of(TASK).places(find(name), rows) for name in ("memory-swap", "memory-swap-camera"))
    assert list(every) == ["gripper", "cube", "can"] and list(gripper) == ["gripper"]
    assert np.allclose(every["cube"], rows[:, 5:8] / 10 + [0.425, 0, 0])
    assert np.allclose(gripper["gripper"], rows[:, 12:15] / 10 + [0.425, 0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [memory_swap, corrupted_frames, latent_memory])
def test_an_experiment_plays_its_parts_and_draws_them(monkeypatch, experiment):
    pytest.importorskip("ogbench")
    monkeypatch.setattr(experiment, "built", lambda row="diffusion-forcing": made(rows.row(row).recipe)[1])
    monkeypatch.setattr(memory_swap, "find", lambda name: replace(find(name), max_episode_steps=3))
    played = {
        name: {"settings": settings, **experiment.play(settings)}
        for name, settings in experiment.parts(quick=True).items()
    }
    assert all(part["success"] == [False, False] for part in played.values())
    held, table = experiment.conclude(played)
    assert not held and all(name in table for name in played)
    assert experiment is latent_memory or experiment.figure(played).axes


def outcomes(experiment, rates, episodes=40):
    settings = experiment.parts(quick=False)
    return {
        name: {"settings": part, "success": [i < rate * episodes for i in range(episodes)]}
        for (name, part), rate in zip(settings.items(), rates, strict=True)
    }


@pytest.mark.parametrize(
    ("rates", "held"), [((0, 0.3, 0.8, 0.9), True), ((0, 0.9, 0.9, 0.9), False), ((0.3, 0.3, 0.8, 0.9), False)]
)
def test_memory_is_needed_where_less_of_it_succeeds_less_often(rates, held):
    played = outcomes(memory_swap, rates)
    assert memory_swap.conclude(played)[0] == held
    assert len(memory_swap.figure(played).axes) == 1


@pytest.mark.parametrize(
    ("rates", "held"),
    [
        ((0.9, 0.9, 0.85, 0.4, 0.8, 0.8, 0.1), True),
        ((0.9, 0.5, 0.9, 0.4, 0.8, 0.8, 0.1), False),
        ((0.9, 0.9, 0.5, 0.4, 0.8, 0.8, 0.1), False),
        ((0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.1), False),
    ],
)
def test_what_is_unknown_is_worth_something_where_it_saves_what_corruption_costs(rates, held):
    played = outcomes(corrupted_frames, rates)
    assert corrupted_frames.conclude(played)[0] == held
    assert len(corrupted_frames.figure(played).axes) == 1


@pytest.mark.parametrize(
    ("rates", "held"), [((0.9, 0.8, 0.85, 0.75), True), ((0.9, 0.8, 0.8, 0.8), False), ((0.9, 0.8, 0.9, 0.7), False)]
)
def test_a_latent_will_do_where_it_keeps_most_of_the_success_of_a_context(rates, held):
    verdict, table = latent_memory.conclude(outcomes(latent_memory, rates))
    assert verdict == held and "| context | 90.0" in table

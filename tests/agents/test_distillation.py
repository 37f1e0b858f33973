"""A policy is distilled from a planner: what it imitates is what the planner does, and it needs no plan."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from every_agent import diffuser, graph_search, trajectory_model
from sequence_toy import drives

import dfplan
from dfplan.agents.distillation import Lessons, distilled
from dfplan.agents.loading import load
from dfplan.benchmarks.recipes.budget import Budget
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import maze2d

PLANNERS = {
    "diffusion forcing": lambda: trajectory_model(goal="known", scale=0.0, futures=0, speed=1.5),
    "graph search": graph_search,
}


@pytest.fixture(scope="module")
def data():
    return drives(episodes=20)


def drawn(lessons, seed=0, count=500):
    return [part.numpy() for part in lessons(np.random.default_rng(seed), count)]


@pytest.mark.parametrize("make", PLANNERS.values(), ids=PLANNERS.keys())
def test_a_lesson_leads_to_where_the_planner_goes_as_its_plan_begins(make, data):
    planner = make()
    lessons = Lessons(planner, data, plans=1, spread=0.0, seeds=(3,))
    path = lessons._paths[0, : lessons._ends[0] + 1]
    states, _, _, ahead, _, goals = (part[0] for part in drawn(lessons))
    whole = (states == path[0]).all(1) & (goals == path[-1, :2]).all(1)
    assert 0 < whole.sum() < len(states) and (states[:, None] == path).all(2).any(1).all(), "states lie on the plan"
    # The same start, goal and seed bring the same plan.
    rng = np.random.default_rng(3)
    _, end = data.observations[rng.integers(len(data), size=(2, 1))][:, 0]
    planner.reset(goal=end[:2], seed=int(rng.integers(2**31)))
    expected = planner.act(path[0])
    recipe = distilled(planner)
    learner = recipe.learner(recipe.model)
    present, target = (learner.observation.normalize(torch.from_numpy(part)) for part in (path[:1], ahead[whole][:1]))
    action = learner.action.denormalize(learner.inverse(present, target, torch.tensor([planner.config.lookahead])))
    clipped = action[0].detach().clamp(learner.action_low, learner.action_high)
    np.testing.assert_allclose(clipped.numpy(), expected, atol=1e-5)
    resting = (states == goals[:, [0, 1, 0, 1]]).all(1) | (np.abs(ahead[:, :2] - goals) < 1e-6).all(1)
    assert resting.any() and len(np.unique(ahead, axis=0)) > 1


def test_states_are_moved_from_plans_and_a_seed_sees_the_same_beside_others(data):
    planner = PLANNERS["diffusion forcing"]()
    alone, both = (Lessons(planner, data, 3, 0.5, seeds) for seeds in ((0,), (0, 7)))
    for one, two in zip(drawn(alone), drawn(both), strict=True):
        assert np.array_equal(one[0], two[0]) and one.dtype == np.float32
    states, _, _, ahead, _, goals = (part[0] for part in drawn(both))
    assert not (states[:, None] == both._paths.reshape(-1, 4)).all(2).any(1).any()
    assert ahead.shape == (500, 4) and goals.shape == (500, 2)


def test_a_policy_of_a_planner_acts_without_it(data, tmp_path):
    planner = graph_search()
    planner.reset(goal=[0.6, 0.4], seed=0)
    planner.act(data.observations[0])
    followed = planner.followed()
    policy = dfplan.train(data, distilled(planner, plans=30, hidden=(64, 64)), steps=300, quiet=True)
    assert np.array_equal(planner.followed(), followed), "the planner's own episode goes on"
    assert all(
        torch.equal(policy.learner.inverse.state_dict()[k], v) for k, v in planner.learner.inverse.state_dict().items()
    )
    policy.save(tmp_path / "policy.safetensors")
    acting = load(tmp_path / "policy.safetensors", member=2)
    state, _, _, ahead, _, goal = (torch.from_numpy(part) for part in drawn(Lessons(planner, data, 30, 0.3, (9,))))
    learner = acting.learner
    change = learner.observation.normalize(ahead[0]) - learner.observation.normalize(state[0])
    guess = learner.pi.alone(2, learner.waves(learner.state(state[0], goal[0])))
    assert (guess - change).square().mean() < 0.5 * change.var(0).mean()
    acting.reset(goal=goal[0].numpy())
    actions = acting.act(state[0].numpy())
    assert actions.shape == (500, 2) and len(np.unique(actions, axis=0)) > 100
    with pytest.raises(ValueError, match="needs a goal"):
        acting.reset()
        acting.act(state[0].numpy())


def test_the_example_of_the_page_runs(data, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "distilled-policy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^<!-- test:distill -->\n```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dfplan, "load", lambda name: data)
    few = example.replace("distilled(planner)", "distilled(planner, plans=2, hidden=(8,))").replace(
        "minutes=5", "steps=2, quiet=True"
    )
    exec(few.replace("maze2d-large", "maze2d-umaze"), {})
    assert load(tmp_path / "policy.safetensors").goal_dim == 2


def test_only_a_planner_that_tracks_states_to_goals_has_a_policy_distilled():
    for planner in (diffuser(), trajectory_model(execution="diffused_actions")):
        with pytest.raises(ValueError, match="tracks them by inverse dynamics, not from this "):
            distilled(planner)


def test_a_planner_that_finds_no_plan_is_named(data, monkeypatch):
    planner = PLANNERS["diffusion forcing"]()
    monkeypatch.setattr(type(planner), "followed", lambda self, row: None)
    with pytest.raises(ValueError, match="found none of 3 plans"):
        Lessons(planner, data, 3, 0.5, (0,))


def test_the_recipe_of_a_maze_has_the_shipped_planner():
    recipe = RECIPES["distilled"](maze2d.SPEC, maze2d.BUDGETS["umaze"])
    assert recipe.model.goal_columns == (0, 1) and recipe.seeds == (0, 1, 2)
    with pytest.raises(ValueError, match="no planner is shipped for these data"):
        RECIPES["distilled"](maze2d.SPEC, Budget((1, 2), 2, (1, 2, 2), (1, 2), {}))

"""A policy is distilled from a planner: what it imitates is what the planner does, and it needs no plan."""

import re
from pathlib import Path

import numpy as np
import pytest
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
def test_a_lesson_is_what_the_planner_does_as_its_plan_begins(make, data):
    planner = make()
    lessons = Lessons(planner, data, plans=1, spread=0.0, seeds=(3,))
    (path,) = lessons._paths.numpy()
    states, actions, _, _, _, goals = (part[0] for part in drawn(lessons))
    whole = (states == path[0]).all(1) & (goals == path[-1, :2]).all(1)
    assert 0 < whole.sum() < len(states) and (states[:, None] == path).all(2).any(1).all(), "states lie on the plan"
    # The same start, goal and seed bring the same plan.
    rng = np.random.default_rng(3)
    _, end = data.observations[rng.integers(len(data), size=(2, 1))][:, 0]
    planner.reset(goal=end[:2], seed=int(rng.integers(2**31)))
    np.testing.assert_allclose(actions[whole][0], planner.act(path[0]), atol=1e-5)
    assert np.unique(actions[whole], axis=0).shape == (1, 2) and len(np.unique(actions, axis=0)) > 1


def test_states_are_moved_from_plans_and_a_seed_sees_the_same_beside_others(data):
    planner = PLANNERS["diffusion forcing"]()
    alone, both = (Lessons(planner, data, 3, 0.5, seeds) for seeds in ((0,), (0, 7)))
    for one, two in zip(drawn(alone), drawn(both), strict=True):
        np.testing.assert_allclose(one[0], two[0], atol=1e-6)
        assert one.dtype == np.float32
    states, actions, *_, goals = (part[0] for part in drawn(both))
    on_plans = (states[:, None] == both._paths.numpy().reshape(-1, 4)).all(2).any(1)
    assert not on_plans.any() and actions.shape == goals.shape == (500, 2)
    low, high = data.actions.min(0), data.actions.max(0)
    assert (actions >= low).all() and (actions <= high).all()


def test_a_policy_of_a_planner_acts_without_it(data, tmp_path):
    planner = graph_search()
    planner.reset(goal=[0.6, 0.4], seed=0)
    planner.act(data.observations[0])
    followed = planner.followed()
    policy = dfplan.train(data, distilled(planner, plans=30, hidden=(64, 64)), steps=300, quiet=True)
    assert np.array_equal(planner.followed(), followed), "the planner's own episode goes on"
    policy.save(tmp_path / "policy.safetensors")
    acting = load(tmp_path / "policy.safetensors", member=2)
    state, action, *_, goal = drawn(Lessons(planner, data, 30, 0.3, (9,)))
    acting.reset(goal=goal[0])
    error = np.square(acting.act(state[0]) - action[0]).mean()
    assert error < 0.5 * action[0].var(0).mean()
    with pytest.raises(ValueError, match="needs a goal"):
        acting.reset()
        acting.act(state[0])


def test_the_example_of_the_page_runs(data, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "distilled-policy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^<!-- test:distill -->\n```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dfplan, "load", lambda name: data)
    few = example.replace("plans=2_000", "plans=2, hidden=(8,)").replace("minutes=5", "steps=2, quiet=True")
    exec(few.replace("maze2d-large", "maze2d-umaze"), {})
    assert load(tmp_path / "policy.safetensors").goal_dim == 2


def test_only_a_planner_that_tracks_states_to_goals_has_a_policy_distilled():
    for planner in (diffuser(), trajectory_model(execution="diffused_actions")):
        with pytest.raises(ValueError, match="tracks them by inverse dynamics, not from this "):
            distilled(planner)


def test_the_recipe_of_a_maze_has_the_shipped_planner():
    recipe = RECIPES["distilled"](maze2d.SPEC, maze2d.BUDGETS["umaze"])
    assert recipe.model.goal_columns == (0, 1) and recipe.seeds == (0, 1, 2)
    with pytest.raises(ValueError, match="no planner is shipped for these data"):
        RECIPES["distilled"](maze2d.SPEC, Budget((1, 2), 2, (1, 2, 2), (1, 2), {}))

"""Two ways to ask for a goal: by a token in front of the others, or by a part of a plan's last token.

Both are patterns of noise levels. With the recipe 'chunks' a condition token holds the goal, and a plan is a few chunks of
actions that lead towards it. With 'plans' the goal's columns of the last token are known, a plan is as long as the path, and
inverse dynamics tracks it. Both are trained on the same data for the same number of steps; sizes follow from the data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dfplan.agents.recipes import recipe_for
from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.benchmarks.suites import suite
from dfplan.envs.registry import Task, find
from dfplan.training.fit import fit

CLAIM = "In cube-single the condition token succeeds more often, and in the large maze the goal at a plan's end scores more."
PAGE = "your-own-task"
TASKS = ("maze2d-large", "cube-single")
RECIPES = {"chunks": "a condition token, chunks of actions", "plans": "the last token's part, plans of states"}
EPISODES, STEPS, BATCH = 50, 2_000, 10


def parts(quick: bool) -> Settings:
    """Each recipe in each task: trained on the task's own data, then played on the protocol's first 50 episodes, or 5."""
    episodes, steps = (5, 200) if quick else (EPISODES, STEPS)
    return {
        f"{task}, {recipe}": {"task": task, "recipe": recipe, "steps": steps, "seed": 0, "episodes": episodes}
        for task in TASKS
        for recipe in RECIPES
    }


def play(settings: Part) -> Part:
    """The scores of the episodes, and what they are."""
    task = find(settings["task"])
    agent, seeds = trained(task, settings), protocol.evaluation_seeds(settings["episodes"])
    found = protocol.evaluate(agent, task.env_id, seeds, batch=BATCH)
    unit, scores = protocol.score(suite.of(task).reference(task), found.returns, found.success)
    numbers = {"scores": [round(float(score), 6) for score in scores], "returns": list(found.returns)}
    return {"unit": unit, "data": agent.card["data"]["steps"], **numbers}


def trained(task: Task, settings: Part) -> Any:
    """The agent, from its run folder under runs/ if it has been trained before."""
    data, own = suite.data_of(task), suite.of(task).spec
    if own is not None and not data.features.goal_columns:  # of data that do not say where goals stand
        data = replace(data, features=replace(data.features, goal_columns=own.goal_columns))
    recipe = recipe_for(data, settings["recipe"], steps=settings["steps"], seed=settings["seed"])
    return fit(
        recipe, data, Path("runs", "asking-for-goals", f"{settings['task']}-{settings['recipe']}-{settings['steps']}")
    )


def conclude(played: Parts) -> Verdict:
    """It held if in each task the whole interval of the expected recipe lies above the other's."""
    found = shared.means(
        {recipe: {task: [played[f"{task}, {recipe}"]["scores"]] for task in TASKS} for recipe in RECIPES}
    )
    chunks, plans = found["chunks"], found["plans"]
    held = shared.above(chunks["cube-single"], plans["cube-single"])
    held &= shared.above(plans["maze2d-large"], chunks["maze2d-large"])
    rows, first = [[words, *found[recipe].values()] for recipe, words in RECIPES.items()], played["cube-single, chunks"]
    units = " and ".join(f"{played[f'{task}, chunks']['unit']} in {task}" for task in TASKS)
    return held, shared.table(["goal", *TASKS], rows, ".1f") + (
        f"\n\nMean score of {first['settings']['episodes']} episodes with its 95% interval ({units}), after "
        f"{first['settings']['steps']:,} optimizer steps of one training seed; {first['data']:,} recorded steps of the cube.\n"
    )

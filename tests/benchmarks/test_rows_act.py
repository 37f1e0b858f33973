"""Every row that has weights plays what it says it can play: batches, goals of each row, and a recorded plan."""

import gymnasium
import numpy as np
import pytest

from dfplan.benchmarks import rows
from dfplan.envs.registry import task

PAIR = [100_000, 100_001]
FOR_ANY_DATA = {
    "distilled",
    "diffusion-forcing-actions",
    "diffusion-forcing-chunks",
    "diffusion-forcing-plans",
    "diffusion-forcing-recurrent",
    "diffusion-policy",
    "diffusion-policy-history",
    "gciql",
    "gru",
}
"""Rows that other suites or mazes are for: no weights of theirs are shipped for umaze."""


def started(env_id):
    """Observations (2, 4) and goals (2, 2) of two episodes."""
    env = gymnasium.make(env_id)
    begun = [env.reset(seed=seed) for seed in PAIR]
    env.close()
    return np.stack([observation for observation, _ in begun]), np.stack([info["goal"] for _, info in begun])


@pytest.mark.parametrize("env_id", ["maze2d-umaze-v1", "multi2d-umaze-v1"])
@pytest.mark.parametrize("name", rows.ROWS)
def test_a_row_acts_in_the_tasks_that_it_does_not_refuse(name, env_id):
    row, umaze = rows.row(name), task(env_id)
    if row.refusal(umaze) is not None:
        assert umaze.random_goal, "only random goals are refused"
        return
    try:
        agent = row.build(umaze, "cpu", row.training_seeds(umaze)[-1])
    except rows.MissingWeightsError:
        assert name in FOR_ANY_DATA, "only their weights are not shipped"
        return
    if name == "diffusion-forcing-mcg":
        agent = agent.with_options(horizons=2)  # sampled futures are slow, and the same for two lengths as for twenty
    observations, goals = started(env_id)
    agent.reset(goal=goals, seed=0)
    actions = agent.act(observations)
    assert actions.shape == (2, 2) and np.isfinite(actions).all()


@pytest.mark.parametrize("name", ["diffusion-forcing", "diffuser-pd", "decision-diffuser"])
def test_a_planner_that_comes_first_in_a_table_has_its_denoising_recorded(name):
    row, umaze = rows.row(name), task("maze2d-umaze-v1")
    agent = row.build(umaze, "cpu", 0)
    observations, goals = started(umaze.env_id)
    agent.reset(goal=goals[0], seed=0)
    plan = agent.plan(observations[0], record=True)
    used = int(plan.lengths[0]) + 1  # tokens beyond a plan's length stay noise
    first, levels = plan.history[0]
    assert levels[0, :used].max() > 0 and plan.history[-1][1][0, :used].max() == 0
    assert first.shape == plan.observations.shape


def test_a_device_that_a_trained_agent_cannot_use_is_refused():
    umaze = task("maze2d-umaze-v1")
    with pytest.raises(ValueError, match="StableBaselinesAgent computes on the CPU only"):
        rows.row("sac").build(umaze, "cuda", 0)
    rows.row("expert").build(umaze, "cuda")  # computes with nothing that a device could hold

"""Gymnasium-Robotics' Fetch: dictionary observations with their goals. Scored by success at any step."""

from dfplan.benchmarks.suites.suite import Suite

SUITE = Suite(
    tasks=("FetchReach", "FetchPush"),
    rows=("diffusion-forcing-plans", "random"),
    recipes={"default": "dfplan.benchmarks.recipes.diffusion_forcing:plans"},
    places=lambda task, observations: {"gripper": observations[..., :3]},
)

"""The recipes of online reinforcement learning by stable-baselines3, which meets no data: it learns in the environment.

'sac', 'td3' and 'ppo' learn a task's own goal, 'her' to reach any goal (SAC with hindsight). Each is a function of the name
of the weights, of the id of the environment that is learned in, and of the task's budget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dfplan.agents.online.recipe import OnlineRecipe
from dfplan.benchmarks.recipes.budget import Budget

# Fused, because a small network's time goes into the calls; it is the same Adam.
NETS = {"net_arch": [64, 64], "optimizer_kwargs": {"fused": True}}
SHARED: dict[str, Any] = {"gamma": 0.99, "learning_rate": 1e-3, "policy_kwargs": NETS}
ON_POLICY = SHARED | {"n_steps": 128, "batch_size": 1024, "n_epochs": 4, "ent_coef": 0.01}
OFF_POLICY = SHARED | {"batch_size": 256, "buffer_size": 300_000, "learning_starts": 5_000}
"""A step of the optimizer for each step of the copies, stable-baselines3's default."""


def ppo(weights: str, env_id: str, budget: Budget) -> OnlineRecipe:
    """PPO, the only one that learns from what it has just seen, and so of many copies."""
    return OnlineRecipe(weights, env_id, "PPO", budget.steps["ppo"], copies=32, settings=ON_POLICY)


def sac(weights: str, env_id: str, budget: Budget) -> OnlineRecipe:
    """SAC with returns of three steps."""
    settings = OFF_POLICY | {"n_steps": 3}
    return OnlineRecipe(weights, env_id, "SAC", budget.steps["sac"], settings=settings)


def td3(weights: str, env_id: str, budget: Budget) -> OnlineRecipe:
    """TD3 with returns of three steps and wide noise on its actions."""
    settings = OFF_POLICY | {"n_steps": 3}
    return OnlineRecipe(weights, env_id, "TD3", budget.steps["td3"], settings=settings, noise=0.5)


def her(weights: str, env_id: str, budget: Budget) -> OnlineRecipe:
    """SAC that learns from each transition towards four goals in hindsight besides its own."""
    return OnlineRecipe(weights, env_id, "SAC", budget.steps["sac"], settings=OFF_POLICY, hindsight=4)


ONLINE: dict[str, Callable[[str, str, Budget], OnlineRecipe]] = {"ppo": ppo, "sac": sac, "td3": td3, "her": her}
"""By name."""

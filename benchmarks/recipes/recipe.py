"""The recipes by name: functions of a task's widths and budget. A row of the table names the recipe of its weights."""

from __future__ import annotations

from collections.abc import Callable

from dfplan.benchmarks.recipes import baselines, diffusion_forcing
from dfplan.benchmarks.recipes.budget import Budget
from dfplan.data.spec import Spec
from dfplan.training.fit import Recipe

RECIPES: dict[str, Callable[[Spec, Budget], Recipe]] = {
    "default": diffusion_forcing.default,
    "chunks": diffusion_forcing.chunks,
    "plans": diffusion_forcing.plans,
    "paper": diffusion_forcing.paper,
    "recurrent": diffusion_forcing.recurrent,
    "actions": diffusion_forcing.actions,
    "short": diffusion_forcing.short,
    "full-sequence": diffusion_forcing.full_sequence,
    "next-token": diffusion_forcing.next_token,
    "bc": baselines.bc,
    "iql": baselines.iql,
    "cql": baselines.cql,
    "td3-bc": baselines.td3_bc,
    "awac": baselines.awac,
    "gciql": baselines.gciql,
    "distilled": baselines.distilled,
    "diffuser": baselines.diffuser,
    "decision-diffuser": baselines.decision_diffuser,
    "diffusion-policy": baselines.diffusion_policy,
    "diffusion-policy-history": baselines.diffusion_policy_history,
    "dv": baselines.veteran,
    "gru": baselines.gru,
    "dynamics": baselines.dynamics,
    "graph-search": baselines.graph_search,
}
"""Recipes that learn from recorded data; those that learn in the environment are in `dfplan.benchmarks.recipes.online`."""

"""D4RL's kitchen on the data that Minari publishes. Scored as D4RL does: 25 for each of the four things that is done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dfplan.benchmarks.suites.suite import Suite
from dfplan.data.spec import Spec
from dfplan.envs.reference import reference
from dfplan.envs.registry import KITCHENS, Task


def extremes(task: Task) -> dict[str, float]:
    """The raw returns that D4RL's score calls 0 and 100."""
    entry = reference(task.env_id)
    return {"min": entry.min_return, "max": entry.max_return}


def read(task: Task, source: Any) -> Any:
    """The data; of Minari's dictionaries the entry `observation`, which is what the task shows."""
    from dfplan.data.features import AS_RECORDED, Features  # late: torch takes seconds to import
    from dfplan.data.readers import load

    if "/" not in str(source) or str(source).endswith((".hdf5", ".h5", ".npz")):
        return load(source)
    return replace(load(source, features=Features(keys=("observation",)), goal=()), features=AS_RECORDED)


SUITE = Suite(
    tasks=tuple(f"kitchen-{level}-minari" for level in KITCHENS),
    rows=("diffusion-forcing", "bc", "random"),
    reference=extremes,
    spec=Spec(observation_dim=59, action_dim=9, longest=280, rewards=True),
    read=read,
    recipes={"default": "dfplan.benchmarks.recipes.diffusion_forcing:chunks"},
)

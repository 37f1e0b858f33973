"""One decision of an agent in each form that a run needs, before any episode is played."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from dfplan.benchmarks.importing import blame
from dfplan.benchmarks.protocol import TUNING_SEEDS, planned_path

BATCH = 2


def decide(agent: Any, name: str, env_id: str) -> None:
    """Ask for an action of one observation, as timing does, and for those of a batch, as playing does.

    ValueError, with one sentence, if the agent fails, or if its actions have another shape or are not finite.
    """
    env = gymnasium.make(env_id, disable_env_checker=True)
    observation, info = env.reset(seed=TUNING_SEEDS.start)
    width = env.action_space.shape or ()
    env.close()
    for rows in ((), (BATCH,)):
        observations = np.broadcast_to(observation, (*rows, *observation.shape)).copy()
        goals = np.broadcast_to(info["goal"], (*rows, *np.shape(info["goal"]))).copy()
        form = f"{f'a batch of {BATCH} observations' if rows else 'one observation'} {observations.shape}"
        try:
            agent.reset(goal=goals, seed=TUNING_SEEDS.start)
            actions = agent.act(observations)
            if rows:
                planned_path(agent, 0)
        except (Exception, SystemExit) as error:
            raise ValueError(f"the agent {name!r} failed on {env_id} with {form}: {blame(error)}") from error
        expected = (*rows, *width)
        if np.shape(actions) != expected:
            raise ValueError(
                f"the agent {name!r} answers {form} with actions {np.shape(actions)}; expected the shape {expected}"
            )
        if not np.isfinite(np.asarray(actions, dtype=float)).all():
            raise ValueError(f"the agent {name!r} answers {form} with NaN or infinity")

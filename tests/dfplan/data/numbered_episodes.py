"""Small episodes whose rows say where they stand."""

import numpy as np

from dfplan.data.features import Features
from dfplan.data.trajectories import Trajectories


def numbered(lengths: list[int], last: bool = True) -> Trajectories:
    """Observations are (episode, step within it), actions the flat index; with `last`, last observations go on counting."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    flat = np.arange(len(step), dtype=np.float32)
    return Trajectories(
        np.float32(np.stack([episode, step], axis=1)),
        flat[:, None],
        flat,
        np.cumsum([0, *lengths[:-1]], dtype=np.int64),
        "numbered",
        last_observations=np.float32(np.stack([np.arange(len(lengths)), lengths], axis=1)) if last else None,
        features=Features(goal_columns=(1, 0)),
    )

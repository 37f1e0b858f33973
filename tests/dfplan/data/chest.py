"""Play with a chest: its lid moves only while the lock is open, and a ball gets in only while the lid is up."""

import numpy as np

from dfplan.data.features import Features
from dfplan.data.trajectories import Trajectories

COLUMNS, GROUPS, KINDS = (0, 1, 2, 3), (1, 1, 2), (2, 2, 2)
"""The lock (0 or 1), the lid (0 to 0.6 down, 4 up), the ball (place, height): on the floor up to (2, 0), or in at (6, 1)."""
MOVE = 8
"""Steps of one move: half of them in motion, the others at rest. The lock turns at once."""


def play(episodes: int = 12, moves: int = 40, seed: int = 0) -> Trajectories:
    """Episodes of `MOVE * moves` steps, each move one that the rules allow, drawn at random."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(episodes):
        state = np.array([0.0, 0.0, rng.uniform(0, 2), 0.0])
        for _ in range(moves):
            before, state = state, _moved(state, rng)
            along = np.minimum(np.arange(1, MOVE + 1) / (MOVE / 2), 1)[:, None]
            rows.append(before + along * (state - before))
            rows[-1][:, 0] = state[0]
    table = np.float32(np.concatenate(rows))
    starts = np.arange(episodes, dtype=np.int64) * moves * MOVE
    flat = np.zeros(len(table), np.float32)
    return Trajectories(table, flat[:, None], flat, starts, "chest", features=Features(goal_columns=COLUMNS))


def _moved(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    state, inside = state.copy(), state[3] > 0.5
    kind = rng.choice(["lock", *["lid"] * int(state[0] > 0.5), *["ball"] * int(not inside or state[1] > 2)])
    if kind == "lock":
        state[0] = 1 - state[0]
    elif kind == "lid":
        state[1] = 4 if state[1] < 2 else rng.uniform(0, 0.6)
    else:
        into = not inside and state[1] > 2 and rng.random() < 0.5
        state[2:] = (6, 1) if into else (rng.uniform(0, 2), 0)
    return state

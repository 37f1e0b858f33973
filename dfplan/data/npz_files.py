"""npz files of arrays of steps, as OGBench publishes them."""

from pathlib import Path

from dfplan.data.array_files import open_npz, read_npz
from dfplan.data.episodes import KEYS, of_arrays, require_keys
from dfplan.data.trajectories import Trajectories


def load_npz(path: str | Path) -> Trajectories:
    """Read an npz file of arrays of steps: `observations`, `actions`, and where episodes end.

    OGBench's files hold `terminals`, optionally `next_observations`, `masks` and `valids`; other arrays, such as `qpos`, are
    not read. Their `terminals` mark the last row of an episode, which is a cut-off and not a termination. In a file with
    `rewards` and neither `masks` nor `valids` they are terminations, as in D4RL. All forms: `dfplan.data.episodes`.

    Raises FileNotFoundError, or ValueError naming file and key, as `load_d4rl_hdf5` does.
    """
    path = Path(path).expanduser()
    with open_npz(path) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()}
        arrays = {key: read_npz(archive, key, ndim, path) for key, ndim in KEYS.items() if key in there}
    require_keys(there, str(path))
    return of_arrays(arrays, str(path))

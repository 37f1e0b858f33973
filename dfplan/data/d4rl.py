"""D4RL's data: HDF5 files in its layout, and its own datasets by their names."""

import difflib
import os
import urllib.request
from pathlib import Path

import numpy as np

from dfplan.data.array_files import find, open_hdf5, read_hdf5
from dfplan.data.episodes import KEYS, d4rl_form
from dfplan.data.trajectories import Trajectories


def load_d4rl_hdf5(path: str | Path, cut_at_flags: bool | None = None) -> Trajectories:
    """Read an HDF5 file in D4RL's layout: `observations`, `actions`, `rewards`, `terminals`, optionally `timeouts`,
    `next_observations` and `infos/goal`; an episode ends where `terminals` or `timeouts` is set, and at the end of the
    file. `terminals` are the terminations; where `timeouts` alone is set, the episode was truncated.

    The maze2d files (v1) are different: each is one drive without any reset. `terminals` is never set in the published
    files, and `timeouts` is set where the driver reached its random target, or ran out of time, and was given the next
    one (D4RL issue 85; scripts/generation/generate_maze2d_datasets.py, whose own output sets `terminals` there). The
    ball rolls on, so such a flag is no end: cutting there would leave drives of about 150 steps, shorter than a plan,
    and hide how one drive joins the next. Hence, in a file with `infos/goal`, flags across which the position (first
    two columns) never moves further than it does elsewhere do not cut, and nothing terminates. Two oddities of these
    files are left as they are: the observation after a new target repeats the one before it, and a reward belongs to the
    observation of its own row, not to the next (D4RL issue 194).

    Args:
        path: the file.
        cut_at_flags: True always cuts at the flags, False never; None decides as said above.

    Raises FileNotFoundError, or ValueError naming file and key: truncated file, a file that another program holds open,
    missing key, links, NaN, wrong shape or type, sizes that the file has no room for.
    """
    path = Path(path).expanduser()
    with open_hdf5(path) as file:
        arrays = {
            key: read_hdf5(file, key, KEYS[key], path) for key in ("observations", "actions", "rewards", "terminals")
        }
        for key in ("timeouts", "next_observations"):
            if find(file, key, path):
                arrays[key] = read_hdf5(file, key, KEYS[key], path)
        has_targets = find(file, "infos/goal", path) is not None
    if cut_at_flags is None:
        cut_at_flags = not has_targets or not _rolls_on(d4rl_form(arrays, str(path)))
    return d4rl_form(arrays, str(path), cut_at_flags)


def _rolls_on(data: Trajectories) -> bool:
    """Whether the position, the first two columns, nowhere jumps from one episode to the next."""
    moves = np.linalg.norm(np.diff(data.observations[:, :2], axis=0), axis=1)
    starts = data.episode_starts[1:]
    across = moves[starts - 1]
    moves[starts - 1] = 0
    return len(starts) > 0 and bool(across.max() <= 2 * moves.max())


def load_d4rl(name: str) -> Trajectories:
    """Read one of D4RL's own datasets, such as 'maze2d-large-v1', at the address the installed `d4rl` gives for it.
    The file is downloaded once, into d4rl's folder ($D4RL_DATASET_DIR, by default ~/.d4rl/datasets).

    d4rl cannot be installed with what it declares (mujoco-py, an old gym); beside dfplan, this is enough for its data:
    `pip install --no-deps d4rl==1.1 gym==0.26.2 tqdm`, then D4RL_SUPPRESS_IMPORT_ERROR=1 quiets its imports.

    Raises ImportError when d4rl is missing, ValueError for an unknown name, ConnectionError when the download fails
    (nothing is left behind), and what `load_d4rl_hdf5` raises.
    """
    try:
        import d4rl.infos
        import d4rl.offline_env
    except ImportError as error:
        raise ImportError(
            "Reading D4RL's datasets by name needs the d4rl package (pip install --no-deps d4rl==1.1 gym==0.26.2 tqdm)."
        ) from error
    addresses = d4rl.infos.DATASET_URLS
    if name not in addresses:
        close = difflib.get_close_matches(name, addresses, n=3)
        raise ValueError(f"d4rl has no dataset '{name}'" + (f"; close to it: {', '.join(close)}." if close else "."))
    path = Path(d4rl.offline_env.filepath_from_url(addresses[name]))
    if not path.exists():
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            urllib.request.urlretrieve(addresses[name], partial)
            os.replace(partial, path)
        except OSError as error:
            raise ConnectionError(f"Could not download '{name}' from {addresses[name]}: {error}.") from error
        finally:
            partial.unlink(missing_ok=True)
    return load_d4rl_hdf5(path)

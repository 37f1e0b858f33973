"""Readers of recorded behaviour: Minari datasets, D4RL's HDF5 files and package, OGBench's npz, into `Trajectories`."""

import difflib
import os
import urllib.request
from pathlib import Path

import numpy as np

from dfplan.data.array_files import find, open_hdf5, open_npz, read_hdf5, read_npz
from dfplan.data.minari_sets import is_minari_id, load_minari
from dfplan.data.trajectories import FloatArray, Trajectories


def load(spec: str | Path) -> Trajectories:
    """Read what `spec` names: a path ending in .hdf5 or .h5 is a D4RL file, one in .npz a file in OGBench's form,
    'd4rl:NAME' one of D4RL's own datasets, anything else a Minari id, downloaded when it is not in the local store.

    Endings may be in capitals, and '~' stands for the home folder. Raises ValueError for a path that is none of these,
    and what `load_d4rl_hdf5`, `load_npz`, `load_d4rl` or `load_minari` raises.
    """
    name = str(spec)
    if name.startswith("d4rl:"):
        return load_d4rl(name.removeprefix("d4rl:"))
    path = _path(spec)
    suffix = path.suffix.lower()
    if suffix in (".hdf5", ".h5"):
        return load_d4rl_hdf5(path)
    if suffix == ".npz":
        return load_npz(path)
    if isinstance(spec, Path) or not is_minari_id(name):
        raise ValueError(
            f"'{name}' names no data: expected a file ending in .hdf5, .h5 or .npz, 'd4rl:NAME', or a Minari id with its "
            "version, such as 'D4RL/pointmaze/large-v2'."
        )
    return load_minari(name, download=True)


def _path(spec: str | Path) -> Path:
    try:
        return Path(spec).expanduser()
    except RuntimeError:  # a user whose home is not known
        return Path(spec)


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
    path = _path(path)
    with open_hdf5(path) as file:
        observations, actions = (read_hdf5(file, key, 2, path) for key in ("observations", "actions"))
        rewards, terminations = (read_hdf5(file, key, 1, path) for key in ("rewards", "terminals"))
        timeouts = read_hdf5(file, "timeouts", 1, path) if find(file, "timeouts", path) else np.zeros_like(terminations)
        following = read_hdf5(file, "next_observations", 2, path) if find(file, "next_observations", path) else None
        has_targets = find(file, "infos/goal", path) is not None
    arrays = {"observations": observations, "actions": actions, "rewards": rewards, "terminals": terminations}
    _same_length(path, **arrays, timeouts=timeouts)
    flags = (terminations != 0) | (timeouts != 0)
    starts = np.flatnonzero(flags[:-1]) + 1
    if cut_at_flags is None:
        cut_at_flags = not has_targets or not _rolls_on(observations[:, :2], starts)
    episode_starts = np.append(0, starts if cut_at_flags else []).astype(np.int64)
    return Trajectories(
        observations,
        actions,
        rewards,
        episode_starts,
        str(path),
        terminations=(terminations != 0) & cut_at_flags,
        last_observations=_after_ends(path, following, observations, episode_starts),
    )


def load_npz(path: str | Path) -> Trajectories:
    """Read an npz file in OGBench's form: `observations`, `actions`, `terminals`, optionally `rewards` and `masks`.

    An episode ends where `terminals` is set, by running out of time. Its last row holds the observation after its last
    action (`Trajectories.last_observations`); an action and a reward in that row belong to no step. Files with
    `next_observations` (OGBench's regular form) hold steps only, files with `valids` (its compact form) say themselves
    which rows are last ones. The task terminates where `masks` is 0. Without `rewards`, they are 0.

    Raises FileNotFoundError, or ValueError naming file and key, as `load_d4rl_hdf5` does.
    """
    path = _path(path)
    with open_npz(path) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()}
        arrays = {key: read_npz(archive, key, 2, path) for key in ("observations", "actions")}
        if "next_observations" in there:
            arrays["next_observations"] = read_npz(archive, "next_observations", 2, path)
        for key in ("terminals", *sorted(there & {"rewards", "masks", "valids"})):
            arrays[key] = read_npz(archive, key, 1, path)
    _same_length(path, **arrays)
    observations, ends = arrays["observations"], arrays["terminals"] != 0
    following = arrays.get("next_observations")
    if following is None:
        closing = arrays["valids"] == 0 if "valids" in arrays else ends
        closing[-1] = True
        steps = ~closing
        if (closing[1:] & closing[:-1]).any() or closing[0]:
            raise ValueError(
                f"{path}: an episode needs a step and a last row; 'terminals' must be set at last rows only."
            )
        starts = np.flatnonzero(steps[1:] & closing[:-1]) + 1
        starts = np.append(0, starts - np.arange(1, len(starts) + 1))  # counted without the last rows before
        last_observations = observations[closing]
    else:
        steps = np.ones(len(ends), bool)
        starts = np.append(0, np.flatnonzero(ends[:-1]) + 1)
        last_observations = _after_ends(path, following, observations, starts)
    rewards = arrays.get("rewards", np.zeros(len(steps), np.float32))
    return Trajectories(
        observations[steps],
        arrays["actions"][steps],
        rewards[steps],
        starts.astype(np.int64),
        str(path),
        terminations=arrays["masks"][steps] == 0 if "masks" in arrays else None,  # type: ignore[arg-type]
        last_observations=last_observations,
    )


def _after_ends(
    path: Path, following: FloatArray | None, observations: FloatArray, episode_starts: np.ndarray
) -> FloatArray | None:
    """The rows of `next_observations` (N, obs_dim) that belong to the last steps of the episodes."""
    if following is None:
        return None
    if following.shape != observations.shape:
        raise ValueError(
            f"{path}: 'next_observations' has shape {following.shape} but 'observations' {observations.shape}."
        )
    return following[np.append(episode_starts[1:], len(following)) - 1]


def _rolls_on(positions: FloatArray, starts: np.ndarray) -> bool:
    """Whether the position (N, 2) nowhere jumps between step `starts - 1` and step `starts`."""
    moves = np.linalg.norm(np.diff(positions, axis=0), axis=1)
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
        raise ValueError(f"d4rl knows no dataset '{name}'" + (f"; close to it: {', '.join(close)}." if close else "."))
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


def _same_length(path: Path, **arrays: np.ndarray) -> None:
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: the arrays differ in length: {lengths}.")

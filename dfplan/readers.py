"""Readers of recorded behaviour: Minari datasets, D4RL's HDF5 files and the `d4rl` package, into `Trajectories`."""

import difflib
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dfplan.datasets import FloatArray, Trajectories, check_steps


def load(spec: str | Path) -> Trajectories:
    """Read what `spec` names: a path ending in .hdf5 or .h5 is a D4RL file, 'd4rl:NAME' one of D4RL's own datasets,
    anything else a Minari id, downloaded when it is not in the local store.

    Raises what `load_d4rl_hdf5`, `load_d4rl` or `load_minari` raises.
    """
    if Path(spec).suffix in (".hdf5", ".h5"):
        return load_d4rl_hdf5(spec)
    name = str(spec)
    return load_d4rl(name.removeprefix("d4rl:")) if name.startswith("d4rl:") else load_minari(name, download=True)


def load_minari(dataset_id: str, download: bool = False) -> Trajectories:
    """Read a Minari dataset, such as 'dfplan/maze2d-large-v1', straight from its HDF5 file into flat float32 arrays.

    A Minari episode holds T + 1 observations for T actions: the T that have an action are kept. Goal-conditioned sets
    (D4RL/pointmaze/*) have dictionary observations: 'observation' is taken, the goals are left.

    Args:
        dataset_id: the id in Minari's local store ($MINARI_DATASETS_PATH, by default ~/.minari/datasets).
        download: fetch the dataset from Minari's server when it is not in the local store.

    Raises FileNotFoundError when the dataset is neither there nor can be downloaded, ImportError when a download needs
    a package that is missing, ValueError naming file and key for a broken file.
    """
    try:
        spec = _minari_spec(dataset_id)
    except FileNotFoundError as error:
        if not download:
            raise FileNotFoundError(f"There is no local Minari dataset '{dataset_id}'.") from error
        _download_minari(dataset_id)
        spec = _minari_spec(dataset_id)
    path = Path(spec.data_path) / "main_data.hdf5"
    with _open(path) as file:
        episodes = [_minari_episode(file, f"episode_{i}", path) for i in range(spec.total_episodes)]
    if not episodes:
        raise ValueError(f"{path}: the dataset holds no episode.")
    lengths = np.array([len(rewards) for _, _, rewards in episodes])
    observations, actions, rewards = zip(*episodes, strict=True)
    return Trajectories(
        _join(observations, "observations", path),
        _join(actions, "actions", path),
        np.concatenate(rewards),
        np.cumsum(lengths) - lengths,
        dataset_id,
    )


def load_d4rl_hdf5(path: str | Path, cut_at_flags: bool | None = None) -> Trajectories:
    """Read an HDF5 file in D4RL's layout: `observations`, `actions`, `rewards`, `terminals`, optionally `timeouts` and
    `infos/goal`; an episode ends where `terminals` or `timeouts` is set, and at the end of the file.

    The maze2d files (v1) are different: each is one drive without any reset. `terminals` is never set in the published
    files, and `timeouts` is set where the driver reached its random target, or ran out of time, and was given the next
    one (D4RL issue 85; scripts/generation/generate_maze2d_datasets.py, whose own output sets `terminals` there). The
    ball rolls on, so such a flag is no end: cutting there would leave drives of about 150 steps, shorter than a plan,
    and hide how one drive joins the next. Hence, in a file with `infos/goal`, flags across which the position (first
    two columns) never moves further than it does elsewhere do not cut. Two oddities of these files are left as they
    are: the observation after a new target repeats the one before it, and a reward belongs to the observation of its
    own row, not to the next (D4RL issue 194).

    Args:
        path: the file.
        cut_at_flags: True always cuts at the flags, False never; None decides as said above.

    Raises FileNotFoundError, or ValueError naming file and key: truncated file, missing key, NaN, wrong shape or type.
    """
    path = Path(path)
    with _open(path) as file:
        observations, actions = (_read(file, key, 2, path) for key in ("observations", "actions"))
        rewards, ends = _read(file, "rewards", 1, path), _read(file, "terminals", 1, path) != 0
        if "timeouts" in file:
            timeouts = _read(file, "timeouts", 1, path)
            _same_length(path, observations=observations, timeouts=timeouts)
            ends |= timeouts != 0
        has_targets = "infos/goal" in file
    _same_length(path, observations=observations, actions=actions, rewards=rewards, terminals=ends)
    starts = np.flatnonzero(ends[:-1]) + 1
    if cut_at_flags is None:
        cut_at_flags = not has_targets or not _rolls_on(observations[:, :2], starts)
    episode_starts = np.append(0, starts if cut_at_flags else []).astype(np.int64)
    return Trajectories(observations, actions, rewards, episode_starts, str(path))


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


def _minari_spec(dataset_id: str) -> Any:
    """Minari's own description of a local dataset: where it lies and how many episodes it has."""
    import minari  # here, so that reading a file by its path does not need it

    try:
        return minari.load_dataset(dataset_id).spec
    except (ValueError, KeyError, AssertionError) as error:  # what Minari raises for metadata it cannot use
        raise ValueError(f"Minari cannot open its dataset '{dataset_id}': {type(error).__name__} {error}.") from error


def _download_minari(dataset_id: str) -> None:
    import minari

    try:
        minari.download_dataset(dataset_id)
    except ImportError as error:
        raise ImportError(
            f"Minari dataset '{dataset_id}' is not on this machine, and downloading it needs huggingface_hub: "
            "install dfplan[hub]."
        ) from error
    except Exception as error:  # the hub's client has many kinds of network errors, some of them no OSError
        cause = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise FileNotFoundError(
            f"Minari dataset '{dataset_id}' is not on this machine and could not be downloaded ({cause})."
        ) from error


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a whole HDF5 file; it is truncated or of another kind.") from error
    with file:
        yield file


def _minari_episode(file: h5py.File, episode: str, path: Path) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Observations (T, obs_dim), actions (T, act_dim) and rewards (T,) of one episode."""
    key = f"{episode}/observations"
    if isinstance(file.get(key), h5py.Group):
        key += "/observation"
    observations, actions = _read(file, key, 2, path), _read(file, f"{episode}/actions", 2, path)
    rewards = _read(file, f"{episode}/rewards", 1, path)
    if not len(observations) - 1 == len(actions) == len(rewards):
        raise ValueError(
            f"{path}: '{key}' has {len(observations)} rows, 'actions' {len(actions)} and 'rewards' {len(rewards)}; "
            "expected one observation more than actions, and as many rewards as actions."
        )
    return observations[:-1], actions, rewards


def _read(file: h5py.File, key: str, ndim: int, path: Path) -> FloatArray:
    """The whole array at `key` as float32. A column (N, 1) is taken where (N,) is expected, as d4rl does."""
    item = file.get(key)
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{path}: the key '{key}' is missing.")
    try:
        array = np.asarray(item[()])
    except OSError as error:
        raise ValueError(f"{path}: '{key}' cannot be read; the file is truncated or damaged.") from error
    if ndim == 1 and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    check_steps(array, key, ndim, str(path))
    return array.astype(np.float32, copy=False)


def _same_length(path: Path, **arrays: np.ndarray) -> None:
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: the arrays differ in length: {lengths}.")


def _join(parts: tuple[FloatArray, ...], key: str, path: Path) -> FloatArray:
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) > 1:
        raise ValueError(f"{path}: the episodes' '{key}' differ in width: {widths}.")
    return np.concatenate(parts)

"""Readers of recorded behaviour: Minari datasets, D4RL's HDF5 files and package, OGBench's npz, into `Trajectories`."""

import difflib
import os
import re
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic reads typing's own from Python 3.12 on

from dfplan.array_files import check_hdf5_tree, find, open_hdf5, open_npz, read_hdf5, read_npz, require_ordinary
from dfplan.config_json import checked
from dfplan.datasets import BoolArray, FloatArray, Trajectories, check_steps
from dfplan.fields import Whole
from dfplan.whole_files import opened


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
    if isinstance(spec, Path) or not _MINARI_ID.fullmatch(name):
        raise ValueError(
            f"'{name}' names no data: expected a file ending in .hdf5, .h5 or .npz, 'd4rl:NAME', or a Minari id with its "
            "version, such as 'D4RL/pointmaze/large-v2'."
        )
    return load_minari(name, download=True)


_MINARI_ID = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")


def _path(spec: str | Path) -> Path:
    try:
        return Path(spec).expanduser()
    except RuntimeError:  # a user whose home is not known
        return Path(spec)


def load_minari(dataset_id: str, download: bool = False) -> Trajectories:
    """Read a Minari dataset, such as 'dfplan/maze2d-large-v1', of whichever data format, into flat arrays.

    Rewards, terminations and truncations are kept, and so is the observation after an episode's last action, as
    `Trajectories.last_observations`. Goal-conditioned sets (D4RL/pointmaze/*) have dictionary observations: 'observation'
    is taken, the goals are left.

    Args:
        dataset_id: the id in Minari's local store ($MINARI_DATASETS_PATH, by default ~/.minari/datasets).
        download: fetch the dataset from Minari's server when it is not in the local store.

    Raises FileNotFoundError when the dataset is neither there nor can be downloaded, ImportError when a download or a
    data format needs a package that is missing, ValueError naming file and key for a broken file.
    """
    if not _MINARI_ID.fullmatch(dataset_id):
        raise ValueError(f"'{dataset_id}' is no Minari id with its version, such as 'D4RL/pointmaze/large-v2'.")
    try:
        return _local_minari(dataset_id)
    except FileNotFoundError as error:
        if not download:
            raise FileNotFoundError(f"There is no local Minari dataset '{dataset_id}'.") from error
    _download_minari(dataset_id)
    return _local_minari(dataset_id)


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
            raise ValueError(f"{path}: an episode needs a step and a last row; 'terminals' must be set at last rows only.")
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


class _Metadata(TypedDict):
    """What Minari needs of a dataset's metadata. Without its spaces Minari would run code that the metadata name."""

    dataset_id: str
    minari_version: str
    data_format: str
    total_episodes: Whole
    total_steps: Whole
    observation_space: str
    action_space: str


LONGEST_METADATA = 2**26
"""Bytes of a Minari dataset's metadata: the limits of image observations are written out in it."""


def _local_minari(dataset_id: str) -> Trajectories:
    """Read a dataset of the local store; FileNotFoundError if there is none."""
    import minari  # here, so that reading a file by its path does not need it
    from minari.storage.datasets_root_dir import get_dataset_path

    folder = Path(get_dataset_path(dataset_id)) / "data"
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}'.")
    metadata = _minari_metadata(folder / "metadata.json")
    form = metadata["data_format"]
    where = folder / "main_data.hdf5" if form == "hdf5" else folder
    if form == "hdf5":
        with open_hdf5(where) as file:
            there = check_hdf5_tree(file, where)
            _check_episodes(where, metadata["total_episodes"], len(file))
        for i in range(metadata["total_episodes"]):
            for key in ("observations", "actions", "rewards", "terminations", "truncations"):
                if f"episode_{i}/{key}" not in there:
                    raise ValueError(f"{where}: the key 'episode_{i}/{key}' is missing.")
    else:
        for file_path in folder.rglob("*"):
            if not file_path.is_dir():
                require_ordinary(file_path)
        _check_episodes(where, metadata["total_episodes"], sum(path.is_dir() for path in folder.iterdir()))
    episodes: list[_Episode] = []
    try:
        for episode in minari.load_dataset(dataset_id).iterate_episodes():
            episodes.append(_minari_episode(episode, len(episodes), where))
    except ImportError as error:
        raise ImportError(
            f"Minari dataset '{dataset_id}' is in {form} form, which needs a package that is not installed: {error}."
        ) from error
    except _BrokenEpisodeError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # what Minari and its storages meet in broken files is of many kinds
        cause = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"{where}: Minari cannot read its dataset '{dataset_id}' ({cause}).") from error
    lengths = np.array([len(episode.rewards) for episode in episodes])
    if (found := int(lengths.sum())) != metadata["total_steps"]:
        raise ValueError(f"{where}: the episodes have {found} steps; their metadata promise {metadata['total_steps']}.")
    return Trajectories(
        _join([episode.observations for episode in episodes], "observations", where),
        _join([episode.actions for episode in episodes], "actions", where),
        np.concatenate([episode.rewards for episode in episodes]),
        np.cumsum(lengths) - lengths,
        dataset_id,
        np.concatenate([episode.terminations for episode in episodes]),
        np.concatenate([episode.truncations for episode in episodes]),
        np.stack([episode.last_observation for episode in episodes]),
    )


def _minari_metadata(path: Path) -> _Metadata:
    """A dataset's metadata, each value of its type. FileNotFoundError without any, ValueError naming the file."""
    require_ordinary(path)
    with opened(path) as file:
        text = file.read(LONGEST_METADATA + 1)
    if len(text) > LONGEST_METADATA:
        raise ValueError(f"{path}: the metadata are longer than {LONGEST_METADATA:,} bytes.")
    try:
        whole = from_json(text)
        needed = {key: whole[key] for key in _Metadata.__annotations__ if key in whole}
        metadata: _Metadata = checked(_Metadata, needed, "metadata")
        for key in ("observation_space", "action_space"):
            _check_space(from_json(metadata[key]), len(metadata[key]))  # type: ignore[literal-required]
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{path}: not the metadata of a Minari dataset ({error}).") from error
    return metadata


def _check_space(space: Any, length: int) -> None:
    """Raise ValueError for a space of more numbers than its text, whose limits are written out, has characters."""
    if "shape" in space and not (size := int(np.prod([float(n) for n in space["shape"]]))) <= length:
        raise ValueError(f"a space of {size:,} numbers in {length} characters")
    parts = space.get("subspaces", [])
    for part in parts.values() if isinstance(parts, dict) else parts:
        _check_space(part, length)


def _check_episodes(path: Path, promised: int, there: int) -> None:
    if promised > there:
        raise ValueError(f"{path}: it holds {there} episodes; the metadata promise {promised:,}.")
    if not promised:
        raise ValueError(f"{path}: the dataset holds no episode.")


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


class _Episode(NamedTuple):
    """One episode of T steps: arrays (T, ...), and the observation after the last action."""

    observations: FloatArray
    actions: FloatArray
    rewards: FloatArray
    terminations: BoolArray
    truncations: BoolArray
    last_observation: FloatArray


class _BrokenEpisodeError(ValueError):
    """Our own complaint about an episode, told apart from Minari's."""


def _minari_episode(episode: Any, number: int, path: Path) -> _Episode:
    """Checked and as float32."""
    observations = episode.observations
    key = f"episode_{number}/observations"
    if isinstance(observations, dict):
        key += "/observation"
        observations = observations.get("observation")
    given = {
        key: (observations, 2),
        f"episode_{number}/actions": (episode.actions, 2),
        **{f"episode_{number}/{name}": (getattr(episode, name), 1) for name in ("rewards", "terminations", "truncations")},
    }
    try:
        arrays = [_as_floats(value, name, ndim, path) for name, (value, ndim) in given.items()]
    except ValueError as error:
        raise _BrokenEpisodeError(str(error)) from error
    states, actions, rewards, terminations, truncations = arrays
    lengths = {len(array) for array in arrays[1:]}
    if lengths != {len(states) - 1}:
        raise _BrokenEpisodeError(
            f"{path}: '{key}' has {len(states)} rows, 'actions' {len(actions)}, 'rewards' {len(rewards)}, 'terminations' "
            f"{len(terminations)} and 'truncations' {len(truncations)}; expected one observation more than actions, and as "
            "many of the others as actions."
        )
    return _Episode(states[:-1], actions, rewards, terminations != 0, truncations != 0, states[-1])


def _as_floats(value: Any, key: str, ndim: int, path: Path) -> FloatArray:
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    check_steps(array, key, ndim, str(path))
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _same_length(path: Path, **arrays: np.ndarray) -> None:
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: the arrays differ in length: {lengths}.")


def _join(parts: list[FloatArray], key: str, path: Path) -> FloatArray:
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) > 1:
        raise ValueError(f"{path}: the episodes' '{key}' differ in width: {widths}.")
    return np.concatenate(parts)

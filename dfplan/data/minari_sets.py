"""Minari's datasets, read through Minari's own API, of whichever data format, into `Trajectories`.

Minari does not check a dataset's metadata, so metadata and files are checked before it reads them.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic reads typing's own from Python 3.12 on

from dfplan.config_json import checked
from dfplan.data.array_files import check_hdf5_tree, open_hdf5, require_ordinary
from dfplan.data.features import AS_RECORDED, Features, completed, flat, parts
from dfplan.data.pictures import Pictured, shapes
from dfplan.data.trajectories import BoolArray, FloatArray, Trajectories, as_float32, check_steps
from dfplan.fields import Whole
from dfplan.quoting import printable, shortened
from dfplan.whole_files import opened


def is_minari_id(name: str) -> bool:
    """Whether this has the form of a Minari id with its version: 'namespace/name-v0', the namespace optional."""
    return re.fullmatch(r"(?:[-\w]+/)*[-\w]+-v\d+", name) is not None


def load_minari(dataset_id: str, download: bool = False, *, goal: Any = None, features: Features | None = None) -> Any:
    """Read a Minari dataset, such as 'dfplan/maze2d-large-v1', of whichever data format, into flat arrays.

    Rewards, terminations and truncations are kept, and so is the observation after an episode's last action, as
    `Trajectories.last_observations`. Observations may be a Box, a Dict or a Tuple. Without `features` their entries are
    joined. Of goal-conditioned sets (D4RL/pointmaze/*) these are `observation` and then `achieved_goal`, whose columns are
    the goal's; `desired_goal` is left. Sets with pictures become `Pictured`, all others `Trajectories`.

    Args:
        dataset_id: the id in Minari's local store ($MINARI_DATASETS_PATH, by default ~/.minari/datasets).
        download: fetch the dataset from Minari's server when it is not in the local store.
        goal: columns of the observation, as `features` leave it, in which a goal stands; see `dfplan.load`.
        features: how observations become flat ones; they are completed from the first episode.

    Raises FileNotFoundError when the dataset is neither there nor can be downloaded, ImportError when a download or a
    data format needs a package that is missing, ValueError naming file and key for a broken file, and for
    features that do not fit the observations.
    """
    features = features or AS_RECORDED
    if not is_minari_id(dataset_id):
        raise ValueError(f"'{dataset_id}' is no Minari id with its version, such as 'D4RL/pointmaze/large-v2'.")
    try:
        return _local_minari(dataset_id, goal, features)
    except FileNotFoundError as error:
        if not download:
            raise FileNotFoundError(f"There is no local Minari dataset '{dataset_id}'.") from error
    _download_minari(dataset_id)
    return _local_minari(dataset_id, goal, features)


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


def _local_minari(dataset_id: str, goal: Any, features: Features) -> Trajectories | Pictured:
    """Read a dataset of the local store; FileNotFoundError if there is none."""
    import minari  # here, so that reading a file by its path does not need it
    from minari.storage.datasets_root_dir import get_dataset_path

    folder = Path(get_dataset_path(dataset_id)) / "data"
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}'.")
    metadata = _metadata(_part(folder, "metadata.json"))
    form = metadata["data_format"]
    where = _part(folder, "main_data.hdf5") if form == "hdf5" else folder
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
    pictures: dict[str, tuple[int, int, int]] = {}
    try:
        for episode in minari.load_dataset(dataset_id).iterate_episodes():
            if not episodes and not (pictures := _pictures(episode.observations, where)):
                features = _completed(features, goal, episode.observations, where)
            episodes.append(_minari_episode(episode, len(episodes), where, features, pictures))
    except ImportError as error:
        raise ImportError(
            f"Minari dataset '{dataset_id}' is in {form} form, which needs pyarrow: install dfplan[arrow]."
        ) from error
    except _BrokenEpisodeError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # what Minari and its storages meet in broken files is of many kinds
        raise ValueError(f"{where}: Minari cannot read its dataset '{dataset_id}' ({_cause(error)}).") from error
    lengths = np.array([len(episode.rewards) for episode in episodes])
    if (found := int(lengths.sum())) != metadata["total_steps"]:
        # Minari takes a record batch, at most 32,768 rows, for a whole episode.
        hint = (
            ""
            if form == "hdf5"
            else f"; Minari reads no {form} episodes of more than 32,767 steps: write the set as hdf5"
        )
        raise ValueError(f"{where}: Minari reads {found} steps; the metadata promise {metadata['total_steps']}{hint}.")
    observed = {
        name: {
            key: _join(
                [episode.observations[key][rows] for episode in episodes], f"observations/{key}".rstrip("/"), where
            )
            for key in episodes[0].observations
        }
        for name, rows in (("observations", np.s_[:-1]), ("last_observations", np.s_[-1:]))
    }
    arrays: dict[str, Any] = {name: entries.get("", entries) for name, entries in observed.items()}
    arrays |= {
        "actions": _join([episode.actions for episode in episodes], "actions", where),
        "rewards": np.concatenate([episode.rewards for episode in episodes]),
        "episode_starts": np.cumsum(lengths) - lengths,
        "terminations": np.concatenate([episode.terminations for episode in episodes]),
        "truncations": np.concatenate([episode.truncations for episode in episodes]),
    }
    if pictures:
        return Pictured(arrays, dataset_id, goal, features)
    return Trajectories(**arrays, name=dataset_id, features=AS_RECORDED if features.as_recorded else features)


def _part(folder: Path, name: str) -> Path:
    """The path of a dataset's own file; ValueError if it lacks it, because it is not that the dataset is not there."""
    if not os.path.lexists(folder / name):
        raise ValueError(f"{folder}: the dataset is not whole: it lacks '{name}'.")
    return folder / name


def _cause(error: Exception) -> str:
    """The first line of an error's own sentence."""
    return shortened(printable((str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")), 160)


def _metadata(path: Path) -> _Metadata:
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
            _check_space(from_json(metadata[key]), len(metadata[key]))
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{path}: not the metadata of a Minari dataset ({_cause(error)}).") from error
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


class _Episode(NamedTuple):
    """One episode of T steps: arrays (T, ...), and observations (T + 1, ...) by their keys, flat ones by ''."""

    observations: dict[str, NDArray[Any]]
    actions: FloatArray
    rewards: FloatArray
    terminations: BoolArray
    truncations: BoolArray


class _BrokenEpisodeError(ValueError):
    """Our own complaint about an episode, told apart from Minari's."""


def _completed(features: Features, goal: Any, observations: Any, path: Path) -> Features:
    """The features of a dataset whose first episode has these observations."""
    try:
        return completed(features, goal, observations)
    except ValueError as error:
        raise _BrokenEpisodeError(f"{path}: {error}") from error


def _pictures(observations: Any, path: Path) -> dict[str, tuple[int, int, int]]:
    """The pictures of a dataset whose first episode has these observations."""
    try:
        return shapes(observations)
    except ValueError as error:
        raise _BrokenEpisodeError(f"{path}: {error}") from error


def _pictured(observations: Any, pictures: Mapping[str, Any], key: str, path: Path) -> dict[str, NDArray[Any]]:
    """An episode's observations (T + 1, ...) by their keys, pictures as they are, all else flat and finite."""
    if shapes(observations) != pictures:
        raise ValueError(f"{path}: '{key}' must have the pictures {pictures}, got {shapes(observations)}")
    named = parts(observations)
    if named is None:
        return {"": np.asarray(observations)}
    entries = {name: np.asarray(named[name]) if name in pictures else flat(named[name], name) for name in named}
    for name in entries.keys() - pictures.keys():
        check_steps(entries[name], f"{key}/{name}", 2, str(path))
        entries[name] = as_float32(entries[name])
    lengths = {name: len(entry) for name, entry in entries.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: the entries of '{key}' differ in length: {lengths}")
    return entries


def _observed(features: Features, observations: Any, key: str, path: Path) -> FloatArray:
    """The features (T + 1, F) of an episode's observations; all entries that are used are finite."""
    try:
        entries = features.entries(observations)
        flat = features(observations)
    except ValueError as error:
        raise ValueError(f"{path}: '{key}': {error}") from error
    for name, entry in entries.items():
        check_steps(entry, f"{key}/{name}".rstrip("/"), 2, str(path))
    return as_float32(flat)


def _minari_episode(
    episode: Any, number: int, path: Path, features: Features, pictures: Mapping[str, tuple[int, int, int]]
) -> _Episode:
    """Checked and as float32, but for pictures."""
    key = f"episode_{number}/observations"
    given = {"actions": 2, "rewards": 1, "terminations": 1, "truncations": 1}
    try:
        if pictures:
            states = _pictured(episode.observations, pictures, key, path)
        else:
            states = {"": _observed(features, episode.observations, key, path)}
        arrays = [_as_floats(getattr(episode, name), f"episode_{number}/{name}", given[name], path) for name in given]
    except ValueError as error:
        raise _BrokenEpisodeError(str(error)) from error
    actions, rewards, terminations, truncations = arrays
    rows = len(next(iter(states.values())))
    if {len(array) for array in arrays} != {rows - 1}:
        raise _BrokenEpisodeError(
            f"{path}: '{key}' has {rows} rows, 'actions' {len(actions)}, 'rewards' {len(rewards)}, 'terminations' "
            f"{len(terminations)} and 'truncations' {len(truncations)}; expected one observation more than actions, and as "
            "many of the others as actions."
        )
    return _Episode(states, actions, rewards, terminations != 0, truncations != 0)


def _as_floats(value: Any, key: str, ndim: int, path: Path) -> FloatArray:
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    check_steps(array, key, ndim, str(path))
    return as_float32(array)


def _join(arrays: list[NDArray[Any]], key: str, path: Path) -> NDArray[Any]:
    widths = sorted({array.shape[-1] for array in arrays})
    if len(widths) > 1:
        raise ValueError(f"{path}: the episodes' '{key}' differ in width: {widths}.")
    return np.concatenate(arrays)


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
        raise FileNotFoundError(
            f"Minari dataset '{dataset_id}' is not on this machine and could not be downloaded ({_cause(error)})."
        ) from error

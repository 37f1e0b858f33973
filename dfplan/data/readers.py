"""One way to all recorded behavior: `dfplan.load`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplan.data.d4rl import load_d4rl, load_d4rl_hdf5
from dfplan.data.episodes import KEYS, of_arrays, require_keys
from dfplan.data.features import FeatureFunction, Features, as_columns, asked, completed, flat, parts
from dfplan.data.minari_sets import is_minari_id, load_minari
from dfplan.data.npz_files import load_npz
from dfplan.data.pictures import Pictured, shapes
from dfplan.data.trajectories import FloatArray, Trajectories, as_float32, check_finite, check_form

ARRAYS = "the arrays"
"""What arrays of a user's are called in messages."""
Asked = Features | str | FeatureFunction | Sequence[int] | None
"""What `dfplan.data.features.asked` reads."""


def load(
    source: str | Path | Trajectories | Mapping[str, Any],
    *,
    goal: Sequence[int] | None = None,
    features: Asked = None,
) -> Any:
    """Recorded behavior from anywhere, as one kind of data that all learners train on: `Trajectories`.

    Where pictures are among what was observed it is `dfplan.data.pictures.Pictured`, which `dfplan.train` takes too: numbers
    take their places, and `goal` and `features` are about these.

    Args:
        source: a Minari id, downloaded when it is not in the local store; a path that ends in .hdf5 or .h5 (D4RL's layout)
            or .npz (OGBench's form, see `load_npz`); 'd4rl:NAME', one of D4RL's own datasets; `Trajectories`; or a
            dictionary of arrays by the keys of `dfplan.data.episodes.of_arrays`, in which observations may be a Dict or
            Tuple of arrays. Endings may be in capitals, and '~' stands for the home folder.
        goal: columns of the observation, as `features` leave it, in which a goal stands, such as (0, 1). None: those of the
            achieved goal where observations are a Dict with `achieved_goal` and `desired_goal`; otherwise there are no
            goals. () for no goals.
        features: which parts of an observation an agent works with: columns, a function decorated by
            `dfplan.register_features`, its name, or a `Features`. None: all of it; the entries of a Dict or Tuple are joined.

    Raises ValueError for a source, columns or features that are none of these, and what `load_d4rl_hdf5`, `load_npz`,
    `load_d4rl` or `load_minari` raises.
    """
    if isinstance(source, Mapping):
        if shapes(source.get("observations")):
            return Pictured(source, ARRAYS, goal, asked(features))
        return _of_memory(source, goal, asked(features))
    if isinstance(source, Trajectories):
        return seen_through(source, goal, asked(features))
    if not isinstance(source, str | Path):
        raise ValueError(
            "data must be a path, a Minari id, or a dictionary of arrays, episodes end to end, with 'observations', "
            f"'actions' and where they end; got a {type(source).__name__}"
        )
    name = str(source)
    if name.startswith("d4rl:"):
        return seen_through(load_d4rl(name.removeprefix("d4rl:")), goal, asked(features))
    read = {".hdf5": load_d4rl_hdf5, ".h5": load_d4rl_hdf5, ".npz": load_npz}.get(Path(name).suffix.lower())
    if read is not None:
        return seen_through(read(_path(name)), goal, asked(features))
    if Path(name).suffix.lower() in (".safetensors", ".zip"):
        raise ValueError(f"'{name}' is no data: its ending is that of weights, which dfplan.load_agent loads.")
    if not isinstance(source, str) or not is_minari_id(name):
        raise ValueError(
            f"'{name}' names no data: expected a file ending in .hdf5, .h5 or .npz, 'd4rl:NAME', or a Minari id with its "
            "version, such as 'D4RL/pointmaze/large-v2'."
        )
    return load_minari(name, download=True, goal=goal, features=asked(features))


def encoded(data: Pictured, numbers: Callable[[str, NDArray[np.uint8]], NDArray[Any]]) -> Trajectories:
    """Recorded behavior with numbers (N, F) in the places of pictures (N, height, width, channels), which have these keys.

    Raises ValueError for arrays that do not fit together, and for features and goals that do not fit the observations.
    """
    arrays, found = dict(data.arrays), data.shapes
    for of in ("observations", "next_observations", "last_observations"):
        if arrays.get(of) is not None:
            made = {key: numbers(key, data.pictures(key, of)) for key in found}
            arrays[of] = made.get("", {**(parts(arrays[of]) or {}), **made})
    return _of_memory(arrays, data.goal, data.features, data.name)


def seen_through(data: Trajectories, goal: Any, features: Features) -> Trajectories:
    """The same data with `features` of their observations and goals in these columns of them; see `load`.

    Raises ValueError if the observations are features already and others are asked for.
    """
    if data.features.as_recorded:
        whole = completed(features, goal, data.observations)
        if whole.as_recorded:
            return data
        last = data.last_observations
        return replace(
            data,
            observations=as_float32(whole(data.observations)),
            last_observations=None if last is None else as_float32(whole(last)),
            features=whole,
        )
    if features != Features():
        raise ValueError(f"{data.name}: the observations are features already; load their source with other ones.")
    if goal is None:
        return data
    columns = as_columns(goal, "goal")
    key = data.features.goal_key if len(columns) == len(data.features.goal_columns) else ""
    return replace(data, features=replace(data.features, goal_columns=columns, goal_key=key))


def _of_memory(arrays: Mapping[str, Any], goal: Any, features: Features, name: str = ARRAYS) -> Trajectories:
    """The episodes of a dictionary of arrays: the keys and axes of `KEYS`; other keys are not read."""
    require_keys([str(key) for key, array in arrays.items() if array is not None], name)
    try:
        whole = completed(features, goal, arrays["observations"])
        observed = {
            key: whole(arrays[key]) for key in KEYS if key.endswith("observations") and arrays.get(key) is not None
        }
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    others = {key: arrays[key] for key in KEYS if key not in observed and arrays.get(key) is not None}
    read = {key: _as_array(value, key, name) for key, value in {**observed, **others}.items()}
    data = of_arrays(read, name)
    return data if whole.as_recorded else replace(data, features=whole)


def _as_array(value: Any, key: str, name: str) -> FloatArray:
    """An array of a user's as finite numbers with the axes that its key asks for, in float32 but for counts of steps."""
    array = np.asarray(flat(value, f"{name}: '{key}'"))
    if key == "episode_starts":
        array = np.asarray(value)
    array = array.reshape(-1) if KEYS[key] == 1 and array.shape[1:] == (1,) else array
    check_form(array.dtype, array.shape, key, KEYS[key], name)
    check_finite(array, key, name)
    return array if key == "episode_starts" else as_float32(array)


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # a user whose home is not known
        return Path(name)

"""From what an environment observes to the flat observation that an agent works with, and where in it a goal stands.

    @dfplan.register_features("reach")
    def reach(observation):  # (..., D) -> (..., F)
        return np.concatenate([observation, observation[..., 3:6] - observation[..., :3]], axis=-1)

Weights keep a `Features` by names only. No code is taken from a file: who loads weights with a function of their own
imports the module that registers it first, or installs a package that names this module as an entry point:

    [project.entry-points."dfplan.features"]
    reach = "my_robot.features"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplan.fields import CheckedFields, Size, Whole, check_columns

FeatureFunction = Callable[[NDArray[Any]], Any]
"""(..., D) -> (..., F), for any leading sizes, in NumPy."""

PLUGINS = "dfplan.features"
"""The group of entry points by which installed packages name the modules that register features."""
_FUNCTIONS: dict[str, FeatureFunction] = {}


def register_features(name: str) -> Callable[[FeatureFunction], FeatureFunction]:
    """Decorate a function (..., D) -> (..., F) of observations, so that `Features(function=name)` finds it.

    Raises ValueError for an empty name, and for one that another function has. The same definition made again (in a
    notebook) takes the former one's place.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"features are registered by a name, such as 'reach', got {name!r}")

    def register(function: FeatureFunction) -> FeatureFunction:
        former = _FUNCTIONS.get(name, function)
        if _place(former) != _place(function):
            raise ValueError(f"the features '{name}' are registered already, by {_place(former)}")
        _FUNCTIONS[name] = function
        return function

    return register


def registered(name: str) -> FeatureFunction:
    """The function of that name, also of an installed package that names its module as an entry point of `PLUGINS`.

    Raises ValueError, which says what to do, if there is none.
    """
    if name not in _FUNCTIONS:
        for plugin in entry_points(group=PLUGINS, name=name):
            import_module(plugin.module)
    if name not in _FUNCTIONS:
        raise ValueError(
            f"no features are registered as '{name}'; first import the module that does @dfplan.register_features('{name}')"
        )
    return _FUNCTIONS[name]


@dataclass(frozen=True)
class Features(CheckedFields):
    """How a raw observation becomes a flat one. The default leaves an array as it is.

    The entries `keys` of a Dict or Tuple are joined, `columns` of the result are kept, and `function` is applied to them.
    Raises ValueError for repeated names or columns.
    """

    keys: tuple[str, ...] = ()
    """Entries of a Dict observation (of a Tuple: '0', '1', ...) that are joined in this order; none where it is an array.
    An entry that is a Dict or Tuple itself is joined too, in the order of its sorted keys."""
    columns: tuple[Whole, ...] = ()
    """Columns of the joined array that are kept, in this order; none: all."""
    function: str = ""
    """Name of a function, registered by `register_features`, of the columns that are kept; '' for none."""
    goal_key: str = ""
    """Entry of a Dict observation that is the goal, such as 'desired_goal'; '' for none."""
    goal_columns: tuple[Whole, ...] = ()
    """Columns of the flat observation in which a goal stands; none where there are no goals."""
    widths: tuple[Size, ...] = ()
    """Width of each entry of `keys`, or of the array: observations of other widths are refused. None: not known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("keys", "columns", "goal_columns"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"Features: {name} must differ from one another, got {values}")
        if self.widths and len(self.widths) != max(1, len(self.keys)):
            raise ValueError(
                f"Features: widths must be one for each entry of {self.keys or 'an array'}, got {self.widths}"
            )
        if self.widths and self.columns:
            check_columns(self.columns, sum(self.widths), "columns")

    @property
    def as_recorded(self) -> bool:
        """Whether observations stay as they are and hold no goal."""
        return not (self.keys or self.columns or self.function or self.goal_key or self.goal_columns)

    def __call__(self, raw: Any) -> NDArray[Any]:
        """The flat observation (..., F) of an array (..., D), or of a Dict or Tuple of arrays with the same leading sizes.

        float64 stays float64, float32 float32. Raises ValueError for an observation of another form or width, and for a
        function that is not registered or returns no array (..., F).
        """
        return self._joined(self.entries(raw))

    def _joined(self, entries: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The flat observation (..., F) of the entries (..., d) that are used."""
        leading = {array.shape[:-1] for array in entries.values()}
        if len(leading) > 1:
            shapes = {key: array.shape for key, array in entries.items()}
            raise ValueError(f"the entries of an observation must have the same leading sizes, got {shapes}")
        kept = np.concatenate(list(entries.values()), axis=-1) if len(entries) > 1 else next(iter(entries.values()))
        if self.columns:
            if max(self.columns) >= kept.shape[-1]:
                raise ValueError(f"columns {self.columns} are asked of an observation of {kept.shape[-1]} columns")
            kept = kept[..., list(self.columns)]
        if not self.function:
            return kept
        result = flat(registered(self.function)(kept), f"what the features '{self.function}' return")
        if result.shape[:-1] != kept.shape[:-1]:
            raise ValueError(
                f"the features '{self.function}' must return (..., F) for (..., D), got {result.shape} for {kept.shape}"
            )
        return result

    def entries(self, raw: Any) -> dict[str, NDArray[Any]]:
        """The entries (..., d) of a raw observation that are used, by their keys; an array has the one key ''.

        Raises ValueError for an observation that lacks one, and for entries of other widths.
        """
        named = parts(raw) if self.keys else None
        if self.keys and named is None:
            raise ValueError(f"an observation must be a Dict or Tuple with the entries {self.keys}, got {_form(raw)}")
        if named is None:
            used = {"": _floats(raw, "an observation")}
        else:
            if missing := [key for key in self.keys if key not in named]:
                raise ValueError(f"an observation lacks the entry '{missing[0]}'; it has {sorted(named)}")
            used = {key: flat(named[key], f"the observation's entry '{key}'") for key in self.keys}
        for (key, array), width in zip(used.items(), self.widths or (None,) * len(used), strict=True):
            if width is not None and array.shape[-1] != width:
                what = f"the observation's entry '{key}'" if key else "an observation"
                raise ValueError(f"{what} must be (..., {width}), got {array.shape}")
        return used

    def goal(self, raw: Any) -> NDArray[Any]:
        """The goal (..., G) that is given as such, or that stands in a whole raw observation.

        Of an observation that is a Dict it is the entry `goal_key`, or else what stands in `goal_columns` of its features;
        of an array (..., D) the latter. An array (..., G) is a goal as it is, also where D equals G. Raises ValueError for
        anything else, naming both widths.
        """
        count = len(self.goal_columns)
        if not count:
            raise ValueError("no goal can be given: the features name no goal columns")
        expected = f"a goal must be (..., {count}), or stand in a whole observation"
        named = parts(raw) if self.keys or self.goal_key else None
        if named is None:
            given = _floats(raw, "a goal")
            if given.shape[-1] == count:
                return given
            if self.keys:
                raise ValueError(f"{expected} with the entries {self.keys}, got {given.shape}")
            if self.widths and given.shape[-1] != self.widths[0]:
                raise ValueError(f"{expected} (..., {self.widths[0]}), got {given.shape}")
        elif self.goal_key:
            if self.goal_key not in named:
                raise ValueError(f"{expected} with the entry '{self.goal_key}'; it has {sorted(named)}")
            given = flat(named[self.goal_key], f"the observation's entry '{self.goal_key}'")
            if given.shape[-1] != count:
                raise ValueError(f"the observation's entry '{self.goal_key}' must be (..., {count}), got {given.shape}")
            return given
        features = self(raw)
        if max(self.goal_columns) >= features.shape[-1]:
            raise ValueError(f"{expected} that has the columns {self.goal_columns}, got {np.shape(raw)}")
        return features[..., list(self.goal_columns)]


AS_RECORDED = Features()
"""An array, as the environment gives it, and no goal."""


def asked(features: Features | str | FeatureFunction | Sequence[int] | None) -> Features:
    """The `Features` that a user asks for: one, the name of a function, a registered function, or columns; None: all.

    Raises ValueError for a function that is not registered and for anything else.
    """
    if features is None or isinstance(features, Features):
        return features or Features()
    if isinstance(features, str):
        registered(features)
        return Features(function=features)
    if callable(features):
        names = [name for name, function in _FUNCTIONS.items() if function is features]
        if not names:
            raise ValueError(
                "a function of observations needs a name that weights can keep: decorate it with "
                "@dfplan.register_features('name')"
            )
        return Features(function=names[0])
    return Features(columns=as_columns(features, "features"))


def as_columns(columns: Any, what: str) -> tuple[int, ...]:
    """Whole numbers from 0 on as a tuple. Raises ValueError, which begins with `what`, for anything else."""
    array = np.asarray(columns) if isinstance(columns, Sequence | range | np.ndarray) else None
    if array is None or array.ndim != 1 or (array.size and (array.dtype.kind not in "iu" or array.min() < 0)):
        raise ValueError(f"{what} must be columns, such as (0, 1), got {columns!r}")
    return tuple(array.astype(int).tolist())


def completed(features: Features, goal: Any, raw: Any) -> Features:
    """Features with everything that recorded raw observations say: keys, widths, and where a goal stands.

    Of a Dict with `achieved_goal` and `desired_goal`, unless `features` name keys, all entries but the latter are used, the
    achieved goal last; its columns are the goal's, and `desired_goal` is the goal. Other Dicts and Tuples are joined whole.
    `goal` are columns of the result, () for none, or None: as just said. An entry of another width than they is no goal.

    Raises ValueError where the goal's columns cannot be known, and for columns that do not exist.
    """
    named = parts(raw)
    if named is not None and not features.keys:
        keys, goal_key = tuple(named), features.goal_key
        if {"achieved_goal", "desired_goal"} <= set(named):
            keys = (*(key for key in sorted(named) if not key.endswith("_goal")), "achieved_goal")
            goal_key = goal_key or "desired_goal"
        features = replace(features, keys=keys, goal_key=goal_key)
    entries = features.entries(raw)
    features = replace(features, widths=tuple(array.shape[-1] for array in entries.values()))
    if goal is not None:
        features = replace(features, goal_columns=as_columns(goal, "goal"))
    elif features.goal_key and not features.goal_columns and "achieved_goal" in features.keys:
        features = replace(features, goal_columns=_achieved(features))
    if features.goal_columns:
        one = features._joined({key: np.atleast_2d(array)[:1] for key, array in entries.items()})
        check_columns(features.goal_columns, one.shape[-1], "goal")
    if features.goal_key:
        desired = flat((named or {}).get(features.goal_key), f"the observation's entry '{features.goal_key}'").shape[-1]
        if desired != len(features.goal_columns):
            if goal is None:
                raise ValueError(
                    f"the observation's entry '{features.goal_key}' has {desired} columns, but a goal {features.goal_columns}; "
                    "give its columns as goal=(...), or goal=() for no goal"
                )
            features = replace(features, goal_key="")
    return features


def parts(raw: Any) -> dict[str, Any] | None:
    """The entries of a Dict, or of a Tuple as '0', '1', ...; None for an array. A tuple of numbers is an array."""
    if isinstance(raw, Mapping):
        return {str(key): value for key, value in raw.items()}
    if isinstance(raw, tuple) and raw and all(isinstance(part, Mapping | tuple) or np.ndim(part) for part in raw):
        return {str(i): part for i, part in enumerate(raw)}
    return None


def flat(value: Any, what: str) -> NDArray[Any]:
    """(..., d) floats of an array, or of a Dict or Tuple of them, joined in the order of sorted keys.

    Raises ValueError, which begins with `what`, for anything but real numbers with at least one column.
    """
    if isinstance(value, Mapping):
        inside = [flat(value[key], f"{what} / '{key}'") for key in sorted(value)]
    elif isinstance(value, tuple) and parts(value) is not None:
        inside = [flat(part, f"{what} / '{i}'") for i, part in enumerate(value)]
    else:
        inside = [_floats(value, what)]
    if len({array.shape[:-1] for array in inside}) != 1:
        raise ValueError(f"{what} must be arrays with the same leading sizes, got {[array.shape for array in inside]}")
    return np.concatenate(inside, axis=-1) if len(inside) > 1 else inside[0]


def _floats(value: Any, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiub" or array.ndim < 1 or array.shape[-1] < 1:
        raise ValueError(f"{what} must be real numbers (..., columns), got {_form(value)}")
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def _achieved(features: Features) -> tuple[int, ...]:
    """Columns of the flat observation in which the entry 'achieved_goal' stands."""
    before = sum(features.widths[: features.keys.index("achieved_goal")])
    columns = list(range(before, before + features.widths[features.keys.index("achieved_goal")]))
    kept = list(features.columns) or list(range(sum(features.widths)))
    if features.function or not set(columns) <= set(kept):
        raise ValueError(
            "where does 'achieved_goal' stand in these features? Give its columns as goal=(...), or goal=() for no goal"
        )
    return tuple(kept.index(column) for column in columns)


def _form(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a Dict of {sorted(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"a {type(value).__name__}"


def _place(function: FeatureFunction) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"

"""Flat arrays of steps, in each way in which files say where episodes end, into `Trajectories`."""

from collections.abc import Collection, Mapping

import numpy as np

from dfplan.data.trajectories import BoolArray, FloatArray, IntArray, Trajectories

ENDS = ("terminals", "episode_starts", "terminations", "truncations")
"""Keys of which one at least says where episodes end."""
KEYS = {
    **dict.fromkeys(("observations", "actions", "next_observations", "last_observations"), 2),
    **dict.fromkeys(("rewards", "terminals", "timeouts", "masks", "valids", "terminations", "truncations"), 1),
    "episode_starts": 1,
}
"""All keys that are read, each with the number of its axes."""


def of_arrays(arrays: Mapping[str, FloatArray], name: str) -> Trajectories:
    """The episodes of checked float32 arrays (N, columns) or (N,), by the keys that are there.

    - `episode_starts`, `terminations` or `truncations`: the fields of `Trajectories`. Without `episode_starts` an episode
      ends where one of the two flags is set, and at the end.
    - `terminals` with `rewards`, and neither `masks` nor `valids`: D4RL's form, see `d4rl_form`.
    - `terminals` otherwise: OGBench's form, see `ogbench_form`.

    The keys were found by `require_keys`. Raises ValueError, which begins with `name`, for arrays that do not fit together.
    """
    if "terminals" not in arrays:
        return _own_form(arrays, name)
    if "rewards" in arrays and not {"masks", "valids"} & set(arrays):
        return d4rl_form(arrays, name)
    return ogbench_form(arrays, name)


def require_keys(there: Collection[str], name: str) -> None:
    """Raise ValueError, which begins with `name`, unless there are observations, actions and a key that says where episodes
    end."""
    found = ", ".join(sorted(there))
    for key in ("observations", "actions"):
        if key not in there:
            raise ValueError(f"{name}: the key '{key}' is missing; there are {found}.")
    if not set(ENDS) & set(there):
        raise ValueError(
            f"{name}: no key says where episodes end; expected one of {', '.join(ENDS)}; there are {found}."
        )


def d4rl_form(arrays: Mapping[str, FloatArray], name: str, cut: bool = True) -> Trajectories:
    """Every row is a step. An episode ends where `terminals` or `timeouts` is set, and at the end of the arrays.

    `terminals` are the terminations; where `timeouts` alone is set, the episode was truncated. `next_observations` of last
    steps are kept. Without `cut`, all is one episode in which nothing terminates.
    """
    terminations = arrays["terminals"] != 0
    _same_length(name, arrays)
    flags = terminations | (arrays["timeouts"] != 0) if "timeouts" in arrays else terminations
    starts = _starts(flags) if cut else np.zeros(1, np.int64)
    return Trajectories(
        arrays["observations"],
        arrays["actions"],
        arrays["rewards"],
        starts,
        name,
        terminations=terminations & cut,
        last_observations=_following(arrays, starts, name),
    )


def ogbench_form(arrays: Mapping[str, FloatArray], name: str) -> Trajectories:
    """An episode ends where `terminals` is set. That is a cut-off by time and no termination: the task goes on.

    Its last row holds the observation after its last action (`Trajectories.last_observations`); an action and a reward in
    that row belong to no step. With `next_observations` (OGBench's regular form) all rows are steps, with `valids` (its
    compact form) these say which rows are last ones. The task terminates where `masks` is 0. Without `rewards`, they are 0.
    """
    _same_length(name, arrays)
    observations, ends = arrays["observations"], arrays["terminals"] != 0
    if "next_observations" in arrays:
        steps = np.ones(len(ends), bool)
        starts = _starts(ends)
        last_observations = _following(arrays, starts, name)
    else:
        closing = arrays["valids"] == 0 if "valids" in arrays else ends
        closing[-1] = True
        steps = ~closing
        if (closing[1:] & closing[:-1]).any() or closing[0]:
            raise ValueError(
                f"{name}: an episode needs a step and a last row; 'terminals' must be set at last rows only."
            )
        starts = np.flatnonzero(steps[1:] & closing[:-1]) + 1
        starts = np.append(0, starts - np.arange(1, len(starts) + 1))  # counted without the last rows before
        last_observations = observations[closing]
    rewards = arrays.get("rewards", np.zeros(len(steps), np.float32))
    return Trajectories(
        observations[steps],
        arrays["actions"][steps],
        rewards[steps],
        starts.astype(np.int64),
        name,
        terminations=arrays["masks"][steps] == 0 if "masks" in arrays else None,  # type: ignore[arg-type]
        last_observations=last_observations,
    )


def _own_form(arrays: Mapping[str, FloatArray], name: str) -> Trajectories:
    """The fields of `Trajectories`, of which all but observations, actions and an end may be missing."""
    _same_length(
        name, {key: array for key, array in arrays.items() if key not in ("episode_starts", "last_observations")}
    )
    none = np.zeros(len(arrays["observations"]), np.float32)
    terminations, truncations = (arrays.get(key, none) != 0 for key in ("terminations", "truncations"))
    given = arrays.get("episode_starts")
    if given is not None and (given != np.floor(given)).any():
        raise ValueError(f"{name}: 'episode_starts' must be whole numbers.")
    starts = _starts(terminations | truncations) if given is None else given.astype(np.int64)
    return Trajectories(
        arrays["observations"],
        arrays["actions"],
        arrays.get("rewards", none),
        starts,
        name,
        terminations,
        truncations,
        arrays.get("last_observations", _following(arrays, starts, name)),
    )


def _starts(ends: BoolArray) -> IntArray:
    """(N,) flags of last steps -> (E,) int64 first steps."""
    return np.append(0, np.flatnonzero(ends[:-1]) + 1).astype(np.int64)


def _following(arrays: Mapping[str, FloatArray], starts: IntArray, name: str) -> FloatArray | None:
    """The rows of `next_observations` (N, obs_dim), where there are any, that belong to the last steps of the episodes."""
    following = arrays.get("next_observations")
    if following is None:
        return None
    if following.shape != (shape := arrays["observations"].shape):
        raise ValueError(f"{name}: 'next_observations' has shape {following.shape} but 'observations' {shape}.")
    return following[np.append(starts[1:], len(following)) - 1]


def _same_length(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{name}: the arrays differ in length: {lengths}.")

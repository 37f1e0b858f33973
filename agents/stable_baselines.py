"""Models of stable-baselines3 (and sb3-contrib) as agents: what its `learn` trained and its `save` wrote.

A file of stable-baselines3 is a zip with pickles inside: to load it is to run the code that it carries. Load only files
of people whom you trust; everything else in dfplan is safetensors. Before anything is unpickled, `load` reads the plain
JSON in the zip, which says what the file is. The statistics of a `VecNormalize` lie in another file and are not applied.
"""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplan.checkpoint import CheckpointError
from dfplan.whole_files import write_whole

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")
"""Keys of a goal-conditioned observation, as Gymnasium-Robotics and hindsight replay have them."""

_TELLING = {"cg_max_steps": "trpo", "clip_range": "ppo", "target_policy_noise": "td3", "target_entropy": "sac"}
"""Settings that only one algorithm has, for policies of a module that several of them share or of a user's own."""


@dataclass(frozen=True)
class StableBaselinesConfig:
    """What a model file says about itself."""

    algorithm: str
    """Name of the algorithm's class, such as 'SAC'."""
    policy: str
    """Name of the policy's class, such as 'SACPolicy'."""
    goal_conditioned: bool
    """Whether it sees dictionaries of observation, achieved and desired goal."""
    steps: int
    """Environment steps of its training."""


class StableBaselinesAgent:
    """A model of stable-baselines3 with the face of an agent: ``reset(goal, seed)``, then ``act(observation)``.

    Its actions are those of ``model.predict(..., deterministic=True)``. A goal-conditioned model is given the goal of
    `reset`, and the first columns of the observation as the achieved goal; any other model ignores goals. It learns in
    stable-baselines3's own loop (``model.learn``), so there is no `update`.
    """

    execution = "learned policy"

    def __init__(self, model: BaseAlgorithm, card: Mapping[str, Any] | None = None, file: bytes | None = None):
        """``file``: the zip that the model came from, which `save` then writes again; None lets the model write itself."""
        self.model, self.card, self._file = model, dict(card or {}), file
        self._width, self._goal_width = _widths(model.observation_space)
        actions: Any = model.action_space
        if not hasattr(actions, "low") or len(actions.shape) != 1:
            raise CheckpointError(f"actions must be a Box of shape (A,), this model's are {actions}")
        self._action_width = int(actions.shape[0])
        self.config = StableBaselinesConfig(
            type(model).__name__, type(model.policy).__name__, self._goal_width > 0, model.num_timesteps
        )
        self.reset()

    @classmethod
    def load(
        cls, path: str | Path, device: str = "cpu", observation_dim: int | None = None, action_dim: int | None = None
    ) -> Self:
        """The agent of a file that stable-baselines3's `save` wrote, with the card of the JSON file beside it, if any.

        Runs code that the file carries: trust it first. ``observation_dim`` and ``action_dim`` are what a task has, for a
        model that must fit it. Raises CheckpointError for a missing or foreign file, an unknown or missing library or
        algorithm, and spaces that do not fit. The model acts; to train it on, use stable-baselines3's own `load`.
        """
        path = Path(path)
        data = describe(path)
        algorithm = algorithm_class(data, path)
        try:
            model = algorithm.load(path, device=device, custom_objects=_not_needed(data))
        except Exception as error:  # whatever the pickles of a foreign version raise
            raise CheckpointError(f"{path} cannot be loaded as a {algorithm.__name__} model ({error!r})") from error
        try:
            agent = cls(model, _card(path), path.read_bytes())
        except CheckpointError as error:
            raise CheckpointError(f"{path} does not fit: {error}") from error
        fits = {"observations": (agent._width, observation_dim), "actions": (agent._action_width, action_dim)}
        for what, (there, asked) in fits.items():
            if asked is not None and there != asked:
                raise CheckpointError(f"{path} does not fit: its {what} have {there} numbers, the task's have {asked}")
        return agent

    def save(self, path: str | Path) -> None:
        """Write the model as a zip that `load` and stable-baselines3 read, and the card, if any, as JSON beside it."""
        path, file = Path(path), io.BytesIO()
        if self._file is None:
            self.model.save(file)
        if self.card:
            write_whole(path.with_suffix(".json"), (json.dumps(self.card, indent=1) + "\n").encode())
        write_whole(path, self._file or file.getvalue())

    @property
    def parameters(self) -> int:
        """Number of trained parameters: actor and critics, without the target networks that follow them."""
        return sum(p.numel() for name, p in self.model.policy.named_parameters() if "_target" not in name)

    def reset(self, goal: ArrayLike | None = None, seed: int | None = None) -> None:
        """Begin episodes; a goal-conditioned model needs a goal (G,) for all rows or (B, G). Nothing is drawn: no seed."""
        self._goal = None
        if self._goal_width and goal is not None:
            self._goal = np.array(goal, dtype=np.float64)
            if self._goal.ndim not in (1, 2) or self._goal.shape[-1] != self._goal_width:
                asked = f"({self._goal_width},) or (batch, {self._goal_width})"
                raise ValueError(f"the goal must be {asked}, got {self._goal.shape}")
        self._state: tuple[NDArray[Any], ...] | None = None
        self._begins: NDArray[np.bool_] | None = None

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """The action (action_dim,) for an observation (observation_dim,), or (B, action_dim) for (B, observation_dim)."""
        given = np.asarray(observation)
        if given.ndim not in (1, 2) or given.shape[-1] != self._width:
            raise ValueError(f"an observation must be ({self._width},) or (batch, {self._width}), got {given.shape}")
        begins = np.ones(given.shape[:-1] or 1, dtype=bool) if self._begins is None else self._begins
        actions, self._state = self.model.predict(
            self._inputs(given),
            state=self._state,
            episode_start=begins,
            deterministic=True,
        )
        self._begins = np.zeros_like(begins)
        return np.asarray(actions, dtype=np.float32)

    def forget(self, rows: ArrayLike, goal: ArrayLike | None = None) -> None:
        """New episodes began in these rows of the batch, to new goals (len(rows), G) if given."""
        if goal is not None and self._goal_width:
            if self._goal is None or self._goal.ndim != 2:
                raise ValueError("goals of single rows need a goal for each row: reset(goal) with (batch, G) first")
            self._goal[np.asarray(rows)] = np.asarray(goal, dtype=np.float64)
        if self._begins is not None:
            self._begins[np.asarray(rows)] = True

    def _inputs(self, given: NDArray[Any]) -> NDArray[Any] | dict[str, NDArray[Any]]:
        if not self._goal_width:
            return given
        if self._goal is None:
            raise ValueError("this model is goal-conditioned: reset(goal) must give it one")
        achieved = given[..., : self._goal_width]
        return dict(zip(GOAL_KEYS, (given, achieved, np.broadcast_to(self._goal, achieved.shape)), strict=True))


def describe(path: Path) -> dict[str, Any]:
    """The JSON that stable-baselines3 wrote into a file, with its pickles as text. CheckpointError for other files."""
    if not path.is_file():
        raise CheckpointError(f"there is no model file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
        policy, spaces = data["policy_class"], (data["observation_space"], data["action_space"])
        if not isinstance(policy["__module__"], str) or not all(isinstance(space[":type:"], str) for space in spaces):
            raise KeyError("__module__")
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is not a whole zip file ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is a zip file, but not a whole model of stable-baselines3 ({error!r})") from error
    if ".Box'" not in spaces[1][":type:"]:
        raise CheckpointError(f"{path} does not fit: its actions are {spaces[1][':type:']}, expected a Box")
    return data


def algorithm_class(data: Mapping[str, Any], path: Path) -> type[BaseAlgorithm]:
    """The algorithm of a file's `describe`, by the module of its policy's class, else by a setting that tells it."""
    module = data["policy_class"]["__module__"].split(".")
    package = "sb3_contrib" if module[0] == "sb3_contrib" or "cg_max_steps" in data else "stable_baselines3"
    if module[0] == package and module[1:2] != ["common"]:
        name = module[1]
    elif "recurrent" in module:
        name = "recurrentppo"
    else:  # A2C alone has no setting of its own
        name = next((name for key, name in _TELLING.items() if key in data), "a2c" if "gae_lambda" in data else "")
    if name == "td3" and str(dict(data.get("policy_kwargs") or {}).get("n_critics")) == "1":
        name = "ddpg"
    try:
        library = importlib.import_module(package)
    except ImportError as error:
        extra = 'pip install -e ".[sb3]"' if package == "stable_baselines3" else "pip install sb3-contrib"
        raise CheckpointError(f"{path} is a model of {package}, which is not installed: {extra}") from error
    found = {key.lower(): value for key, value in vars(library).items() if hasattr(value, "learn")}
    if name not in found:
        policy = data["policy_class"]["__module__"]
        raise CheckpointError(f"the algorithm of {path} is not one of {package} (its policy is of {policy})")
    return found[name]


def _not_needed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stand-ins for what acting does not need, and what may be large, or pickled by another version of Python."""
    stand_ins: dict[str, Any] = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    stand_ins |= {"_last_obs": None, "_last_original_obs": None, "_last_episode_starts": None}
    stand_ins |= {"ep_info_buffer": None, "ep_success_buffer": None, "action_noise": None}
    if "buffer_size" in data:  # an empty replay buffer; hindsight replay would ask for an environment
        stand_ins |= {"buffer_size": 1, "replay_buffer_class": None, "replay_buffer_kwargs": {}, "n_steps": 1}
        stand_ins["optimize_memory_usage"] = False
    return stand_ins


def _widths(space: Any) -> tuple[int, int]:
    """Width of the observation and of the goal (0 for none) of an observation space that an agent can be given."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping) and set(parts) == set(GOAL_KEYS):
        observation, achieved, desired = ([*(getattr(parts[key], "shape", None) or ())] for key in GOAL_KEYS)
        if len(observation) == len(desired) == 1 and achieved == desired and desired[0] <= observation[0]:
            return observation[0], desired[0]
    elif parts is None and hasattr(space, "low") and len(space.shape) == 1:
        return space.shape[0], 0
    raise CheckpointError(f"observations must be a Box of shape (D,) or a Dict of {', '.join(GOAL_KEYS)}, not {space}")


def _card(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        card = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{beside}, the card of {path.name}, is not JSON ({error})") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{beside}, the card of {path.name}, is not a JSON object")
    return card

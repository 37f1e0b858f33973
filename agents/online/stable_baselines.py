"""Models of stable-baselines3 (and sb3-contrib) as agents: what its `learn` trained and its `save` wrote.

A file of stable-baselines3 is a zip with pickles inside, and to unpickle is to run the code that a file carries. `load`
unpickles nothing, unless `trust_pickle` is set. The statistics of a `VecNormalize` lie in another file and are not applied.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from dfplan.agents.base import Agent
from dfplan.agents.loading import STABLE_BASELINES
from dfplan.agents.online.policy_from_zip import ActingModel, acting_model, algorithm_class, no_learning
from dfplan.quoting import shortened
from dfplan.training.checkpoint import CheckpointError
from dfplan.training.model_zip import ModelZip, read_model_zip
from dfplan.training.weights_file import card_beside, card_of
from dfplan.whole_files import write_whole

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")
"""Keys of a goal-conditioned observation, as Gymnasium-Robotics and hindsight replay have them."""


class StableBaselinesAgent(Agent):
    """Acts as `model.predict(..., deterministic=True)` of stable-baselines3 does.

    A goal-conditioned model gets the goal of `reset`, and the first columns of the observation as the achieved goal; any
    other model ignores goals. It learns in stable-baselines3's own loop (`model.learn`), so there is no `update`.
    """

    kind = STABLE_BASELINES
    algorithm: str
    """Name of the algorithm's class, such as 'SAC'."""
    steps: int
    """Environment steps of its training."""
    execution = "learned policy"
    _dtype = np.float64

    def __init__(
        self, model: BaseAlgorithm | ActingModel, card: Mapping[str, Any] | None = None, file: bytes | None = None
    ):
        """`file`: the zip that the model came from, which `save` then writes again; None lets the model write itself."""
        self.policy: Any = model.policy
        self.observation_space, self.action_space = model.observation_space, model.action_space
        self._file, self._model = file, model if file is None else None
        self.observation_dim, goal_width = _widths(self.observation_space)
        self.goal_dim, self.needs_goal = goal_width or None, goal_width > 0
        actions: Any = self.action_space
        if not hasattr(actions, "low") or len(actions.shape) != 1:
            raise CheckpointError(f"actions must be a Box of shape (A,), this model's are {actions}")
        self.algorithm = model.algorithm if isinstance(model, ActingModel) else type(model).__name__
        self.steps = model.num_timesteps
        super().__init__(None, card)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", trust_pickle: bool = False) -> Self:
        """The agent of a file that stable-baselines3's `save` wrote, with the card of the JSON file beside it, if any.

        `trust_pickle` runs the code that the file carries, which a policy of its author's own classes needs: trust that author
        first. The limits of actions are read as the file prints them, to eight decimals. Raises CheckpointError for a missing,
        damaged or foreign file, for an unknown or missing library or algorithm, for a policy that cannot be built without
        unpickling, and for spaces that no agent has. The agent acts; to train it on, use stable-baselines3's own `load`.
        """
        file = read_model_zip(path)
        model = _unpickled(file, device) if trust_pickle else acting_model(file, device)
        card = card_beside(path)
        try:
            return cls(model, card, file.content)
        except CheckpointError as error:
            raise file.misfit(str(error)) from error

    def save(self, path: str | Path) -> None:
        """Write the model as a zip that `load` and stable-baselines3 read, and the card, if any, as JSON beside it."""
        path, file = Path(path), self._written()
        if card_of(self.card, path):
            write_whole(path.with_suffix(".json"), json.dumps(self.card, indent=1) + "\n")
        write_whole(path, file)

    def _written(self) -> bytes:
        if self._file is not None:
            return self._file
        live: Any = self._model
        live.save(file := io.BytesIO())
        return file.getvalue()

    def _state_to_pickle(self) -> dict[str, Any]:
        """For pickle and copies: a live model, whose environments neither takes, goes as its file."""
        return self.__dict__ | {"_model": None, "_file": self._written()}

    @property
    def parameters(self) -> int:
        """Number of trained parameters: actor and critics, without the target networks that follow them."""
        return sum(p.numel() for name, p in self.policy.named_parameters() if "_target" not in name)

    @property
    def device(self) -> torch.device:
        """Where the policy computes."""
        return torch.device(self.policy.device)

    def _with(self, config: None) -> Self:
        other = copy.copy(self)
        other.reset()
        return other

    def _begin(self) -> None:
        self._state: tuple[NDArray[Any], ...] | None = None
        self._begins: NDArray[np.bool_] | None = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        if self._begins is not None:
            self._begins[rows] = True

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        begins = np.ones(len(batch), dtype=bool) if self._begins is None else self._begins
        inputs: Any = batch
        if self.needs_goal:
            inputs = dict(zip(GOAL_KEYS, (batch, batch[:, : self.goal_dim], goals), strict=True))
        try:
            actions, self._state = self.policy.predict(inputs, self._state, begins, deterministic=True)
        except ValueError as error:  # distributions refuse NaN
            reason = shortened(" ".join(str(error).split()), 200)
            raise ValueError(f"the policy gave no action: {reason}") from error
        self._begins = np.zeros_like(begins)
        return actions


def _unpickled(file: ModelZip, device: str) -> BaseAlgorithm:
    """The model by stable-baselines3's own `load`, which runs the file's pickles."""
    algorithm = algorithm_class(file.data, file.name)
    try:
        return algorithm.load(io.BytesIO(file.content), device=device, custom_objects=_not_needed(file.data))
    except Exception as error:  # whatever the pickles of a foreign version raise
        raise CheckpointError(f"{file.name} cannot be loaded as a {algorithm.__name__} model ({error!r})") from error


def _not_needed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stand-ins for what acting does not need, and what may be large, or pickled by another version of Python."""
    stand_ins: dict[str, Any] = {"learning_rate": 0.0, "lr_schedule": no_learning, "clip_range": no_learning}
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

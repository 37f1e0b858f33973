"""What all agents have in common: how they are called, and the rules for what they are given and give back.

Every rule stands here once: observations, goals, rows of a batch, seeds, options, training batches, results, and which of
torch's modes a caller may have set. `Agent` is the face of all agents; `LearningAgent` is one whose weights are a torch
module that `update` trains.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dfplan.agents import hub
from dfplan.agents.loading import pretrained_path
from dfplan.arrays import Shape, read, read_parts, read_rows, read_whole
from dfplan.config_json import config_from_json, config_to_json
from dfplan.data.features import AS_RECORDED, Features, registered
from dfplan.models.keypoints import PictureConfig, PictureEncoder
from dfplan.names import unknown
from dfplan.planning.ask import Ask
from dfplan.training.weights_file import PICTURES, Header, load_weights, naming, restored, save_weights

P = ParamSpec("P")
R = TypeVar("R")


def named(method: Callable[P, R]) -> Callable[P, R]:
    """A method of an agent whose ValueErrors begin with the agent's name."""

    @functools.wraps(method)
    def by_name(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except ValueError as error:
            name = f"{type(args[0]).__name__}: "
            if not str(error).startswith(name):
                error.args = (f"{name}{error}",)
            raise

    return by_name


class Agent(ABC):
    """Acts for one observation or for a batch of them, each row an episode of its own.

    A subclass forgets its plans in `_begin`, those of some rows in `_begin_rows`, and acts in `_act`. What reaches these
    was checked, and a ValueError from within gets the agent's name. Agents can be pickled and copied in the middle of an
    episode, and go on as they would have.
    """

    kind: ClassVar[str | None] = None
    """What the agent's weights files say that they hold; None for an agent that has no weights."""
    stacked: ClassVar[bool] = False
    """Whether these files hold several training seeds, of which `load` takes a `member`."""
    config: Any
    """How the agent acts: a dataclass whose fields `with_options` changes; None: nothing can be changed."""
    observation_dim: int | None = None
    """Width of an observation; None: any."""
    features: Features = AS_RECORDED
    """What makes such an observation of what an environment observes."""
    goal_dim: int | None = None
    """Width G of a goal; 0: the agent takes none, None: any."""
    needs_goal: bool = False
    """Whether it cannot act without a goal."""
    sees_unknown: bool = False
    """Whether an observation may hold NaN: what is unknown of it, such as a missing frame."""
    answers: frozenset[str] = frozenset()
    """Parts of `Ask`, beside the goal, that it acts by."""
    _dtype: ClassVar[type[np.floating[Any]]] = np.float32

    def __init__(self, config: Any, card: Mapping[str, Any] | None):
        """A subclass says before what it takes. Raises ValueError for features of a function that nobody registered."""
        self.config, self.card = config, dict(card or {})
        if self.features.function:
            registered(self.features.function)
        self.reset(seed=0)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The agent of a file written by `save`. Raises CheckpointError for a file that is not one."""
        raise ValueError(f"{cls.__name__} has no weights to load: make one from its parts")

    @classmethod
    def from_pretrained(cls, name: str, **how: Any) -> Self:
        """The agent of weights that come with the package, such as 'maze2d-large', or of 'user/name' on the Hugging Face hub;
        `how` as of `load`.

        Raises ValueError for a name that is not among them; of a repository, what `hub.fetch` raises.
        """
        return cls.load(pretrained_path(name, cls.kind), **how)

    @named
    def reset(self, goal: ArrayLike | None = None, seed: int | None = None, ask: Ask | None = None) -> None:
        """Begin new episodes: forget all plans, and take a goal (G,) for all rows, (1, G) likewise, (B, G) for each row,
        or None. Recorded units. An agent that was trained for one goal only checks what it is given and goes to its own.

        `seed` starts the agent's own randomness anew: same seed and observations, same actions. `ask` is what plans are asked
        for beside or in place of the goal. Raises ValueError for parts of it that the agent cannot act by.
        """
        given = self._read_ask(goal, ask)
        if seed is not None:
            self._seed(read_whole(seed, "the seed", 0, 2**63 - 1))
        self._goal: NDArray[Any] | None = given.goal
        self._goal_given = given.goal is not None
        self._ask = dataclasses.replace(given, goal=None)
        self._rows: int | None = None
        self._begin()

    @named
    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """The action (action_dim,) for an observation (observation_dim,), or (B, action_dim) for (B, observation_dim).

        In recorded units, or what the environment observes, where the agent has `features`: a Dict with a goal of its own gives
        the goal too, if none was given at the reset. Another number of rows than before begins new episodes in all of them.
        Raises ValueError for an observation of another form, for goals that are neither one nor one for each row, and where no
        finite action comes out.
        """
        given = self._read_observation(observation)
        batch = np.atleast_2d(given)
        if self.features.goal_key and isinstance(observation, Mapping) and not self._goal_given:
            self._goal = self._read_goal(observation)  # at each step: an episode of a row may have begun
        goals = self._goals(self._goal, len(batch))
        if self._rows != len(batch):
            self._begin()
            self._rows = len(batch)
        with undisturbed(self.device):
            action = np.asarray(self._act(batch, goals), dtype=np.float32)
        require_finite("action", action)
        return action if given.ndim == 2 else action[0]

    @named
    def forget(self, rows: ArrayLike, goal: ArrayLike | None = None) -> None:
        """New episodes began in these rows of the batch: plan them anew at the next `act`, to new goals (len(rows), G),
        or to one (G,). `rows` are numbers, or a mask (batch,) such as `terminated | truncated`.

        Raises ValueError for rows outside the batch, for another number of goals, and for goals of single rows where
        there is no goal for each row yet.
        """
        batch = self._rows
        if batch is None and self._goal is not None and self._goal.ndim == 2 and len(self._goal) > 1:
            batch = len(self._goal)  # one goal alone is for any number of rows
        index = read_rows(rows, batch, "rows of ")
        if goal is not None:
            goals = self._goals(self._read_goal(goal), len(index), "rows")
            if self._goal is None or batch is None:
                raise ValueError("goals of single rows need a goal for each row: reset(goal) with (batch, G) first")
            self._goal = self._goals(self._goal, batch)
            self._goal[index] = goals
        if len(index) and self._rows is not None:
            with undisturbed(self.device):
                self._begin_rows(index)

    @named
    def with_options(self, **changes: Any) -> Self:
        """An agent with the same weights that acts by other options: fields of its config. ValueError for other names."""
        require_options(changes, [field.name for field in dataclasses.fields(self.config)] if self.config else [])
        return self._with(dataclasses.replace(self.config, **changes) if changes else self.config)

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return 0

    @property
    def device(self) -> torch.device:
        """Where the agent computes."""
        return torch.device("cpu")

    def _seed(self, seed: int) -> None:  # noqa: B027
        """Start the agent's own randomness anew, if it has any."""

    def _begin(self) -> None:  # noqa: B027
        """Forget all plans, if there are any."""

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:  # noqa: B027
        """Forget the plans of these rows of the batch, if there are any."""

    @abstractmethod
    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        """Actions (B, action_dim) for observations (B, observation_dim) and goals (B, G)."""

    @abstractmethod
    def _with(self, config: Any) -> Self:
        """A new agent with the same weights and another config."""

    def __getstate__(self) -> bytes:
        # Plainly pickled inside: multiprocessing's own way would put tensors where both processes write, or fail.
        return pickle.dumps(self._state_to_pickle())

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(pickle.loads(state))

    def _state_to_pickle(self) -> dict[str, Any]:
        """What is kept of the agent when it is pickled or copied."""
        return self.__dict__

    def _read_observation(self, observation: Any) -> NDArray[Any]:
        D = self.observation_dim or "observation_dim"
        given = observation if self.features.as_recorded else self.features(observation)
        return read(given, "the observation", (D,), ("batch", D), dtype=self._dtype, unknown=self.sees_unknown)

    def _read_goal(self, goal: Any) -> NDArray[Any]:
        if self.goal_dim == 0:
            raise ValueError("this model was made without goal columns, so that it acts without a goal")
        G = self.goal_dim or "goal_dim"
        given = self.features.goal(goal) if self.features.goal_columns else goal
        return read(given, "the goal", (G,), ("batch", G), dtype=self._dtype)

    def _goals(self, goal: NDArray[Any] | None, rows: int, what: str = "observations") -> Any:
        """A goal for each of the rows, (rows, G): one goal is that of all. ValueError for another number of goals."""
        if goal is None:
            if self.needs_goal:
                raise ValueError("this agent needs a goal: call reset(goal=...) before it acts")
            return None
        goals = np.atleast_2d(goal)
        if len(goals) not in (1, rows):
            expected = "1" if rows == 1 else f"1 or {rows}"
            raise ValueError(f"there are {len(goals)} goals for {rows} {what}: expected {expected}")
        return goals.copy() if len(goals) == rows else goals.repeat(rows, axis=0)

    def _read_ask(self, goal: Any, ask: Ask | None) -> Ask:
        """What is asked for, its goal read as an array; `goal` is one that was given by itself."""
        if ask is not None and not isinstance(ask, Ask):
            raise ValueError(f"ask must be an Ask, got {type(ask).__name__}")
        ask = self._answered(ask or Ask())
        if goal is not None and ask.goal is not None:
            raise ValueError("there are two goals, one by itself and one in ask: give one of them")
        goal = ask.goal if goal is None else goal
        return dataclasses.replace(ask, goal=None if goal is None else self._read_goal(goal))

    def _answered(self, ask: Ask) -> Ask:
        """The same, if the agent can act by all of its parts. Else ValueError."""
        given = {"costs": ask.costs, "constraints": ask.constraints, "return_": ask.return_ is not None}
        if unanswered := sorted(name for name, part in given.items() if part and name not in self.answers):
            expected = ", ".join(sorted({"goal", *self.answers}))
            raise ValueError(f"this agent cannot be asked for {', '.join(unanswered)}: expected only {expected}")
        return ask


class LearningAgent(Agent):
    """An agent whose weights are a module with losses: `learner(batch, generator)` gives them, their sum as 'loss'."""

    learner_class: ClassVar[type[nn.Module]]
    """The weights' module."""
    learner_config_class: ClassVar[type]
    """What `learner_class` is made of: its `config`."""
    config_class: ClassVar[type]
    """Of `config`."""
    learning_rate: ClassVar[float] = 1e-4
    """Of `update`."""
    acting: ClassVar[tuple[str, ...]] = ("",)
    """What the names of the tensors begin with that acting needs."""

    def __init__(self, learner: Any, config: Any = None, card: Mapping[str, Any] | None = None):
        self.learner, self.config = learner.eval(), config or self.config_class()
        self.observation_dim = len(learner.observation.mean)
        self.features = getattr(learner.config, "features", AS_RECORDED)
        self.encoder: PictureEncoder | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._fit_learner()
        super().__init__(self.config, card)

    def seeing(self, encoder: PictureEncoder | None) -> Self:
        """Let the agent see pictures by this encoder, which is a part of it from now on; returns the agent."""
        self.encoder = None if encoder is None else encoder.eval()
        return self

    def _fit_learner(self) -> None:
        """Take from the learner what the agent takes. ValueError for a config that does not fit the learner."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The agent of a file written by `save`, acting as its header says. CheckpointError for a file that is not one."""
        tensors, header = load_weights(path, str(cls.kind))
        only = cls.acting if header.critics is False else ("",)
        own, encoder = _without_encoder(tensors, header, path)
        learner = restored(cls.learner_class, cls.learner_config_class, header.config, own, path, only)
        acting, where, card = header.agent, "agent", dict(header.card)
        if acting is None and "agent" in card:  # as the files of trajectory models once were
            acting, where = card.pop("agent"), "card.agent"
        with naming(path):
            config: Any = config_from_json(cls.config_class, acting, where)
            return cls(learner, config, card).seeing(encoder)

    def save(self, path: str | Path, half: bool = False) -> None:
        """Write weights, configs and card as one safetensors file that `load` reads.

        `half` rounds what was trained to float16, half the size; units and limits stay as they are.
        """
        self._write(path, rounded=half)

    def push(self, repository: str, private: bool = False, **how: Any) -> str:
        """Save to 'user/name' on the Hugging Face hub, with a model card made of the weights' own, for `from_pretrained`; the
        repository's address. A `private` one can be read with a token only; `how` as of `save`.

        Raises what `hub.publish` raises.
        """
        card = hub.model_card(repository, str(self.kind), self.parameters, self.card)
        with TemporaryDirectory() as folder:
            self.save(Path(folder, hub.WEIGHTS), **how)
            return hub.publish(repository, Path(folder, hub.WEIGHTS), card, private)

    def _write(self, path: str | Path, rounded: bool = False, critics: bool | None = None) -> None:
        """Write a file, its parameters `rounded` to half precision; `critics` as of `Header`: False leaves out what is not
        `acting`."""
        tensors = dict(self.learner.state_dict())
        if critics is False:
            tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(self.acting)}
        if rounded:
            trained = {name for name, _ in self.learner.named_parameters()}
            tensors = {name: tensor.half() if name in trained else tensor for name, tensor in tensors.items()}
        seen = None if self.encoder is None else config_to_json(self.encoder.config)
        if self.encoder is not None:
            tensors |= {f"{PICTURES}{name}": tensor for name, tensor in self.encoder.half_sized().items()}
        configs = config_to_json(self.learner.config), self.card, config_to_json(self.config)
        save_weights(path, tensors, Header(str(self.kind), *configs, critics, seen))

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        modules = [self.learner] if self.encoder is None else [self.learner, self.encoder]
        return sum(p.numel() for module in modules for p in module.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are and the agent computes."""
        return self.learner.action_low.device

    def to(self, device: str | torch.device) -> Self:
        """Move the weights, which agents made by `with_options` share. Goal, plan and the moments of `update` are forgotten.
        Returns the agent.
        """
        self.learner.to(device)
        if self.encoder is not None:
            self.encoder.to(device)
        self._optimizer = None
        self.reset(seed=0)
        return self

    def _seed(self, seed: int) -> None:
        self._generator = torch.Generator(self.device).manual_seed(seed)

    def _with(self, config: Any) -> Self:
        return type(self)(self.learner, config, self.card).seeing(self.encoder)

    def _read_observation(self, observation: Any) -> NDArray[Any]:
        if self.encoder is not None:
            with undisturbed(self.device):
                observation = self.encoder.numbers(observation, self.sees_unknown)
        return super()._read_observation(observation)

    def _tensor(self, array: NDArray[Any] | None) -> Any:
        """The same as a tensor on the agent's device; None stays None."""
        return None if array is None else torch.from_numpy(array).to(self.device)

    def _read_batch(self, batch: Any, parts: Mapping[str, Shape]) -> list[NDArray[Any]]:
        """The parts of a training batch, in their order; a size that has a name is the same in all parts."""
        return read_parts(batch, parts, "")

    @named
    def update(self, batch: Any) -> dict[str, float]:
        """One step of the optimizer on a training batch, a tuple of arrays in recorded units: the losses.

        For small experiments and data that keep coming: `dfplan.training.loop.train` is what made shipped weights (schedule,
        moving average, checkpoints). Raises ValueError for parts of another number or shape, and for what is not finite: losses
        too, and then the weights stay.
        """
        arrays = self._read_batch(batch, self._parts(len(batch) if isinstance(batch, list | tuple) else 0))
        if self._optimizer is None:
            self._optimizer = self._new_optimizer()
        with undisturbed(self.device), torch.enable_grad():
            try:
                losses = self.learner.train()(tuple(map(self._tensor, arrays)), self._generator)
                require_finite("loss", losses["loss"].detach())
                self._optimizer.zero_grad()
                losses["loss"].backward()
                gradients = [p.grad for p in self.learner.parameters() if p.grad is not None]
                require_finite("gradient of the loss", nn.utils.get_total_norm(gradients))
                self._optimizer.step()
            finally:
                self.learner.eval()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """Names and shapes of a training batch's parts, of which so many are given."""
        raise NotImplementedError

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.learner.parameters(), lr=self.learning_rate)


def _without_encoder(
    tensors: Mapping[str, Tensor], header: Header, path: str | Path
) -> tuple[dict[str, Tensor], PictureEncoder | None]:
    """The tensors of a file that are the learner's, and what sees pictures, if the file has it."""
    if header.pictures is None:
        return dict(tensors), None
    seen = {name.removeprefix(PICTURES): part for name, part in tensors.items() if name.startswith(PICTURES)}
    encoder = restored(PictureEncoder, PictureConfig, header.pictures, seen, path)
    return {name: part for name, part in tensors.items() if not name.startswith(PICTURES)}, encoder


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Torch as if nobody had changed its modes, without gradients.

    What is kept from one call to the next must not be made in a caller's inference mode, and a caller's autocast would
    give other actions.
    """
    with ExitStack() as modes:
        if torch.is_autocast_enabled(device.type):
            torch.clear_autocast_cache()  # it may hold weights as they were before an update
            modes.callback(torch.clear_autocast_cache)
            modes.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.no_grad())
        yield


def require_finite(what: str, *parts: NDArray[Any] | Tensor) -> None:
    """Raise ValueError unless all numbers of a result are finite: NaN never leaves an agent in silence."""
    if not all(bool((part.isfinite() if isinstance(part, Tensor) else np.isfinite(part)).all()) for part in parts):
        raise ValueError(
            f"the {what} has NaN or infinity in it: the weights, the options or what was given are out of range"
        )


def require_options(changes: Mapping[str, Any], known: list[str]) -> None:
    """Raise ValueError for a name that is not among the known options."""
    for name in sorted(set(changes) - set(known)):
        raise ValueError(str(unknown("option", name, known)) if known else f"unknown option {name!r}: it has none")

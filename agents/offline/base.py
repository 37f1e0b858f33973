"""What the offline learners share: networks of several training seeds at once, parts of losses, the agent.

A learner holds the networks of S training seeds as stacks (`dfplan.models.stacked`) and trains them in one run. Each seed
has its own initial values, batches and noise, so that member i is what a run with that seed alone and the same
`TrainConfig.seed` gives, up to the order of floating point sums. Each algorithm is whole in its own file: `bc`, `td3_bc`,
`iql`, `awac`, `cql`.

Learners of values learn what the recorded rewards are for: a goal that their agents are given at `reset` is ignored.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AliasChoices, Field
from torch import Tensor, nn

from dfplan.agents.base import LearningAgent, named
from dfplan.arrays import Shape
from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.returns import require_rewards
from dfplan.data.statistics import Statistics, Widths
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Noise, Transitions
from dfplan.fields import CheckedFields, Positive, Share, Size, Whole
from dfplan.models.stacked import StackedMLP
from dfplan.onnx_file import write_onnx

Losses = tuple[dict[str, Tensor], dict[str, Tensor]]
"""What is minimized and what is only watched, each (S,): means over a member's own batch."""
MaxWeight = Annotated[Positive, Field(validation_alias=AliasChoices("max_weight", "longest_weight"))]
"""The largest weight of a recorded action; files of older versions call it 'longest_weight'."""


@dataclass(frozen=True)
class OfflineConfig(Widths):
    """What the learners share; each algorithm adds its own hyperparameters."""

    seeds: Annotated[tuple[Whole, ...], Field(min_length=1, max_length=1000)] = (0, 1, 2)
    """Training seeds, one member of every stack each."""
    hidden: Annotated[tuple[Size, ...], Field(min_length=1, max_length=100)] = (256, 256)
    """Widths of the hidden layers of every network."""
    features: Features = AS_RECORDED
    """How what an environment observes becomes the observations of the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, got {self.seeds}")


@dataclass(frozen=True)
class ValueConfig(OfflineConfig):
    """What the learners of values share."""

    gamma: Share = 0.99
    """Discount."""


@dataclass(frozen=True)
class TargetConfig(ValueConfig):
    """What those with target networks share, but for IQL, whose paper calls it alpha."""

    tau: Share = 0.005
    """How far the targets follow in one update."""


@dataclass(frozen=True)
class ActingConfig(CheckedFields):
    """How an offline agent acts."""

    member: Whole = 0
    """Which of the stacked training seeds acts: its place in the learner's `seeds`."""


C = TypeVar("C", bound=OfflineConfig)


class OfflineLearner(Statistics, ABC, Generic[C]):
    """The networks of S training seeds and their losses; observations are normalized, actions scaled to [-1, 1].

    An algorithm builds its networks, the actor under the name `pi`, and defines what they minimize (`losses`) and how they act
    (`mean_action`).
    """

    rewarded: ClassVar[bool] = True
    """Whether it learns from rewards."""
    config: C
    pi: StackedMLP
    goal_columns: tuple[int, ...]
    """Observation columns of the goals that networks are given beside observations; none for those that learn from rewards."""

    def __init__(self, config: C):
        super().__init__(config.observation_dim, config.action_dim, scale_actions=True)
        self.config, self.goal_columns = config, getattr(config, "goal_columns", ())
        self._state_dim = config.observation_dim + len(self.goal_columns)
        self._initial = [torch.Generator().manual_seed(seed) for seed in config.seeds]

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizer and action limits from the data. ValueError for data without the rewards that it learns from."""
        if self.rewarded:
            require_rewards(data, type(self).__name__)
        super().fit_statistics(data)

    @abstractmethod
    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """The losses of a batch.

        Their sum is differentiated once, so that each loss must hold every network fixed that it is not meant to move.
        """

    def mean_action(self, outputs: Tensor) -> Tensor:
        """The action to play, scaled to [-1, 1], from the actor's outputs: without noise."""
        return outputs.tanh()

    def of_states(self, outputs: int) -> StackedMLP:
        """A network of states for every seed."""
        return StackedMLP((self._state_dim, *self.config.hidden, outputs), self._initial)

    def twins(self) -> StackedMLP:
        """Q_1 and Q_2 of every seed: members 2 i and 2 i + 1 belong to seed i."""
        twice = [generator for generator in self._initial for _ in range(2)]
        return StackedMLP((self._state_dim + self.config.action_dim, *self.config.hidden, 1), twice)

    def state(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        """What networks see (..., observation_dim + G) of observations and goals (..., G) in recorded units."""
        s = self.observation.normalize(observation)
        if not self.goal_columns or goal is None:
            return s
        return torch.cat([s, self.normalize_goal(goal, self.goal_columns)], dim=-1)

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of all members as one: a sum over members, so that each is trained as if it were alone."""
        return self.summed(*self.losses(self.transitions(*batch), Noise(generator, self.config.seeds)))

    def transitions(self, s: Tensor, a: Tensor, r: Tensor, s_next: Tensor, ended: Tensor, *goal: Tensor) -> Transitions:
        """The parts of a batch, in recorded units, as networks see them."""
        return Transitions(self.state(s, *goal), self.scale_action(a), r, self.state(s_next, *goal), ended)

    @staticmethod
    def summed(minimized: Mapping[str, Tensor], watched: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is minimized, (S,) each, as one sum, and the means of all."""
        loss = torch.stack(list(minimized.values())).sum()
        return {"loss": loss, **{name: value.detach().mean() for name, value in {**minimized, **watched}.items()}}

    @torch.no_grad()
    def play(self, observation: Tensor, member: int, goal: Tensor | None = None) -> Tensor:
        """One member's action (B, action_dim) for (B, observation_dim) and goals (B, G), all in recorded units."""
        outputs = self.pi.alone(member, self.state(observation, goal))
        return self.unscale_action(self.mean_action(outputs).clamp(-1, 1))


class Playing(nn.Module):
    """One member's `play` of a learner, as a module."""

    def __init__(self, learner: OfflineLearner[Any], member: int):
        super().__init__()
        self.learner, self.member = learner, member

    def forward(self, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        """Actions (B, action_dim) for observations (B, observation_dim) and goals (B, G), in recorded units."""
        return self.learner.play(observation, self.member, goal)


class OfflineAgent(LearningAgent):
    """A trained policy that acts without noise and without a plan; one member of the learner's stacks.

    Each algorithm's agent is this class with its `kind` and learner.
    """

    config_class = ActingConfig
    config: ActingConfig
    stacked = True
    acting: ClassVar[tuple[str, ...]] = ("pi.", "observation.", "action_")
    execution = "learned policy"

    def _fit_learner(self) -> None:
        seeds, columns = self.learner.config.seeds, self.learner.goal_columns
        if self.config.member >= len(seeds):
            raise ValueError(f"member must lie in 0..{len(seeds) - 1}, got {self.config.member}")
        self.goal_dim, self.needs_goal = len(columns) or None, bool(columns)

    @property
    def parameters(self) -> int:
        """Number of trained parameters of one training seed, critics included."""
        return super().parameters // len(self.learner.config.seeds)

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        return self.learner.play(self._tensor(batch), self.config.member, self._tensor(goals)).cpu().numpy()

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """Transitions: `terminated` is 1 where the task ended with the step, else 0; without it nothing terminates. The goals
        of a policy that is given any come last."""
        D, A, G = self.learner.config.observation_dim, self.learner.config.action_dim, len(self.learner.goal_columns)
        parts: dict[str, Shape] = {"s": ("B", D), "a": ("B", A), "r": ("B",), "s'": ("B", D)}
        parts |= {"terminated": ("B",)} if G or given > len(parts) else {}
        return parts | ({"goals": ("B", G)} if G else {})

    def _read_batch(self, batch: Any, parts: Mapping[str, Shape]) -> list[NDArray[Any]]:
        """The same (B, ...) for all members, or one for each, (S, B, ...)."""
        members = len(self.learner.config.seeds)
        apart = isinstance(batch, list | tuple) and len(batch) == len(parts) and np.ndim(batch[0]) == 3
        if apart:
            parts = {name: (members, *shape) for name, shape in parts.items()}
        arrays = super()._read_batch(batch, parts)
        arrays += [np.zeros_like(arrays[2])] * (len(Transitions._fields) - len(arrays))
        if not np.isin(arrays[4], (0, 1)).all():
            raise ValueError("the batch's terminated must be 0 or 1")
        return arrays if apart else [np.stack([part] * members) for part in arrays]

    def _new_optimizer(self) -> torch.optim.Optimizer:
        factor = getattr(self.learner, "learning_rate_factor", lambda name: 1.0)
        named = self.learner.named_parameters()
        return torch.optim.Adam([{"params": [p], "lr": 3e-4 * factor(name)} for name, p in named])

    @named
    def export(self, path: str | Path) -> None:
        """Write the policy as an ONNX file: from `observation` (B, observation_dim), and `goal` (B, G) where it needs one, to
        `action` (B, action_dim), all in recorded units.

        Raises what `dfplan.onnx_file.write_onnx` raises.
        """
        learner = copy.deepcopy(self.learner).cpu()
        inputs = {"observation": torch.zeros(2, learner.config.observation_dim)}
        inputs |= {"goal": torch.zeros(2, len(learner.goal_columns))} if learner.goal_columns else {}
        write_onnx(Playing(learner, self.config.member).eval(), inputs, "action", ("B",), {}, path)

    def save(self, path: str | Path, critics: bool = False) -> None:
        """Write one file that `load` reads, all training seeds in it.

        Without `critics` it holds what acting needs, rounded to float16: small, and the loaded agent acts by the rounded
        weights. With them it holds everything in full precision.
        """
        self._write(path, rounded=not critics, critics=critics)

    @classmethod
    def load(cls, path: str | Path, member: int | None = None) -> Self:
        """The agent of a file, acting by the weights of the `member`-th training seed in it (None: the one saved).

        A file without critics gives new ones: then `update` trains the policy on by critics that are not trained yet. Raises
        CheckpointError for a file that is missing, truncated or another agent's, ValueError for a member that is not in it.
        """
        agent = super().load(path)
        return agent if member is None else agent.with_options(member=member)

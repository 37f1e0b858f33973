"""What full-sequence diffusion planners share: all tokens of a plan of fixed length are denoised from one noise level.

Diffuser (`dfplan.agents.diffuser`) and Decision Diffuser (`dfplan.agents.decision_diffuser`) add the rest: what is known of a
plan, what steers it, and how actions come from it. Not to be confused with Diffusion Forcing, where every token has a
level of its own and a plan any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplan.agents.planning_agent import PlanningAgent
from dfplan.arrays import Shape
from dfplan.data.statistics import Normalizer, Statistics
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import BatchSource, ReturnWindows
from dfplan.diffusion import matrices
from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import NoiseSchedule, Prediction, ScheduleName
from dfplan.diffusion.sampler import Known, sample
from dfplan.fields import Share, Size, Whole, check_columns, check_fields
from dfplan.models import UNetConfig
from dfplan.planning.ask import Ask
from dfplan.planning.plan import Plan


@dataclass(frozen=True)
class SequenceConfig:
    """What is learned, and how large."""

    layout: TokenLayout
    """Which columns of a token are observation and action, and how many steps it covers."""
    tokens: Size = 48
    """T: a plan is always T tokens, the start among them, and so (T - 1) * stride environment steps long."""
    towards: Literal["goal", "return"] = "goal"
    """Plan to a goal that is given at each reset, or for a high return of the recorded task."""
    goal_columns: tuple[int, ...] = (0, 1)
    """Observation columns in which a goal is given."""
    network: UNetConfig = field(default_factory=UNetConfig)
    """The temporal U-Net that denoises."""
    schedule: ScheduleName = "cosine"
    """How alpha_bar falls with the level."""
    levels: Size = 256
    """K: the level of pure noise."""
    prediction: Prediction = "x0"
    """What the network predicts."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.tokens < 3:
            raise ValueError(f"a plan needs a start, an end and a token between them, got tokens={self.tokens}")
        check_columns(self.goal_columns, self.layout.observation_dim, "goal_columns")
        if not self.goal_columns:
            raise ValueError("goal_columns must name at least one column of the observation")

    @property
    def steps(self) -> int:
        """Environment steps that a plan covers."""
        return (self.tokens - 1) * self.layout.stride


class SequenceModel(Statistics):
    """Units, returns and sampling of a full-sequence planner; its networks and loss are a subclass's."""

    best_return: Tensor

    def __init__(self, config: SequenceConfig):
        super().__init__(config.layout.observation_dim, config.layout.action_dim)
        self.config = config
        self.returns = Normalizer.standard(1)
        self.schedule = NoiseSchedule(config.schedule, config.levels)
        self.register_buffer("best_return", torch.ones(()))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizers, action limits and the best return of a window from the data, before training."""
        super().fit_statistics(data)
        windows = ReturnWindows(data, self.config.steps + 1)
        returns = windows.returns(windows.starts)
        self.returns = Normalizer.fit(returns[:, None])
        self.best_return = torch.tensor(float(returns.max()))

    def batches(self, data: Trajectories) -> BatchSource:
        """Batches of random windows: see `ReturnWindows.sample`."""
        return ReturnWindows(data, self.config.steps + 1).sample

    def plan(self, observation: Tensor, ask: Ask, config: Any, generator: torch.Generator, record: bool = False) -> Plan:
        """Plans from observations (B, observation_dim) in recorded units, of what is asked for; a subclass's."""
        raise NotImplementedError

    def token_at(self, observation: Tensor) -> Tensor:
        """Tokens (B, C) that stand for observations (B, observation_dim) in recorded units."""
        return self.config.layout.state_token(self.observation.normalize(observation))

    def draw(
        self,
        diffusion: Diffusion,
        known: Known,
        config: SequenceAgentConfig,
        generator: torch.Generator,
        record: bool,
        guidance: Guidance | None = None,
    ) -> Plan:
        """Full-sequence sampling around the known tokens (B, T, C)."""
        layout, T = self.config.layout, self.config.tokens
        matrix = matrices.full_sequence(T, self.config.levels, config.steps)
        shape, options = (len(known.mask), T, layout.width), {"eta": config.eta, "record": record}
        drawn = sample(diffusion, matrix, shape, generator, known=known, guidance=guidance, **options)
        return Plan(
            observations=self._states(drawn.tokens),
            lengths=torch.full((len(drawn.tokens),), T - 1, device=drawn.tokens.device),
            levels=torch.zeros(drawn.tokens.shape[:2], dtype=torch.int64, device=drawn.tokens.device),
            tokens=drawn.tokens,
            actions=self.action.denormalize(layout.unpack_actions(drawn.tokens)) if layout.actions else None,
            history=[(self._states(x), k) for x, k in drawn.history],
        )

    def _states(self, tokens: Tensor) -> Tensor:
        """Observations (B, T, kept, observation_dim) in recorded units of normalized tokens (B, T, C)."""
        layout = self.config.layout
        states = tokens[..., : layout.observation_width].unflatten(-1, (layout.kept, layout.observation_dim))
        return self.observation.denormalize(states)


@dataclass(frozen=True)
class SequenceAgentConfig:
    """How plans are made, and when."""

    steps: Size = 20
    """Denoising steps from pure noise to a clean plan."""
    eta: Share = 0.0
    """0 for DDIM, 1 for DDPM's ancestral step."""
    replan_every: Whole = 0
    """Environment steps between plans; 0 plans once an episode and holds the plan's last state after its end."""

    def __post_init__(self) -> None:
        check_fields(self)


class SequenceAgent(PlanningAgent):
    """An agent that plans a whole sequence and follows it. One that plans towards a return ignores goals."""

    learner_config_class: ClassVar[type[SequenceConfig]]
    learner: SequenceModel
    config: SequenceAgentConfig
    learning_rate = 2e-4

    def __init__(self, learner: Any, config: Any = None, card: dict[str, Any] | None = None):
        goal_dim = len(learner.config.goal_columns) if learner.config.towards == "goal" else None
        observation_dim = learner.config.layout.observation_dim
        super().__init__(learner, config or self.config_class(), card, observation_dim=observation_dim, goal_dim=goal_dim)

    def _draw(self, observation: Tensor, ask: Ask, horizons: Tensor | None, record: bool) -> Plan:
        if self.learner.config.towards == "goal":
            if ask.goal is None:
                raise ValueError("this planner needs a goal: call reset(goal=...) before it acts")
            if ask.return_ is not None:
                raise ValueError("this planner has learned to reach goals, so that it cannot be asked for a return")
        return self.learner.plan(observation, ask, self.config, self._generator, record)

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """As `ReturnWindows.sample` draws them, S one more than the plan's steps.

        Without the last part all steps were recorded; a planner to a goal needs no returns.
        """
        S, layout = self.learner.config.steps + 1, self.learner.config.layout
        parts: dict[str, Shape] = {"observations": ("B", S, layout.observation_dim), "actions": ("B", S, layout.action_dim)}
        if self.learner.config.towards == "return" or given != 2:
            parts["returns"] = ("B",)
        return parts | ({"recorded steps": ("B",)} if given > 3 else {})

    def _read_batch(self, batch: Any, parts: Mapping[str, Shape]) -> list[NDArray[Any]]:
        arrays, S = super()._read_batch(batch, parts), self.learner.config.steps + 1
        if len(arrays) > 3 and not np.isin(arrays[3], np.arange(1, S + 1)).all():
            raise ValueError(f"{self._name}: the batch's recorded steps must be whole numbers from 1 to {S}")
        return arrays

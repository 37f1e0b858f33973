"""Diffusion Veteran (Lu et al. 2025): plans drawn without guidance, the best chosen by a critic, acted out by diffusion.

Monte Carlo sampling with selection (MCSS): N candidate plans tau = (s_t, s_{t+m}, ..., s_{t+(T-1)m}) of states m steps
apart are drawn by a diffusion model from the known start, a critic V(tau) picks one, and diffusion inverse dynamics draws
a ~ p(a | s_t, s_{t+m}). The critic learns the data's own rewards: unlike Diffusion Forcing's, these weights have no other goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplan.agents.planning_agent import PlanningAgent
from dfplan.arrays import Shape
from dfplan.data.returns import require_rewards
from dfplan.data.sparse_paths import GoalPaths, ReturnPaths
from dfplan.data.statistics import Statistics, Widths
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import BatchSource
from dfplan.diffusion import matrices
from dfplan.diffusion.levels import inpainted, shared
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import NoiseSchedule
from dfplan.diffusion.sampler import sample
from dfplan.fields import CheckedFields, Count, NotNegative, Share, Size, check_columns
from dfplan.models import Transformer, TransformerConfig
from dfplan.models.diffusion_inverse import DiffusionInverse
from dfplan.models.trajectory_value import TrajectoryValue
from dfplan.planning.ask import Ask
from dfplan.planning.choice import lowest
from dfplan.planning.ends import known_ends
from dfplan.planning.execution import Following, each_step
from dfplan.planning.plan import Plan
from dfplan.training.losses import total


@dataclass(frozen=True)
class VeteranModelConfig(Widths):
    """What is learned, and how large."""

    positions: tuple[int, ...] = ()
    """Where the reward is for being at one place: the observation columns of places. Plans then stay there, and of two places
    inverse dynamics sees only the difference. None: rewards of any form."""
    tokens: Size = 32
    """T: states of a plan, the start included."""
    stride: Size = 15
    """m: environment steps between two states of a plan."""
    discount: Share = 1.0
    """gamma of the critic's returns, which are scaled to [-1, 1]."""
    denoiser: TransformerConfig = field(default_factory=lambda: TransformerConfig(depth=2))
    """The network of the plans' diffusion."""
    critic: TransformerConfig = field(default_factory=lambda: TransformerConfig(width=64, depth=2))
    """The network of V."""
    levels: Size = 256
    """K: the level of pure noise, of plans."""
    inverse_levels: Size = 10
    """Levels of the action's diffusion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.positions, self.observation_dim, "positions")
        if self.tokens < 2:
            raise ValueError(f"a plan needs a start and at least one more token, got tokens={self.tokens}")
        if not self.discount:
            raise ValueError("the discount lies in (0, 1], got 0")


@dataclass(frozen=True)
class VeteranConfig(CheckedFields):
    """How a Diffusion Veteran acts."""

    candidates: Size = 50
    """N: plans drawn for each decision, of which the critic picks the one of the largest value. Time and memory of a decision
    grow with it."""
    steps: Size = 5
    """Denoising steps of a plan (DDIM)."""
    temperature: NotNegative = 0.5
    """Scale of the noise from which actions are drawn."""
    replan_every: Count = 20
    """Environment steps between plans; the paper replans at each. In between, inverse dynamics acts at each step, towards a
    target that moves along the plan."""


class Veteran(Statistics):
    """Planner, critic and inverse dynamics: what is trained and shipped."""

    goal_low: Tensor
    goal_high: Tensor

    def __init__(self, config: VeteranModelConfig):
        C, A = config.observation_dim, config.action_dim
        super().__init__(C, A, scale_actions=True)
        self.config = config
        network = Transformer(C, config.levels, config.denoiser)
        self.diffusion = Diffusion(network, NoiseSchedule("cosine", config.levels), "v", "uniform")
        self.critic = TrajectoryValue(C, config.critic)
        self.inverse = DiffusionInverse(C, A, config.positions, config.inverse_levels)
        if config.positions:
            self.register_buffer("goal_low", torch.full((len(config.positions),), -1.0))
            self.register_buffer("goal_high", torch.ones(len(config.positions)))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizer, action limits and the place of the reward from the data. ValueError for data without rewards."""
        require_rewards(data, "Diffusion Veteran")
        super().fit_statistics(data)
        places = data.observations[data.rewards > 0][:, list(self.config.positions)]
        if places.size:
            self.goal_low, self.goal_high = torch.from_numpy(places.min(axis=0)), torch.from_numpy(places.max(axis=0))

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """The three losses of a batch as `paths` draws it: they share no weights."""
        plans, returns, *pairs = batch
        x0 = self.observation.normalize(plans)
        levels = shared(x0.shape[0], x0.shape[1], self.config.levels, generator)
        levels = inpainted(levels, torch.arange(x0.shape[1], device=x0.device) == 0)
        s, target, a = (part.flatten(0, 1) for part in pairs)
        s, target = self.observation.normalize(s), self.observation.normalize(target)
        losses = {
            "diffusion": self.diffusion.loss(x0, levels, generator),
            "critic": self.critic.loss(x0, returns),
            "inverse": self.inverse.loss(s, target, self.scale_action(a), generator),
        }
        return total(losses)

    @torch.no_grad()
    def plan(self, observation: Tensor, candidates: int, steps: int, generator: torch.Generator) -> Plan:
        """MCSS from observations (B, observation_dim) in recorded units: of N candidates the one of the largest value.

        Its score 'value' (B,) is 1 for the best return. A plan or a value that is not finite is never chosen. Raises
        ValueError for an observation without any other.
        """
        B, T, s = len(observation), self.config.tokens, self.observation.normalize(observation)
        known = known_ends(s.repeat_interleave(candidates, dim=0), T)
        matrix = matrices.full_sequence(T, self.config.levels, steps)
        tokens = sample(self.diffusion, matrix, (B * candidates, T, s.shape[1]), generator, known=known).tokens
        values = self.critic(tokens).where(tokens.isfinite().flatten(1).all(1), torch.nan).view(B, candidates)
        row, best = torch.arange(B, device=s.device), lowest(-values)
        tokens, value = tokens[row * candidates + best].float(), values[row, best]
        return Plan.whole(self.observation.denormalize(tokens).unsqueeze(2), tokens=tokens, scores={"value": value})


def paths(data: Trajectories, config: VeteranModelConfig) -> BatchSource:
    """What a Veteran learns from: see `dfplan.data.sparse_paths.Sparse`. ValueError for data without such windows."""
    windows = GoalPaths if config.positions else ReturnPaths
    return windows(data, config.tokens, config.stride, config.discount).sample


class DiffusionVeteranAgent(PlanningAgent):
    """Plans every `replan_every` steps and acts towards the state that lies `stride` steps ahead on the plan.

    Between the states of a plan the target moves on straight lines.
    """

    kind = "diffusion_veteran"
    learner_class, learner_config_class, config_class = Veteran, VeteranModelConfig, VeteranConfig
    learner: Veteran
    config: VeteranConfig
    execution = "diffusion inverse dynamics"
    learning_rate = 1e-3

    def _fit_learner(self) -> None:
        self.goal_dim = len(self.learner.config.positions) or None

    @property
    def _stride(self) -> int:
        return self.learner.config.stride

    def _read_goal(self, goal: Any) -> NDArray[np.float32]:
        """A goal decides nothing, the reward of training does. ValueError for one outside the place where the data were
        rewarded, because these weights cannot go there.
        """
        goals = super()._read_goal(goal)
        if not self.learner.config.positions:
            return goals
        low, high = self.learner.goal_low.cpu().numpy(), self.learner.goal_high.cpu().numpy()
        if not ((low <= goals) & (goals <= high)).all():
            raise ValueError(
                f"these weights were trained for one goal, between {low.tolist()} and {high.tolist()}, got {goals.tolist()}"
            )
        return goals

    def _draw(self, observation: Tensor, ask: Ask, record: bool = False, horizons: Tensor | None = None) -> Plan:
        return self.learner.plan(observation, self.config.candidates, self.config.steps, self._generator)

    def _path(self, plan: Plan) -> Tensor:
        """In normalized units, as inverse dynamics reads it."""
        assert plan.tokens is not None
        return each_step(plan.tokens.unsqueeze(2), self._stride, self._steps)

    def _execute(self, observation: Tensor, following: Following) -> Tensor:
        s, target = self.learner.observation.normalize(observation), following.at(following.clock + self._stride)
        action = self.learner.inverse.sample(s, target, self._generator, self.config.temperature)
        return self.learner.unscale_action(action)

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """As `paths` draws them."""
        T, D, A = self.learner.config.tokens, self.learner.config.observation_dim, self.learner.config.action_dim
        pairs: dict[str, Shape] = {"s": ("B", "pairs", D), "targets": ("B", "pairs", D), "actions": ("B", "pairs", A)}
        return {"plans": ("B", T, D), "returns": ("B",)} | pairs

    def save(self, path: str | Path, half: bool = True) -> None:
        """Write weights, configs and card as one file that `load` reads, in half precision unless it is asked for otherwise."""
        super().save(path, half)

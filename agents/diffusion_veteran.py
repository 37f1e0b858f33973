"""Diffusion Veteran (Lu et al. 2025): plans drawn without guidance, the best chosen by a critic, acted out by diffusion.

Monte Carlo sampling with selection (MCSS): N candidate plans tau = (s_t, s_{t+m}, ..., s_{t+(T-1)m}) of states m steps
apart are drawn from a diffusion model that knows the start alone; a critic V(tau) picks one; a diffusion inverse
dynamics draws a ~ p(a | s_t, s_{t+m}). All three are trained on data with the reward of one fixed goal, so that, unlike
Diffusion Forcing's, these weights know no other goal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfplan.agents.base import LearningAgent, Shape
from dfplan.config_json import config_from_json, config_to_json
from dfplan.data.goal_paths import GoalPaths
from dfplan.data.statistics import Statistics
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import BatchSource
from dfplan.diffusion import matrices
from dfplan.diffusion.levels import shared_from_start
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import NoiseSchedule
from dfplan.diffusion.sampler import Known, sample
from dfplan.fields import Count, NotNegative, Share, Size, check_columns, check_fields
from dfplan.models import Transformer, TransformerConfig
from dfplan.models.diffusion_inverse import DiffusionInverse
from dfplan.models.trajectory_value import TrajectoryValue
from dfplan.planning.execution import each_step
from dfplan.planning.planner import lowest
from dfplan.training.losses import total
from dfplan.training.weights_file import Header, load_weights, naming, restored, save_weights


@dataclass(frozen=True)
class VeteranModelConfig:
    observation_dim: Size = 4
    action_dim: Size = 2
    positions: tuple[int, ...] = (0, 1)
    """Observation columns that say where the agent is: inverse dynamics sees only their difference."""
    tokens: Size = 32
    """T: states of a plan, the start included."""
    stride: Size = 15
    """m: environment steps between two states of a plan."""
    discount: Share = 1.0
    """gamma of the critic's returns; 1 counts the steps to the goal."""
    denoiser: TransformerConfig = field(default_factory=lambda: TransformerConfig(depth=2))
    critic: TransformerConfig = field(default_factory=lambda: TransformerConfig(width=64, depth=2))
    levels: Size = 256
    """K: the level of pure noise, of plans."""
    inverse_levels: Size = 10
    """Levels of the action's diffusion."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_columns(self.positions, self.observation_dim, "positions")
        if self.tokens < 2:
            raise ValueError(f"a plan needs a start and at least one more token, got tokens={self.tokens}")
        if not self.discount:
            raise ValueError("the discount lies in (0, 1], got 0")


@dataclass(frozen=True)
class VeteranConfig:
    """How a Diffusion Veteran acts."""

    candidates: Size = 50
    """N: plans drawn for each decision."""
    steps: Size = 5
    """Denoising steps of a plan (DDIM)."""
    temperature: NotNegative = 0.5
    """Scale of the noise from which actions are drawn."""
    replan_every: Count = 20
    """Environment steps between plans; the paper replans at each."""

    def __post_init__(self) -> None:
        check_fields(self)


class VeteranBatch(NamedTuple):
    """In recorded units."""

    plans: Tensor
    """(B, T, observation_dim) states, ``stride`` steps apart, of ways to the goal."""
    returns: Tensor
    """(B,) in [-1, 1]: 1 at the goal, -1 for the longest way there."""
    s: Tensor
    """(B, PAIRS, observation_dim) states anywhere in the data,"""
    wished: Tensor
    """(B, PAIRS, observation_dim) the states ``stride`` steps later,"""
    actions: Tensor
    """(B, PAIRS, action_dim) and the actions taken in s."""


class Veteran(Statistics):
    """Planner, critic and inverse dynamics: what is trained and shipped."""

    goal_low: Tensor
    goal_high: Tensor

    def __init__(self, config: VeteranModelConfig | None = None):
        config = config or VeteranModelConfig()
        C, A = config.observation_dim, config.action_dim
        super().__init__(C, A, scale_actions=True)
        self.config = config
        network = Transformer(C, config.levels, config.denoiser)
        self.diffusion = Diffusion(network, NoiseSchedule("cosine", config.levels), "v", "uniform")
        self.critic = TrajectoryValue(C, config.critic)
        self.inverse = DiffusionInverse(C, A, config.positions, config.inverse_levels)
        self.register_buffer("goal_low", -torch.ones(len(config.positions)))
        self.register_buffer("goal_high", torch.ones(len(config.positions)))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizer, action limits and the place of the reward from the data, before training."""
        super().fit_statistics(data)
        places = data.observations[data.rewards > 0][:, list(self.config.positions)]
        self.goal_low, self.goal_high = torch.from_numpy(places.min(axis=0)), torch.from_numpy(places.max(axis=0))

    def batches(self, data: Trajectories) -> BatchSource:
        c = self.config
        return GoalPaths(data, c.tokens, c.stride, c.discount).sample

    def forward(self, batch: VeteranBatch | tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """The three losses, which share no weights, and their sum under 'loss'."""
        batch = VeteranBatch(*batch)
        x0 = self.observation.normalize(batch.plans)
        levels = shared_from_start(x0.shape[0], x0.shape[1], self.config.levels, generator)
        s, wished = (self.observation.normalize(o).flatten(0, 1) for o in (batch.s, batch.wished))
        actions = self.scale_action(batch.actions).flatten(0, 1)
        losses = {
            "diffusion": self.diffusion.loss(x0, levels, generator),
            "critic": self.critic.loss(x0, batch.returns),
            "inverse": self.inverse.loss(s, wished, actions, generator),
        }
        return total(losses)

    @torch.no_grad()
    def select(self, s: Tensor, candidates: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """MCSS from normalised states (B, C): the best plans (B, T, C), normalised, and all N values (B, N).

        A plan or a value that is not finite is never chosen. Raises ValueError for a state without any other.
        """
        B, C = s.shape
        shape = (B * candidates, self.config.tokens, C)
        matrix = matrices.full_sequence(self.config.tokens, self.config.levels, steps)
        tokens = s.new_zeros(shape)
        tokens[:, 0] = s.repeat_interleave(candidates, dim=0)
        mask = torch.zeros(shape[:2], dtype=torch.bool, device=s.device)
        mask[:, 0] = True
        plans = sample(self.diffusion, matrix, shape, generator, known=Known(tokens, mask)).tokens
        values = self.critic(plans).view(B, candidates)
        plans = plans.view(B, candidates, *shape[1:])
        lost = ~plans.isfinite().flatten(2).all(2)
        best = lowest(-values.masked_fill(lost, torch.nan))
        return plans[torch.arange(B, device=s.device), best], values

    def act(self, s: Tensor, wished: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        """Actions (B, A) in recorded units that lead from normalised states (B, C) to wished ones a stride later."""
        return self.unscale_action(self.inverse.sample(s, wished, generator, temperature))


@dataclass(frozen=True)
class VeteranPlan:
    """The chosen plan of each start."""

    observations: Tensor
    """(B, T, 1, observation_dim) in recorded units, ``stride`` steps apart; the first is the start."""
    lengths: Tensor
    """(B,) tokens after the start: T - 1."""
    values: Tensor
    """(B, N) the critic's values of all candidates, 1 for a plan at the goal; the plan is the largest one's."""


class DiffusionVeteranAgent(LearningAgent):
    """Acts for one observation or a batch, each row with a plan of its own, remade every ``replan_every`` steps.

    Between plans the wish s' moves along the chosen plan, always ``stride`` steps ahead, on straight lines between its
    states.
    """

    learner: Veteran
    config: VeteranConfig
    execution = "diffusion inverse dynamics"
    learning_rate = 1e-3

    def __init__(self, learner: Veteran, config: VeteranConfig | None = None, card: dict[str, Any] | None = None):
        D, G = learner.config.observation_dim, len(learner.config.positions)
        super().__init__(learner, config or VeteranConfig(), card, observation_dim=D, goal_dim=G)

    def _read_goal(self, goal: Any) -> NDArray[np.float32]:
        """A goal decides nothing, the reward of training does. ValueError for one outside the place where the data were
        rewarded, because these weights cannot go there.
        """
        goals = super()._read_goal(goal)
        low, high = self.learner.goal_low.cpu().numpy(), self.learner.goal_high.cpu().numpy()
        if not ((low <= goals) & (goals <= high)).all():
            raise ValueError(
                f"{self._name}: these weights know one goal, between {low.tolist()} and {high.tolist()}, got {goals.tolist()}"
            )
        return goals

    def _begin(self) -> None:
        self._path: Tensor | None = None
        self._clock = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.last_plan: VeteranPlan | None = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        if self._path is not None:
            self._clock[rows] = self.config.replan_every

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        s = self.learner.observation.normalize(self._tensor(batch))
        if self._path is None:
            steps = (self.learner.config.tokens - 1) * self.learner.config.stride
            self._path = s.new_zeros(len(s), steps + 1, s.shape[1])
            self._clock = torch.full((len(s),), self.config.replan_every, device=self.device)
        due = (self._clock >= self.config.replan_every).nonzero().squeeze(1)
        if len(due):
            self._path[due] = self._plan(s[due])
            self._clock[due] = 0
        ahead = (self._clock + self.learner.config.stride).clamp(max=self._path.shape[1] - 1)
        wished = self._path[torch.arange(len(s), device=self.device), ahead]
        action = self.learner.act(s, wished, self._generator, self.config.temperature)
        self._clock += 1
        return action.cpu().numpy()

    def _plan(self, s: Tensor) -> Tensor:
        """Select plans from normalised states (B, C) and lay them out step by step."""
        # bf16 products are several times faster where the hardware has them, and plans do not suffer.
        with torch.autocast(self.device.type, torch.bfloat16):
            tokens, values = self.learner.select(s, self.config.candidates, self.config.steps, self._generator)
        tokens = tokens.float().unsqueeze(2)
        self._finite("plan", tokens)
        B, T = tokens.shape[:2]
        lengths = torch.full((B,), T - 1, device=self.device)
        self.last_plan = VeteranPlan(self.learner.observation.denormalize(tokens), lengths, values)
        stride = self.learner.config.stride
        return each_step(tokens, stride, (T - 1) * stride)

    def update(self, batch: VeteranBatch | tuple[ArrayLike, ...]) -> dict[str, float]:
        """One AdamW step on a batch as `GoalPaths.sample` draws it: the losses. Not the trainer of shipped weights."""
        config = self.learner.config
        D, A = config.observation_dim, config.action_dim
        shapes: dict[str, Shape] = {"plans": ("B", config.tokens, D), "returns": ("B",)}
        shapes |= {"s": ("B", "pairs", D), "wished": ("B", "pairs", D), "actions": ("B", "pairs", A)}
        return self._learn(self._read_batch(batch, shapes))

    def save(self, path: str | Path) -> None:
        """Write weights, configs and card as one file that `load` reads. Parameters are rounded to half precision."""
        trained = {name for name, _ in self.learner.named_parameters()}
        tensors = {name: t.half() if name in trained else t for name, t in self.learner.state_dict().items()}
        configs = config_to_json(self.learner.config), self.card, config_to_json(self.config)
        save_weights(path, tensors, Header("diffusion_veteran", *configs))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The agent of a file written by `save`. Raises CheckpointError for a file that is not one."""
        tensors, header = load_weights(path, "diffusion_veteran")
        learner = restored(Veteran, VeteranModelConfig, header.config, tensors, path)
        with naming(path):
            return cls(learner, config_from_json(VeteranConfig, header.agent, "agent"), header.card)

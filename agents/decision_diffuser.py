"""Decision Diffuser (Ajay et al. 2023, "Is Conditional Generative Modeling all you need for Decision Making?"), whole
in this file.

A temporal U-Net denoises the states of a plan, and states only, from a known start. What is asked for, y, is an input of the
network: a goal, a return, or nothing. Classifier-free guidance with weight omega makes plans follow y more closely than the
data does. Actions come from inverse dynamics, learned beside the plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfplan.agents.full_sequence import SequenceAgent, SequenceAgentConfig
from dfplan.diffusion.levels import inpainted, shared
from dfplan.diffusion.loss import Diffusion
from dfplan.fields import NotNegative
from dfplan.models import Conditioned, InverseDynamics, TemporalUNet
from dfplan.planning.ask import Ask
from dfplan.planning.ends import known_ends
from dfplan.planning.execution import Following
from dfplan.planning.full_sequence import SequenceConfig, SequenceModel
from dfplan.planning.plan import Plan
from dfplan.training.losses import total

PAIRS = 8
"""Steps of each window that inverse dynamics learns from in one batch."""


@dataclass(frozen=True)
class DecisionDiffuserConfig(SequenceConfig):
    """What is learned, and how large."""

    dropout: float = 0.25
    """p: share of the training plans whose condition y is hidden, so that one network learns both distributions."""
    gap: int = 8
    """Inverse dynamics gives the action that leads to the planned state this many environment steps ahead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1 or not 1 <= self.gap <= self.steps:
            raise ValueError(
                f"dropout must lie in [0, 1) and gap in 1..{self.steps}, got {self.dropout} and {self.gap}"
            )
        if self.layout.actions:
            raise ValueError("Decision Diffuser plans states only: the layout must have actions=False")


class DecisionDiffuserModel(SequenceModel):
    """The conditional denoiser of states and the inverse dynamics a = f(s_t, s_{t + gap})."""

    config: DecisionDiffuserConfig

    def __init__(self, config: DecisionDiffuserConfig):
        super().__init__(config)
        layout = config.layout
        self.columns = list(config.goal_columns) if config.towards == "goal" else []
        condition = 1 if config.towards == "return" else len(self.columns)
        self.network = TemporalUNet(layout.width, config.levels, config.network, condition)
        self.inverse = InverseDynamics(layout.observation_dim, layout.action_dim, config.gap)

    def given(self, y: Tensor, omega: float = 1.0) -> Diffusion:
        """The diffusion of plans given y (B, columns), NaN in rows without a condition."""
        return Diffusion(Conditioned(self.network, y, omega), self.schedule, self.config.prediction, "uniform")

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """E ||x - f(x^k, k, y or none)||^2 + E ||a_t - f(s_t, s_{t + gap})||^2 (their eq. 8), y what the plan came to."""
        s, a = self.observation.normalize(batch[0]), self.action.normalize(batch[1])
        y = (
            self.returns.normalize(batch[2].unsqueeze(-1))
            if self.config.towards == "return"
            else s[:, -1, self.columns]
        )
        recorded = batch[3] if len(batch) > 3 else s.new_full((len(s),), s.shape[1])
        hidden = torch.rand((len(y), 1), generator=generator, device=y.device, dtype=y.dtype) < self.config.dropout
        x = self.config.layout.pack(s, a)
        levels = shared(x.shape[0], x.shape[1], self.config.levels, generator)
        levels = inpainted(levels, torch.arange(x.shape[1], device=x.device) == 0)
        diffusion = self.given(y.masked_fill(hidden, torch.nan)).loss(x, levels, generator)
        return total({"diffusion": diffusion, "inverse": self._inverse_loss(s, a, recorded, generator)})

    def _inverse_loss(self, s: Tensor, a: Tensor, recorded: Tensor, generator: torch.Generator) -> Tensor:
        """Of a few random pairs in each window; no action is learned from the rest after an end."""
        B, S, _ = s.shape
        t = torch.randint(0, S - self.config.gap, (B, PAIRS), generator=generator, device=s.device)
        t = t.remainder(recorded.long().unsqueeze(1))
        row = torch.arange(B, device=s.device).unsqueeze(1)
        guess = self.act_towards(s[row, t].flatten(0, 1), s[row, t + self.config.gap].flatten(0, 1))
        return (guess - a[row, t].flatten(0, 1)).square().mean()

    def act_towards(self, s: Tensor, target: Tensor) -> Tensor:
        """Normalized actions (B, action_dim) from normalized states to targets that lie `gap` steps ahead."""
        return self.inverse(s, target, s.new_full((len(s),), self.config.gap))

    def plan(
        self, observation: Tensor, ask: Ask, config: Any, generator: torch.Generator, record: bool = False
    ) -> Plan:
        """Plans from observations (B, observation_dim), given goals (B, G), a return or nothing."""
        y = observation[:, :0]
        if self.config.towards == "goal":
            y = self.normalize_goal(ask.goal, self.columns)
        elif self.config.towards == "return":
            wanted = (
                config.target * self.best_return if ask.return_ is None else self.best_return.new_tensor(ask.return_)
            )
            y = self.returns.normalize(wanted.expand(len(observation), 1))
        known = known_ends(self.token_at(observation), self.config.tokens)
        return self.draw(self.given(y, config.omega if y.shape[1] else 1.0), known, config, generator, record)


@dataclass(frozen=True)
class DecisionDiffuserAgentConfig(SequenceAgentConfig):
    """How Decision Diffuser acts."""

    omega: NotNegative = 2.0
    """Weight of classifier-free guidance: 0 ignores y, 1 samples the learned distribution given y, above is stronger."""
    target: float = 1.0
    """Return to plan for, as a share of the best window's in the data, where none is asked for; towards a return."""


class DecisionDiffuserAgent(SequenceAgent):
    """Plans states and acts by inverse dynamics; beyond a plan's end the target is to stay there, at a goal at rest."""

    kind = "decision_diffuser"
    learner_class, learner_config_class = DecisionDiffuserModel, DecisionDiffuserConfig
    config_class = DecisionDiffuserAgentConfig
    answers = frozenset({"return_"})
    execution = "learned inverse dynamics"

    def _execute(self, observation: Tensor, following: Following) -> Tensor:
        model: Any = self.learner
        ahead = following.clock + model.config.gap
        target = following.at(ahead)
        if model.columns:
            rest = model.state_at(following.path[:, -1, model.columns], model.columns)
            target = torch.where((ahead > model.config.steps).unsqueeze(1), rest, target)
        s, target = model.observation.normalize(observation), model.observation.normalize(target)
        return model.action.denormalize(model.act_towards(s, target))

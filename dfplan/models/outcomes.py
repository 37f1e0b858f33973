"""Outcomes of a step: the observations to which an action may lead, where chance decides."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfplan.models.embeddings import Waves
from dfplan.models.mlp import mlp

WIDTH = 0.05
"""Deviation of each outcome, in normalized units: closer outcomes count as one."""
RARE = 0.05
"""Probability below which an outcome is not drawn."""


class StepOutcomes(nn.Module):
    """p(o' | o, a) of one step as a mixture of `count` outcomes, each with a probability and a normal of deviation WIDTH.

    Observations and actions are normalized, (B, observation_dim) and (B, action_dim). All outcomes are equally narrow, so that
    one cannot cover two that are far apart. Not to be confused with a prediction of the mean, which lies between the
    outcomes, where no step ends. ValueError if `count` is so large that every outcome may be rare.
    """

    def __init__(self, observation_dim: int, action_dim: int, count: int, width: int = 128, octaves: int = 6):
        super().__init__()
        if count > 1 / RARE:
            raise ValueError(f"a step can have up to {int(1 / RARE)} outcomes, got {count}")
        self.waves = Waves(octaves)
        inputs = self.waves.width(observation_dim) + action_dim
        self.mlp = mlp(inputs, width, width, width, count * (1 + observation_dim))
        self.count = count

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Of each outcome its log-odds (B, count) and the change (B, count, observation_dim), in float32."""
        hidden = self.mlp(torch.cat([self.waves(observation), action], dim=-1)).float()
        return hidden[..., : self.count], hidden[..., self.count :].unflatten(-1, (self.count, -1))

    def loss(self, observation: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """A step of expectation maximization, a scalar: each outcome moves towards what it has a share in, by the likelihood of
        what was observed after each step, and its probability towards its shares.

        The slope is that of the negative log-likelihood, with the distances weighed less: in its own weighing the few steps
        that chance carries far would drown all else.
        """
        odds, change = self(observation, action)
        error = ((after - observation).unsqueeze(-2) - change).square().sum(-1)
        probability = odds.log_softmax(-1)
        share = (probability - error / (2 * WIDTH**2)).softmax(-1).detach()
        return (share * (error - probability)).sum(-1).mean()

    def draw(self, observation: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        """What may be observed after each step (B, observation_dim): the middle of an outcome drawn by its probability.

        Outcomes below `RARE` are not drawn. Their probability is mostly an error of the mixture, and a future has many steps in
        which they could be drawn.
        """
        odds, change = self(observation, action)
        probability = odds.softmax(-1)
        drawn = torch.multinomial(probability * (probability >= RARE), 1, generator=generator)
        return observation + change[torch.arange(len(drawn), device=drawn.device), drawn.squeeze(-1)]

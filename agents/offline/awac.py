"""AWAC: advantage weighted actor critic (Nair, Gupta, Dalal and Levine 2020, arXiv 2006.09359), offline only.

The critics value the policy itself, by bootstrapping with actions that it samples. The policy imitates recorded actions,
weighted by the exponential of their advantage over its own. IQL imitates in the same way, but never samples an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfplan.agents.offline.base import Losses, MaxWeight, OfflineAgent, OfflineLearner, TargetConfig
from dfplan.agents.offline.losses import backup, critic_loss, gaussian_log_prob, least_q, q_values, weighted_imitation
from dfplan.data.transitions import Noise, Transitions


@dataclass(frozen=True)
class AWACConfig(TargetConfig):
    """The hyperparameters of AWAC."""

    lam: float = 0.1
    """lambda, the temperature of the advantage: large is cloning."""
    max_weight: MaxWeight = 100.0
    """The largest weight of a recorded action."""


class AWAC(OfflineLearner[AWACConfig]):
    """A Gaussian actor and twin critics with targets."""

    def __init__(self, config: AWACConfig):
        super().__init__(config)
        self.pi = self.of_states(config.action_dim)
        self.log_std = nn.Parameter(torch.zeros(len(config.seeds), 1, config.action_dim))
        self.q = self.twins()
        self.q_target = self.q.target()

    def mean_action(self, outputs: Tensor) -> Tensor:
        """The mean is not squashed: it is clipped to the limits of actions."""
        return outputs.clamp(-1, 1)

    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """The backup of Q from the policy's own action at s', and advantage-weighted imitation (eq. 13)."""
        s, a, _, s_next, _ = batch
        config = self.config
        self.q_target.follow(self.q, config.tau)
        mean = self.pi(s)
        with torch.no_grad():
            std = self.log_std.clamp(-20, 2).exp()  # as in its density below
            a_next = (self.pi(s_next) + std * noise.normal(*a.shape[1:])).clamp(-1, 1)
            y = backup(batch, config.gamma, least_q(self.q_target, s_next, a_next))
            own = (mean + std * noise.normal(*a.shape[1:])).clamp(-1, 1)
            v = least_q(self.q, s, own)
        q = q_values(self.q, s, a)
        advantage = q.detach().amin(dim=1) - v
        log_pi = gaussian_log_prob(a, mean, self.log_std)
        minimized = {
            "critic": critic_loss(q, y),
            "policy": weighted_imitation(log_pi, advantage / config.lam, config.max_weight),
        }
        return minimized, {"q": q.mean(dim=(1, 2)), "advantage": advantage.mean(dim=1)}


class AWACAgent(OfflineAgent):
    """Plays the actor's mean."""

    kind = "awac"
    learner_class, learner_config_class = AWAC, AWACConfig

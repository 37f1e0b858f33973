"""IQL: implicit Q-learning (Kostrikov, Nair and Levine 2022, arXiv 2110.06169).

V is an upper expectile of Q over recorded actions, so that the best of them is valued without evaluating Q at an action
that nobody took. The policy imitates recorded actions, weighted by the exponential of their advantage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfplan.agents.offline.base import Losses, MaxWeight, OfflineAgent, OfflineLearner, ValueConfig
from dfplan.agents.offline.losses import backup, critic_loss, gaussian_log_prob, least_q, q_values, weighted_imitation
from dfplan.data.transitions import Noise, Transitions


@dataclass(frozen=True)
class IQLConfig(ValueConfig):
    """The hyperparameters of IQL."""

    alpha: float = 0.005
    """How far the target critics follow in one update."""
    tau: float = 0.7
    """Expectile: 0.5 is the mean over recorded actions, towards 1 their maximum."""
    beta: float = 3.0
    """Inverse temperature of the policy: 0 is cloning."""
    max_weight: MaxWeight = 100.0
    """The largest weight of a recorded action."""


def expectile_loss(u: Tensor, tau: float) -> Tensor:
    """L_2^tau(u) = |tau - 1(u < 0)| u^2 (eq. 5-6), mean over the batch: (S, B) -> (S,)."""
    return ((u < 0).float() - tau).abs().mul(u.square()).mean(dim=1)


class IQL(OfflineLearner[IQLConfig]):
    """A Gaussian actor, twin critics with targets, and a value of states."""

    def __init__(self, config: IQLConfig):
        super().__init__(config)
        self.pi = self.of_states(config.action_dim)
        self.log_std = nn.Parameter(torch.zeros(len(config.seeds), 1, config.action_dim))
        self.q = self.twins()
        self.v = self.of_states(1)
        self.q_target = self.q.target()

    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """Expectile regression of V, the backup of Q from V(s'), and advantage-weighted imitation (eq. 5-7)."""
        s, a, _, s_next, _ = batch
        config = self.config
        self.q_target.follow(self.q, config.alpha)
        with torch.no_grad():
            best = least_q(self.q_target, s, a)
            y = backup(batch, config.gamma, self.v(s_next).squeeze(-1))
        advantage = best - self.v(s).squeeze(-1)
        q = q_values(self.q, s, a)
        log_pi = gaussian_log_prob(a, self.pi(s).tanh(), self.log_std)
        minimized = {
            "value": expectile_loss(advantage, config.tau),
            "critic": critic_loss(q, y) / q.shape[1],  # the mean over the twins, where the others sum
            "policy": weighted_imitation(log_pi, config.beta * advantage.detach(), config.max_weight),
        }
        return minimized, {"q": q.mean(dim=(1, 2)), "advantage": advantage.mean(dim=1)}


class IQLAgent(OfflineAgent):
    """Plays the actor's mean."""

    kind = "iql"
    learner_class, learner_config_class = IQL, IQLConfig

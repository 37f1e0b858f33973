"""IQL: implicit Q-learning (Kostrikov, Nair and Levine 2022, arXiv 2110.06169).

V is an upper expectile of Q over recorded actions, so that the best of them is valued without ever asking Q about an
action that nobody took; the policy imitates recorded actions, weighted by the exponential of their advantage.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfplan.agents.offline.base import OfflineAgent, OfflineConfig, OfflineLearner, backup, gaussian_log_prob, q_values
from dfplan.data.transitions import Noise, Transitions


@dataclass(frozen=True)
class IQLConfig(OfflineConfig):
    gamma: float = 0.99
    """Discount."""
    alpha: float = 0.005
    """How far the target critics follow in one update."""
    tau: float = 0.7
    """Expectile: 0.5 is the mean over recorded actions, towards 1 their maximum."""
    beta: float = 3.0
    """Inverse temperature of the policy: 0 is cloning."""
    longest_weight: float = 100.0
    """No recorded action weighs more than this."""


def expectile_loss(u: Tensor, tau: float) -> Tensor:
    """L_2^tau(u) = |tau - 1(u < 0)| u^2 (eq. 5-6), mean over the batch: (S, B) -> (S,)."""
    return ((u < 0).float() - tau).abs().mul(u.square()).mean(dim=1)


def critic_loss(q: Tensor, y: Tensor) -> Tensor:
    """(Q_k(s, a) - y)^2, y = r + gamma V(s') (eq. 6), mean over batch and critics: q (S, K, B), y (S, B) -> (S,)."""
    return (q - y.unsqueeze(1)).square().mean(dim=(1, 2))


def policy_loss(log_pi: Tensor, advantage: Tensor, beta: float, longest_weight: float) -> Tensor:
    """-exp(beta (Q(s, a) - V(s))) log pi(a | s) (eq. 7), mean over the batch: (S, B), (S, B) -> (S,)."""
    return -((beta * advantage).exp().clamp(max=longest_weight) * log_pi).mean(dim=1)


class IQL(OfflineLearner[IQLConfig]):
    config_class = IQLConfig

    def __init__(self, config: IQLConfig):
        super().__init__(config)
        self.pi = self.stack(config.observation_dim, config.action_dim)
        self.log_std = nn.Parameter(torch.zeros(len(config.seeds), 1, config.action_dim))
        self.q = self.twins()
        self.v = self.stack(config.observation_dim, 1)
        self.q_target = self.q.target()

    def losses(self, batch: Transitions, noise: Noise) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        s, a, _, s_next, _ = batch
        letters = self.config
        self.q_target.follow(self.q, letters.alpha)
        with torch.no_grad():
            best = q_values(self.q_target, s, a).amin(dim=1)
            y = backup(batch, letters.gamma, self.v(s_next).squeeze(-1))
        v = self.v(s).squeeze(-1)
        advantage = best - v
        q = q_values(self.q, s, a)
        log_pi = gaussian_log_prob(a, self.pi(s).tanh(), self.log_std)
        minimised = {
            "value": expectile_loss(advantage, letters.tau),
            "critic": critic_loss(q, y),
            "policy": policy_loss(log_pi, advantage.detach(), letters.beta, letters.longest_weight),
        }
        return minimised, {"q": q.mean(dim=(1, 2)), "advantage": advantage.mean(dim=1)}


class IQLAgent(OfflineAgent):
    kind = "iql"
    learner_class = IQL

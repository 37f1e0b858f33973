"""AWAC: advantage weighted actor critic (Nair, Gupta, Dalal and Levine 2020, arXiv 2006.09359), offline only.

The critics value the policy itself, by ordinary bootstrapping with its sampled actions; the policy imitates recorded actions,
weighted by the exponential of their advantage over its own. IQL imitates in the same way, but never samples an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfplan.agents.offline.base import OfflineAgent, OfflineConfig, OfflineLearner, backup, gaussian_log_prob, q_values
from dfplan.data.transitions import Noise, Transitions


@dataclass(frozen=True)
class AWACConfig(OfflineConfig):
    gamma: float = 0.99
    """Discount."""
    tau: float = 0.005
    """How far the target critics follow in one update."""
    lam: float = 0.1
    """lambda, the temperature of the advantage: large is cloning."""
    longest_weight: float = 100.0
    """No recorded action weighs more than this."""


def critic_loss(q: Tensor, y: Tensor) -> Tensor:
    """sum_k (Q_k(s, a) - y)^2, mean over the batch: q (S, K, B), y (S, B) -> (S,)."""
    return (q - y.unsqueeze(1)).square().mean(dim=2).sum(dim=1)


def policy_loss(log_pi: Tensor, advantage: Tensor, lam: float, longest_weight: float) -> Tensor:
    """-exp(A(s, a) / lambda) log pi(a | s) (eq. 13), mean over the batch: (S, B), (S, B) -> (S,)."""
    return -((advantage / lam).exp().clamp(max=longest_weight) * log_pi).mean(dim=1)


class AWAC(OfflineLearner[AWACConfig]):
    config_class = AWACConfig

    def __init__(self, config: AWACConfig):
        super().__init__(config)
        self.pi = self.stack(config.observation_dim, config.action_dim)
        self.log_std = nn.Parameter(torch.zeros(len(config.seeds), 1, config.action_dim))
        self.q = self.twins()
        self.q_target = self.q.target()

    def action(self, outputs: Tensor) -> Tensor:
        """The mean is not squashed: the limits of actions cut it."""
        return outputs.clamp(-1, 1)

    def losses(self, batch: Transitions, noise: Noise) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        s, a, _, s_next, _ = batch
        letters = self.config
        self.q_target.follow(self.q, letters.tau)
        mean = self.pi(s)
        with torch.no_grad():
            std = self.log_std.clamp(-20, 2).exp()  # as in its density below
            a_next = (self.pi(s_next) + std * noise.normal(*a.shape[1:])).clamp(-1, 1)
            y = backup(batch, letters.gamma, q_values(self.q_target, s_next, a_next).amin(dim=1))
            own = (mean + std * noise.normal(*a.shape[1:])).clamp(-1, 1)
            v = q_values(self.q, s, own).amin(dim=1)
        q = q_values(self.q, s, a)
        advantage = q.detach().amin(dim=1) - v
        log_pi = gaussian_log_prob(a, mean, self.log_std)
        minimised = {
            "critic": critic_loss(q, y),
            "policy": policy_loss(log_pi, advantage, letters.lam, letters.longest_weight),
        }
        return minimised, {"q": q.mean(dim=(1, 2)), "advantage": advantage.mean(dim=1)}


class AWACAgent(OfflineAgent):
    kind = "awac"
    learner_class = AWAC

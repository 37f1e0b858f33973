"""TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860): TD3, whose actor is also drawn towards the recorded action.

Two critics, of which the smaller one is believed, target actions smoothed by clipped noise, and an actor that moves at
every second step (TD3); the actor maximises lambda Q(s, pi(s)) - (pi(s) - a)^2, with lambda = alpha / mean |Q|.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.agents.offline.base import OfflineAgent, OfflineConfig, OfflineLearner, backup, q_values
from dfplan.data.transitions import Noise, Transitions


@dataclass(frozen=True)
class TD3BCConfig(OfflineConfig):
    gamma: float = 0.99
    """Discount."""
    tau: float = 0.005
    """How far the targets follow in one update."""
    alpha: float = 2.5
    """Weight of the value against imitation."""
    sigma: float = 0.2
    """Deviation of the noise on target actions, which lie in [-1, 1]."""
    c: float = 0.5
    """The noise is clipped to +-c."""
    d: int = 2
    """Critic steps for each step of the actor and the targets."""


def critic_loss(q: Tensor, y: Tensor) -> Tensor:
    """sum_k (Q_k(s, a) - y)^2, mean over the batch: q (S, K, B), y (S, B) -> (S,)."""
    return (q - y.unsqueeze(1)).square().mean(dim=2).sum(dim=1)


def actor_loss(q: Tensor, pi: Tensor, a: Tensor, alpha: float) -> Tensor:
    """-lambda Q(s, pi(s)) + (pi(s) - a)^2, lambda = alpha / mean |Q|: q (S, B), pi and a (S, B, A) -> (S,)."""
    lam = alpha / q.detach().abs().mean(dim=1)
    return (pi - a).square().mean(dim=(1, 2)) - lam * q.mean(dim=1)


class TD3BC(OfflineLearner[TD3BCConfig]):
    config_class = TD3BCConfig
    updates: Tensor
    last_actor_loss: Tensor

    def __init__(self, config: TD3BCConfig):
        super().__init__(config)
        self.pi = self.stack(config.observation_dim, config.action_dim)
        self.q = self.twins()
        self.pi_target, self.q_target = self.pi.target(), self.q.target()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_actor_loss", torch.zeros(len(config.seeds)))

    def losses(self, batch: Transitions, noise: Noise) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        s, a, _, s_next, _ = batch
        letters = self.config
        delayed = int(self.updates) % letters.d  # 0: the actor moved in the step before, or nothing has moved yet
        if delayed == 0:
            self.q_target.follow(self.q, letters.tau)
            self.pi_target.follow(self.pi, letters.tau)
        self.updates += 1
        with torch.no_grad():
            epsilon = (letters.sigma * noise.normal(*a.shape[1:])).clamp(-letters.c, letters.c)
            a_next = (self.pi_target(s_next).tanh() + epsilon).clamp(-1, 1)
            y = backup(batch, letters.gamma, q_values(self.q_target, s_next, a_next).amin(dim=1))
        q = q_values(self.q, s, a)
        minimised = {"critic": critic_loss(q, y)}
        if delayed == letters.d - 1:
            pi = self.pi(s).tanh()
            minimised["actor"] = actor_loss(q_values(self.q, s, pi, frozen=True)[:, 0], pi, a, letters.alpha)
            self.last_actor_loss.copy_(minimised["actor"].detach())
        return minimised, {"actor": self.last_actor_loss.clone(), "q": q.mean(dim=(1, 2))}


class TD3BCAgent(OfflineAgent):
    kind = "td3-bc"
    learner_class = TD3BC

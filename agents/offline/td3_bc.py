"""TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860): TD3, whose actor is also drawn towards the recorded action.

From TD3: twin critics, of which the smaller value counts, target actions smoothed by clipped noise, and an actor that
moves at every second step. The actor maximizes lambda Q(s, pi(s)) - (pi(s) - a)^2, with lambda = alpha / mean |Q|.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.agents.offline.base import Losses, OfflineAgent, OfflineLearner, TargetConfig
from dfplan.agents.offline.losses import backup, critic_loss, least_q, q_values
from dfplan.data.transitions import Noise, Transitions
from dfplan.fields import Size


@dataclass(frozen=True)
class TD3BCConfig(TargetConfig):
    """The hyperparameters of TD3+BC."""

    alpha: float = 2.5
    """Weight of the value against imitation."""
    sigma: float = 0.2
    """Deviation of the noise on target actions, which lie in [-1, 1]."""
    c: float = 0.5
    """The noise is clipped to +-c."""
    d: Size = 2
    """Critic steps for each step of the actor and the targets."""


def actor_loss(q: Tensor, pi: Tensor, a: Tensor, alpha: float) -> Tensor:
    """-lambda Q(s, pi(s)) + (pi(s) - a)^2, lambda = alpha / mean |Q|: q (S, B), pi and a (S, B, A) -> (S,)."""
    lam = alpha / q.detach().abs().mean(dim=1)
    return (pi - a).square().mean(dim=(1, 2)) - lam * q.mean(dim=1)


class TD3BC(OfflineLearner[TD3BCConfig]):
    """A deterministic actor and twin critics, all with targets."""

    updates: Tensor
    last_actor_loss: Tensor

    def __init__(self, config: TD3BCConfig):
        super().__init__(config)
        self.pi = self.of_states(config.action_dim)
        self.q = self.twins()
        self.pi_target, self.q_target = self.pi.target(), self.q.target()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_actor_loss", torch.zeros(len(config.seeds)))

    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """The backup of Q from the target actor's smoothed action at s', and, at every d-th step, the actor's loss."""
        s, a, _, s_next, _ = batch
        config = self.config
        delayed = int(self.updates) % config.d  # 0: the actor moved in the step before, or nothing has moved yet
        if delayed == 0:
            self.q_target.follow(self.q, config.tau)
            self.pi_target.follow(self.pi, config.tau)
        self.updates += 1
        with torch.no_grad():
            epsilon = (config.sigma * noise.normal(*a.shape[1:])).clamp(-config.c, config.c)
            a_next = (self.pi_target(s_next).tanh() + epsilon).clamp(-1, 1)
            y = backup(batch, config.gamma, least_q(self.q_target, s_next, a_next))
        q = q_values(self.q, s, a)
        minimized = {"critic": critic_loss(q, y)}
        if delayed == config.d - 1:
            pi = self.pi(s).tanh()
            minimized["actor"] = actor_loss(q_values(self.q, s, pi, frozen=True)[:, 0], pi, a, config.alpha)
            self.last_actor_loss.copy_(minimized["actor"].detach())
        return minimized, {"actor": self.last_actor_loss.clone(), "q": q.mean(dim=(1, 2))}


class TD3BCAgent(OfflineAgent):
    """Plays the actor's action."""

    kind = "td3-bc"
    learner_class, learner_config_class = TD3BC, TD3BCConfig

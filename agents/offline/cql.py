"""CQL: conservative Q-learning (Kumar, Zhou, Tucker and Levine 2020, arXiv 2006.04779), on soft actor critic.

Besides the Bellman error, the critics minimize log sum_a exp Q(s, a) - Q(s, recorded a): the values of actions that nobody
took fall until they lie no more than a gap above the recorded one's. The weight of this is a learned Lagrange multiplier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfplan.agents.offline.base import Losses, OfflineAgent, OfflineLearner, TargetConfig
from dfplan.agents.offline.losses import backup, critic_loss, gaussian_log_prob, least_q, q_values
from dfplan.data.transitions import Noise, Transitions
from dfplan.fields import Size


@dataclass(frozen=True)
class CQLConfig(TargetConfig):
    """The hyperparameters of CQL."""

    weight: float = 10.0
    """Weight of the conservative term, beside its multiplier alpha."""
    gap: float = 5.0
    """tau of the paper's eq. 30: the conservative term that the multiplier alpha holds the critics to."""
    actions: Size = 10
    """Sampled for the sum from each of: uniform, the policy at s, the policy at s'."""
    states: Size = 16
    """States of each batch at which the sum is estimated, because it costs 3 x actions evaluations for each."""
    policy_rate: float = 0.1
    """Learning rate of policy and temperature as a part of that of the critics."""


def conservative_term(q_sampled: Tensor, log_density: Tensor, q: Tensor) -> Tensor:
    """log sum_a exp Q(s, a) - Q(s, recorded a), mean over states (CQL(H), eq. 4): -> (S, K).

    The sum over actions is estimated from N samples, each by its density (appendix F): q_sampled (S, K, N, B),
    log_density (S, N, B), q (S, K, B) of the recorded actions. As in the published code, not divided by N.
    """
    return ((q_sampled - log_density.unsqueeze(1)).logsumexp(dim=2) - q).mean(dim=2)


def squashed(mean: Tensor, log_std: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(u), u = mean + std epsilon, and log pi(a | s), summed over columns (SAC, appendix C)."""
    u = mean + log_std.exp() * epsilon
    log_pi = gaussian_log_prob(u, mean, log_std) - (2 * (math.log(2) - u - F.softplus(-2 * u))).sum(dim=-1)
    return u.tanh(), log_pi


class CQL(OfflineLearner[CQLConfig]):
    """A squashed Gaussian actor with its temperature, and twin critics with targets and a multiplier."""

    def __init__(self, config: CQLConfig):
        super().__init__(config)
        self.pi = self.of_states(2 * config.action_dim)
        self.q = self.twins()
        self.q_target = self.q.target()
        self.log_temperature = nn.Parameter(torch.zeros(len(config.seeds)))
        self.log_alpha = nn.Parameter(torch.ones(len(config.seeds)))

    def learning_rate_factor(self, name: str) -> float:
        """By what the learning rate of a parameter is multiplied."""
        return self.config.policy_rate if name.startswith("pi.") or name == "log_temperature" else 1.0

    def mean_action(self, outputs: Tensor) -> Tensor:
        """The squashed mean."""
        return outputs[..., : self.config.action_dim].tanh()

    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """Soft actor critic, with the conservative term beside the backup (eq. 4, and eq. 30 for its multiplier)."""
        s, a, _, s_next, _ = batch
        config = self.config
        self.q_target.follow(self.q, config.tau)
        (mean, mean_next), (log_std, log_std_next) = self._policy(s, s_next)
        own, log_pi = squashed(mean, log_std, noise.normal(*a.shape[1:]))
        with torch.no_grad():
            a_next, _ = squashed(mean_next, log_std_next, noise.normal(*a.shape[1:]))
            y = backup(batch, config.gamma, least_q(self.q_target, s_next, a_next))
            P = min(config.states, s.shape[1])
            sampled, log_density = self._samples(
                mean[:, :P], log_std[:, :P], mean_next[:, :P], log_std_next[:, :P], noise
            )
        again = s[:, None, :P].expand(-1, sampled.shape[1], -1, -1)
        both = q_values(
            self.q, torch.cat([s, again.flatten(1, 2)], dim=1), torch.cat([a, sampled.flatten(1, 2)], dim=1)
        )
        q, q_sampled = both[:, :, : a.shape[1]], both[:, :, a.shape[1] :].unflatten(2, sampled.shape[1:3])
        excess = conservative_term(q_sampled, log_density, q[:, :, :P]) - config.gap
        alpha, temperature = self.log_alpha.exp().clamp(max=1e6), self.log_temperature.exp()
        minimized = {
            "critic": critic_loss(q, y),
            "conservative": config.weight * (alpha.detach().unsqueeze(1) * excess).sum(dim=1),
            "multiplier": -0.5 * config.weight * alpha * excess.detach().sum(dim=1),
            "policy": (temperature.detach().unsqueeze(1) * log_pi - least_q(self.q, s, own, frozen=True)).mean(dim=1),
            # SAC's target entropy: minus the number of action columns.
            "temperature": -self.log_temperature * (log_pi.detach() - config.action_dim).mean(dim=1),
        }
        watched = {
            "q": q.mean(dim=(1, 2)),
            "excess": excess.mean(dim=1),
            "alpha": alpha,
            "entropy": -log_pi.mean(dim=1),
        }
        return minimized, watched

    def _policy(self, s: Tensor, s_next: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Means and logarithms of deviations of the unsquashed policy at s and at s'. Deviations begin at about 1/e."""
        mean, raw = self.pi(torch.cat([s, s_next], dim=1)).chunk(2, dim=-1)
        return mean.chunk(2, dim=1), (raw - 1).clamp(-20, 2).chunk(2, dim=1)

    def _samples(
        self, mean: Tensor, log_std: Tensor, mean_next: Tensor, log_std_next: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Actions (S, 3 N, P, A) and the logarithms of their densities (S, 3 N, P): uniform, from pi(s), from pi(s')."""
        shape = (self.config.actions, *mean.shape[1:])
        uniform = noise.uniform(*shape)
        density = torch.full_like(uniform[..., 0], -math.log(2.0) * mean.shape[-1])
        here = squashed(mean.unsqueeze(1), log_std.unsqueeze(1), noise.normal(*shape))
        there = squashed(mean_next.unsqueeze(1), log_std_next.unsqueeze(1), noise.normal(*shape))
        return torch.cat([uniform, here[0], there[0]], dim=1), torch.cat([density, here[1], there[1]], dim=1)


class CQLAgent(OfflineAgent):
    """Plays the actor's squashed mean."""

    kind = "cql"
    learner_class, learner_config_class = CQL, CQLConfig

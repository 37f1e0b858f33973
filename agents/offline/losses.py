"""Parts of the losses of offline learners, written once: critics and their targets, imitation, densities.

S are the training seeds, K the critics of each, B a batch, A the columns of an action.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfplan.data.transitions import Transitions
from dfplan.models.stacked import StackedMLP


def q_values(q: StackedMLP, s: Tensor, a: Tensor, frozen: bool = False) -> Tensor:
    """All K critics of each seed on (S, B, ...): (S, K, B). `frozen`: gradients reach the action only."""
    pairs = torch.cat([s, a], dim=-1)
    copies = q.members // len(pairs)
    return q(pairs.repeat_interleave(copies, dim=0), frozen).view(len(pairs), copies, -1)


def least_q(q: StackedMLP, s: Tensor, a: Tensor, frozen: bool = False) -> Tensor:
    """min_k Q_k(s, a), which counters the overestimation of a maximum (TD3, eq. 10): (S, B)."""
    return q_values(q, s, a, frozen).amin(dim=1)


def backup(batch: Transitions, gamma: float, v_next: Tensor) -> Tensor:
    """y = r + gamma V(s'), and y = r where the task ended: (S, B), of the values V(s') (S, B).

    An episode that was cut off has not ended: its last value goes on into the observation after it.
    """
    return batch.r + gamma * (1 - batch.terminated) * v_next


def critic_loss(q: Tensor, y: Tensor) -> Tensor:
    """sum_k (Q_k(s, a) - y)^2, mean over the batch: q (S, K, B), y (S, B) -> (S,)."""
    return (q - y.unsqueeze(1)).square().mean(dim=2).sum(dim=1)


def weighted_imitation(log_pi: Tensor, log_weight: Tensor, max_weight: float) -> Tensor:
    """-w log pi(a | s), w = exp(log_weight) up to max_weight, mean over the batch: (S, B), (S, B) -> (S,)."""
    return -(log_weight.exp().clamp(max=max_weight) * log_pi).mean(dim=1)


def gaussian_log_prob(a: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(a; mean, exp(log_std)^2), summed over columns: (S, B, A), (S, B, A), (S, 1, A) -> (S, B).

    The logarithm of the deviation is held within [-20, 2].
    """
    log_std = log_std.clamp(-20, 2)
    z = (a - mean) * (-log_std).exp()
    return -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=-1)

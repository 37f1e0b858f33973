"""Token layout: which columns of a token are observation and action, and how many environment steps it bundles.

A sequence of T tokens covers `(T - 1) * stride` environment steps. Token 0 is the start: the observation now (and no
action). Token i >= 1 closes step `i * stride` and holds, of the `stride` steps before it, either only the last
observation (`observations="last"`: coarse state tokens) or all of them, and all the actions or none. Step j's
observation is paired with the action that led to it, as in the paper's maze experiments (bundles of 10 steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dfplan.fields import Size, check_fields


@dataclass(frozen=True)
class TokenLayout:
    """Which columns of a token are observation and action, and how many environment steps it covers."""

    observation_dim: Size
    """Width of one observation."""
    action_dim: Size
    """Width of one action."""
    stride: Size = 10
    """Environment steps that one token covers."""
    observations: Literal["last", "all"] = "last"
    """Keep only the observation that closes a token, or every one of its steps."""
    actions: bool = False
    """Whether a token holds the actions of its steps: then they are diffused together with the observations."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def kept(self) -> int:
        """Observations in one token."""
        return self.stride if self.observations == "all" else 1

    @property
    def observation_width(self) -> int:
        """Columns of all observations in one token."""
        return self.kept * self.observation_dim

    @property
    def width(self) -> int:
        """Columns C of a token: first the observations in order of time, then the actions."""
        return self.observation_width + (self.stride * self.action_dim if self.actions else 0)

    @property
    def last(self) -> slice:
        """The columns of the observation that closes the token."""
        return slice(self.observation_width - self.observation_dim, self.observation_width)

    def steps(self, tokens: int) -> int:
        """Environment observations that a window of `tokens` tokens needs."""
        return (tokens - 1) * self.stride + 1

    def pack(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Observations (B, S, observation_dim) and actions (B, S, action_dim), S = steps(T), to tokens (B, T, C).

        The action of the last step leads out of the window and is not used.
        """
        B, S = observations.shape[:2]
        if (S - 1) % self.stride:
            raise ValueError(f"a window must hold a multiple of {self.stride} steps plus one, got {S}")
        T = (S - 1) // self.stride
        if self.observations == "last":
            body = observations[:, self.stride :: self.stride]
        else:
            body = observations[:, 1:].reshape(B, T, self.observation_width)
        if self.actions:
            bundled = actions[:, : S - 1].reshape(B, T, self.stride * self.action_dim)
            body = torch.cat([body, bundled], dim=-1)
        return torch.cat([self.state_token(observations[:, 0]).unsqueeze(1), body], dim=1)

    def state_token(self, observation: Tensor) -> Tensor:
        """A token (..., C) that stands for one observation (..., observation_dim): repeated, with actions of zero."""
        token = observation.new_zeros(*observation.shape[:-1], self.width)
        token[..., : self.observation_width] = observation.repeat(*(1,) * (observation.ndim - 1), self.kept)
        return token

    def as_states(self, tokens: Tensor, which: Tensor) -> Tensor:
        """Tokens (B, T, C) of which those in `which` (B, T) bool keep their closing observation alone: `state_token`."""
        return torch.where(which.unsqueeze(-1), self.state_token(tokens[..., self.last]), tokens)

    def unpack_actions(self, tokens: Tensor) -> Tensor:
        """The diffused actions in order of time: (B, (T - 1) * stride, action_dim)."""
        if not self.actions:
            raise ValueError("these tokens hold no actions: the layout has actions=False")
        B, T, _ = tokens.shape
        return tokens[:, 1:, self.observation_width :].reshape(B, (T - 1) * self.stride, self.action_dim)

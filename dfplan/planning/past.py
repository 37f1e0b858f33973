"""What happened before the present, and what is decided already: what an agent keeps for its next plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Past:
    """The last L steps of R rows, the latest at the end, and the actions that are decided whatever is planned."""

    observations: Tensor
    """(R, L, observation_dim) observed before the present; L = history * stride, which may be 0."""
    actions: Tensor
    """(R, L, action_dim) taken then."""
    seen: Tensor
    """(R,) int64: how many of the steps belong to the episode; those before it mean nothing."""
    decided: Tensor
    """(R, S, action_dim) actions of the next S steps, NaN in rows where nothing is decided."""

    @classmethod
    def start(cls, rows: int, steps: int, observation_dim: int, action_dim: int, device: torch.device) -> Past:
        """Nothing has happened: an episode begins in each of the rows."""
        observations, actions = (torch.zeros(rows, steps, n, device=device) for n in (observation_dim, action_dim))
        seen = torch.zeros(rows, dtype=torch.int64, device=device)
        return cls(observations, actions, seen, actions[:, :0])

    def after(self, observation: Tensor, action: Tensor) -> Past:
        """One step later: in `observation` (R, observation_dim) the action (R, action_dim) was taken."""
        observations = torch.cat([self.observations, observation[:, None]], 1)[:, 1:]
        actions = torch.cat([self.actions, action[:, None]], 1)[:, 1:]
        return Past(observations, actions, (self.seen + 1).clamp(max=self.observations.shape[1]), self.decided)

    def rows(self, index: Tensor) -> Past:
        """The past of these rows, (R',) whole numbers."""
        return Past(self.observations[index], self.actions[index], self.seen[index], self.decided[index])

    def last(self, steps: int) -> Past:
        """The last so many steps alone."""
        return replace(self, seen=self.seen.clamp(max=steps))

    def forget(self, index: Tensor) -> Past:
        """Episodes began in these rows."""
        seen = self.seen.clone()
        seen[index] = 0
        return replace(self, seen=seen)

    def normalized(self, observation: Callable[[Tensor], Tensor], action: Callable[[Tensor], Tensor]) -> Past:
        """The same in a model's units, by its maps of observations and actions."""
        return Past(observation(self.observations), action(self.actions), self.seen, action(self.decided))

    def repeated(self, each: int) -> Past:
        """Each row so many times, one after another."""
        return self.rows(torch.arange(len(self.seen), device=self.seen.device).repeat_interleave(each))

    def seen_tokens(self, stride: int) -> tuple[Tensor, Tensor]:
        """Of the H tokens before the present and the present one, (R, H + 1) bool each: whose closing observation was seen, and
        which were seen whole, with their actions. The first has no actions."""
        tokens = self.observations.shape[1] // stride
        ago = stride * torch.arange(tokens, -1, -1, device=self.seen.device)
        whole = ago + stride <= self.seen.unsqueeze(1)
        whole[:, 0] = False
        seen = whole | (ago == 0)
        seen[:, 0] = ago[0] <= self.seen
        return seen, whole

"""BC: behaviour cloning, the policy that the data's mean action makes (Pomerleau 1989; settings of CORL).

It learns from every recorded step alike and looks at no reward, so that it says how much of another agent's score
comes from imitation alone. Not to be confused with filtered cloning ('BC-10%'), which keeps the best episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dfplan.agents.offline.base import OfflineAgent, OfflineConfig, OfflineLearner
from dfplan.data.transitions import Noise, Transitions


@dataclass(frozen=True)
class BCConfig(OfflineConfig):
    """Cloning has no letters of its own."""


def cloning_loss(pi: Tensor, a: Tensor) -> Tensor:
    """(pi(s) - a)^2, mean over batch and columns: (S, B, A) -> (S,)."""
    return (pi - a).square().mean(dim=(1, 2))


class BC(OfflineLearner[BCConfig]):
    config_class = BCConfig

    def __init__(self, config: BCConfig):
        super().__init__(config)
        self.pi = self.stack(config.observation_dim, config.action_dim)

    def losses(self, batch: Transitions, noise: Noise) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"cloning": cloning_loss(self.pi(batch.s).tanh(), batch.a)}, {}


class BehaviorCloningAgent(OfflineAgent):
    kind = "bc"
    learner_class = BC

"""BC: behavior cloning, a regression of the recorded actions (Pomerleau 1989; settings of CORL).

It learns from every recorded step alike and reads no reward, so that it shows how much of another agent's score comes
from imitation alone. Not to be confused with filtered cloning ('BC-10%'), which keeps the best episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dfplan.agents.offline.base import Losses, OfflineAgent, OfflineConfig, OfflineLearner
from dfplan.data.transitions import Noise, Transitions


@dataclass(frozen=True)
class BCConfig(OfflineConfig):
    """Cloning has no hyperparameters of its own."""


def cloning_loss(pi: Tensor, a: Tensor) -> Tensor:
    """(pi(s) - a)^2, mean over batch and columns: (S, B, A) -> (S,)."""
    return (pi - a).square().mean(dim=(1, 2))


class BC(OfflineLearner[BCConfig]):
    """An actor alone."""

    def __init__(self, config: BCConfig):
        super().__init__(config)
        self.pi = self.stack(config.observation_dim, config.action_dim)

    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """The cloning loss."""
        return {"cloning": cloning_loss(self.pi(batch.s).tanh(), batch.a)}, {}


class BehaviorCloningAgent(OfflineAgent):
    """Plays the cloned action."""

    kind = "bc"
    learner_class, learner_config_class = BC, BCConfig

"""BC: behavior cloning, a regression of the recorded actions (Pomerleau 1989; settings of CORL).

It learns from every recorded step alike and reads no reward, so that it shows how much of another agent's score comes
from imitation alone. With goals it is goal-conditioned: each step is cloned as one on the way to what was observed later in
its episode (Ghosh et al. 2021). Not to be confused with filtered cloning ('BC-10%'), which keeps the best episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dfplan.agents.offline.base import Losses, OfflineAgent, OfflineConfig, OfflineLearner
from dfplan.data.transitions import Noise, Transitions
from dfplan.fields import Size, check_columns


@dataclass(frozen=True)
class BCConfig(OfflineConfig):
    """Which goals, if any, the policy is given."""

    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal stands; none: the policy is given no goal."""
    longest: Size = 100
    """Goals of training were observed 1 to this many steps later."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.goal_columns, self.observation_dim, "goal_columns")


def cloning_loss(pi: Tensor, a: Tensor) -> Tensor:
    """(pi(s) - a)^2, mean over batch and columns: (S, B, A) -> (S,)."""
    return (pi - a).square().mean(dim=(1, 2))


class BC(OfflineLearner[BCConfig]):
    """An actor alone."""

    rewarded = False

    def __init__(self, config: BCConfig):
        super().__init__(config)
        self.pi = self.of_states(config.action_dim)

    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """The cloning loss."""
        return {"cloning": cloning_loss(self.pi(batch.s).tanh(), batch.a)}, {}


class BehaviorCloningAgent(OfflineAgent):
    """Plays the cloned action."""

    kind = "bc"
    learner_class, learner_config_class = BC, BCConfig

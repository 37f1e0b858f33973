"""GCIQL: implicit Q-learning towards goals (Kostrikov et al. 2022, as OGBench has it: Park et al. 2025, arXiv 2410.20092).

No reward is read. Each step is worth -1 until its goal is reached, and goals are drawn in hindsight: V(s, g) is then minus a
discounted number of steps. The policy climbs Q near the recorded actions (DDPG + BC), which is TD3+BC's loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.agents.offline.base import Losses, OfflineAgent, OfflineLearner, ValueConfig
from dfplan.agents.offline.iql import expectile_loss
from dfplan.agents.offline.losses import backup, critic_loss, least_q, q_values
from dfplan.agents.offline.td3_bc import actor_loss
from dfplan.arrays import Shape
from dfplan.data.transitions import Noise, Transitions
from dfplan.fields import check_columns


@dataclass(frozen=True)
class GCIQLConfig(ValueConfig):
    """The hyperparameters of GCIQL, those of OGBench's manipulation tasks."""

    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal stands; needed."""
    tau: float = 0.9
    """Expectile: towards 1, the value of the best recorded actions."""
    alpha: float = 0.005
    """How far the target critics follow in one update."""
    climb: float = 0.4
    """Weight of Q, in units of its own size, against the squared distance from the recorded action."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.goal_columns, self.observation_dim, "goal_columns")
        if not self.goal_columns:
            raise ValueError(
                "GCIQL learns to reach goals: goal_columns must name at least one column of the observation"
            )


class GCIQL(OfflineLearner[GCIQLConfig]):
    """A deterministic actor, twin critics with targets, and a value of states, all of them given a goal."""

    rewarded = False

    def __init__(self, config: GCIQLConfig):
        super().__init__(config)
        self.pi = self.of_states(config.action_dim)
        self.q = self.twins()
        self.v = self.of_states(1)
        self.q_target = self.q.target()

    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """Expectile regression of V and the backup of Q from V(s'), as in IQL."""
        s, a, _, s_next, _ = batch
        self.q_target.follow(self.q, self.config.alpha)
        with torch.no_grad():
            best = least_q(self.q_target, s, a)
            y = backup(batch, self.config.gamma, self.v(s_next).squeeze(-1))
        q, advantage = q_values(self.q, s, a), best - self.v(s).squeeze(-1)
        minimized = {"value": expectile_loss(advantage, self.config.tau), "critic": critic_loss(q, y) / q.shape[1]}
        return minimized, {"q": q.mean(dim=(1, 2)), "advantage": advantage.mean(dim=1)}

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a batch of `dfplan.data.transitions.Relabeled`: the actor's is at states with goals of its own."""
        transitions, s = self.transitions(*batch[:-1]), self.state(batch[0], batch[-1])
        minimized, watched = self.losses(transitions, Noise(generator, self.config.seeds))
        pi = self.pi(s).tanh()
        minimized["policy"] = actor_loss(least_q(self.q, s, pi, frozen=True), pi, transitions.a, self.config.climb)
        return self.summed(minimized, watched)


class GCIQLAgent(OfflineAgent):
    """Plays the actor's action towards the goal of the reset."""

    kind = "gciql"
    learner_class, learner_config_class = GCIQL, GCIQLConfig

    def _parts(self, given: int) -> dict[str, Shape]:
        """Of the critics' goals and the policy's, which come last, each row has one."""
        return {**super()._parts(given), "goals of the policy": ("B", len(self.learner.goal_columns))}

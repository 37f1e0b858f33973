"""What full-sequence diffusion planners learn from and draw: all tokens of a plan of fixed length from one noise level.

Diffuser and Decision Diffuser add what is known of a plan and what steers it. Not to be confused with Diffusion Forcing, where
every token has a level of its own and a plan any length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.returns import require_rewards
from dfplan.data.statistics import Normalizer, Statistics
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import ReturnWindows
from dfplan.diffusion import matrices
from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import NoiseSchedule, Prediction, ScheduleName
from dfplan.diffusion.sampler import Known, sample
from dfplan.fields import CheckedFields, NotNegative, Share, Size, check_columns
from dfplan.models import UNetConfig
from dfplan.planning.ask import Ask
from dfplan.planning.plan import Plan


@dataclass(frozen=True)
class SequenceConfig(CheckedFields):
    """What is learned, and how large."""

    layout: TokenLayout
    """Which columns of a token are observation and action, and how many steps it covers."""
    tokens: Size = 48
    """T: a plan is always T tokens, the start among them, and so (T - 1) * stride environment steps long."""
    towards: Literal["goal", "return", "nothing"] = "goal"
    """Plan to a goal that is given at each reset, for a high return of the recorded task, or as the data went on."""
    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal is given; needed by a planner to goals only."""
    network: UNetConfig = field(default_factory=UNetConfig)
    """The temporal U-Net that denoises."""
    schedule: ScheduleName = "cosine"
    """How alpha_bar falls with the level."""
    levels: Size = 256
    """K: the level of pure noise."""
    prediction: Prediction = "x0"
    """What the network predicts."""
    features: Features = AS_RECORDED
    """How what an environment observes becomes the observations of the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 3:
            raise ValueError(f"a plan needs a start, an end and a token between them, got tokens={self.tokens}")
        check_columns(self.goal_columns, self.layout.observation_dim, "goal_columns")
        if self.towards == "goal" and not self.goal_columns:
            raise ValueError(
                "a planner to goals needs them: goal_columns must name at least one column of the observation"
            )

    @property
    def steps(self) -> int:
        """Environment steps that a plan covers."""
        return (self.tokens - 1) * self.layout.stride


@dataclass(frozen=True)
class SamplingConfig(CheckedFields):
    """How a whole sequence is denoised."""

    steps: Size = 20
    """Denoising steps from pure noise to a clean sequence."""
    eta: Share = 0.0
    """0 for DDIM, 1 for DDPM's ancestral step."""
    temperature: NotNegative = 1.0
    """Deviation of the noise that becomes samples: below 1 they lie nearer to the most common ones."""


class SequenceModel(Statistics):
    """Units, returns and sampling of a full-sequence planner; its networks and loss are a subclass's."""

    best_return: Tensor

    def __init__(self, config: SequenceConfig):
        super().__init__(config.layout.observation_dim, config.layout.action_dim)
        self.config = config
        self.returns = Normalizer.standard(1)
        self.schedule = NoiseSchedule(config.schedule, config.levels)
        self.register_buffer("best_return", torch.ones(()))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizers, action limits and the best return of a window from the data, before training.

        Raises ValueError for data without a window, and for a planner to a return where the data have no rewards.
        """
        if self.config.towards == "return":
            require_rewards(data, f"a {type(self).__name__} that plans for a return")
        super().fit_statistics(data)
        windows = ReturnWindows(data, self.config.steps + 1)
        returns = windows.returns(windows.starts)
        self.returns = Normalizer.fit(returns[:, None])
        self.best_return = torch.tensor(float(returns.max()))

    def plan(
        self, observation: Tensor, ask: Ask, config: Any, generator: torch.Generator, record: bool = False
    ) -> Plan:
        """Plans from observations (B, observation_dim) in recorded units, of what is asked for; a subclass's."""
        raise NotImplementedError

    def token_at(self, observation: Tensor) -> Tensor:
        """Tokens (B, C) that stand for observations (B, observation_dim) in recorded units."""
        return self.config.layout.state_token(self.observation.normalize(observation))

    def draw(
        self,
        diffusion: Diffusion,
        known: Known,
        config: SamplingConfig,
        generator: torch.Generator,
        record: bool,
        guidance: Guidance | None = None,
    ) -> Plan:
        """Full-sequence sampling around the known tokens (B, T, C), in `config.steps` steps with `config.eta`."""
        layout, T = self.config.layout, self.config.tokens
        matrix = matrices.full_sequence(T, self.config.levels, config.steps)
        shape = len(known.mask), T, layout.width
        how: dict[str, Any] = {"eta": config.eta, "temperature": config.temperature, "record": record}
        drawn = sample(diffusion, matrix, shape, generator, known=known, guidance=guidance, **how)
        return Plan.whole(
            self._states(drawn.tokens),
            tokens=drawn.tokens,
            actions=self.action.denormalize(layout.unpack_actions(drawn.tokens)) if layout.actions else None,
            history=[(self._states(x), k) for x, k in drawn.history],
        )

    def _states(self, tokens: Tensor) -> Tensor:
        """Observations (B, T, kept, observation_dim) in recorded units of normalized tokens (B, T, C)."""
        layout = self.config.layout
        states = tokens[..., : layout.observation_width].unflatten(-1, (layout.kept, layout.observation_dim))
        return self.observation.denormalize(states)

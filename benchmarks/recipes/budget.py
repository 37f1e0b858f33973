"""What a recipe is given for one task: how far plans reach, and how long to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dfplan.data.spec import Spec


@dataclass(frozen=True)
class Budget:
    """The numbers of one task that recipes ask for; tokens count the start."""

    coarse: tuple[int, int]
    """Environment steps between two tokens of a Diffusion Forcing plan, and its tokens."""
    bundled: int
    """Tokens of a plan of the paper's recipe, each a bundle of ten steps."""
    sequence: tuple[int, int, int]
    """Steps of a token, tokens of a plan and noise levels of Diffuser and Decision Diffuser."""
    sparse: int
    """Tokens of a plan of Diffusion Veteran, 15 steps apart."""
    speed: float
    """Planned steps that a Diffusion Forcing agent plays in one environment step."""
    arrival: float
    """Distance from its goal, in recorded units, within which a Diffusion Forcing agent stays there."""
    omega: float
    """Strength of Decision Diffuser's guidance."""
    steps: Mapping[str, int]
    """Optimizer steps by recipe, or by a group of recipes; of online recipes, decisions."""


def budget_of(spec: Spec) -> Budget:
    """By the data's own measures: plans as long as half of the longest episode, up to 256 steps."""
    reach = min(max(spec.longest // 2, 4), 256)
    stride = -(-reach // 31)
    return Budget(
        coarse=(stride, reach // stride + 1),
        bundled=max(reach // 10, 1) + 1,
        sequence=(stride, reach // stride + 1, 64),
        sparse=max(reach // 15, 1) + 1,
        speed=1.0,
        arrival=0.0,
        omega=1.0,
        steps={
            **{
                "default": 10_000,
                "paper": 10_000,
                "ablation": 5_000,
                "sequence": 5_000,
                "dv": 3_000,
                "offline": 20_000,
            },
            **{"dynamics": 5_000, "ppo": 400_000, "sac": 100_000, "td3": 100_000},
        },
    )

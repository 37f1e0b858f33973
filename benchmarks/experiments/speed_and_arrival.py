"""What the options `speed` and `arrival` of the Diffusion Forcing agent add to its score in the mazes.

`speed` is the number of planned steps that are played in one environment step. `arrival` is the distance to the goal
within which a new plan stays at the goal. Neither is learned.
"""

from __future__ import annotations

from dfplan.benchmarks.experiments import variants
from dfplan.benchmarks.experiments.shared import Parts, Settings, Verdict

CLAIM = "In each of the three mazes, `speed` raises the score, and so does `arrival`."
PAGE = "diffusion-forcing"
MAZES = ("maze2d-umaze", "maze2d-medium", "maze2d-large")
VARIANTS: dict[str, variants.Variant] = {
    "as shipped": ("default", {}),
    "speed=1": ("default", {"speed": 1.0}),
    "arrival=0": ("default", {"arrival": 0.0}),
    "speed=1, arrival=0": ("default", {"speed": 1.0, "arrival": 0.0}),
}
play = variants.play


def parts(quick: bool) -> Settings:
    """Each variant in each maze."""
    return variants.parts(MAZES, VARIANTS, quick)


def conclude(played: Parts) -> Verdict:
    """It held if, in every maze, each option's whole paired interval lies below the score as shipped."""
    changes = [variants.gain(played, maze, name, "as shipped") for maze in MAZES for name in ("speed=1", "arrival=0")]
    held = all(change.high is not None and change.high < 0 for change in changes)
    return held, variants.shown(played, MAZES, VARIANTS)

"""Why the paper's recipe scores less than the default one: the actions that it plays, the cost that guides it, or the rest.

With the same weights, either the diffused actions are played, or learned inverse dynamics tracks the plans. Guidance is by the
mean distance to the goal, which is greedy, or by the time to arrive. The default recipe also has another network, loss and
tokens, and the goal as a known token. It is played after its own training, and after one that is as short as the paper's.
"""

from __future__ import annotations

from dfplan.benchmarks.experiments import shared, variants
from dfplan.benchmarks.experiments.shared import Parts, Settings, Verdict

CLAIM = (
    "In umaze at least half of what the paper's recipe scores less than the default one is lost by its diffused actions: "
    "its own plans, tracked by learned inverse dynamics, win it back."
)
PAGE = "diffusion-forcing"
MAZES = ("maze2d-umaze",)
TRACKED, SOONEST = {"execution": "inverse_dynamics"}, {"guide": "soonest"}
VARIANTS: dict[str, variants.Variant] = {
    "the paper's recipe": ("paper", {}),
    "its plans tracked by inverse dynamics": ("paper", TRACKED),
    "guided by the time to arrive": ("paper", SOONEST),
    "both": ("paper", TRACKED | SOONEST),
    "the default recipe, trained shortly, at the data's pace": ("short", {"speed": 1.0}),
    "the default recipe at the data's pace": ("default", {"speed": 1.0}),
}
play = variants.play


def parts(quick: bool) -> Settings:
    """Each variant in umaze."""
    return variants.parts(MAZES, VARIANTS, quick)


def conclude(played: Parts) -> Verdict:
    """It held if the whole paired interval of what tracking adds lies above half of the gap to the default recipe."""
    first, tracked, *_, default = VARIANTS
    (maze,) = MAZES
    added = variants.gain(played, maze, tracked, first)
    gap = variants.gain(played, maze, default, first).value
    return shared.above(added, gap / 2), variants.shown(played, MAZES, VARIANTS)

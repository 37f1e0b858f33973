"""What it is worth to an arm that exchanges two objects to be told which observations are corrupted.

One model, with the weights of the default recipe, is played with a share of its observations replaced by random places.
'Told': these are given as unknown, at the level of pure noise. 'Not told': as they are. The corrupted steps are the same.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.memory_swap import EPISODES, built, percent, success
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.intervals import mean

CLAIM = (
    "With 20% of the observations corrupted, the arm that is told which ones exchanges the objects more often than the one "
    "that is not, and loses at most a tenth of its success on clean observations."
)
PAGE = "memory"
SHARES = (0.2, 0.4)


def parts(quick: bool) -> Settings:
    """Clean observations, and each share told and not told, all on the same starts."""
    episodes = 2 if quick else EPISODES
    found: Settings = {"clean": {"corrupted": 0.0, "told": False, "episodes": episodes}}
    for share in SHARES:
        for told in (True, False):
            name = f"{share:.0%}, {'told' if told else 'not told'}"
            found[name] = {"corrupted": share, "told": told, "episodes": episodes}
    return found


def play(settings: Part) -> Part:
    """Whether each episode had success."""
    options = {"corrupted": settings["corrupted"], "told": settings["told"]}
    return {"success": success(built(), protocol.evaluation_seeds(settings["episodes"]), **options)}


def conclude(played: Parts) -> Verdict:
    """It held if the interval of the paired gain at the first share lies above 0, and nine tenths of the success remain."""
    found = percent(played)
    clean, told, not_told, *_ = found.values()
    lines = [[name, f"{mean(one):.1f}"] for name, one in found.items()]
    held = shared.above(shared.difference(told, not_told), 0.0) and told[0].mean() >= 0.9 * clean[0].mean()
    return bool(held), shared.table(["observations", "success %"], lines) + (
        f"\n\nSuccess in {len(clean[0])} episodes of one set of weights, with its 95% interval.\n"
    )


def figure(played: Parts) -> Figure:
    """Success over the share, told and not told."""
    lines: dict[str, dict[float, list[Any]]] = {"told": {}, "not told": {}}
    for (name, part), one in zip(played.items(), percent(played).values(), strict=True):
        for line in lines if name == "clean" else [name.split(", ")[1]]:
            lines[line][100 * part["corrupted"]] = one
    return shared.plot({"memory-swap": shared.means(lines)}, "corrupted observations, %", "success, %")

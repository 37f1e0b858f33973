"""What it is worth to an arm that exchanges two objects that corrupted observations are given as unknown.

One model, with the weights of the default recipe, is played with a share of its observations replaced by random places.
'Told': the environment marks them, and they are unknown, at the level of pure noise. 'Found': the agent finds those that
changed faster than the data ever did (`dfplan.planning.jumps`). 'As seen': they are taken as they are. The corrupted steps are
the same.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from dfplan.benchmarks import protocol
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.memory_swap import EPISODES, built, percent, success
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.benchmarks.suites.memory import JUMPS
from dfplan.intervals import mean

CLAIM = (
    "With 20% of the observations corrupted, the arm keeps at least nine tenths of its success on clean observations, whether "
    "it is told which ones they are or finds them, and it succeeds more often than if they are taken as seen."
)
PAGE = "memory"
SHARES = (0.2, 0.4)
WAYS = {"told": (True, 0.0), "found": (False, JUMPS), "as seen": (False, 0.0)}
"""Whether the environment marks corrupted observations, and the agent's `jumps`."""


def parts(quick: bool) -> Settings:
    """Clean observations, and each share in each way, all on the same starts."""
    episodes = 2 if quick else EPISODES
    found: Settings = {"clean": {"corrupted": 0.0, "told": False, "jumps": JUMPS, "episodes": episodes}}
    for share in SHARES:
        for way, (told, jumps) in WAYS.items():
            found[f"{share:.0%}, {way}"] = {"corrupted": share, "told": told, "jumps": jumps, "episodes": episodes}
    return found


def play(settings: Part) -> Part:
    """Whether each episode had success."""
    agent, options = (
        built().with_options(jumps=settings["jumps"]),
        {name: settings[name] for name in ("corrupted", "told")},
    )
    return {"success": success(agent, protocol.evaluation_seeds(settings["episodes"]), **options)}


def conclude(played: Parts) -> Verdict:
    """It held at the first share if nine tenths remain in both ways, and the intervals of both paired gains lie above 0."""
    rates = percent(played)
    clean, told, found, as_seen, *_ = rates.values()
    lines = [[name, f"{mean(one):.1f}"] for name, one in rates.items()]
    held = all(
        shared.above(shared.difference(one, as_seen), 0.0) and one[0].mean() >= 0.9 * clean[0].mean()
        for one in (told, found)
    )
    return bool(held), shared.table(["observations", "success %"], lines) + (
        f"\n\nSuccess in {len(clean[0])} episodes of one set of weights, with its 95% interval.\n"
    )


def figure(played: Parts) -> Figure:
    """Success over the share, in each way."""
    lines: dict[str, dict[float, list[Any]]] = {way: {} for way in WAYS}
    for (name, part), one in zip(played.items(), percent(played).values(), strict=True):
        for way in WAYS if name == "clean" else [name.split(", ")[1]]:
            lines[way][100 * part["settings"]["corrupted"]] = one
    return shared.plot({"memory-swap": shared.means(lines)}, "corrupted observations, %", "success, %")

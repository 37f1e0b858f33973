"""Whether Monte Carlo guidance accounts for chance, on the rivers of `fork-v0`.

One model is trained on recorded boats, which go into both arms on rivers of all hazards. It plans once, at the start.
Only the way to choose the arm differs: none, the gradient of the cost of one prediction, the landing as a known end, the
shortest plausible plan, or Monte Carlo guidance. The cost is the mean distance to the landing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from matplotlib.figure import Figure

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.episodes import Start
from dfplan.agents.episodes import play as play_together
from dfplan.benchmarks.experiments import shared
from dfplan.benchmarks.experiments.shared import Part, Parts, Settings, Verdict
from dfplan.benchmarks.report.figures import BLUE, FAINT, GREEN, GRID, INK, ORANGE, PINK, SKY
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import Windows
from dfplan.diffusion.monte_carlo import sample_futures
from dfplan.envs import fork
from dfplan.intervals import mean
from dfplan.models import TransformerConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe, fit

CLAIM = (
    "On fork-v0, Monte Carlo guidance earns at least 95% of the optimum's expected return, averaged over the hazards, plain "
    "guidance, a known goal and the shortest plan earn less, and the futures are spread as the data are, within 30%."
)
PAGE = "monte-carlo-guidance"
HAZARDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
EPISODES, SEED = 20, 200_000
TRAINING = {"episodes": 5000, "seed": 0, "steps": 4000}
STRIDE, TOKENS = 4, 6
GUIDED = {"goal": "guided", "horizons": 1, "guide": "throughout", "uncertainty": 0.0}
MONTE_CARLO = {**GUIDED, "steps": 4, "decided": 1, "future_steps": 8, "scale": 4.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "no guidance": GUIDED,
    "plain guidance": {**GUIDED, "scale": 4.0},
    "known goal": {"goal": "known", "horizons": 1},
    "shortest plan": {"goal": "known", "horizons": 5},
    **{f"Monte Carlo, {n} futures": {**MONTE_CARLO, "futures": n} for n in (1, 4, 16, 64)},
    **{
        f"Monte Carlo, 8 candidates, {n} futures": {**MONTE_CARLO, "futures": n, "candidates": 8}
        for n in (1, 4, 16, 64)
    },
}
FUTURES = "futures"


def parts(quick: bool) -> Settings:
    """The spread of the futures, then each variant on the same episodes: 20 at each hazard, or 5 at every second one."""
    hazards, episodes = (list(HAZARDS[::2]), 5) if quick else (list(HAZARDS), EPISODES)
    training = {**TRAINING, "steps": 1000} if quick else TRAINING
    played = {name: {"options": options, "episodes": episodes} for name, options in VARIANTS.items()}
    futures = {"steps": MONTE_CARLO["future_steps"], "draws": 1000}
    return {
        name: {"training": training, "hazards": hazards, **own} for name, own in [(FUTURES, futures), *played.items()]
    }


def play(settings: Part) -> Part:
    """Of futures, their spread and the data's at each hazard; of a variant, the raw returns and the share of boats that it
    steers into the short arm."""
    agent = trained(settings["training"])
    if "draws" in settings:
        pairs = [spread(agent, hazard, settings["steps"], settings["draws"]) for hazard in settings["hazards"]]
        return {"spread": [own for own, _ in pairs], "true": [true for _, true in pairs]}
    return _played(agent.with_options(**settings["options"]), settings["hazards"], settings["episodes"])


def _played(agent: Any, hazards: list[float], episodes: int) -> dict[str, Any]:
    returns, short = [], []
    for hazard in hazards:
        courses = [""] * episodes

        def watch(agent: Any, observations: Any, infos: Any, courses: list[str] = courses) -> None:
            courses[:] = [info.get("course", "") for info in infos]

        envs = [gymnasium.make(fork.ENV_ID, hazard=hazard) for _ in range(episodes)]
        played = play_together(agent, envs, [Start(SEED + i) for i in range(episodes)], watch=watch)
        returns.append([round(value, 6) for value in played.returns])
        short.append([course != "long" for course in courses])
    return {"returns": returns, "short": short}


def trained(training: Part) -> Any:
    """The agent, from its run folder under runs/ if it has been trained before."""
    layout = TokenLayout(3, 1, stride=STRIDE)
    record: dict[str, Any] = fork.record(training["episodes"], training["seed"], steps=layout.steps(TOKENS))
    model = TrajectoryModelConfig(
        layout,
        goal_columns=(0, 1),
        tokens=TOKENS,
        model=TransformerConfig(width=64, depth=2),
        weighting="uniform",
        draws={"futures": 0.6, "goal_ramp": 0.4},
    )
    recipe = Recipe(
        DiffusionForcingAgent,
        TrajectoryModel,
        model,
        AgentConfig(replan_every=fork.STEPS, lookahead=STRIDE),
        TrainConfig(steps=training["steps"], learning_rate=2e-3, seed=training["seed"]),
        batches=lambda data: Windows(data, layout.steps(TOKENS)).sample,
    )
    folder = Path("runs", f"fork-v0-seed{training['seed']}-{training['steps']}")
    return fit(recipe, Trajectories(**record, name=fork.ENV_ID), folder, quiet=True)


def spread(agent: Any, hazard: float, steps: int, draws: int) -> tuple[float, float]:
    """The standard deviation of y at the last token over futures of a boat that has gone into the short arm, and in truth."""
    model = agent.model
    x, k = torch.zeros(1, TOKENS, 3), torch.full((1, TOKENS), model.config.levels)
    known = [[*fork.place("short", step), hazard] for step in (0, STRIDE)]
    x[0, :2], k[0, :2] = model.observation.normalize(torch.tensor(known, dtype=torch.float32)), 0
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        drawn = sample_futures(model.diffusion, x, k, k > 0, draws, steps, generator)
    ends = model.observation.denormalize(drawn)[:, 0, -1, 1]
    return float(ends.std()), float(np.sqrt(hazard) * abs(fork.PATHS["left"][-1, 1]))


def shares(part: Part) -> np.ndarray[Any, Any]:
    """Expected return of the arm that each boat was steered into, as a share of the optimum's: (hazards, episodes)."""
    arm = np.array(
        [[fork.expected_return("long", p), fork.expected_return("short", p)] for p in part["settings"]["hazards"]]
    )
    best = np.array([fork.best_return(p) for p in part["settings"]["hazards"]])
    return np.take_along_axis(arm, np.array(part["short"], int), axis=1) / best[:, None]


def conclude(played: Parts) -> Verdict:
    """It held if the best Monte Carlo variant reaches 95%, each that is not Monte Carlo lies below it with its whole interval,
    and no hazard's futures are spread less than 70% or more than 130% of the data."""
    averages = {name: mean(list(shares(part))) for name, part in played.items() if name != FUTURES}
    hazards = played[FUTURES]["settings"]["hazards"]
    rows = []
    for name, average in averages.items():
        short = np.array(played[name]["short"], float).mean(1)
        rows.append([name, f"{average:.1%}", *(f"{share:.0%}" for share in short)])
    ratios = [own / true for own, true in zip(played[FUTURES]["spread"], played[FUTURES]["true"], strict=True) if true]
    best = max((average.value, name) for name, average in averages.items() if name.startswith("Monte Carlo"))
    bound = averages[best[1]].low or 0.0
    others = [average for name, average in averages.items() if not name.startswith("Monte Carlo")]
    held = best[0] >= 0.95 and all(other.high is not None and other.high < bound for other in others)
    held &= min(ratios) >= 0.7 and max(ratios) <= 1.3
    boats = len(played["no guidance"]["short"][0])
    head = ["guidance", "share of the optimum", *(f"p = {p:g}" for p in hazards)]
    return held, shared.table(head, rows) + (
        f"\n\nMean share of the optimum's expected return over all hazards p, with its 95% interval over {boats} boats at "
        "each; then the share of boats that were steered into the short arm, which is the better one below "
        f"p = {fork.SWITCH:.2f}. The spread of the futures that guidance draws is {100 * min(ratios):.0f} to "
        f"{100 * max(ratios):.0f}% of the data's.\n"
    )


def figure(played: Parts) -> Figure:
    """Share of boats that are steered into the short arm, over the hazard."""
    shown = {
        "no guidance": (FAINT, "-"),
        "plain guidance": (ORANGE, "-"),
        "known goal": (PINK, "-"),
        "shortest plan": (GREEN, "-"),
        "Monte Carlo, 64 futures": (SKY, "-"),
        "Monte Carlo, 8 candidates, 1 futures": (BLUE, ":"),
        "Monte Carlo, 8 candidates, 64 futures": (BLUE, "-"),
    }
    drawn = Figure(figsize=(7, 4), layout="constrained")
    axes = drawn.subplots()
    for name, (color, line) in shown.items():
        short = np.array(played[name]["short"], float)
        axes.plot(
            played[name]["settings"]["hazards"], 100 * short.mean(1), line, color=color, label=name, marker="o", ms=3
        )
    axes.plot([0, fork.SWITCH, fork.SWITCH, 1], [100, 100, 0, 0], "--", color=INK, label="optimum", lw=1)
    axes.set(xlabel="hazard of the short arm", ylabel="steered into the short arm, %", ylim=(-4, 104), xlim=(0, 1))
    axes.grid(color=GRID)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn

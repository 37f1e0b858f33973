"""What the page may ask: a start and a goal or a task, forbidden rectangles, and settings of sliders, each within its range."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from dfplan.config_json import config_from_json
from dfplan.planning.ask import Ask
from dfplan.viewer.regions import Rectangle, violation

Number = Annotated[float, Field(ge=-1000, le=1000)]
Place = tuple[Number, Number]

MOST_CANDIDATES = 400
"""Horizons times candidates times futures of one plan: so many fit into a few hundred MiB."""


@dataclass(frozen=True)
class Slider:
    """A setting of the page: one of an agent's options, and the values that it may take."""

    option: str
    """Its name in `PlanConfig`."""
    label: str
    hint: str
    low: float
    high: float
    step: float


SLIDERS = (
    Slider("uncertainty", "Lag", "rows by which each token lags the one before it; 0: all fall together", 0, 2, 0.05),
    Slider("horizons", "Horizons", "plan lengths that are tried at once", 1, 40, 1),
    Slider("samples", "Candidates", "plans of each length; the shortest plausible one is taken", 1, 8, 1),
    Slider("scale", "Guidance", "pull towards the goal, on top of the known end; 0: none", 0, 5, 0.1),
    Slider("steps", "Steps", "network evaluations from noise to a plan", 1, 64, 1),
    Slider(
        "temperature",
        "Temperature",
        "deviation of the noise that a plan begins with; 0: always the same plan",
        0,
        1,
        0.05,
    ),
    Slider("futures", "Futures", "sampled futures that guidance is averaged over; 0: the one prediction", 0, 4, 1),
)


@dataclass(frozen=True)
class Question:
    """One request of the page, places in the maze's coordinates: x runs down, y to the right, a cell is 1."""

    options: dict[str, float | int]
    """Values of sliders by option; the agent's own for those that are left out."""
    start: Place | None = None
    """Of a maze."""
    goal: Place | None = None
    """Likewise."""
    task: Annotated[int, Field(ge=1, le=1000)] = 1
    """Which of a robot's tasks."""
    streaming: bool | None = None
    """Whether the plan that is driven stays alive; None: as the agent does."""
    forbidden: Annotated[tuple[Rectangle, ...], Field(max_length=8)] = ()
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0

    @classmethod
    def read(cls, values: Any) -> Question:
        """The question that plain JSON values ask. Raises ValueError, with one sentence, for anything else."""
        question = config_from_json(cls, values, "question")
        known = {slider.option: slider for slider in SLIDERS}
        for name, value in question.options.items():
            if name not in known:
                raise ValueError(f"there is no slider {name!r}: expected {', '.join(known)}")
            if not known[name].low <= value <= known[name].high:
                raise ValueError(f"{name} lies in {known[name].low:g}..{known[name].high:g}, got {value:g}")
        return question

    def agent(self, agent: Any) -> Any:
        """An agent with the same weights that plans by these options. ValueError for more candidates than fit."""
        whole = {slider.option for slider in SLIDERS if slider.step == 1}
        options = {name: int(value) if name in whole else value for name, value in self.options.items()}
        if self.streaming is not None:
            options["streaming"] = self.streaming
        asked = agent.with_options(**options)
        plan = asked.config.plan
        guided = plan.scale > 0 or self.forbidden
        count = plan.horizons * plan.samples * max(1, plan.futures if guided else 1)
        if count > MOST_CANDIDATES:
            sentence = f"horizons times candidates times futures are at most {MOST_CANDIDATES}, got {count}"
            raise ValueError(f"{sentence}: move one of these sliders down")
        return asked

    @property
    def ask(self) -> Ask:
        """What plans are asked for: the goal, and to keep out of the rectangles."""
        constraints = (partial(violation, rectangles=self.forbidden),) if self.forbidden else ()
        return Ask(goal=self.goal, constraints=constraints)

"""Of what a trajectory model is made.

A sequence of the model is a window of tokens, with a condition token before them if the config has one:

    [goal, return] [past] ... [past] [present] [next] ... [last]

What is known of it is clean, what is not is noise: each column of each token has a level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from typing import Literal

from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.tokens import TokenLayout
from dfplan.diffusion.loss import Weighting
from dfplan.diffusion.noise import Prediction, ScheduleName
from dfplan.fields import CheckedFields, Positive, Share, Size, SizeOrZero, check_columns
from dfplan.models import ModelConfig, TransformerConfig

Condition = Literal["goal", "return"]
CONFIGURATIONS = 1000
"""The most configurations of things: the product of their kinds."""


@dataclass(frozen=True)
class PlausibilityConfig(CheckedFields):
    """How steps that the data could have made are distinguished from others: `dfplan.models.StepPlausibility`."""

    noise: tuple[Positive, Positive] = (0.1, 1.0)
    """Smallest and largest deviation of the noise that makes false steps, in normalized units."""
    gain: Positive = 1.0
    """Factor of a step on its way into the network: about one over its length, in normalized units."""
    columns: Literal["goal", "all"] = "goal"
    """Whether steps are judged by the goal's columns alone, or by all of an observation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise[0] > self.noise[1]:
            raise ValueError(f"noise must be the smallest deviation and then the largest, got {self.noise}")


@dataclass(frozen=True)
class TrajectoryModelConfig(CheckedFields):
    """Of what a trajectory model is made, and what it learns."""

    layout: TokenLayout
    """Which columns of a token are observation and action, and how many steps it covers."""
    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal is given; without any, the model plans to no goal."""
    tokens: Size = 64
    """Length T of the training windows: the past, the present, and the longest plan."""
    model: ModelConfig = field(default_factory=TransformerConfig)
    """The denoiser: a TransformerConfig or a RecurrentConfig."""
    schedule: ScheduleName = "cosine"
    """How alpha_bar falls with the level."""
    levels: Size = 256
    """K: the level of pure noise."""
    prediction: Prediction = "v"
    """What the network is asked for."""
    weighting: Weighting = "min_snr"
    """How the loss weighs the levels."""
    draws: dict[str, float] = field(default_factory=lambda: {"independent": 0.5, "goal_ramp": 0.5})
    """How training draws levels: names of `dfplan.planning.draws.DRAWS` with weights."""
    longest_gap: Size = 15
    """Inverse dynamics is trained on targets 1 to this many steps ahead."""
    plausibility: PlausibilityConfig | None = field(default_factory=PlausibilityConfig)
    """How plausible steps are learned, by which the planner chooses a length. None: they are not, and the longest is tried."""
    features: Features = AS_RECORDED
    """How what an environment observes becomes the observations of the data."""
    parts: bool = False
    """Whether a goal's columns, the other observation columns and the actions of a token have levels of their own, so that a
    part of a token can be known. Else a token has one level, and what a goal leaves open is filled in with the data's mean."""
    condition: tuple[Condition, ...] = ()
    """What a token before the others holds, to be reached some time after the present: a goal, the return of an episode."""
    unconditional: Share = 0.1
    """Share of the training sequences in which each of these is unknown, so that the model can be asked without it."""
    goal_within: SizeOrZero = 0
    """Goals of the condition token are drawn from the observations 1 to this many steps after the present."""
    goal_groups: tuple[Size, ...] = ()
    """How many of the goal's columns, in their order, belong to each thing that can be asked for alone, such as (3, 3) for the
    places of two blocks. In most training sequences the condition token holds one of these alone. (): never."""
    kinds: tuple[Size, ...] = ()
    """Of each of the goal_groups, at how many kinds of places it rests, such as 2 for a drawer that is open or closed. Training
    goals then lie before the second change of a kind from the present on, and of a goal that takes several changes the next one
    is asked for (`dfplan.planning.order`). (): no such changes are learned."""
    alike: tuple[tuple[int, ...], ...] = ()
    """Observation columns of each of these things, in one order, where all are alike. Goals are then of one thing alone, which
    takes the place of the first, and the others are absent, in training and in planning: what is learned of one holds for all,
    and the others are not seen. (): each is learned by itself."""
    history: SizeOrZero = 0
    """Tokens before the present, which are known as far as an episode has come."""
    missing: Share = 0.0
    """Largest share of the past's and the present's observations that are unknown in a training sequence; each sequence has a
    share of its own, uniform from 0. Above 0, planning takes observations with NaN in them: those columns are unknown. In
    training an observation is unknown as a whole."""
    in_flight: SizeOrZero = 0
    """Tokens after the present whose actions may be known while their observations are not, because they are decided."""
    acted: SizeOrZero = 0
    """Tokens after the present that hold actions, in layouts with actions: nobody plays those of the others. 0: all do."""
    inverse: bool = True
    """Whether inverse dynamics is learned: the action that leads from an observation towards another one."""
    outcomes: SizeOrZero = 0
    """How many outcomes one step can have, where chance decides what an action leads to; 0: they are not learned."""
    value: TransformerConfig | None = None
    """The network that learns the pace of reward from noisy tokens, to guide plans and to choose among them; None: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.goal_columns, self.layout.observation_dim, "goal_columns")
        if self.future < 1:
            raise ValueError(
                "a trajectory needs a start token and at least one more after the history, "
                f"got tokens={self.tokens} and history={self.history}"
            )
        if not self.parts and (self.condition or self.history or self.missing or self.in_flight):
            raise ValueError(
                "condition, history, missing and in_flight need parts=True: parts of their tokens are unknown"
            )
        if "goal" in self.condition and not (self.goal_columns and self.goal_within):
            raise ValueError("a goal in the condition token needs goal_columns, and goal_within of at least 1")
        if self.goal_groups and ("goal" not in self.condition or sum(self.goal_groups) != len(self.goal_columns)):
            raise ValueError(
                "goal_groups need a goal in the condition token and share out its columns: "
                f"expected them to add up to {len(self.goal_columns)}, got {self.goal_groups}"
            )
        if self.acted and not (self.parts and self.layout.actions and self.in_flight <= self.acted <= self.future):
            raise ValueError(
                "acted needs parts=True and actions in the tokens, is at least in_flight, and at most the "
                f"{self.future} tokens of a plan, got {self.acted}"
            )
        if self.kinds and (len(self.kinds) != len(self.goal_groups) or self.alike or prod(self.kinds) > CONFIGURATIONS):
            raise ValueError(
                f"kinds needs a number for each of the goal_groups, {self.goal_groups or 'none'}, at most {CONFIGURATIONS} "
                f"configurations, and no things that are alike, got {self.kinds}"
            )
        if self.alike:
            self._check_alike()
        if self.in_flight >= self.future or (self.in_flight and not self.layout.actions):
            raise ValueError(
                f"in_flight needs actions in the tokens, and must be below the {self.future} tokens of a plan, "
                f"got {self.in_flight}"
            )

    def _check_alike(self) -> None:
        every = [column for thing in self.alike for column in thing]
        check_columns(tuple(every), self.layout.observation_dim, "alike")
        starts = accumulate(self.goal_groups, initial=0)
        goals = [self.goal_columns[start : start + size] for start, size in zip(starts, self.goal_groups, strict=False)]
        places = [
            [thing.index(column) for column in goal if column in thing]
            for thing, goal in zip(self.alike, goals, strict=False)
        ]
        if (
            len(self.alike) != len(self.goal_groups)
            or len({len(thing) for thing in self.alike}) != 1
            or any(len(place) != self.goal_groups[0] or place != places[0] for place in places)
            or self.history
            or self.layout.kept > 1
        ):
            raise ValueError(
                "alike needs as many other columns of each of the goal_groups, its goal's among them at the same places, and "
                f"neither a history nor tokens of several observations, got {self.alike}"
            )

    @property
    def future(self) -> int:
        """Tokens after the present: the longest plan."""
        return self.tokens - 1 - self.history

    @property
    def present(self) -> int:
        """Where in a sequence the present token stands."""
        return bool(self.condition) + self.history

    @property
    def judged(self) -> tuple[int, ...]:
        """Observation columns by which a plan's steps are judged: the goal's, or all."""
        every = self.plausibility is not None and self.plausibility.columns == "all"
        return self.goal_columns if self.goal_columns and not every else tuple(range(self.layout.observation_dim))

    @property
    def width(self) -> int:
        """Columns C of a token in a sequence: those of the layout, and one for a return."""
        return self.layout.width + ("return" in self.condition)

    @property
    def goal_part(self) -> tuple[int, ...]:
        """Columns of a token in which a goal stands: of the observation that closes it."""
        return tuple(self.layout.last.start + column for column in self.goal_columns)

    @property
    def goal_group_of(self) -> tuple[int, ...]:
        """The number of each goal column's group, (G,)."""
        sizes = self.goal_groups or (len(self.goal_columns),)
        return tuple(number for number, size in enumerate(sizes) for _ in range(size))

    @property
    def absent_part(self) -> tuple[int, ...]:
        """Columns of a token that hold things beside the first, where all are alike."""
        return tuple(self.layout.last.start + column for thing in self.alike[1:] for column in thing)

    @property
    def observation_part(self) -> tuple[int, ...]:
        """Columns of a token that hold observations."""
        return tuple(range(self.layout.observation_width))

    @property
    def action_part(self) -> tuple[int, ...]:
        """Columns of a token that hold actions."""
        return tuple(range(self.layout.observation_width, self.layout.width))

    @property
    def return_part(self) -> tuple[int, ...]:
        """The column of a token that holds a return, if any does."""
        return tuple(range(self.layout.width, self.width))

    @property
    def part_of(self) -> tuple[int, ...]:
        """The number of each column's part, (C,); () where a token has one level."""
        if not self.parts:
            return ()
        layout, last = self.layout, max(len(self.goal_groups), 1)
        group = {column: 1 + number for column, number in zip(self.goal_part, self.goal_group_of, strict=True)}
        group |= {
            layout.last.start + column: 2 + number for number, thing in enumerate(self.alike[1:]) for column in thing
        }
        kinds = [group.get(column, 0) for column in range(layout.observation_width)]
        kinds += [last + 1] * (layout.width - layout.observation_width) + [last + 2] * (self.width - layout.width)
        numbers = sorted(set(kinds))
        return tuple(numbers.index(kind) for kind in kinds)

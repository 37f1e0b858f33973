"""How a plan is made: the fields that the header of an agent's weights carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dfplan.fields import CheckedFields, NotNegative, Positive, Share, Size, SizeOrZero


@dataclass(frozen=True)
class PlanConfig(CheckedFields):
    """How a plan is made. The defaults are those of the default recipe."""

    goal: Literal["known", "guided"] = "known"
    """Whether the goal is a known clean token at a plan's end, or only the guide draws the plan towards it."""
    horizons: Size = 20
    """Number of plan lengths tried, evenly spread over 1..T-1 tokens; 1 tries the longest only."""
    samples: Size = 1
    """Candidates of each length."""
    steps: Size = 8
    """Denoising steps of one token from pure noise to clean."""
    matrix: Literal["pyramid", "trapezoid"] = "pyramid"
    """Zig-zag from the start onwards, or from both ends towards the middle."""
    uncertainty: NotNegative = 0.2
    """Rows by which each token lags the one before it; 0 is full-sequence sampling."""
    eta: Share = 0.0
    """0 for DDIM, 1 for DDPM."""
    temperature: NotNegative = 1.0
    """Deviation of the noise that sampling begins with; below 1 samples lie nearer to the most common ones."""
    guide: Literal["throughout", "soonest"] = "soonest"
    """The cost that guides sampling: the mean distance to the goal, or the time to reach it."""
    scale: NotNegative = 0.0
    """Strength of this guide; 0 turns it off. Costs that are asked for have weights of their own."""
    fading: bool = False
    """Whether guidance is weaker the noisier a token is, and off in its last step: see `dfplan.diffusion.guidance`."""
    futures: SizeOrZero = 0
    """Sampled futures of Monte Carlo guidance; 0 guides by the one prediction."""
    future_steps: Size = 8
    """Denoising steps that draw one future or candidate; 1 draws none, it gives the network's mean."""
    decided: SizeOrZero = 0
    """Tokens after the start that guidance decides, over futures of all others; 0: what has begun to fall."""
    candidates: SizeOrZero = 0
    """Draws of what is decided, which are weighed by their costs; 0 follows the costs' gradient."""
    trials: SizeOrZero = 0
    """Futures in which each candidate is followed, by learned outcomes of its steps; 0: its time is its length."""
    lost: Positive = 1000.0
    """In the choice, a future in which a candidate's end is not reached counts so many tokens."""
    policy_tokens: Size = 1
    """Tokens that are drawn where nothing is asked for: the next one alone, or a chunk of several."""
    value_scale: NotNegative = 0.0
    """Strength of guidance by the learned value, a deviation of which counts as 1; 0 turns it off."""
    worth: NotNegative = 1.0
    """In the choice, each deviation of learned value counts as so many tokens less."""
    margin: float = -4.0
    """A plan is possible if the log-odds of each of its steps (`plausibility`) are at least this."""
    price: NotNegative = 1.0
    """In the choice, each unit of log-odds below the margin counts as so many tokens more."""
    rounds: SizeOrZero = 0
    """Rounds of search, each of which takes the best candidates back into noise in places, and denoises them again; 0: none."""
    children: Size = 20
    """Candidates that a round of search draws for each start."""
    seconds: NotNegative = 0.0
    """Search ends after so much time, with the best plan so far, if its rounds have not ended before; 0: only they count."""
    spread: SizeOrZero = 0
    """Futures of each plan whose spread measures how certain it is (`dfplan.planning.confidence`); 0: it is not measured."""
